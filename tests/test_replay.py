"""Steps that a GPU replays: what is recorded when, and what keeps a step from it.

The GPU is pretended here; `test_gpu.py` has what needs one.
"""

import random
import re
import warnings
import weakref
from contextlib import nullcontext
from itertools import count

import numpy as np
import pytest
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from nasengine import Supernet, build_network, replay
from nasengine.passes import prepare
from nasengine.replay import Graph, Recorder, side_by_side
from nasengine.spaces.light_sdi import LightSDI
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.supernet import Mixture
from nasengine.tasks.segmentation import Segmentation
from nasengine.tasks.surface_defects import SurfaceDefects

ON = replay._on


class Pretended(Recorder):
    """Records by calling the step again, on the inputs that were recorded."""

    def __init__(self, watched, tell):
        super().__init__(watched, "cpu", tell)
        self.stream = "pretended"
        self.recorded = 0

    def record(self, step, inputs):
        self.recorded += 1
        own = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, inputs)
        outputs = []

        def launch():
            outputs[:] = step(*own)

        return Graph(launch, own, outputs)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setattr(replay, "_on", lambda _: nullcontext())
    monkeypatch.setattr(replay, "_telling_of_waits", nullcontext)


def recorder(module=None):
    told = []
    return Pretended([module or nn.Identity()], told.append), told


def test_a_step_is_recorded_after_two_calls_and_replayed_then():
    made, told = recorder()
    calls = []

    def double(x):
        calls.append(x)
        return [2 * x]

    values = [made.run(double, torch.tensor(float(n)))[0].item() for n in range(6)]
    assert values == [0, 2, 4, 6, 8, 10]
    assert made.recorded == 1
    # From the third on, it reads where it was recorded.
    assert len({id(x) for x in calls}) == 3
    assert not told


def test_what_was_recorded_serves_calls_that_differ_in_values_alone():
    made, _ = recorder()

    def step(batch, scale):
        return [batch["x"] * scale]

    for _ in range(3):
        made.run(step, {"x": torch.ones(2)}, 3.0)
    for x, scale in ((torch.ones(3), 3.0), (torch.ones(2).double(), 3.0), (torch.ones(2), 4.0)):
        (found,) = made.run(step, {"x": x}, scale)
        assert torch.equal(found, x * scale)
    (found,) = made.run(step, {"x": torch.full((2,), 5.0)}, 3.0)
    assert torch.equal(found, torch.full((2,), 15.0))
    assert made.recorded == 1


class Counts(nn.Module):
    """Another thing in every step, by what is no tensor."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


def _waits(x):
    warnings.warn("called a synchronizing CUDA operation", UserWarning, stacklevel=1)
    return [x]


@pytest.mark.filterwarnings("ignore:called a synchronizing")
@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda x: [x * random.random()], "random numbers are drawn on the processor"),
        (lambda x: [x * float(np.random.rand())], "random numbers are drawn on the processor"),
        (lambda x: [x * torch.rand(())], "random numbers are drawn on the processor"),
        (_waits, r"test_replay\.py:\d+ waits for the GPU"),
    ],
)
def test_a_step_that_a_replay_would_freeze_runs_as_written(step, why):
    made, told = recorder()
    for _ in range(5):
        made.run(step, torch.ones(1))
    assert made.recorded == 0
    (text,) = told
    assert "kernel by kernel" in text
    assert re.search(why, text)


def test_a_module_that_counts_its_steps_runs_as_written():
    module = nn.Sequential(Counts())
    made, told = recorder(module)

    def step(x):
        return [module(x)]

    assert [made.run(step, torch.ones(1))[0].item() for _ in range(5)] == [1, 2, 3, 4, 5]
    assert made.recorded == 0
    assert "Sequential.0.calls changes" in told[0]


class Drawing(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self, generator, draw):
        super().__init__()
        self.generator, self.draw = {"own": [generator]}, draw

    def forward(self, x):
        return x * self.draw(self.generator["own"][0])


@pytest.mark.parametrize(
    ("generator", "draw"),
    [
        (random.Random(0), lambda g: g.random()),
        (np.random.default_rng(0), lambda g: float(g.random())),
        (np.random.RandomState(0), lambda g: float(g.rand())),
        (torch.Generator().manual_seed(0), lambda g: torch.rand((), generator=g)),
        (count(1), next),
        (np.zeros(1), lambda g: float(g.__iadd__(1)[0])),
    ],
)
def test_a_module_that_draws_from_its_own_generator_runs_as_written(generator, draw):
    module = Drawing(generator, draw)
    made, told = recorder(module)
    values = [made.run(lambda x: [module(x)], torch.ones(1))[0].item() for _ in range(5)]
    assert len(set(values)) == 5
    assert "Drawing.generator.own.0 changes" in told[0]


class WarmingUp(Segmentation):
    """A loss that grows over its first calls."""

    _calls: int = PrivateAttr(0)

    def loss(self, outputs, targets):
        self._calls += 1
        return self._calls * super().loss(outputs, targets)


def test_a_task_whose_loss_counts_its_calls_is_not_frozen():
    task = WarmingUp(data=SurfaceDefects(size=16, train=2, validation=2))
    told = []
    made = Pretended([nn.Identity(), task], told.append)
    outputs, targets = torch.ones(1, 1, 4, 4), torch.ones(1, 4, 4, dtype=torch.int64)
    losses = [made.run(lambda x: [task.loss(x, targets)], outputs)[0].item() for _ in range(4)]
    assert losses == pytest.approx([n * losses[0] for n in (1, 2, 3, 4)])
    assert "WarmingUp._calls changes" in told[0]


@pytest.mark.parametrize("space", [LightSDI(width=2), NASBench201(width=2)], ids=["sdi", "201"])
@pytest.mark.parametrize("whole", [True, False], ids=["supernet", "network"])
def test_nothing_that_a_network_of_the_engine_keeps_hinders_it(space, whole):
    first = space.architecture({name: choices[-1] for name, choices in space.decisions.items()})
    supernet = Supernet(space.graph)
    mixtures = {n: Mixture(torch.full((len(c),), 0.2)) for n, c in supernet.decisions.items()}
    network = prepare(supernet if whole else build_network(space.graph, first)).train()
    made, told = recorder(network)

    def step(inputs):
        network(inputs, *[mixtures] * whole).sum().backward()
        return []

    for _ in range(3):
        made.run(step, torch.rand(2, 3, 32, 32))
    assert made.recorded == 1
    assert not told


class Positions(nn.Module):
    """Made anew for inputs of another size."""

    def __init__(self):
        super().__init__()
        self.made = torch.ones(0)
        self.register_buffer("kept", torch.ones(0))

    def forward(self, x):
        if self.made.shape != x.shape:
            self.made, self.kept = torch.ones_like(x), torch.ones_like(x)
        return x + self.made + self.kept


def test_what_a_graph_reads_outlives_the_module_that_made_it():
    module = Positions()
    made, _ = recorder(module)

    def step(x):
        return [module(x)]

    for _ in range(3):
        made.run(step, torch.ones(2))
    read = [weakref.ref(module.made), weakref.ref(module.kept)]
    made.run(step, torch.ones(3))
    assert made.recorded == 1
    assert module.made.shape == module.kept.shape == (3,)
    assert all(ref() is not None for ref in read)


def test_other_warnings_of_a_step_are_still_told():
    made, _ = recorder()

    def step(x):
        warnings.warn("look out", UserWarning, stacklevel=1)
        return [x]

    with pytest.warns(UserWarning, match="look out"):
        made.run(step, torch.ones(1))


class Steps:
    """Steps that are methods, and what they belong to."""

    def __init__(self, recorder):
        self.recorder = recorder
        self.scale = 2.0

    def take(self, x):
        return self.recorder.run(self.step, x)

    def step(self, x):
        return [x * self.scale]


def test_a_method_is_recorded_once_and_keeps_nobody_alive():
    made, _ = recorder()
    made.record = lambda step, inputs: Graph(lambda: None, inputs, ["recorded"])
    steps = Steps(made)
    assert [steps.take(torch.ones(1)) for _ in range(4)][2:] == [["recorded"]] * 2
    gone = weakref.ref(steps)
    del steps
    assert gone() is None


def test_a_step_that_cannot_be_recorded_runs_as_written():
    made, told = recorder()

    def record(step, inputs):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    made.record = record
    step = Steps(made)
    values = [step.take(torch.tensor(float(n)))[0].item() for n in range(5)]
    assert values == [0, 2, 4, 6, 8]
    (text,) = told
    assert text.endswith("recording one fails: operation not permitted when stream is capturing")


def test_a_step_runs_as_written_without_what_its_recording_held():
    """A GPU that has no memory left for a graph has what the step needs."""
    made, _ = recorder()
    held, alive = [], []

    def record(step, inputs):
        activations = torch.ones(1)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError

    def step(x):
        alive.extend(ref() is not None for ref in held)
        return [x]

    made.record = record
    for _ in range(3):
        made.run(step, torch.ones(1))
    assert alive == [False]


def test_what_comes_after_a_step_waits_for_it_even_if_it_fails(monkeypatch):
    waits = []

    class Stream:
        device = "pretended"

        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            waits.append((self.name, other.name))

    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream("outer"))
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    with pytest.raises(ValueError, match="fails"), ON(Stream("own")):
        raise ValueError("fails")
    assert waits == [("own", "outer"), ("outer", "own")]


def test_on_a_cpu_a_step_runs_as_written():
    step = Steps(Recorder([nn.Identity()], "cpu", pytest.fail))
    assert [step.take(torch.tensor(float(n)))[0].item() for n in range(4)] == [0, 2, 4, 6]


def test_calls_run_one_by_one_where_nothing_is_recorded():
    ran = []
    calls = side_by_side([lambda n=n: ran.append(n) or n for n in range(3)])
    assert next(calls) == 0
    assert ran == [0]
    assert list(calls) == [1, 2]

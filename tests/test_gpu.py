"""What needs a GPU: steps recorded and replayed, searches, trainings and runs on one."""

import math
import random
from dataclasses import replace

import pytest
import torch
from torch import nn

import nasengine
from nasengine.randomness import reproducible
from nasengine.recipe import RECIPES
from nasengine.strategies.darts import Darts
from nasengine.strategies.gradient_search import GradientSearch
from nasengine.testing.stubs import (
    Kept,
    TinyGate,
    TinySegmentation,
    TinySpace,
    TinyWidths,
    tiny_search,
)
from nasengine.training import Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
parameters = pytest.importorskip("nasengine.estimators.parameters")
light_sdi = pytest.importorskip("nasengine.spaces.light_sdi")


def make_search(space=None):
    estimators = {"parameters": parameters.Parameters()}
    search = tiny_search(space or TinySpace(), task=TinySegmentation(), estimators=estimators)
    return replace(search, reporter=Kept(), device="cuda")


def ended(settings, space=None, replays=True):
    """Search; return the alphas and weights at the end, and what was told."""
    search = make_search(space)
    given = {"iterations": 24, "arch_every": 2, "weights": {"learning_rate": 0.05}} | settings
    found = GradientSearch(Darts.model_validate(given), search)
    found._prepare()
    if not replays:
        found.steps._recorder.stream = None
    losses = []
    with reproducible("cuda"):
        while not found.ended:
            losses.append(found._advance())
            found.end_iteration(0.0)
    alphas = torch.cat(list(found.steps.alphas.values())).detach().cpu()
    weights = torch.cat([p.detach().flatten() for p in found.steps.supernet.parameters()]).cpu()
    return losses, alphas, weights, search.reporter.notes, found


SETTINGS = {
    "plain": {},
    "adamw": {"weights": {"optimiser": "adamw", "learning_rate": 0.01}},
    "cosine": {"weights": {"learning_rate": 0.05, "schedule": "cosine"}},
    "adam for the alphas": {"alphas": {"optimiser": "adam", "learning_rate": 0.1}},
    "a cost": {"cost": {"parameters": 0.3}},
    "a target": {"cost": {"parameters": {"target": 20_000}}},
    "gumbel": {"relaxation": "gumbel", "temperature": 5.0, "final_temperature": 0.5},
    "none": {"relaxation": "none"},
    "perturbed": {"perturbation": 0.2},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(
    "space",
    [TinySpace(), light_sdi.LightSDI(width=4), TinyWidths(), TinyGate()],
    ids=["tiny", "light_sdi", "widths", "gate"],
)
def test_replayed_steps_are_those_that_are_written(settings, space):
    losses, alphas, weights, notes, found = ended(settings, space)
    assert len(found.steps._recorder.graphs) == 2
    assert not any("kernel by kernel" in note for note in notes)
    as_written = ended(settings, space, replays=False)
    torch.testing.assert_close(losses, as_written[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(alphas, as_written[1], rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(weights, as_written[2], rtol=1e-2, atol=1e-3)


class Unlike(TinySpace):
    """With what torch's usual kernels on GPUs sum in any order: pooling, interpolation."""

    def define(self, graph):
        def conv(i, o):
            return nn.Conv2d(i, o, 3, padding=1)

        def up(*_):
            return nn.Upsample(scale_factor=2, mode="bilinear")

        x = graph.slot("low", graph.input(3), {"conv": conv, "other": conv}, out=8)
        x = graph.operation("pool", x, lambda *_: nn.MaxPool2d(2))
        x = graph.operation("up", x, up)
        graph.output(graph.operation("head", x, lambda i, o: nn.Conv2d(i, o, 1), out=1))


@pytest.mark.parametrize("space", [None, Unlike()], ids=["tiny", "unlike"])
@pytest.mark.parametrize("settings", [{}, {"relaxation": "gumbel"}, {"precision": "bf16"}])
def test_the_same_seed_gives_the_same_search_on_a_gpu(settings, space):
    one, other = ended(settings, space), ended(settings, space)
    assert one[0] == other[0]
    assert torch.equal(one[1], other[1])
    assert torch.equal(one[2], other[2])


class Slots(TinySpace):
    """Its slots, with a block of the test's own among the candidates."""

    def define(self, graph):
        block = self.block
        x = graph.operation("stem", graph.input(3), lambda i, o: nn.Conv2d(i, o, 3, padding=1), 4)
        offered = {"own": lambda i, o: nn.Sequential(nn.Conv2d(i, o, 1), block())}
        offered["other"] = lambda i, o: nn.Conv2d(i, o, 3, padding=1)
        x = graph.slot("slot", x, offered)
        graph.output(graph.operation("head", x, lambda i, o: nn.Conv2d(i, o, 1), 1))


class Waits(nn.Module):
    def forward(self, x):
        return x if x.sum().item() > 0 else -x


class Draws(nn.Module):
    def forward(self, x):
        return x * (0.5 + random.random())


def slots(block):
    return type("Own", (Slots,), {"block": staticmethod(block)})()


@pytest.mark.parametrize(("block", "why"), [(Waits, "waits for the GPU"), (Draws, "processor")])
def test_a_block_that_cannot_be_replayed_is_searched_as_written(block, why):
    *_, notes, found = ended({}, slots(block))
    assert not found.steps._recorder.graphs
    assert any(why in note for note in notes)


def test_a_replay_drops_out_other_units_in_every_step():
    with_dropout = ended({}, slots(lambda: nn.Dropout2d(0.5)))
    assert with_dropout[-1].steps._recorder.graphs
    as_written = ended({}, slots(lambda: nn.Dropout2d(0.5)), replays=False)
    torch.testing.assert_close(with_dropout[0], as_written[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"paths": 1, "relaxation": "gumbel"},
        {"paths": 2},
        {"order": 2},
        {"memory": "1 GiB"},
        {"partial_channels": 2},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_every_kind_of_search_runs_on_a_gpu(settings):
    losses, *_ = ended(settings)
    assert math.isfinite(losses[-1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_replayed_training_is_one_as_written(tmp_path, precision):
    def trained(name, replays):
        search = make_search()
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1)
        )
        recipe = replace(RECIPES["adamw"], iterations=20, batch=4)
        job = Training(
            network, search.splits.train, recipe, (name,), tmp_path / name, precision=precision
        )
        if not replays:
            job.passes = lambda network, inputs, _, run: [run.run(network, inputs)]
        job.labels = ("training",)
        job.run(search)
        return torch.cat([value.flatten() for value in network.state_dict().values()]).cpu()

    torch.testing.assert_close(trained("a", True), trained("b", False), rtol=1e-2, atol=1e-3)


def test_a_killed_search_goes_on_on_a_gpu(tmp_path):
    whole = ended({})
    search = make_search()
    given = Darts.model_validate(
        {"iterations": 24, "arch_every": 2, "weights": {"learning_rate": 0.05}}
    )
    first = GradientSearch(given, search)
    first._prepare()
    for _ in range(10):
        first._advance()
        first.end_iteration(0.0)
    first.save()
    second = GradientSearch(given, search)
    second.search_on()
    assert second.iteration == 24
    alphas = torch.cat(list(second.steps.alphas.values())).detach().cpu()
    torch.testing.assert_close(alphas, whole[1], rtol=1e-2, atol=1e-3)


def test_a_run_on_a_gpu(tmp_path):
    spec = tmp_path / "spec.toml"
    spec.write_text("""
name = "gpu"
seed = 0
device = "cuda"
[space]
name = "light_sdi"
width = 4
[task]
name = "segmentation"
data = { name = "surface_defects", size = 32, train = 16, validation = 8 }
[strategy]
name = "darts"
iterations = 8
arch_every = 2
[estimators.iou]
name = "trained"
iterations = 8
[estimators.parameters]
[estimators.latency]
[objectives]
iou = "max"
[budget]
trials = 1
""")
    outcome = nasengine.run(spec, runs=tmp_path / "runs")
    assert outcome.winner.value("latency") > 0
    assert 0 <= outcome.winner.value("iou") <= 1
    assert list(tmp_path.rglob("model.py"))

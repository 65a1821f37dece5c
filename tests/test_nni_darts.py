"""NNI's own DARTS: the same supernet on every space, its export, its traps, its silence, resume."""

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_fusion import Fused
from torch import nn

from nasengine.errors import Interrupted, PluginError, RunFolderError, SearchFailed, SpecError
from nasengine.history import History
from nasengine.objectives import Objective, Objectives
from nasengine.plugin import build, installed, load_class
from nasengine.reporter import Progress, Reporter
from nasengine.search import Budget
from nasengine.space import SearchSpace
from nasengine.strategies import nni_darts as module
from nasengine.strategies.alphas import derive
from nasengine.strategies.nni_darts import REFUSED, NniDarts
from nasengine.strategies.silence import silent_nni_darts
from nasengine.strategy import Strategy
from nasengine.supernet import Mixture, Supernet
from nasengine.task import Samples
from nasengine.testing.strategies import BranchedSpace
from nasengine.testing.stubs import TinySegmentation, tiny_search
from nasengine.trial import Trial

pytest.importorskip("nni", reason="the extra nni-nas is not installed")
pytest.importorskip("pytorch_lightning", reason="the extra nni-nas is not installed")

SMALL = {
    "light_sdi": {"width": 2},
    "nas_bench_201": {"width": 2, "cells_per_stage": 1},
    "nas_bench_macro": {"width": 4, "features": 8},
}
ITERATIONS = 6


class Kept(Reporter):
    """Keeps what is told; calls `reap` when an iteration of the number `at` has been done."""

    def __init__(self, at=0, reap=None):
        self.at, self.reap, self.records, self.notes = at, reap, [], []

    def note(self, text):
        self.notes.append(text)

    def record(self, kind, facts):
        self.records.append((kind, {k: v for k, v in facts.items() if k != "seconds"}))

    def of(self, kind):
        return [facts for name, facts in self.records if name == kind]

    @contextmanager
    def progress(self, description, total, done=0):
        outer = self

        class Counted(Progress):
            def advance(self, steps=1, **facts):
                nonlocal done
                done += steps
                if done == outer.at:
                    outer.reap()

        yield Counted()


def make_search(space=None, reporter=None, **more):
    search = tiny_search(space or BranchedSpace(), **more)
    return replace(search, reporter=reporter or Kept())


def strategy(**settings):
    usual = {"iterations": ITERATIONS, "batch": 2, "log_every": 2, "alpha_learning_rate": 0.01}
    return NniDarts.model_validate(usual | settings)


def spaces():
    return [load_class(SearchSpace, n)(**SMALL.get(n, {})) for n in sorted(installed("space"))]


ALL_SPACES = pytest.mark.parametrize(
    "space", [*spaces(), BranchedSpace(), Fused()], ids=lambda space: type(space).__name__
)


@ALL_SPACES
def test_on_every_space_nnis_export_is_the_arg_max_and_what_is_proposed(space):
    search = make_search(space)
    (proposed,) = strategy(iterations=2).propose(History(), 1, search)
    kept = json.loads((search.checkpoints / "nni_darts.json").read_text())
    assert kept["exported"] == dict(proposed) == dict(space.architecture(proposed))
    alphas = {name: torch.tensor(row) for name, row in kept["alphas"].items()}
    assert derive(alphas, space.decisions) == proposed
    assert set(alphas) == set(space.decisions)


@ALL_SPACES
def test_its_supernet_computes_what_the_engines_does(space):
    """Same weights, softmax of the same alphas: same outputs, shared decisions included."""
    search = make_search(space)
    with silent_nni_darts():
        from nni.nas.oneshot.pytorch.supermodule.differentiable import DifferentiableMixedLayer

        from nasengine.strategies.nni_supernet import make_supernet

        theirs = make_supernet(space.graph, 0.1)
    ours = Supernet(space.graph)
    slots = {slot.name: list(slot.candidates) for slot in space.graph.slots}
    for slot, names in slots.items():
        layer = theirs.space.network.get_submodule(slot)
        assert type(layer) is DifferentiableMixedLayer
        assert layer._arch_alpha is theirs.alphas[space.graph[slot].decision]
        for index, name in enumerate(names):
            mixed = ours.network.get_submodule(slot)
            mixed.candidates[name].load_state_dict(layer[index].state_dict())
    for node in space.graph.nodes:
        if node.kind == "operation":
            state = theirs.space.network.get_submodule(node.name).state_dict()
            ours.network.get_submodule(node.name).load_state_dict(state)
    for alpha in theirs.alphas.values():
        nn.init.normal_(alpha)
    # In float64: batch norms over a few values magnify what float32 rounds, by chance of the
    # weights.
    inputs = search.splits.train.inputs[:2].double()
    theirs.space.double()
    ours.double()
    mixtures = {name: Mixture(torch.softmax(alpha, 0)) for name, alpha in theirs.alphas.items()}
    torch.testing.assert_close(theirs.space(inputs), ours(inputs, mixtures), rtol=1e-8, atol=1e-8)
    shared = {id(p) for p in theirs.weights} & {id(a) for a in theirs.alphas.values()}
    assert not shared
    assert len(theirs.weights) == len(list(ours.parameters()))


class Neighbours(TinySegmentation):
    """A pixel is foreground where the pixel two to its left is bright: nothing local tells."""

    def _make(self, seed, split, count):
        noise = torch.rand(count, *self.input_shape, generator=torch.Generator().manual_seed(seed))
        targets = (noise.mean(1).roll(2, dims=2) > 0.5).long()
        return Samples(noise, targets, tuple(f"{split}-{i}" for i in range(count)))


class Reaches(SearchSpace):
    """Only `five` sees two pixels to the side; its place among the candidates is last."""

    def define(self, graph):
        def block(kernel):
            return lambda i, o: nn.Sequential(
                nn.Conv2d(i, o, kernel, padding=kernel // 2), nn.BatchNorm2d(o), nn.ReLU()
            )

        x = graph.input(3)
        x = graph.slot("only", x, {"one": block(1), "three": block(3), "five": block(5)}, out=6)
        graph.output(graph.operation("head", x, lambda i, o: nn.Conv2d(i, o, 1), out=1))


def test_it_finds_the_candidate_that_can():
    search = make_search(Reaches(), task=Neighbours(samples=32))
    weights = {"optimiser": "adam", "learning_rate": 0.02}
    settings = strategy(iterations=40, alpha_learning_rate=0.1, weights=weights)
    (found,) = settings.propose(History(), 1, search)
    assert dict(found) == {"only": "five"}


def alphas_of(search):
    return json.loads((search.checkpoints / "nni_darts.json").read_text())["trajectory"]


def test_the_same_seed_gives_the_same_search_and_another_another():
    found = []
    for seed in (0, 0, 1):
        search = make_search(seed=seed)
        torch.manual_seed(len(found))
        strategy().propose(History(), 1, search)
        found.append((alphas_of(search), search.reporter.records))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]


def test_every_iteration_moves_the_alphas_by_adam_at_the_given_rate():
    search = make_search()
    strategy(alpha_learning_rate=0.02).propose(History(), 1, search)
    trajectory = torch.tensor(alphas_of(search))
    assert len(trajectory) == ITERATIONS + 1
    # Adam's first step is its learning rate, whatever the gradient.
    torch.testing.assert_close((trajectory[1] - trajectory[0]).abs(), torch.full((11,), 0.02))


def test_the_log_is_what_the_report_draws():
    search = make_search()
    strategy().propose(History(), 1, search)
    events = search.reporter.of("darts")
    assert [event["iteration"] for event in events] == [2, 4, 6]
    assert set(events[0]["alphas"]) == set(search.space.decisions)
    assert search.reporter.of("darts_choices")[0]["choices"]["tail"] == ["conv", "wide", "skip"]
    assert search.reporter.of("darts_derived")[0]["architecture"] == events[-1]["derived"]


def test_proposes_the_best_by_its_alphas_then_nothing_and_trains_once():
    search, history, found = make_search(), History(), []
    settings = strategy(top_k=3)
    while True:
        proposed = settings.propose(history, 1, search)
        if not proposed:
            break
        found += proposed
        history.record(Trial(len(history), proposed[0], search.space.key(proposed[0])))
    assert len({search.space.key(a) for a in found}) == len(found) == 3
    assert len(search.reporter.of("darts")) == ITERATIONS / 2, "the later ones read the result"


def test_limits_of_the_objectives_hold_for_what_is_derived():
    parameters = pytest.importorskip("nasengine.estimators.parameters").Parameters()
    space = Reaches()
    limit = Objectives((Objective("parameters", at_most=100.0),))
    search = make_search(space, estimators={"parameters": parameters}, objectives=limit)
    (found,) = strategy().propose(History(), 1, search)
    assert search.cost_table("parameters").predict(found) <= 100
    assert dict(found) == {"only": "one"}


# What NNI does not do as it says.


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_what_nni_cannot_do_is_refused_with_the_reason(key):
    with pytest.raises(SpecError, match=rf"^strategy: not offered: {key}: NNI"):
        build(Strategy, {"name": "nni_darts", key: {}}, where="strategy")


def test_nnis_penalty_indeed_changes_no_bit_of_the_alphas(monkeypatch):
    """Why `cost` is refused: were NNI to mend it, this would say so."""
    plain, priced, added = make_search(), make_search(), []
    strategy().propose(History(), 1, plain)
    with silent_nni_darts():
        from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
        from nni.nas.profiler import ExpressionProfiler

        from nasengine.strategies import nni_supernet

    class Later(ExpressionProfiler):
        """The later a candidate of the first decision stands, the dearer."""

        def __init__(self, space):
            self.expression = next(iter(space.simplify().values())) + 1

    class Penalty(ExpectationProfilerPenalty):
        def forward(self, loss, sample):
            total, details = super().forward(loss, sample)
            added.append(float(total - loss))
            return total, details

    make = nni_supernet.make_supernet

    def with_penalty(*given):
        supernet = make(*given)
        supernet.strategy.penalty = Penalty(Later(supernet.space), 1.0, 1000.0)
        return supernet

    monkeypatch.setattr(nni_supernet, "make_supernet", with_penalty)
    strategy().propose(History(), 1, priced)
    assert len(added) == ITERATIONS
    assert min(added) > 100
    assert alphas_of(priced) == alphas_of(plain)


# What it needs, and what it leaves alone.


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: name == "nni" or None)
    with pytest.raises(PluginError, match=r"needs pytorch_lightning: pip install 'nasengine\[nni-"):
        strategy().check(make_search())


def test_leaves_the_process_as_it_was(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    # PyTorch Lightning would look for several machines.
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "4")

    def state():
        handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
        generators = random.getstate(), np.random.get_state(), torch.get_rng_state().tolist()
        settings = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()
        return repr((handlers, generators, settings, sorted(os.environ.items())))

    before = state()
    strategy().propose(History(), 1, make_search())
    assert state() == before
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


RUN = """
import socket, sys
def refuse(*given, **more):
    raise AssertionError("a connection was asked for")
socket.socket.connect = socket.socket.bind = socket.create_connection = refuse
from nasengine.cli import main
sys.exit(main(["run", "spec.toml"]))
"""

SPEC = """
name = "run"
seed = 0
[space]
name = "nas_bench_201"
width = 2
cells_per_stage = 1
classes = 8
[task]
name = "classification"
data = { name = "textures", size = 16, train = 16, validation = 8 }
[strategy]
name = "nni_darts"
iterations = 3
[estimators.parameters]
[objectives]
parameters = "min"
[budget]
trials = 1
"""


def test_a_run_from_the_command_line_says_nothing_of_nnis_and_asks_for_no_connection(tmp_path):
    (tmp_path / "spec.toml").write_text(SPEC)
    command = [sys.executable, "-c", RUN]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "derived" in said
    assert not [w for w in ("Lightning", "litlogger", "GPU", "WARNING", "Warning") if w in said]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "spec.toml"]
    (report,) = tmp_path.glob("runs/*/report.html")
    assert "The gradient search" in report.read_text(encoding="utf-8")


# Failure and resume.


class Broken(TinySegmentation):
    """Its loss is no number."""

    def loss(self, outputs, targets):
        return super().loss(outputs, targets) * float("nan")


def test_a_loss_that_is_not_finite_ends_the_search_by_name():
    search = make_search(task=Broken(channels=2, classes=2))
    with pytest.raises(SearchFailed, match="the loss of the alphas is nan at iteration 1 of 6"):
        strategy().propose(History(), 1, search)


def test_a_batch_beyond_the_data_is_refused():
    with pytest.raises(SpecError, match=r"strategy\.batch: 5 is more than the 4 samples"):
        strategy(batch=5).propose(History(), 1, make_search())


def test_ends_when_the_budget_of_seconds_is_spent():
    search = replace(make_search(), budget=Budget(seconds=1e-9))
    assert strategy().propose(History(), 1, search)
    assert len(alphas_of(search)) == 2
    assert "ended after 1 iterations: the budget of 1e-09 s is spent" in search.reporter.notes


class Killed(Exception):
    """Stands for whatever ends a process."""


def die():
    raise Killed


@pytest.mark.parametrize("weights", [{"schedule": "cosine"}, {"optimiser": "adamw"}])
def test_killed_at_every_iteration_it_ends_the_same(weights, tmp_path):
    settings = strategy(weights=weights, save_seconds=0)
    whole = make_search(folder=tmp_path / "whole")
    wanted = settings.propose(History(), 1, whole)
    records = []
    for at in [*range(1, ITERATIONS + 1), 0]:
        search = make_search(folder=tmp_path / "killed", reporter=Kept(at, die))
        try:
            found = settings.propose(History(), 1, search)
        except Killed:
            assert at
        records += [facts for facts in search.reporter.of("darts") if facts not in records]
    assert at == 0
    assert found == wanted
    assert alphas_of(search) == alphas_of(whole)
    assert records == whole.reporter.of("darts")
    assert not list(search.checkpoints.glob("*.safetensors*"))


def test_a_search_that_was_asked_to_stop_saves_and_goes_on(tmp_path):
    settings = strategy(save_seconds=1000)
    search = make_search(folder=tmp_path)
    stopping = replace(search, reporter=Kept(4, search.stop.set))
    with pytest.raises(Interrupted):
        settings.propose(History(), 1, stopping)
    search.stop.clear()
    resumed = replace(search, reporter=Kept(4, die))
    settings.propose(History(), 1, resumed)
    whole = make_search(folder=tmp_path / "whole")
    settings.propose(History(), 1, whole)
    assert alphas_of(search) == alphas_of(whole)


def test_sigterm_that_the_engine_does_not_catch_leaves_a_checkpoint(tmp_path):
    settings = strategy(save_seconds=1000)
    reporter = Kept(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        settings.propose(History(), 1, make_search(folder=tmp_path, reporter=reporter))
    settings.propose(History(), 1, make_search(folder=tmp_path, reporter=Kept(4, die)))


def test_ctrl_c_is_a_keyboard_interrupt_still(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        strategy().propose(History(), 1, make_search(reporter=Kept(2, interrupt)))
    assert signal.getsignal(signal.SIGINT) == before


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    search = make_search(folder=tmp_path, reporter=Kept(2, die))
    with pytest.raises(Killed):
        strategy(save_seconds=0).propose(History(), 1, search)
    with pytest.raises(RunFolderError, match=r"alpha_learning_rate was 0\.01 and is 0\.5"):
        strategy(alpha_learning_rate=0.5).propose(History(), 1, search)

"""A gradient search that was killed goes on where it was, bit for bit."""

import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nasengine.errors import Interrupted, RunFolderError
from nasengine.history import History
from nasengine.reporter import Progress, Reporter
from nasengine.strategies.darts import Darts
from nasengine.strategies.gradient_search import GradientSearch
from nasengine.testing.stubs import Kept, tiny_search

parameters = pytest.importorskip("nasengine.estimators.parameters")

ITERATIONS = 12


class Killed(Exception):
    """Stands for whatever ends a process."""


class Reaping(Reporter):
    """Calls `reap` when an iteration of the number `at` has been done; keeps the log."""

    def __init__(self, at=0, reap=None):
        self.at, self.reap, self.log = at, reap, {}

    def record(self, kind, facts):
        if kind == "darts":
            self.log[facts["iteration"]] = {k: v for k, v in facts.items() if k != "seconds"}

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


def die():
    raise Killed


def make_search(folder, reporter=None):
    estimators = {"parameters": parameters.Parameters()}
    search = tiny_search(estimators=estimators, folder=folder)
    return replace(search, reporter=reporter or Reaping())


def strategy(**settings):
    usual = {"iterations": ITERATIONS, "arch_every": 2, "log_every": 3, "save_seconds": 0}
    return Darts.model_validate(usual | settings)


VARIANTS = {
    "first order": {"cost": {"parameters": 0.3}},
    "adam": {"weights": {"optimiser": "adamw"}, "alphas": {"optimiser": "adam"}},
    "second order": {"order": 2},
    "target": {"cost": {"parameters": {"target": 120}}},
    "sampled": {"relaxation": "gumbel", "paths": 1, "final_temperature": 0.5},
    "two paths": {"paths": 2},
    "perturbed": {"perturbation": 0.2, "weights": {"schedule": "cosine"}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_killed_at_every_iteration_it_ends_the_same(name, tmp_path):
    settings = strategy(**VARIANTS[name])
    whole = make_search(tmp_path / "whole")
    wanted = GradientSearch(settings, whole).run().alphas
    log = {}
    for at in [*range(1, ITERATIONS + 1), 0]:
        search = make_search(tmp_path / "killed", Reaping(at, die))
        try:
            found = GradientSearch(settings, search).run().alphas
        except Killed:
            assert at
        log.update(search.reporter.log)
    assert at == 0
    assert list(found) == list(wanted)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert log == whole.reporter.log
    proposals = [settings.propose(History(), 1, s) for s in (whole, search)]
    assert proposals[0] == proposals[1] != []


def test_a_search_that_was_asked_to_stop_saves_and_goes_on(tmp_path):
    settings = strategy(save_seconds=1000)
    search = make_search(tmp_path)
    search = replace(search, reporter=Reaping(5, search.stop.set))
    with pytest.raises(Interrupted):
        settings.propose(History(), 1, search)
    search.stop.clear()
    resumed = GradientSearch(settings, replace(search, reporter=Reaping(5, die)))
    result = resumed.run()
    whole = GradientSearch(settings, make_search(tmp_path / "whole")).run()
    assert all(torch.equal(result.alphas[key], whole.alphas[key]) for key in whole.alphas)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_darts_resume import History, Reaping, make_search, strategy
reaper = Reaping(7, lambda: os.kill(os.getpid(), signal.SIGKILL))
strategy().propose(History(), 1, make_search(Path(sys.argv[2]), reaper))
"""


def test_killed_by_sigkill_it_ends_the_same(tmp_path):
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(folder)]
    done = subprocess.run(command, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (folder / "checkpoints" / "darts.safetensors").exists()
    found = strategy().propose(History(), 1, make_search(folder))
    wanted = strategy().propose(History(), 1, make_search(tmp_path / "whole"))
    assert found == wanted
    files = [path / "checkpoints" / "darts.json" for path in (folder, tmp_path / "whole")]
    alphas = [GradientSearch(strategy(), make_search(f.parent.parent)).run().alphas for f in files]
    assert all(torch.equal(alphas[0][key], alphas[1][key]) for key in alphas[0])


def test_other_settings_are_refused_by_name(tmp_path):
    with pytest.raises(Killed):
        strategy().propose(History(), 1, make_search(tmp_path, Reaping(5, die)))
    with pytest.raises(RunFolderError, match=r"batch was 4 and is 2"):
        strategy(batch=2).propose(History(), 1, make_search(tmp_path))
    strategy(log_every=1).propose(History(), 1, make_search(tmp_path))
    with pytest.raises(RunFolderError, match=r"batch was 4 and is 2"):
        strategy(batch=2).propose(History(), 1, make_search(tmp_path))


def test_a_damaged_result_is_refused(tmp_path):
    strategy().propose(History(), 1, make_search(tmp_path))
    (tmp_path / "checkpoints" / "darts.json").write_text('{"alphas": 3}')
    with pytest.raises(RunFolderError, match=r"darts.json: damaged"):
        strategy().propose(History(), 1, make_search(tmp_path))


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    with pytest.raises(Killed):
        strategy().propose(History(), 1, make_search(tmp_path, Reaping(6, die)))
    path = tmp_path / "checkpoints" / "darts.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    told = Kept()
    result = GradientSearch(strategy(), make_search(tmp_path, told)).run()
    assert len(told.warnings) == 1
    assert "darts.safetensors: " in told.warnings[0]
    assert "going on from darts.safetensors.previous" in told.warnings[0]
    whole = GradientSearch(strategy(), make_search(tmp_path / "whole")).run()
    assert all(torch.equal(result.alphas[key], whole.alphas[key]) for key in whole.alphas)

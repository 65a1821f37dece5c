"""Candidates that misbehave: three in ten, in every way there is, and every search finishes."""

from __future__ import annotations

import gc
import io
import os
import random
import signal
import sys
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from test_spec import tables

from nasengine.architecture import Architecture
from nasengine.cli import main
from nasengine.errors import EstimationFailed, SearchFailed
from nasengine.estimator import Candidate, Estimator
from nasengine.graph import SpaceGraph
from nasengine.guard import MAX_REASON, describe, guarded
from nasengine.objectives import Objective, Objectives
from nasengine.plugin import build
from nasengine.randomness import stream
from nasengine.runs.best import best_or_fail
from nasengine.runs.engine import Engine
from nasengine.runs.execution import Job
from nasengine.runs.experiment import Experiment
from nasengine.runs.measuring import measure
from nasengine.runs.run import run
from nasengine.runs.run_folder import RunFolder
from nasengine.runs.storage import Storage
from nasengine.search import Search
from nasengine.space import SearchSpace
from nasengine.strategy import Strategy
from nasengine.testing.stubs import Kept, tiny_search
from nasengine.trial import Measurement, Metric, Status


class BrokenError(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def raising(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


def rude() -> Any:
    """Change everything in the process that the trials after it could see."""
    print("noise")
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.set_num_threads(3)
    torch.use_deterministic_algorithms(True)
    os.chdir("/")
    os.environ["RUDE"] = "1"
    os.environ.pop("HOME", None)
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(2000)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdout = io.StringIO()
    return {"quality": Measurement(0.5)}


class Surprise:
    """No number, and no JSON."""


FAULTS: dict[str, Callable[[], Any]] = {
    "an error": raising(ValueError("the block is broken")),
    "an error of its own": raising(BrokenError()),
    "a long error": raising(ValueError("x" * 1_000_000)),
    "a lone surrogate": raising(ValueError("\ud800")),
    "a NUL": raising(ValueError("a\0b")),
    "estimation failed": raising(EstimationFailed("the loss is nan")),
    "memory": raising(MemoryError()),
    "CUDA memory": raising(torch.OutOfMemoryError("CUDA out of memory")),
    "CUDA's other error": raising(RuntimeError("CUDA error: device-side assert triggered")),
    "exit": raising(SystemExit(3)),
    "recursion": raising(RecursionError("too deep")),
    "a full disk": raising(OSError(28, "No space left on device")),
    "a signal's error": raising(TimeoutError("late")),
    "NaN": lambda: {"quality": Measurement(float("nan"))},
    "inf": lambda: {"quality": Measurement(float("inf"))},
    "-inf": lambda: {"quality": Measurement(float("-inf"))},
    "nothing": lambda: None,
    "no metric": dict,
    "another metric": lambda: {"quality": Measurement(1.0), "qualty": Measurement(1.0)},
    "text": lambda: {"quality": Measurement("much")},  # type: ignore[arg-type]
    "a surprise": lambda: {"quality": Measurement(Surprise())},  # type: ignore[arg-type]
    "a bare number": lambda: {"quality": 3.0},
    "details that are no JSON": lambda: {"quality": Measurement(1.0, {"a": Surprise()})},
    "details with NaN": lambda: {"quality": Measurement(1.0, {"a": float("nan")})},
    "rudeness": rude,
}


class Chain(SearchSpace):
    """Six slots in a row: 64 architectures, never built here."""

    def define(self, graph: SpaceGraph) -> None:
        from nasengine.testing.stubs import _conv, _head, _pointwise

        x = graph.input(3)
        for name in "abcdef":
            x = graph.slot(name, x, {"pointwise": _pointwise, "conv": _conv}, out=4)
        graph.output(graph.operation("head", x, _head, out=1))


FIRST = Architecture(dict.fromkeys("abcdef", "conv"))


class Faulty(Estimator):
    """Three candidates in ten do what they should not; the same ones in every run."""

    effort = 0
    share: float = 0.3
    faults: tuple[str, ...] = tuple(FAULTS)

    def metrics(self, search: Search) -> tuple[Metric, ...]:
        return (Metric("quality", "", "max"),)

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        draw = stream(0, "fault", *sorted(candidate.architecture.items()))
        if draw.random() < self.share:
            return FAULTS[draw.choice(self.faults)]()  # type: ignore[no-any-return]
        convs = sum(choice == "conv" for choice in candidate.architecture.values())
        return {"quality": Measurement(convs + draw.random())}


STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {},
    "evolution": {"population": 6, "sample": 3},
    "local_search": {},
    "predictor": {},
    "optuna": {},
    "nni": {},
}


def strategy_of(name: str) -> Strategy:
    return build(Strategy, {"name": name, **STRATEGIES[name]}, where="strategy")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_search_finishes_at_three_faults_in_ten(name: str, tmp_path: Path) -> None:
    estimators = {"quality": Faulty()}
    search = tiny_search(Chain(), estimators=estimators, folder=tmp_path, trials=40)
    history = Engine(search, strategy_of(name), Storage(tmp_path / "history.sqlite")).run()
    assert len(history) == 40
    assert len(history.keys) == 40, "what failed is never proposed again"
    ended = Counter(trial.status for trial in history)
    assert ended[Status.COMPLETE] >= 20
    assert ended[Status.FAILED] >= 3
    assert set(ended) == {Status.COMPLETE, Status.FAILED}
    assert all(trial.reason.startswith("quality: ") for trial in history if trial.reason)
    best = best_or_fail(search, history)
    assert best.value("quality") == max(trial.value("quality") for trial in history.complete)
    # What is on the disk is what was seen.
    assert list(Storage(tmp_path / "history.sqlite").history()) == list(history)


REASONS = {
    "an error": "quality: ValueError: the block is broken",
    "an error of its own": "quality: BrokenError: (without a message)",
    "a lone surrogate": "quality: ValueError: \\ud800",
    "estimation failed": "quality: the loss is nan",
    "CUDA memory": "quality: OutOfMemoryError: CUDA out of memory",
    "exit": "quality: SystemExit: 3",
    "NaN": "quality: quality is nan",
    "-inf": "quality: quality is -inf",
    "no metric": "quality: quality is not among what was measured",
    "another metric": "quality: 'qualty' was measured, which is none of its metrics",
    "details with NaN": "quality: the details of quality are no JSON: ",
    "a full disk": "quality: OSError: [Errno 28] No space left on device",
}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "rudeness"])
def test_each_fault_fails_its_trial_with_its_reason(fault: str, tmp_path: Path) -> None:
    estimators = {"quality": Faulty(share=1.0, faults=(fault,))}
    search = tiny_search(Chain(), estimators=estimators, folder=tmp_path, trials=2)
    history = Engine(search, strategy_of("random"), Storage(tmp_path / "history.sqlite")).run()
    assert [trial.status for trial in history] == [Status.FAILED] * 2
    assert history[0].reason.startswith(REASONS.get(fault, "quality: "))
    assert 0 < len(history[0].reason) < MAX_REASON + 100
    with pytest.raises(SearchFailed, match=r"no network: none of 2 trials is complete\n  2 x "):
        best_or_fail(search, history)


def test_all_failed_is_exit_status_1_with_the_reasons_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text(
        "from nasengine import EstimationFailed, Estimator, Metric\n"
        "class Broken(Estimator):\n"
        "    def metrics(self, search):\n"
        "        return (Metric('quality', '', 'max'),)\n"
        "    def measure(self, candidate):\n"
        "        raise EstimationFailed('the loss is nan')\n"
    )
    table = tables()
    table["estimators"] = {"quality": {"name": "broken.py:Broken"}}
    table["objectives"] = {"quality": "max"}
    (tmp_path / "spec.toml").write_text(tomli_w.dumps(table))
    runs = tmp_path / "runs"
    assert main(["run", str(tmp_path / "spec.toml"), "--runs", str(runs), "--quiet"]) == 1
    told = capsys.readouterr().err
    assert "none of 3 trials is complete" in told
    assert "3 x failed: quality: the loss is nan" in told
    assert not (runs / "tiny-1" / "best").exists()


def snapshot() -> dict[str, Any]:
    """Return all of the process that `guarded` puts back."""
    return {
        "torch": torch.rand(1).item(),
        "random": random.random(),
        "numpy": float(np.random.rand()),
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "folder": str(Path.cwd()),
        "environment": sorted(os.environ.items()),
        "filters": [str(item) for item in warnings.filters],
        "recursion": sys.getrecursionlimit(),
        "stdout": id(sys.stdout),
        "signals": [
            str(signal.getsignal(number))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        ],
    }


@pytest.fixture
def as_it_was() -> Any:
    """Put back by other means what a broken guard would leave changed."""
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("as_it_was")
def test_what_a_candidate_does_to_the_process_is_undone(tmp_path: Path) -> None:
    seen: dict[str, list[dict[str, Any]]] = {"rude": [], "polite": []}

    class Watching(Estimator):
        behaviour: str

        def metrics(self, search: Search) -> tuple[Metric, ...]:
            return (Metric("quality", "", "max"),)

        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            seen[self.behaviour].append(snapshot())
            if self.behaviour == "rude":
                rude()
                if candidate.label == "trial-1":
                    raise ValueError("and fails")
            return {"quality": Measurement(1.0)}

    for behaviour in seen:
        estimators = {"quality": Watching(behaviour=behaviour)}
        search = tiny_search(Chain(), estimators=estimators, folder=tmp_path, trials=4)
        for number in range(4):
            measure(search, Job(f"trial-{number}", FIRST))
    assert seen["rude"] == seen["polite"]
    draws = {item["torch"] for item in seen["rude"]}
    assert len(draws) == 4, "every trial draws its own numbers"


@pytest.mark.usefixtures("as_it_was")
def test_the_guard_leaves_the_caller_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    before = snapshot()
    random.setstate(states[0])
    torch.set_rng_state(states[2])
    np.random.seed(5)
    with pytest.raises(KeyError), guarded(0, "label"):
        rude()
        raise KeyError("even so")
    assert snapshot() == before


def test_a_working_folder_that_is_gone_is_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    with guarded(0):
        os.chdir(tmp_path)
        gone.rmdir()
    assert Path.cwd() == tmp_path


def test_a_failed_candidate_gives_back_what_it_held(tmp_path: Path) -> None:
    held: list[weakref.ref[Any]] = []

    class Holding(Estimator):
        def metrics(self, search: Search) -> tuple[Metric, ...]:
            return (Metric("quality", "", "max"),)

        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            network = torch.nn.Linear(100, 100)
            network.itself = [network]  # type: ignore[assignment] # a cycle, as hooks make them
            held.append(weakref.ref(network))
            raise MemoryError

    gc.disable()
    try:
        search = tiny_search(Chain(), estimators={"quality": Holding()}, folder=tmp_path)
        measure(search, Job("trial-0", FIRST))
        assert held[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [BrokenError(), ValueError("\udcff"), ValueError("a" * 10**7)])
def test_any_error_can_be_described_and_stored(error: Exception) -> None:
    text = describe(error)
    assert text.encode("utf-8")
    assert len(text) <= MAX_REASON + 3


ISOLATED = '''
import os, signal, sys, time
from nasengine import Estimator, Measurement, Metric
from nasengine.randomness import stream


class Wild(Estimator):
    """Three candidates in ten end, hang or crash their process, or fail plainly."""

    def metrics(self, search):
        return (Metric("quality", "", "max"),)

    def measure(self, candidate):
        draw = stream(1, "wild", *sorted(candidate.architecture.items()))
        if draw.random() < 0.3:
            kind = draw.choice(["segfault", "abort", "exit", "sys.exit", "hang", "nan", "raise"])
            if kind == "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif kind == "abort":
                os.abort()
            elif kind == "exit":
                os._exit(3)
            elif kind == "sys.exit":
                sys.exit(3)
            elif kind == "hang":
                time.sleep(600)
            elif kind == "nan":
                return {"quality": Measurement(float("nan"))}
            raise ValueError(kind)
        os.write(1, b"noise on standard output\\n")
        return {"quality": Measurement(draw.random())}
'''


WORKED = sorted(STRATEGIES) if os.environ.get("NASENGINE_SLOW") else ["evolution"]


@pytest.mark.parametrize("name", WORKED)
def test_in_worker_processes_every_search_finishes(name: str, tmp_path: Path) -> None:
    """Two workers; crashes and hangs too. All strategies where NASENGINE_SLOW is set."""
    (tmp_path / "wild.py").write_text(ISOLATED)
    table = tables()
    table["space"] = {"name": "nas_bench_macro"}
    table["task"] = {"name": "nasengine.testing.stubs:TinyClassification", "classes": 10}
    table["task"]["size"] = 32
    table["estimators"] = {"quality": {"name": "wild.py:Wild"}}
    table["objectives"] = {"quality": "max"}
    table["strategy"] = {"name": name, **STRATEGIES[name]}
    table["budget"] = {"trials": 10}
    table["execution"] = {"workers": 2, "timeout": 8.0}
    table["references"] = []
    (tmp_path / "spec.toml").write_text(tomli_w.dumps(table))
    heard = Kept()
    experiment = Experiment.load(tmp_path / "spec.toml")
    with RunFolder.create(tmp_path / "runs", experiment, ["test"]) as folder:
        outcome = run(experiment, folder, heard)
    assert len(heard.trials) == len(outcome.history) == 10
    # Which are proposed after the first may hang on which of two workers was quicker.
    for trial in heard.trials:
        wild = stream(1, "wild", *sorted(trial.architecture.items())).random() < 0.3
        assert trial.status is (Status.FAILED if wild else Status.COMPLETE)
    assert {trial.status for trial in heard.trials} == {Status.COMPLETE, Status.FAILED}
    complete = [trial for trial in heard.trials if trial.status is Status.COMPLETE]
    assert outcome.winner.value("quality") == max(t.value("quality") for t in complete)


def test_a_latency_of_zero_does_not_win_by_itself(tmp_path: Path) -> None:
    """A value that divides nothing: ratios of it are left out, and the run ends well."""
    objectives = Objectives((Objective("quality", "min"),))

    class Instant(Estimator):
        def metrics(self, search: Search) -> tuple[Metric, ...]:
            return (Metric("quality", "ms", "min"),)

        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            return {"quality": Measurement(0.0)}

    estimators = {"quality": Instant()}
    search = tiny_search(
        Chain(), estimators=estimators, objectives=objectives, folder=tmp_path, trials=8
    )
    for name in STRATEGIES:
        folder = tmp_path / name
        folder.mkdir()
        history = Engine(search, strategy_of(name), Storage(folder / "history.sqlite")).run()
        assert len(history.complete) == 8
        assert best_or_fail(search, history).number == 0

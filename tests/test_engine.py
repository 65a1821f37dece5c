"""The loop: what it measures, what it records, and what a candidate cannot do to it."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nasengine.architecture import Architecture
from nasengine.errors import DataError, EstimationFailed, Interrupted, SearchFailed
from nasengine.estimator import Candidate, Estimator
from nasengine.history import History
from nasengine.log import LogReporter
from nasengine.moves import enumerate_all
from nasengine.objectives import Objective, Objectives
from nasengine.plugin import load_class
from nasengine.reporter import Progress, Reporter
from nasengine.runs.best import best_or_fail
from nasengine.runs.engine import MAX_ATTEMPTS, Engine
from nasengine.runs.execution import InProcess, Job, Measured
from nasengine.runs.measuring import measure, measure_on
from nasengine.runs.storage import Storage
from nasengine.screen import Screen
from nasengine.search import Budget, Search
from nasengine.space import SearchSpace
from nasengine.strategy import Strategy
from nasengine.testing.stubs import CountingEstimator, tiny_search
from nasengine.trial import Measurement, Metric, Status, Trial

HALF = Screen(0.5, "max")


class InOrder(Strategy):
    """Proposes the whole space in order."""

    def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
        left = list(enumerate_all(search.space.decisions))[len(history) :]
        return left[:count]


class Misbehaving(Estimator):
    """Does what its setting says."""

    behaviour: str = "raise"
    effort = 1

    def metrics(self, search: Search) -> tuple[Metric, ...]:
        return (Metric("quality", "", "max"), Metric("second", "", "max"))

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        if candidate.architecture["first"] == "conv":
            _misbehave(self.behaviour)
        return {"quality": Measurement(1.0), "second": Measurement(2.0)}


def _misbehave(behaviour: str) -> None:
    errors: dict[str, BaseException] = {
        "raise": ValueError("the block is broken"),
        "fail": EstimationFailed("loss is nan"),
        "exit": SystemExit(3),
        "memory": MemoryError("out of memory"),
        "recursion": RecursionError("too deep"),
    }
    raise errors[behaviour]


def engine_for(folder: Path, estimators: Mapping[str, Estimator], **more: Any) -> Engine:
    search = tiny_search(estimators=estimators, folder=folder, **more)
    return Engine(search, InOrder(), Storage(folder / "history.sqlite"))


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("raise", "quality: ValueError: the block is broken"),
        ("fail", "quality: loss is nan"),
        ("exit", "quality: SystemExit: 3"),
        ("memory", "quality: MemoryError: out of memory"),
        ("recursion", "quality: RecursionError: too deep"),
    ],
)
def test_a_misbehaving_candidate_fails_alone(tmp_path: Path, behaviour: str, reason: str) -> None:
    engine = engine_for(tmp_path, {"quality": Misbehaving(behaviour=behaviour)})
    history = engine.run()
    failed = [t for t in history if t.status is Status.FAILED]
    assert [t.architecture["first"] for t in failed] == ["conv", "conv"]
    place = "" if behaviour == "fail" else r" \(test_engine\.py, line \d+\)"
    assert all(re.fullmatch(re.escape(reason) + place, t.reason) for t in failed)
    assert len(history.complete) == 2
    assert best_or_fail(engine.search, history).architecture["first"] == "pointwise"


def test_what_no_objective_names_costs_no_trial_where_it_cannot_be_measured(
    tmp_path: Path,
) -> None:
    objectives = Objectives((Objective("firsts", "max"),))
    estimators = {"firsts": CountingEstimator(), "quality": Misbehaving(behaviour="fail")}
    engine = engine_for(tmp_path, estimators, objectives=objectives)
    history = engine.run()
    assert len(history.complete) == len(history) == 4
    lacking = [trial for trial in history if "quality" not in trial.measurements]
    assert {trial.architecture["first"] for trial in lacking} == {"conv"}
    assert {trial.reason for trial in lacking} == {"quality: loss is nan"}
    assert Engine(engine.search, InOrder(), engine.storage).history[0] == history[0]


def test_reasons_that_differ_in_their_numbers_are_counted_as_one(tmp_path: Path) -> None:
    class Unsteady(Misbehaving):
        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            number = candidate.label.rpartition("-")[2]
            raise EstimationFailed(f"readings span {number}.5%")

    engine = engine_for(tmp_path, {"quality": Unsteady()})
    with pytest.raises(SearchFailed) as caught:
        best_or_fail(engine.search, engine.run())
    _, counted = str(caught.value).splitlines()
    assert counted == "  4 x failed: quality: readings span 0.5%, and alike"


def test_what_a_block_raises_is_told_by_its_own_line_with_the_traceback_in_the_log(
    tmp_path: Path,
) -> None:
    (tmp_path / "own.py").write_text(
        "from nasengine.testing.stubs import TinySpace\n"
        "from torch import nn\n"
        "class Bad(nn.Module):\n"
        "    def __init__(self):\n"
        "        nn.Module.__init__(self)\n"
        "        nn.Conv2d('four', 4, 1)\n"
        "class Mine(TinySpace):\n"
        "    def width_of(self):\n"
        "        return Bad()\n"
    )

    class Builds(Misbehaving):
        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            candidate.search.space.width_of()  # type: ignore[attr-defined]
            return {}

    log = tmp_path / "log.jsonl"
    space = load_class(SearchSpace, "own.py:Mine", tmp_path)()
    search = tiny_search(space, estimators={"quality": Builds()}, folder=tmp_path)
    search = replace(search, reporter=LogReporter(log))
    first = Engine(search, InOrder(), Storage(tmp_path / "history.sqlite")).run()[0]
    assert first.reason.endswith("(own.py, line 6)")
    kept = [json.loads(line) for line in log.read_text().splitlines()]
    trace = next(line["traceback"] for line in kept if line["kind"] == "traceback")
    assert "Traceback (most recent call last)" in trace
    assert "nn.Conv2d('four', 4, 1)" in trace


@pytest.mark.parametrize(
    ("answer", "found"),
    [(0.5, "float"), ({"quality": 0.5}, "a mapping with float"), (None, "NoneType")],
)
def test_an_estimator_that_answers_otherwise_is_told_what_to_return(
    answer: Any, found: str, tmp_path: Path
) -> None:
    class Other(Misbehaving):
        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            return answer  # type: ignore[no-any-return]

    first = engine_for(tmp_path, {"quality": Other()}).run()[0]
    asked = "quality: measure has to return a mapping from each metric's name to a Measurement"
    assert first.reason.startswith(f"{asked}, not {found}")


def test_a_strategy_that_answers_with_one_architecture_is_told_what_to_return(
    tmp_path: Path,
) -> None:
    class One(InOrder):
        def propose(self, history: History, count: int, search: Search) -> Any:
            return InOrder.propose(self, history, 1, search)[0]

    search = tiny_search(folder=tmp_path)
    told = "strategy: propose has to return a list of architectures, not Architecture"
    with pytest.raises(SearchFailed, match=told):
        Engine(search, One(), Storage(tmp_path / "history.sqlite")).run()


def test_bad_data_is_the_users_matter_and_ends_the_run(tmp_path: Path) -> None:
    class Unreadable(Misbehaving):
        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            raise DataError("image.png: truncated")

    with pytest.raises(DataError, match=r"image\.png"):
        engine_for(tmp_path, {"quality": Unreadable()}).run()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_fails_the_trial(tmp_path: Path, value: float) -> None:
    class Odd(Misbehaving):
        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            return {"quality": Measurement(value)}

    engine = engine_for(tmp_path, {"quality": Odd()})
    history = engine.run()
    assert all(t.status is Status.FAILED and str(value) in t.reason for t in history)
    with pytest.raises(SearchFailed, match=r"none of 4 trials.*\n  4 x failed: quality"):
        best_or_fail(engine.search, history)


def test_cheap_estimators_run_first_and_a_broken_limit_spares_the_dear(tmp_path: Path) -> None:
    calls: list[str] = []

    class Dear(Misbehaving):
        effort = 2

        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            calls.append(candidate.label)
            return {"quality": Measurement(1.0), "second": Measurement(0.0)}

    objectives = Objectives((Objective("quality", "max"), Objective("firsts", at_most=1)))
    estimators = {"quality": Dear(), "firsts": CountingEstimator()}
    history = engine_for(tmp_path, estimators, objectives=objectives).run()
    infeasible = [t for t in history if t.status is Status.INFEASIBLE]
    assert [t.reason for t in infeasible] == ["firsts is 2.000, at most 1.000 is asked"]
    assert "quality" not in infeasible[0].measurements
    assert len(calls) == 3
    assert f"trial-{infeasible[0].number}" not in calls


class Forgetful(CountingEstimator):
    """Gives its primary metric alone."""

    def metrics(self, search: Search) -> tuple[Metric, ...]:
        return (*super().metrics(search), Metric("second", "", "max"))


@pytest.mark.parametrize("wanted", [{"goal": "max"}, {"at_least": 1.0}, {"screen": HALF}], ids=str)
def test_a_metric_that_an_objective_names_has_to_be_measured(
    wanted: dict[str, Any], tmp_path: Path
) -> None:
    objectives = Objectives((Objective("firsts", "max"), Objective("firsts.second", **wanted)))
    estimators = {"firsts": Forgetful()}
    search = tiny_search(folder=tmp_path, estimators=estimators, objectives=objectives)
    history = Engine(search, InOrder(), Storage(tmp_path / "history.sqlite")).run()
    assert {trial.status for trial in history} == {Status.FAILED}
    assert "firsts.second, an objective, is not among what it gave" in history[0].reason


def test_metrics_are_named_by_the_estimators_key(tmp_path: Path) -> None:
    search = tiny_search(estimators={"mine": Misbehaving()}, folder=tmp_path)
    architecture = Architecture({"first": "pointwise", "second": "conv"})
    measured = measure(search, Job("trial-0", architecture))
    assert measured.status is Status.COMPLETE
    assert set(measured.measurements) == {"mine", "mine.second"}


def test_budget_counts_trials_over_interrupted_parts(tmp_path: Path) -> None:
    estimators = {"firsts": CountingEstimator()}
    first = engine_for(tmp_path, estimators, trials=2)
    assert len(first.run()) == 2
    first.storage.close()
    second = engine_for(tmp_path, estimators, trials=3)
    history = second.run()
    assert [t.number for t in history] == [0, 1, 2]
    assert len({t.key for t in history}) == 3


class Counted(Reporter):
    """Keeps how far each work was as it began, and the steps that followed."""

    def __init__(self) -> None:
        self.works: list[tuple[str, int, int]] = []
        self.steps = 0

    @contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Progress]:
        self.works.append((description, total, done))
        yield Steps(self)


class Steps(Progress):
    """Counts."""

    def __init__(self, counted: Counted) -> None:
        self.counted = counted

    def advance(self, steps: int = 1, **_: float | str) -> None:
        self.counted.steps += steps


def test_the_search_tells_how_many_trials_it_has_done_of_how_many(tmp_path: Path) -> None:
    told = Counted()
    for trials in (2, 3):
        tiny = tiny_search(folder=tmp_path)
        search = replace(tiny, budget=Budget(trials=trials), reporter=told)
        storage = Storage(tmp_path / "history.sqlite")
        Engine(search, InOrder(), storage).run()
        storage.close()
    assert told.works == [("trials", 2, 0), ("trials", 3, 2)]
    assert told.steps == 3


def test_a_spent_time_budget_ends_the_search(tmp_path: Path) -> None:
    ticks = iter(range(0, 1000, 10))
    search = tiny_search(folder=tmp_path)
    search = type(search)(**{**vars(search), "budget": type(search.budget)(seconds=45.0)})
    storage = Storage(tmp_path / "history.sqlite")
    history = Engine(search, InOrder(), storage, clock=lambda: float(next(ticks))).run()
    assert 0 < len(history) < 4
    assert storage.fact("seconds", float, 0.0) >= 45


def test_a_spent_time_budget_ends_a_search_whose_strategy_proposes_all_at_once(
    tmp_path: Path,
) -> None:
    class Hasty(InOrder):
        """Proposes all there is, however many are asked for."""

        def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
            return super().propose(history, 100, search)

    now = 0.0

    class Slow(Misbehaving):
        """Takes ten seconds."""

        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            nonlocal now
            now += 10.0
            return {"quality": Measurement(1.0)}

    search = tiny_search(estimators={"quality": Slow()}, folder=tmp_path)
    storage = Storage(tmp_path / "history.sqlite")
    for seconds, trials in ((15.0, 2), (25.0, 3)):
        timed = replace(search, budget=Budget(seconds=seconds))
        history = Engine(timed, Hasty(), storage, clock=lambda: now).run()
        assert [trial.status for trial in history] == [Status.COMPLETE] * trials


@pytest.mark.parametrize(
    ("before", "after"), [(Status.LOST, Status.COMPLETE), (Status.FAILED, Status.FAILED)]
)
def test_what_the_machine_lost_is_measured_where_it_is_proposed_again(
    before: Status, after: Status, tmp_path: Path
) -> None:
    class Again(InOrder):
        """Proposes the same architecture for ever."""

        def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
            return [history[0].architecture]

    storage = Storage(tmp_path / "history.sqlite")
    search = tiny_search(estimators={"firsts": CountingEstimator()}, folder=tmp_path, trials=2)
    architecture = Architecture({"first": "conv", "second": "conv"})
    storage.finish(Trial(0, architecture, search.space.key(architecture), before, {}, "why"))
    history = Engine(search, Again(), storage).run()
    assert [trial.status for trial in history] == [before, after]


def test_a_finished_search_takes_no_more_seconds(tmp_path: Path) -> None:
    engine = engine_for(tmp_path, {"firsts": CountingEstimator()}, trials=2)
    engine.run()
    seconds = engine.seconds
    assert seconds > 0
    again = engine_for(tmp_path, {"firsts": CountingEstimator()}, trials=2)
    assert len(again.run()) == 2
    assert again.seconds == again.storage.seconds == seconds


def test_a_stopped_search_ends_before_the_next_estimator_and_goes_on_later(tmp_path: Path) -> None:
    class Stopping(Misbehaving):
        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            candidate.search.stop.set()
            return {"quality": Measurement(1.0)}

    engine = engine_for(tmp_path, {"quality": Stopping()})
    with pytest.raises(Interrupted):
        engine.run()
    assert len(engine.history.complete) == 1
    engine.storage.close()
    again = engine_for(tmp_path, {"quality": Misbehaving(behaviour="fail")})
    assert [t.number for t in again.run()] == [0, 1, 2, 3]


def test_a_trial_that_was_being_measured_is_measured_again_under_its_number(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "history.sqlite")
    architecture = Architecture({"first": "conv", "second": "conv"})
    search = tiny_search(folder=tmp_path)
    storage.begin(Trial(0, architecture, search.space.key(architecture)))
    storage.close()
    history = engine_for(tmp_path, {"firsts": CountingEstimator()}).run()
    assert history[0].architecture == architecture
    assert history[0].status is Status.COMPLETE


def test_a_trial_that_kills_the_process_again_and_again_is_given_up(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "history.sqlite")
    architecture = Architecture({"first": "conv", "second": "conv"})
    trial = Trial(0, architecture, tiny_search(folder=tmp_path).space.key(architecture))
    for _ in range(MAX_ATTEMPTS):
        storage.begin(trial)
    storage.close()
    history = engine_for(tmp_path, {"firsts": CountingEstimator()}).run()
    assert history[0].status is Status.FAILED
    assert "died 3 times" in history[0].reason


def test_an_attempt_that_got_somewhere_starts_the_count_anew(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "history.sqlite")
    architecture = Architecture({"first": "conv", "second": "conv"})
    trial = Trial(0, architecture, "key")
    assert [storage.begin(trial, f"step-{n}") for n in range(5)] == [1] * 5
    assert [storage.begin(trial, "step-4") for _ in range(2)] == [2, 3]
    storage.forget_attempt(0)
    assert storage.begin(trial, "step-4") == 1


def test_references_are_measured_once_and_break_no_limit(tmp_path: Path) -> None:
    objectives = Objectives((Objective("firsts", "min", at_most=-1.0),))
    engine = engine_for(tmp_path, {"firsts": CountingEstimator()}, objectives=objectives)
    first = engine.measure_references(["big"])["big"]
    assert first.status is Status.COMPLETE
    assert first.reference == "big"
    assert engine.storage.references()["big"] == first
    assert engine.measure_references(["big"])["big"] == first
    assert len(engine.history) == 0


def test_what_a_trial_prints_or_seeds_does_not_change_the_next(tmp_path: Path) -> None:
    class Rude(Misbehaving):
        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            import torch

            torch.manual_seed(len(candidate.label))
            print("noise", file=sys.stderr)
            network = candidate.network()
            weight = next(iter(network.parameters()))
            return {"quality": Measurement(float(weight.detach().double().sum()))}

    values = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        history = engine_for(tmp_path / folder, {"quality": Rude()}).run()
        values.append([t.value("quality") for t in history])
    assert values[0] == values[1]
    assert len(set(values[0])) > 1


class Ended(InProcess):
    """Is ended from outside, whatever it measures."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(self._raise)

    def _raise(self, _: Job) -> Measured:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [DataError("stale file handle"), SearchFailed("no worker"), KeyboardInterrupt()],
    ids=repr,
)
def test_what_ends_a_search_from_outside_is_no_attempt_of_the_candidates(
    tmp_path: Path, error: BaseException
) -> None:
    for _ in range(MAX_ATTEMPTS + 1):
        engine = engine_for(tmp_path, {"firsts": CountingEstimator()})
        engine.executor = Ended(error)
        with pytest.raises(type(error)):
            engine.run()
        engine.storage.close()
    history = engine_for(tmp_path, {"firsts": CountingEstimator()}).run()
    assert {trial.status for trial in history} == {Status.COMPLETE}


class Detailed(CountingEstimator):
    """Tells a detail with its value."""

    key: str = "values"

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        (name,) = super().measure(candidate)
        return {name: Measurement(1.0, {self.key: "wide"})}


@pytest.mark.parametrize("key", ["values", "per_sample", "std"])
def test_details_that_are_read_are_what_they_should_be(key: str, tmp_path: Path) -> None:
    engine = engine_for(tmp_path, {"firsts": Detailed(key=key)}, trials=1)
    assert f"firsts: the detail {key!r} has to be a" in engine.run()[0].reason


def test_why_there_is_no_network_is_counted(tmp_path: Path) -> None:
    limits = Objectives((Objective("firsts", "min", at_least=9.0),))
    engine = engine_for(tmp_path, {"firsts": CountingEstimator()}, objectives=limits)
    history = engine.run()
    with pytest.raises(SearchFailed) as caught:
        best_or_fail(engine.search, history)
    counted, nearest = str(caught.value).splitlines()[1:]
    assert counted.startswith(f"  {len(history)} x infeasible: not firsts at least 9")
    most = max(history, key=lambda trial: trial.measurements["firsts"].value)
    value = most.measurements["firsts"].value
    assert nearest.startswith(
        f"the nearest was trial {most.number}: firsts is {value:.3f}, at least 9.000"
    )


class Long(Estimator):
    """A training that is told of, and that a signal may end."""

    effort = 2
    ends: bool = False
    asked: list[str] = []

    def metrics(self, search: Search) -> tuple[Metric, ...]:
        return (Metric("quality", "", "max"),)

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        if self.ends:
            raise Interrupted
        self.asked.append(candidate.label)
        return {"quality": Measurement(float(len(self.asked)))}


def test_what_a_training_found_is_kept_while_another_one_measures(tmp_path: Path) -> None:
    """Of trials, references and the winner: after a kill, only what is lacking is measured."""
    first = Long(asked=[])
    objectives = Objectives((Objective("first", "max"),))

    def engine(*, ends: bool) -> Engine:
        estimators = {"first": first, "second": Long(ends=ends, asked=[])}
        return engine_for(tmp_path, estimators, objectives=objectives, trials=1)

    with pytest.raises(Interrupted):
        engine(ends=True).run()
    kept = engine(ends=True).history[0]
    assert kept.status is Status.RUNNING
    assert kept.value("first") == 1.0
    again = engine(ends=False)
    trial = again.run()[0]
    assert trial.status is Status.COMPLETE
    assert first.asked == ["trial-0"]
    assert trial.value("first") == 1.0

    with pytest.raises(Interrupted):
        engine(ends=True).measure_references(["big"])
    reference = again.measure_references(["big"])["big"]
    assert reference.status is Status.COMPLETE
    assert first.asked == ["trial-0", "reference-big"]
    assert reference.value("first") == 2.0

    bare = replace(trial, measurements={})
    with pytest.raises(Interrupted):
        engine(ends=True).measure_finally(bare)
    found = again.measure_finally(bare)
    assert first.asked == ["trial-0", "reference-big", "trial-0"]
    assert {"first", "second"} == set(found.measurements)


def test_what_a_trial_took_is_counted_over_its_parts_and_over_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout is for all of a trial: behind a screen or a training it does not begin anew."""
    now, spent = 0.0, list[float]()

    class Slow(Long):
        seconds: float

        def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
            nonlocal now
            now += self.seconds
            return super().measure(candidate)

    def engine(*, ends: bool) -> Engine:
        parts = {"quick": 1.0, "long": 10.0, "last": 100.0}
        estimators = {
            name: Slow(seconds=seconds, ends=ends and name == "last", asked=[])
            for name, seconds in parts.items()
        }
        objectives = Objectives((Objective("quick", screen=HALF), Objective("last", "max")))
        made = engine_for(tmp_path, estimators, objectives=objectives, trials=1)
        made.executor = InProcess(measured(made.search))
        return made

    def measured(search: Search) -> Callable[[Job], Measured]:
        def measure_kept(job: Job) -> Measured:
            spent.append(job.spent)
            return measure_on(search, job)

        return measure_kept

    monkeypatch.setattr("nasengine.runs.measuring.time.monotonic", lambda: now)
    with pytest.raises(Interrupted):
        engine(ends=True).run()
    trial = engine(ends=False).run()[0]
    with pytest.raises(Interrupted):
        engine(ends=True).measure_references(["big"])
    reference = engine(ends=False).measure_references(["big"])["big"]
    # What was under way as it was cut short is not counted.
    assert spent == [0.0, 1.0, 11.0, 11.0, 0.0, 1.0, 11.0, 11.0]
    assert (trial.seconds, reference.seconds) == (111.0, 111.0)


def test_one_call_measures_to_the_end(tmp_path: Path) -> None:
    estimators = {"first": Long(asked=[]), "second": Long(asked=[])}
    search = tiny_search(estimators=estimators, folder=tmp_path)
    architecture = Architecture({"first": "conv", "second": "conv"})
    measured = measure(search, Job("trial-0", architecture))
    assert measured.status is Status.COMPLETE
    assert set(measured.measurements) == {"first", "second"}
    assert [len(estimator.asked) for estimator in estimators.values()] == [1, 1]

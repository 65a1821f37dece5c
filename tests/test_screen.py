"""Screens: only the best by a cheap metric are measured by the dear estimators after it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_spec import STUBS, load, tables

from nasengine.architecture import Architecture
from nasengine.errors import EstimationFailed, SpecError
from nasengine.estimator import Candidate, Estimator
from nasengine.files import read_json, write_json
from nasengine.history import History
from nasengine.objectives import Objective, Objectives
from nasengine.plugin import load_class
from nasengine.randomness import stream
from nasengine.runs import session
from nasengine.runs.best import best_or_fail
from nasengine.runs.engine import MAX_ATTEMPTS, Engine
from nasengine.runs.execution import Executor, Job, Measured
from nasengine.runs.measuring import measure_on
from nasengine.runs.storage import Storage
from nasengine.screen import BAR, Screen, with_bars
from nasengine.search import Search
from nasengine.strategy import Strategy
from nasengine.testing.strategies import BranchedSpace, made_up
from nasengine.testing.stubs import Kept, tiny_search
from nasengine.trial import Measurement, Metric, Status, Trial
from nasengine.workload import estimate

VALUES = st.lists(st.integers(0, 20).map(float), max_size=30)


class Made(Estimator):
    """A made-up value of the architecture, cheap or dear; it counts how often it was asked."""

    metric: str = "x"
    effort = 1
    asked: list[str] = []

    def metrics(self, search: Search) -> tuple[Metric, ...]:
        return (Metric("value", "", "max"),)

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        self.asked.append(candidate.label)
        return {"value": Measurement(made_up(candidate.architecture, self.metric))}


def screened_search(folder: Path, share: float = 0.5, **more: Any) -> Search:
    objectives = Objectives(
        (Objective("quick", screen=Screen(share, "max")), Objective("slow", "max"))
    )
    estimators = {"quick": Made(metric="x", asked=[]), "slow": Made(metric="y", asked=[])}
    space = BranchedSpace()
    return tiny_search(space, estimators=estimators, folder=folder, objectives=objectives, **more)


def searched(search: Search, strategy: str = "random", name: str = "history.sqlite") -> History:
    return Engine(search, load_class(Strategy, strategy)(), Storage(search.folder / name)).run()


@given(VALUES, st.floats(0.01, 0.99), st.sampled_from(["max", "min"]), st.integers(0, 20))
def test_it_goes_on_where_it_is_among_the_best_share(
    earlier: list[float], share: float, better: Any, value: int
) -> None:
    bar = Screen(share, better).bar(earlier)
    goes_on = bar is None or (value >= bar if better == "max" else value <= bar)
    ahead = sum(other > value if better == "max" else other < value for other in earlier)
    assert goes_on == (ahead < math.ceil(round(share * (len(earlier) + 1), 9)))


def test_a_share_that_comes_out_even_is_not_rounded_up() -> None:
    """In binary 0.28 * 25 is a little more than 7."""
    assert Screen(0.28, "max").bar([float(value) for value in range(24)]) == 17.0


@pytest.mark.parametrize("better", ["max", "min"])
def test_what_is_level_with_the_bar_goes_on_and_keeps_what_was_known_of_it(better: Any) -> None:
    measured = {"quick": Measurement(0.5, {"low": 0.4}), "slow": Measurement(0.5)}
    found = with_bars(measured, {"quick": 0.5})
    assert found["quick"].details == {"low": 0.4, BAR: 0.5} and found["slow"].details == {}
    assert not any(Screen(0.5, better).holds_back(measurement) for measurement in found.values())


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.5])
def test_how_many_go_on_is_expected_as_it_comes_out(share: float) -> None:
    screen, went_on = Screen(share, "max"), 0
    rng = stream(0, "screens")
    for _ in range(300):
        seen: list[float] = []
        for _ in range(20):
            value = rng.random()
            bar = screen.bar(seen)
            went_on += bar is None or value >= bar
            seen.append(value)
    assert went_on / 6000 == pytest.approx(screen.expected_share(20), abs=0.02)


def test_what_is_not_among_the_best_so_far_is_measured_no_further(tmp_path: Path) -> None:
    search = screened_search(tmp_path, share=0.25, trials=20)
    history = searched(search)
    seen: list[float] = []
    for trial in history:
        value = trial.value("quick")
        ahead = sum(other > value for other in seen)
        seen.append(value)
        goes_on = ahead < math.ceil(len(seen) / 4)
        assert trial.status is (Status.COMPLETE if goes_on else Status.SCREENED), trial
        assert ("slow" in trial.measurements) is goes_on
    slow = search.estimators["slow"]
    assert isinstance(slow, Made)
    assert len(slow.asked) == len(history.complete)
    assert 5 <= len(history.complete) <= 12
    held = next(t for t in history if t.status is Status.SCREENED)
    bar = held.measurements["quick"].details[BAR]
    assert held.reason == (
        f"quick is {held.value('quick'):.3f}; to be among the best 25% so far takes {bar:.3f}"
    )
    assert best_or_fail(search, history).status is Status.COMPLETE


def test_where_less_is_better_the_least_go_on(tmp_path: Path) -> None:
    screen = Screen(0.5, "min")
    assert screen.bar([3.0, 1.0, 2.0]) == 2.0
    assert screen.holds_back(Measurement(2.5, {BAR: 2.0}))
    assert not screen.holds_back(Measurement(2.0, {BAR: 2.0}))
    assert not screen.holds_back(Measurement(9.0))


def test_a_resumed_search_holds_each_trial_against_the_same_ones(tmp_path: Path) -> None:
    whole = searched(screened_search(tmp_path, trials=16))
    for cut in (1, 7, 13):
        search = screened_search(tmp_path, trials=16)
        storage = Storage(tmp_path / f"cut-{cut}.sqlite")
        for trial in whole[:cut]:
            storage.begin(trial, "", 0.0)
            storage.finish(trial, 0.0)
        killed = replace(whole[cut], status=Status.RUNNING, measurements={}, reason="")
        storage.begin(killed, "", 0.0)
        again = Engine(search, load_class(Strategy, "random")(), storage).run()
        assert [(t.status, t.measurements) for t in again] == [
            (t.status, t.measurements) for t in whole
        ]


class InTurn(Executor):
    """Measures so many jobs side by side, in turn; those of `dying` ones end without a word."""

    def __init__(self, search: Search, count: int, dying: str = "") -> None:
        self.search, self.count, self.dying = search, count, dying
        self.jobs: list[Job] = []

    @property
    def free(self) -> int:
        return self.count - len(self.jobs)

    def begin(self, job: Job) -> None:
        self.jobs.append(job)

    def wait(self) -> tuple[Job, Measured]:
        job = self.jobs.pop(0)
        if job.label == self.dying and job.known:
            return job, Measured(Status.FAILED, job.known, "its process ended", job.spent)
        return job, measure_on(self.search, job)


def test_with_several_workers_each_is_held_against_all_whose_value_is_known(tmp_path: Path) -> None:
    search = screened_search(tmp_path, share=0.25, trials=16)
    storage = Storage(tmp_path / "history.sqlite")
    history = Engine(search, load_class(Strategy, "random")(), storage, InTurn(search, 8)).run()
    quick, slow = (estimator for estimator in search.estimators.values())
    assert isinstance(quick, Made) and isinstance(slow, Made)
    assert sorted(quick.asked) == sorted(f"trial-{t.number}" for t in history)
    seen: list[float] = []
    for label in quick.asked:
        ended = history[int(label.removeprefix("trial-"))]
        ahead = sum(other > ended.value("quick") for other in seen)
        seen.append(ended.value("quick"))
        goes_on = ahead < math.ceil(len(seen) / 4)
        assert ended.status is (Status.COMPLETE if goes_on else Status.SCREENED)
    # All eight that began together would have gone on, had each been held against what had ended.
    assert len(slow.asked) == len(history.complete) < 10


class Killed(BaseException):
    """The process is."""


class Killing(Made):
    """Takes the process with it."""

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        self.asked.append(candidate.label)
        raise Killed


class Leaving(Made):
    """Leaves a file, another each time."""

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        (candidate.folder / f"weights-{len(self.asked)}").touch()
        return super().measure(candidate)


def test_a_kill_behind_a_screen_costs_no_second_measurement_before_it(tmp_path: Path) -> None:
    """And what kills the process there again and again is given up, whatever came before left."""
    search = screened_search(tmp_path, trials=1)
    quick, killing = Leaving(metric="x", asked=[]), Killing(metric="y", asked=[])
    search = replace(search, estimators={"quick": quick, "slow": killing})
    kills = 1 + MAX_ATTEMPTS  # The first attempt got somewhere.
    for _ in range(kills):
        with pytest.raises(Killed):
            searched(search)
    history = searched(search)
    assert len(quick.asked) == 1
    assert len(killing.asked) == kills
    assert history[0].status is Status.FAILED
    assert list(history[0].measurements) == ["quick"]


class Failing(Made):
    """Cannot measure, as a latency on a busy machine."""

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        self.asked.append(candidate.label)
        raise EstimationFailed("busy")


def test_what_failed_before_a_screen_is_not_asked_again_behind_it(tmp_path: Path) -> None:
    search = screened_search(tmp_path, trials=1)
    failing = Failing(asked=[])
    search = replace(search, estimators={"timed": failing, **search.estimators})
    history = searched(search)
    assert failing.asked == ["trial-0"]
    assert history[0].status is Status.COMPLETE
    assert history[0].reason == "timed: busy"


def test_what_dies_behind_a_screen_keeps_its_value_there(tmp_path: Path) -> None:
    search = screened_search(tmp_path, trials=4)
    storage, strategy = Storage(tmp_path / "history.sqlite"), load_class(Strategy, "random")()
    history = Engine(search, strategy, storage, InTurn(search, 1, "trial-0")).run()
    assert history[0].status is Status.FAILED
    assert list(history[0].measurements) == ["quick"]
    assert history[1].measurements["quick"].details[BAR] == history[0].value("quick")


def trial(number: int, status: Status, **found: tuple[float, float | None]) -> Trial:
    measured = {
        name: Measurement(value, {} if bar is None else {BAR: bar})
        for name, (value, bar) in found.items()
    }
    return Trial(number, Architecture({"a": "b"}), str(number), status, measurements=measured)


def test_what_came_further_stands_better_and_bars_of_other_times_do_not_count() -> None:
    objectives = Objectives(
        (
            Objective("first", screen=Screen(0.5, "max")),
            Objective("second", screen=Screen(0.5, "max")),
            Objective("size", at_most=10.0),
            Objective("iou", "max"),
        )
    )
    in_order = [
        trial(0, Status.COMPLETE, first=(0.1, None), second=(0.1, None), iou=(0.2, None)),
        trial(1, Status.SCREENED, first=(0.6, 0.5), second=(0.3, 0.4)),
        trial(2, Status.SCREENED, first=(0.9, 0.5), second=(0.2, 0.3)),
        trial(3, Status.SCREENED, first=(0.5, 0.9)),
        trial(4, Status.SCREENED, first=(0.3, 0.31)),
        trial(5, Status.INFEASIBLE, size=(10.1, None), first=(0.9, None)),
        trial(6, Status.INFEASIBLE, size=(30.0, None)),
    ]
    standings = [objectives.standing(t) for t in in_order]
    assert standings == sorted(standings)
    assert objectives.ranks(in_order) == list(range(7))
    assert objectives.best(in_order) is in_order[0]


def test_what_two_screens_of_one_estimator_hold_back_still_keeps_the_limits() -> None:
    objectives = Objectives(
        (
            Objective("quick", screen=Screen(0.5, "max")),
            Objective("quick.loss", screen=Screen(0.5, "min")),
            Objective("later", screen=Screen(0.5, "max")),
            Objective("size", at_most=10.0),
            Objective("iou", "max"),
        )
    )
    both = {"quick": (0.1, 0.9), "quick.loss": (3.0, 1.0)}
    later = {"quick": (0.1, None), "quick.loss": (3.0, None), "later": (0.0, 1.0)}
    in_order = [
        trial(0, Status.SCREENED, **later),
        trial(1, Status.SCREENED, **both),
        trial(2, Status.INFEASIBLE, size=(10.1, None)),
    ]
    standings = [objectives.standing(t) for t in in_order]
    assert standings == sorted(standings)


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.sampled_from(["max", "min"]))
def test_how_far_a_value_is_from_going_on_is_told_at_every_scale(
    one: float, other: float, better: Any
) -> None:
    screen = Screen(0.5, better)
    assert 0 < screen.distance(one) < 1
    apart = abs(one - other) > 1e-9 * max(abs(one), abs(other))
    worse = one < other if better == "max" else one > other
    assert not apart or (screen.distance(one) > screen.distance(other)) == worse


def test_what_is_proposed_again_counts_once_for_the_bar() -> None:
    objectives = Objectives((Objective("quick", screen=Screen(0.5, "max")),))
    first = trial(0, Status.COMPLETE, quick=(0.9, None))
    again = [replace(first, number=number) for number in (1, 2, 3)]
    other = trial(4, Status.COMPLETE, quick=(0.1, None))
    assert objectives.bars([first, *again, other]) == objectives.bars([first, other])


@pytest.mark.parametrize("strategy", ["predictor", "evolution", "local_search", "optuna"])
def test_strategies_find_more_in_fewer_dear_measurements(tmp_path: Path, strategy: str) -> None:
    """Where the quick value tells of the slow one, screened searches spend half and find as much.

    Both have 12 trials; the screened one may measure a part of them by the slow estimator.
    """
    dear, best = {True: 0, False: 0}, {True: 0.0, False: 0.0}
    for seed in range(4):
        for is_screened in (True, False):
            folder = tmp_path / f"{seed}-{is_screened}"
            folder.mkdir()
            search = screened_search(folder, share=0.3, trials=12, seed=seed)
            related = {"quick": Made(metric="y", asked=[]), "slow": Made(metric="y", asked=[])}
            items = search.objectives.items[0 if is_screened else 1 :]
            search = replace(search, estimators=related, objectives=Objectives(items))
            history = searched(search, strategy)
            assert len(history) == 12
            dear[is_screened] += len(related["slow"].asked)
            best[is_screened] += best_or_fail(search, history).value("slow")
    assert dear[True] <= 0.8 * dear[False]
    assert best[True] >= best[False] - 0.1


def spec_with(**objectives: Any) -> dict[str, Any]:
    given = tables()
    given["estimators"] = {
        "quick": {"name": "trained", "iterations": 2},
        "iou": {"name": "trained", "iterations": 8},
        "parameters": {},
    }
    given["objectives"] = {"iou": "max", **objectives}
    return given


def test_a_run_with_workers_screens_and_keeps_it(tmp_path: Path) -> None:
    given = spec_with(quick={"among_best": "50%"})
    given["budget"] = {"trials": 4}
    given["execution"] = {"isolate": True}
    finished = session.run(given, runs=tmp_path / "runs")
    kept = Storage(finished.folder / "history.sqlite").history()
    bars = [t.measurements["quick"].details.get(BAR) for t in kept]
    assert bars[0] is None
    assert all(bar is not None for bar in bars[1:])
    for t, bar in zip(kept, bars, strict=True):
        goes_on = bar is None or t.value("quick") >= bar
        assert t.status is (Status.COMPLETE if goes_on else Status.SCREENED)
    told = (finished.folder / "report.html").read_text()
    assert "quick: who goes on, among the best 50% so far" in told
    assert "iou against quick" in told


def test_what_is_exported_of_a_trial_that_was_held_back_says_so(tmp_path: Path) -> None:
    given = spec_with(quick={"among_best": "40%"})
    finished = session.run(given, "budget.trials=4", runs=tmp_path / "runs")
    held = next(t for t in finished.history if t.status is Status.SCREENED)
    for trial, count in ((held, 1), (finished.winner, 0)):
        reporter = Kept()
        session.export(finished.folder, trial=trial.number, code=[STUBS], reporter=reporter)
        told = [text for text in reporter.warnings if "its weights are those of" in text]
        assert len(told) == count
        assert all(f"trial {trial.number} is screened: quick is" in text for text in told)


@pytest.mark.parametrize(
    ("objectives", "told"),
    [
        ({"quick": {"among_best": 1.5}}, "objectives.quick.among_best: 1.5 is no share"),
        ({"quick": {"among_best": "1/3"}}, "objectives.quick.among_best: '1/3' is no share"),
        ({"quick": {"among_best": "5 ms"}}, "objectives.quick.among_best: '5 ms' is no share"),
        ({"quick": {"among_best": "0%"}}, "objectives.quick.among_best: '0%' is no share"),
        ({"quick": {"among_best": "30% of all_conv"}}, "is no share of the trials"),
        (
            {"iou": {"goal": "max", "among_best": 0.5}},
            "objectives.iou.among_best: nothing is measured after iou, so it spares nothing; "
            "estimators run in this order: parameters, quick, iou",
        ),
    ],
)
def test_a_screen_that_is_none_is_refused(
    objectives: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match="objectives") as caught:
        load(spec_with(**objectives), tmp_path).search(tmp_path)
    assert told in str(caught.value)


def test_what_a_search_is_asked_for_goes_before_what_a_metric_usually_is_better_for(
    tmp_path: Path,
) -> None:
    wanted = {"parameters": {"goal": "max", "among_best": "50%"}}
    search = load(spec_with(**wanted), tmp_path).search(tmp_path)
    assert search.objectives.screens["parameters"].better == "max"


def test_a_screen_that_all_pass_is_none_so_that_an_ablation_can_compare_with_it(
    tmp_path: Path,
) -> None:
    search = load(spec_with(quick={"among_best": "100%"}), tmp_path).search(tmp_path)
    assert [item.metric for item in search.objectives.items] == ["iou"]
    table = {**tables(), "objectives": {"parameters": {"among_best": "100%"}, "firsts": "max"}}
    outcome = session.run(table, runs=tmp_path)
    assert (outcome.folder / "report.html").is_file()


def test_the_estimate_knows_how_many_go_on(tmp_path: Path) -> None:
    def seconds(**objectives: Any) -> tuple[float, float]:
        experiment = load(spec_with(**objectives), tmp_path)
        found = estimate(experiment.search(tmp_path), experiment.strategy)
        return found.trial_seconds, found.reference_seconds

    one, reference = seconds(quick={"among_best": 0.25})
    # 2 steps for each of three trials, 8 for the first, every other second, and so on; a
    # reference takes all 10.
    on = (1 + 1 / 2 + 1 / 3) / 3
    assert one / reference == pytest.approx((2 + 8 * on) / 10)
    one, reference = seconds()
    assert one == reference


def test_objectives_are_kept_with_their_screens(tmp_path: Path) -> None:
    items = (Objective("quick", screen=Screen(0.25, "min")), Objective("iou", "max"))
    write_json(tmp_path / "objectives.json", [asdict(item) for item in items])
    assert read_json(tmp_path / "objectives.json", tuple[Objective, ...]) == items

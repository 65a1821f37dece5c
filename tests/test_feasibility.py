"""Limits that nothing can meet are refused before anything is trained, with the range there is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_spec import STUBS, load, tables

from nasengine.cli import main
from nasengine.errors import EstimationFailed, SpecError
from nasengine.estimator import Candidate, Estimator
from nasengine.estimators.parameters import Parameters
from nasengine.moves import enumerate_all
from nasengine.objectives import Objective, Objectives
from nasengine.runs import ranges
from nasengine.runs.feasibility import check_limits
from nasengine.runs.ranges import SAMPLES, measure_few, metric_range
from nasengine.search import Search
from nasengine.spaces.light_sdi import LightSDI
from nasengine.testing.stubs import tiny_search
from nasengine.trial import Measurement, Metric


class Firsts(Estimator):
    """Counts first choices, without a table; some networks cannot be measured."""

    effort = 0
    hole: str = ""

    def metrics(self, search: Search) -> tuple[Metric, ...]:
        return (Metric("firsts", "", "min"), Metric("seconds", "", "max"))

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        if self.hole in candidate.architecture.values():
            raise EstimationFailed("a hole")
        choices = candidate.search.space.decisions.items()
        count = sum(candidate.architecture[d] == c[0] for d, c in choices)
        return {"firsts": Measurement(float(count)), "seconds": Measurement(9.0 - count)}


class Timed(Firsts):
    """The same, dear."""

    effort = 1

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        raise AssertionError("nothing dear is asked before the search")


def limited(folder: Path, **limits: Any) -> list[str]:
    table = tables()
    table["objectives"] = {"firsts": "min", "parameters": limits}
    experiment = load(table, folder)
    return experiment.check_ahead(experiment.search(folder))


def test_the_range_is_that_of_every_network_in_a_small_space(tmp_path: Path) -> None:
    search = load(tables(), tmp_path).search(tmp_path)
    predict = search.cost_table("parameters").predict
    every = sorted(map(predict, enumerate_all(search.space.decisions)))
    found = metric_range(search, "parameters")
    assert found is not None and found.exact
    assert (found.smallest, found.largest) == (every[0], every[-1])
    assert every[0] < found.median < every[-1]


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"at_most": "0.01k"}, "objectives.parameters.at_most: 0.01k; the space's networks have"),
        ({"at_least": 1e6}, "objectives.parameters.at_least: 1.00M; the space's networks have"),
        ({"at_most": "1% of big"}, "objectives.parameters.at_most: 1% of big, which is"),
    ],
)
def test_a_limit_that_nothing_can_meet_is_refused(
    tmp_path: Path, limits: dict[str, Any], told: str
) -> None:
    with pytest.raises(SpecError) as caught:
        limited(tmp_path, **limits)
    assert told in str(caught.value)
    assert str(caught.value).endswith("the space's networks have 57 to 281")


@pytest.mark.parametrize("limits", [{"at_most": 57}, {"at_least": 281}, {"at_most": "90% of big"}])
def test_a_limit_at_the_edge_is_met(tmp_path: Path, limits: dict[str, Any]) -> None:
    assert all("every network" in note for note in limited(tmp_path, **limits))


def test_a_limit_that_everything_meets_gets_a_note(tmp_path: Path) -> None:
    (note,) = limited(tmp_path, at_most="20M")
    assert (
        note
        == "objectives.parameters.at_most: 20M: every network of the space meets it (57 to 281)"
    )


def wide(estimator: Estimator, *limits: Objective) -> tuple[Search, dict[str, Metric]]:
    search = tiny_search(
        LightSDI(width=2, classes=1),
        estimators={"firsts": estimator},
        objectives=Objectives(limits),
    )
    assert search.space.size > SAMPLES
    first, second = estimator.metrics(search)
    return search, {"firsts": first, "firsts.seconds": second}


def refused(estimator: Estimator, limit: Objective) -> list[str]:
    return check_limits(*wide(estimator, limit), {})


def test_what_no_sample_meets_is_climbed_to() -> None:
    # One network in two million has nine first choices: no sample does.
    assert refused(Firsts(), Objective("firsts", at_least=9.0)) == []
    with pytest.raises(SpecError, match=r"objectives.firsts.at_least: 10.000; .* 0.000 to 9.000"):
        refused(Firsts(), Objective("firsts", at_least=10.0))


def test_a_quality_that_was_not_found_is_told_and_not_refused() -> None:
    (note,) = refused(Firsts(), Objective("firsts.seconds", at_least=9.5))
    assert "as far as was looked" in note


def test_networks_that_cannot_be_measured_are_left_out() -> None:
    holes = Firsts(hole="cutconnect")
    assert refused(holes, Objective("firsts", at_least=9.0)) == []
    assert refused(Firsts(hole="single_conv"), Objective("firsts", at_most=0.0)) != []


def test_nothing_dear_is_asked() -> None:
    assert refused(Timed(), Objective("firsts", at_most=-1.0)) == []


class Slow(Firsts):
    """The same, measured; what it took is a clock's."""

    effort = 1
    clock: Any = None

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        self.clock.append(self.clock[-1] + 4.0)
        return super().measure(candidate)


def few(estimator: Slow, monkeypatch: pytest.MonkeyPatch, **estimators: Estimator) -> Any:
    search = tiny_search(
        LightSDI(width=2, classes=1), estimators={**estimators, "firsts": estimator}
    )
    monkeypatch.setattr(ranges.time, "monotonic", lambda: estimator.clock[-1])
    return measure_few(search, "firsts", ["unet"])


def test_what_is_timed_is_told_of_by_a_few_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ends of what is counted first, the references soon: dear ones end it."""
    found = few(Slow(clock=[0.0]), monkeypatch, parameters=Parameters())
    assert [list(found.references), len(found.networks), found.reason] == [["unet"], 3, ""]
    monkeypatch.setattr(ranges, "MEASURED_SECONDS", 1000.0)
    found = few(Slow(clock=[0.0]), monkeypatch, parameters=Parameters())
    told = found.range("firsts")
    assert len(found.networks) == 6 and told.smallest <= told.median <= told.largest
    assert not told.exact and found.range("nothing") is None
    holes = few(Slow(clock=[0.0], hole="cutconnect"), monkeypatch, parameters=Parameters())
    assert holes.reason == "a hole" and 0 < len(holes.networks) < 6


PACE = """
from nasengine import Estimator, Measurement, Metric
class Pace(Estimator):
    def metrics(self, search):
        return (Metric("pace", "ms", "min"), Metric("p90", "ms", "min"))
    def measure(self, candidate):
        count = sum(len(choice) for choice in candidate.architecture.values())
        return {"pace": Measurement(1.0 * count), "p90": Measurement(2.0 * count)}
"""


def test_check_tells_what_every_limited_metric_comes_to_or_why_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nasengine.machine.os.getloadavg", lambda: (7.0, 1.0, 1.0))
    monkeypatch.setattr("nasengine.machine.os.cpu_count", lambda: 2)
    (tmp_path / "pace.py").write_text(PACE)
    table = tables()
    table["estimators"] |= {
        "pace": {"name": "pace.py:Pace"},
        "iou": {"name": "trained", "iterations": 1},
    }
    table["objectives"] = {
        "iou": {"goal": "max", "at_least": 0.1},
        "pace": {"at_most": "10 ms"},
        "pace.p90": {"at_most": "80% of big"},
    }
    load(table, tmp_path)
    assert main(["check", "spec.toml"]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert "met by no network" not in told.err and lines[-1] == "the spec is sound"
    assert "iou: known only once networks are trained" in lines
    (pace,) = [line for line in lines if line.startswith("pace: ")]
    assert pace == (
        "pace: 8.00 ms to 18.00 ms, half of the networks below 13.00 ms, big 12.00 ms "
        "(3 networks, measured here under a load of 7.0 on 2 cores, 1 of them within the limit)"
    )
    (p90,) = [line for line in lines if line.startswith("pace.p90: ")]
    assert "16.00 ms to 36.00 ms" in p90 and "within" not in p90
    for key, asked, nearest in (("at_most", 5, 8), ("at_least", 20, 18)):
        assert (
            main(["check", "spec.toml", "--set", f'objectives.pace={{ {key} = "{asked} ms" }}'])
            == 0
        )
        assert (
            f"warning: objectives.pace.{key}: {asked}.00 ms is met by no network that was looked "
            f"at; the nearest has {nearest}.00 ms"
        ) in capsys.readouterr().err


def test_a_goal_against_its_metric_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    load(tables(), tmp_path)
    for goal, told in (("min", False), ("max", True)):
        assert main(["check", "spec.toml", "--set", f"objectives.parameters={goal}"]) == 0
        said = "parameters: 'max', and of parameters less is better: the worst is searched for"
        assert (said in capsys.readouterr().out) == told


def test_run_refuses_before_there_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    load(tables(), tmp_path)
    limit = "objectives.parameters.at_most=10"
    for command in ("run", "check"):
        assert main([command, "spec.toml", "--set", limit]) == 2
        assert "the space's networks have 57 to 281" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_run_tells_of_a_limit_that_everything_meets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    load(tables(), tmp_path)
    assert main(["run", "spec.toml"]) == 0
    assert "every network of the space meets it" in capsys.readouterr().out
    assert STUBS in (tmp_path / "spec.toml").read_text()

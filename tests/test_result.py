"""What a run says of its result: the verdict's words, the front, what is recommended and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from test_spec import tables

from nasengine.cli import main
from nasengine.objectives import Objective, Objectives
from nasengine.runs.result import Comparison
from nasengine.trial import Measurement, Metric


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def ran(folder: Path, objectives: dict[str, Any], **changes: Any) -> dict[str, Any]:
    path = folder / "spec.toml"
    path.write_text(tomli_w.dumps({**tables(), "objectives": objectives, **changes}))
    assert main(["run", "spec.toml"]) == 0
    (run,) = (folder / "runs").iterdir()
    result: dict[str, Any] = json.loads((run / "best" / "metrics.json").read_text())
    return result


BOTH = {"firsts": "min", "parameters": "min"}


def test_a_front_is_shown_and_delivered_with_its_knee_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = ran(tmp_path, BOTH, budget={"trials": 4})
    printed = capsys.readouterr().out
    front = {member["trial"] for member in result["front"]}
    assert len(front) == 3 and result["recommended"]["as"] == "knee"
    rows = [line for line in printed.splitlines() if "knee: delivered" in line]
    assert len(rows) == 1 and str(result["recommended"]["trial"]) in rows[0]
    assert "nasengine export runs/tiny-1 --trial N --code nasengine.testing.stubs" in printed
    assert "the front: 3 networks" in printed and "the knee, is delivered" in printed
    folder = tmp_path / "runs" / "tiny-1" / "front"
    assert {path.name for path in folder.iterdir()} == {f"trial-{n}" for n in front}
    member = result["front"][0]
    told = json.loads((folder / f"trial-{member['trial']}" / "architecture.json").read_text())
    assert told["choices"] == member["architecture"]


TIMED_LATER = """
from nasengine import Estimator, Measurement, Metric
from nasengine.errors import EstimationFailed

tried = []

class TimedLater(Estimator):
    def metrics(self, search):
        return (Metric("timed", "ms", "min"),)

    def measure(self, candidate):
        tried.append(candidate.label)
        if tried.count(candidate.label) == 1:
            raise EstimationFailed("the machine is busy")
        return {"timed": Measurement(2.0)}
"""


def test_what_could_only_not_be_recorded_of_the_winner_is_measured_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text(TIMED_LATER)
    estimators = {"parameters": {}, "timed": {"name": "own.py:TimedLater"}}
    result = ran(tmp_path, {"parameters": "min"}, budget={"trials": 2}, estimators=estimators)
    printed = capsys.readouterr().out.splitlines()
    (line,) = (line for line in printed if line.startswith("trial 0"))
    assert "timed: the machine is busy" in line and "failed" not in line
    assert result["searched"]["measurements"]["timed"]["value"] == 2.0


def test_what_a_final_estimator_measures_anew_is_what_judges(tmp_path: Path) -> None:
    """A search's goal is often a cheap stand-in for what is measured at the end."""
    final = {"estimators": {"again": {"name": "parameters"}}}
    result = ran(tmp_path, {"parameters": "min"}, budget={"trials": 2}, final=final)
    assert [told["metric"] for told in result["verdict"] if "reference" in told] == ["again"]


@pytest.mark.parametrize(
    ("objectives", "name"),
    [
        ({"firsts": "max"}, "best"),
        ({"firsts": "max", "parameters": {"at_most": 270}}, "best under limits"),
    ],
)
def test_one_goal_gives_no_front_and_says_what_is_recommended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], objectives: dict[str, Any], name: str
) -> None:
    result = ran(tmp_path, objectives)
    assert result["recommended"] == {"trial": result["searched"]["trial"], "as": name}
    assert f"the {name}, is delivered" in capsys.readouterr().out
    assert not (tmp_path / "runs" / "tiny-1" / "front").exists()


def test_a_front_that_changed_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    ran(tmp_path, BOTH, budget={"trials": 1})
    code = ["--code", "nasengine.testing.stubs", "--set", "budget.trials=4"]
    assert main(["resume", "runs/tiny-1", *code]) == 0
    result = json.loads(Path("runs/tiny-1/best/metrics.json").read_text())
    found = {path.name for path in Path("runs/tiny-1/front").iterdir()}
    assert found == {f"trial-{member['trial']}" for member in result["front"]}


def test_a_knee_has_a_name() -> None:
    goals = (Objective("iou", "max"), Objective("size", "min", at_most=3.0))
    assert Objectives(goals).recommendation == "knee"
    assert Objectives(goals[:1]).recommendation == "best"
    assert Objectives((goals[0], Objective("size", at_most=3.0))).recommendation != "best"


def test_chance_is_spoken_of_only_where_there_is_some() -> None:
    metrics = {"size": Metric("size", "", "min")}
    networks = {"searched": {"size": Measurement(1.0)}, "big": {"size": Measurement(2.0)}}
    (trained,) = Comparison(metrics, networks, ("size",)).verdict()
    (counted,) = Comparison(metrics, networks, ("size",), frozenset({"size"})).verdict()
    assert trained.endswith("(measured once: a small difference may be chance)")
    assert trained.startswith("ahead of big") and counted.startswith("better than big")


def test_a_counted_goal_is_no_matter_of_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(tmp_path, {"parameters": "min"})
    printed = capsys.readouterr().out
    assert "better than big" in printed and "chance" not in printed


SOMETIMES = '''
from nasengine import Estimator, Measurement, Metric

class Sometimes(Estimator):
    """Measures its second metric of some networks."""

    def metrics(self, search):
        return (Metric("q", "", "max"), Metric("more", "", "max"))

    def measure(self, candidate):
        convs = sum(choice == "conv" for choice in candidate.architecture.values())
        more = {} if convs else {"more": Measurement(2.0)}
        return {"q": Measurement(float(convs)), **more}
'''


def test_a_front_is_delivered_whose_members_have_unequal_metrics(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SOMETIMES)
    estimators = {"q": {"name": "own.py:Sometimes"}, "parameters": {}}
    goals = {"q": "max", "parameters": "min"}
    result = ran(tmp_path, goals, estimators=estimators, budget={"trials": 4}, references=[])
    assert len(result["front"]) > 1


def test_limits_that_contradict_each_other_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    goals = {"parameters": {"goal": "min", "at_least": "1k", "at_most": 200}}
    (tmp_path / "spec.toml").write_text(tomli_w.dumps({**tables(), "objectives": goals}))
    assert main(["check", "spec.toml"]) == 2
    assert "objectives.parameters: at_least 1k is above at_most 200" in capsys.readouterr().err


def test_the_table_speaks_of_references_only_where_there_are_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(tmp_path, {"parameters": "min"}, references=[])
    printed = capsys.readouterr().out
    assert "the searched network" in printed and "beside" not in printed

"""A run's report: one safe HTML file, made from the folder alone, whatever the folder holds."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from nasengine.architecture import Architecture
from nasengine.cli import main
from nasengine.errors import RunFolderError
from nasengine.history import History
from nasengine.report import data, write_report
from nasengine.report.charts import Axis, Series, chart, heat_map
from nasengine.report.costs import agreement
from nasengine.report.events import ClassFacts, Data, Log, SplitFacts, ValueFacts
from nasengine.report.html import join, tag
from nasengine.report.record import Record, read_record
from nasengine.report.scale import Scale, tick_text, ticks
from nasengine.runs.run_files import Environment
from nasengine.runs.storage import Storage
from nasengine.trial import Measurement, Status, Trial

HOSTILE = "<script>alert('x')</script>&\"'"


class Page(HTMLParser):
    """Collects a page's tags and attributes, and refuses tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "br", "hr"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "references": ["big"],
        "space": {"name": "nasengine.testing.stubs:TinySpace"},
        "task": {"name": "nasengine.testing.stubs:TinySegmentation"},
        "strategy": {"name": "random"},
        "estimators": {
            "parameters": {},
            "firsts": {"name": "nasengine.testing.stubs:CountingEstimator"},
        },
        "objectives": {"firsts": "max", "parameters": "min"},
        "budget": {"trials": 4},
        **changes,
    }


def run(folder: Path, **changes: Any) -> Path:
    path = folder / "spec.toml"
    path.write_text(tomli_w.dumps(spec(**changes)))
    assert main(["run", str(path), "--runs", str(folder / "runs"), "--quiet"]) == 0
    return folder / "runs" / "tiny-1"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(
        tmp_path_factory.mktemp("trained"),
        strategy={
            "name": "darts",
            "iterations": 12,
            "arch_every": 2,
            "batch": 2,
            "log_every": 4,
            "cost": {"parameters": 0.3},
        },
        estimators={
            "parameters": {},
            "iou": {"name": "trained", "iterations": 6, "batch": 2, "seeds": 2},
        },
        objectives={"iou": "max"},
        budget={"trials": 1},
    )


@pytest.fixture(scope="module")
def finally_trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose winner is trained by one estimator, then by another that decides nothing."""
    return run(
        tmp_path_factory.mktemp("finally"),
        estimators={"iou": {"name": "trained", "iterations": 4, "batch": 2}},
        objectives={"iou": "max"},
        budget={"trials": 1},
        final={
            "estimators": {
                "longer": {"name": "trained", "iterations": 9, "batch": 2, "learning_rate": 0.01}
            }
        },
    )


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def report(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def test_every_run_leaves_a_report_that_needs_nothing_else(finished: Path) -> None:
    page = Page((finished / "report.html").read_text(encoding="utf-8"))
    assert {"script", "link", "iframe", "object"}.isdisjoint(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "srcset", "action"):
            assert value is not None and value.startswith("data:image/")
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in (
        page.attributes
    )


def test_it_says_whether_the_search_won(finished: Path) -> None:
    text = Page(report(finished)).text
    told = json.loads((finished / "best" / "metrics.json").read_text())
    assert "the search won" in text and "Better than big by firsts" in text
    (standing,) = told["verdict"]
    assert (standing["reference"], standing["word"]) == ("big", "better")
    assert "better than big: firsts 2.000 against 0.000; 0.10x the parameters" in text
    # The ratio of the parameters stands under the reference's own.
    assert f"{told['ratios']['big']['parameters']:.2f}\N{MULTIPLICATION SIGN}" in text


def test_it_says_what_was_trained_on_and_judged_by(trained: Path, tmp_path: Path) -> None:
    told = read_record(trained).log.data
    splits = list(csv.DictReader((trained / "splits.csv").read_text().splitlines()))
    assert len(told) == 1
    for split, held in told[0].splits.items():
        assert held.samples == sum(row["split"] == split for row in splits) > 0
        assert set(held.classes) == {"0", "1"}
    text = Page(report(trained)).text
    assert "The data" in text and "trained on" in text and "chose the winner" in text

    older = Path(shutil.copytree(trained, tmp_path / "older"))
    lines = (older / "log.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["kind"] != "data"]
    (older / "log.jsonl").write_text("\n".join(kept))
    assert "The data" not in Page(report(older)).text


def test_a_tail_of_classes_and_targets_that_are_values_have_their_columns() -> None:
    held = ClassFacts(samples=3, share=0.00007)
    many = SplitFacts(3, {f"class {number}": held for number in range(20)})
    record = replace(read_nothing(), log=Log(data=[Data({"train": many}, ["3 of 32 x 32"])]))
    text = str(data.data(record))
    assert "8 more classes are not shown" in text and "0.007%" in text and "3 of 32 x 32" in text
    values = SplitFacts(3, values=ValueFacts(-1.0, 0.25, 2.0))
    record = replace(record, log=Log(data=[Data({"train": values})]))
    assert "-1 to 2, mean 0.25" in str(data.data(record))
    assert data.data(replace(record, log=Log())) is None


def read_nothing() -> Record:
    return Record(Path("run"), {}, History(), {}, 0.0, False, None, Environment())


def standing(reference: str, word: str, **more: Any) -> dict[str, Any]:
    return {"reference": reference, "word": word, "metric": "x", "mine": 2, "other": 1, **more}


LEVEL = {"level": 4, "of": 4, "metric": "firsts", "value": 1.0, "alone": True}


@pytest.mark.parametrize(
    ("verdict", "tie", "badge", "sentence"),
    [
        (
            [standing("a", "worse"), standing("b", "worse")],
            None,
            "the search lost",
            "Worse than a and b",
        ),
        (
            [standing("a", "better"), standing("b", "level")],
            None,
            "mixed",
            "Better than a, level with b",
        ),
        ([standing("a: b", "level")], None, "level", "Level with a: b by x"),
        (
            [standing("a", "ahead", split="validation", chosen_among=3)],
            None,
            "ahead, not proven",
            "Ahead of a by x, on the split that chose it",
        ),
        (
            [standing("a", "behind"), standing("b", "behind", later="unknown")],
            None,
            "behind, not proven",
            "Behind a and b by x",
        ),
        (
            [standing("a", "better", other=0, noise="samples", interval=[1, 3])],
            None,
            "nothing learned",
            "Better than a by x",
        ),
        (
            [standing("a", "level")],
            LEVEL,
            "trials level",
            "All 4 trials are level; level with a by x",
        ),
        (
            [{"reference": "a", "word": "not compared", "metric": "x"}],
            None,
            "finished",
            "x is not measured of both",
        ),
        ([], None, "finished", "not compared with a reference"),
        # As earlier versions have it: in their words, without a badge made of them.
        (["better than a: 2 against 1"], None, "finished", "better than a: 2 against 1"),
    ],
)
def test_a_lost_or_level_search_is_not_called_won(
    copy: Path,
    verdict: list[dict[str, Any]],
    tie: dict[str, Any] | None,
    badge: str,
    sentence: str,
) -> None:
    path = copy / "best" / "metrics.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "verdict": verdict, "tie": tie}))
    header = Page(re.search(r"<header>.*</header>", report(copy), re.S)[0]).text  # type: ignore[index]
    assert header.startswith(badge)
    assert 'class="badge won"' not in report(copy)
    assert sentence in header


def test_what_the_verdict_is_by_stands_in_the_headline_and_first_in_the_table(copy: Path) -> None:
    path = copy / "best" / "metrics.json"
    told = json.loads(path.read_text())
    told["metrics"]["firsts.test_x"] = {"unit": "", "direction": "max"}
    told["searched"]["measurements"]["firsts.test_x"] = {"value": 2.25, "unit": ""}
    judged = standing("big", "better", metric="firsts.test_x", split="test", mine=2.25, other=1.125)
    path.write_text(json.dumps({**told, "verdict": [judged]}))
    text = Page(report(copy)).text
    assert "Better than big by firsts.test_x, on the test split" in text
    first, second = (
        text.index(row) for row in ("test_x ↑ verdict, test split2.250", "↑ goal, chose the winner")
    )
    assert first < second


def test_several_goals_show_front_knee_and_hypervolume(finished: Path) -> None:
    text = Page(report(finished)).text
    assert "Front: firsts against parameters" in text
    assert "the knee: delivered" in text and "Hypervolume" in text
    assert "★ is the knee" in text and ", the knee; 2 slots" in text


def change(folder: Path, **changes: Any) -> dict[str, Any]:
    path = folder / "best" / "metrics.json"
    told: dict[str, Any] = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(told))
    return told


def test_decisions_that_slots_share_are_not_called_slots(copy: Path) -> None:
    told = change(copy)
    assert told["slots"] == {"first": 1, "second": 1}
    change(copy, slots={"first": 2, "second": 1})
    text = Page(report(copy)).text
    assert "2 decisions for 3 slots: " in text and "first (2 slots)" in text
    # A folder of before says nothing of slots.
    change(copy, slots={})
    assert "2 decisions: " in Page(report(copy)).text


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ((1.0, 2.0), "The front: 1 network; ★ is the knee"),
        (
            (2.0, 1.0),
            "The front: 2 networks; ★ is the knee (of two extremes, the better by firsts)",
        ),
    ],
)
def test_a_front_of_one_or_two_is_told_as_it_is(
    copy: Path, parameters: tuple[float, float], said: str
) -> None:
    storage = Storage(copy / "history.sqlite")
    storage._connection.execute("DELETE FROM trials")
    architecture = Architecture({"first": "conv", "second": "conv"})
    for number, count in enumerate(parameters):
        found = {"parameters": Measurement(count), "firsts": Measurement(9.0 - number)}
        storage.finish(Trial(number, architecture, str(number), Status.COMPLETE, found))
    storage.set_fact("finished", False)
    storage.close()
    assert said in Page(report(copy)).text


def test_each_estimator_that_trains_has_curves_of_its_own(finally_trained: Path) -> None:
    """Both begin at step 1: as one curve, the one's points stood between the other's."""
    steps = read_record(finally_trained).log.steps
    assert {(e.estimator, e.step) for e in steps if e.what.startswith("trial-0/")} == {
        *(("iou", step) for step in range(1, 5)),
        *(("longer", step) for step in range(1, 10)),
    }
    text = (finally_trained / "report.html").read_text()
    for title in ("Training loss", "Learning rate"):
        assert f"{title}, iou" in text and f"{title}, longer" in text


def test_a_gradient_search_is_told_from_its_log(trained: Path) -> None:
    text = Page(report(trained)).text
    for part in ("Loss", "Cost: parameters", "Entropy of the alphas", "Training loss"):
        assert part in text
    choices = json.loads((trained / "best" / "architecture.json").read_text())["choices"]
    rows = re.findall(r"<tr><th>(\w+)</th>((?:<td.*?</td>)+)</tr>", report(trained))
    assert {slot for slot, _ in rows} == {"first", "second"}
    order = re.search(r'class="heat"><thead>.*?</thead>', report(trained))
    assert order is not None
    names = re.findall(r"<th>(\w+)</th>", order[0])
    for slot, cells in rows:
        marked = ["✓" in cell for cell in re.findall(r"<td.*?</td>", cells)]
        assert marked.count(True) == 1
        assert names[marked.index(True)] == choices[slot]


def test_of_several_derived_networks_it_says_which_is_marked(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    log = (folder / "log.jsonl").read_text().splitlines()
    (derived,) = [line for line in log if json.loads(line)["kind"] == "darts_derived"]
    assert "marks what was derived." in report(folder)
    (folder / "log.jsonl").write_text("\n".join([*log, derived, derived]))
    assert "marks what was derived first, of 3 networks." in report(folder)


def test_seeds_predictions_and_predicted_costs_are_shown(trained: Path) -> None:
    html = report(trained)
    assert "iou of every training seed" in html
    assert "data:image/png;base64," in html and (trained / "best" / "predictions.png").is_file()
    # A table of parameters is exact, for what was derived as for every network.
    assert '<td class="number">+0.0%</td>' in html
    assert "Mean error 0.0% over 2 networks" in html


def test_it_is_rebuilt_without_torch_and_without_the_users_code(
    trained: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from nasengine.cli import main; "
        f"status = main(['report', {str(trained)!r}, '-o', {str(tmp_path / 'r.html')!r}]); "
        "print([m for m in ('torch', 'optuna', 'nasengine.testing') if m in sys.modules]); "
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "r.html").read_text() == report(trained)


def test_names_reasons_and_notes_are_text(copy: Path) -> None:
    (copy / "spec.toml").write_text(tomli_w.dumps(spec(name=HOSTILE)))
    (copy / "environment.json").write_text(
        json.dumps({"command": ["x", HOSTILE], "processor": HOSTILE, "packages": {HOSTILE: "1"}})
    )
    (copy / "best" / "architecture.svg").write_text(f"<svg>{HOSTILE}</svg>")
    with (copy / "log.jsonl").open("a") as log:
        for kind in ("warning", "note"):
            log.write(json.dumps({"kind": kind, "text": HOSTILE}) + "\n")
        log.write('{"kind": "warn')  # A crash cut this line off.
    storage = Storage(copy / "history.sqlite")
    architecture = Architecture({HOSTILE: HOSTILE})
    storage.finish(Trial(4, architecture, HOSTILE, Status.FAILED, {}, HOSTILE))
    storage.set_reference(
        Trial(-1, architecture, "", Status.FAILED, {}, HOSTILE, reference=HOSTILE)
    )
    storage.close()
    page = Page(report(copy))
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 8
    assert all(HOSTILE not in (value or "") or name != "href" for name, value in page.attributes)


def test_failed_and_infeasible_trials_stand_with_their_reasons(copy: Path) -> None:
    storage = Storage(copy / "history.sqlite")
    for number, status in ((4, Status.FAILED), (5, Status.INFEASIBLE), (6, Status.LOST)):
        found = {"parameters": Measurement(9.0)}
        trial = Trial(
            number, Architecture({"first": "conv"}), str(number), status, found, f"why {number}"
        )
        storage.finish(trial)
    storage.close()
    text = Page(report(copy)).text
    assert "4 complete, 1 infeasible, 1 failed, 1 lost" in text
    assert all(f"why {number}" in text for number in (4, 5, 6))


def test_a_long_history_is_cut_and_says_so(copy: Path) -> None:
    storage = Storage(copy / "history.sqlite")
    storage._connection.execute("BEGIN")
    for number in range(4, 620):
        found = {"parameters": Measurement(float(number)), "firsts": Measurement(number % 3)}
        trial = Trial(number, Architecture({"first": "conv"}), str(number), Status.COMPLETE, found)
        storage._connection.execute(
            "INSERT INTO trials VALUES (?, ?, ?, ?, ?, '', 0, 1, '', '')",
            [
                number,
                trial.key,
                json.dumps(dict(trial.architecture)),
                "complete",
                json.dumps({k: {"value": m.value} for k, m in found.items()}),
            ],
        )
    storage._connection.execute("COMMIT")
    storage.close()
    html = report(copy)
    assert "The first 500 of 620" in html
    assert html.count("<td>499</td>") == 1 and "<td>500</td>" not in html


def test_a_run_that_goes_on_is_reported_and_left_alone(copy: Path) -> None:
    shutil.rmtree(copy / "best")
    writing = Storage(copy / "history.sqlite")
    writing.set_fact("finished", False)
    try:
        text = Page(report(copy)).text
    finally:
        writing.close()
    assert f"nasengine resume {copy} --code nasengine.testing.stubs" in text
    assert text.index("Not finished: 4 trials so far") < text.index("Every trial")
    assert "Best firsts so far" in text


def test_what_is_missing_from_a_folder_is_left_out(copy: Path) -> None:
    for name in ("log.jsonl", "environment.json", "objectives.json"):
        (copy / name).unlink(missing_ok=True)
    for name in ("architecture.svg", "architecture.png"):
        (copy / "best" / name).unlink()
    text = Page(report(copy)).text
    assert "Better than big" in text and "Warnings" not in text


def test_a_folder_that_cannot_be_written_is_reported_on_elsewhere(
    copy: Path, tmp_path: Path
) -> None:
    before = (copy / "history.sqlite").read_bytes()
    names = sorted(path.name for path in copy.iterdir())
    write_report(copy, tmp_path / "r.html")
    assert (copy / "history.sqlite").read_bytes() == before
    assert sorted(path.name for path in copy.iterdir()) == names


def _not_a_run(folder: Path) -> None:
    (folder / "history.sqlite").unlink()


def _no_history(folder: Path) -> None:
    (folder / "history.sqlite").write_bytes(b"this is not a database" * 99)


def _another_database(folder: Path) -> None:
    (folder / "history.sqlite").unlink()
    with closing(sqlite3.connect(folder / "history.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE other (x)")


def _damaged_result(folder: Path) -> None:
    (folder / "best" / "metrics.json").write_text('{"metrics": 3, "searched": []}')


def _cut_result(folder: Path) -> None:
    (folder / "best" / "metrics.json").write_text('{"metrics"')


@pytest.mark.parametrize(
    "damage", [_not_a_run, _no_history, _another_database, _damaged_result, _cut_result]
)
def test_a_damaged_folder_is_named(
    copy: Path, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(copy)
    assert main(["report", str(copy), "-o", str(copy / "r.html")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {copy}")
    assert not (copy / "r.html").exists()


def test_a_report_that_fails_loses_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nothing to draw")

    monkeypatch.setattr("nasengine.report.write_report", broken)
    folder = run(tmp_path)
    warned = capsys.readouterr().err
    assert "no report: ZeroDivisionError: nothing to draw" in warned
    assert f"nasengine report {folder}" in warned
    assert not (folder / "report.html").exists()
    assert main(["resume", str(folder), "--code", "nasengine.testing.stubs"]) == 0
    with pytest.raises(RunFolderError):
        read_record(tmp_path)


@given(st.text(), st.text())
def test_text_never_becomes_a_tag(text: str, value: str) -> None:
    page = Page(tag("p", text, title=value))
    assert page.tags == ["p"]
    assert page.attributes[0][1] == value


@given(
    st.lists(st.tuples(st.floats(), st.floats()), max_size=8),
    st.sampled_from(["line", "dashed", "step", "dots", "rings", "diamonds", "stars"]),
)
def test_any_points_make_a_chart_or_none(points: list[tuple[float, float]], kind: Any) -> None:
    drawn = chart("title", [Series("a", points, 1, kind)], Axis("x"), Axis("y", "ms"))
    finite = [p for p in points if abs(p[0]) < 1e150 and abs(p[1]) < 1e150]
    assert (drawn is None) == (not finite)
    if drawn is not None:
        Page(drawn)
        assert "nan" not in drawn and "inf" not in drawn


@given(
    st.floats(-1e12, 1e12, allow_nan=False).flatmap(
        lambda low: st.tuples(st.just(low), st.floats(low, low + 1e12))
    )
)
def test_ticks_lie_on_the_axis(ends: tuple[float, float]) -> None:
    low, high = ends
    found = ticks(low, high)
    room = (high - low) * 1e-6
    assert all(low - room <= value <= high + room for value in found)
    assert len(found) <= 7
    assert found == sorted(found)


def test_a_constant_has_an_axis_around_it() -> None:
    assert Scale.over([3.0], 0, 100)(3.0) == 50.0
    assert [tick_text(value, "ms") for value in ticks(0, 2)] == ["0", "0.5", "1", "1.5", "2"]


def test_what_counts_has_whole_ticks() -> None:
    series = [Series("", [(0.0, 0.5), (1.0, 0.7)])]
    ticked = {
        counts: re.findall(r'class="middle">([^<]+)<', str(chart("t", series, axis, Axis("v"))))
        for counts in (True, False)
        for axis in [Axis("trial", counts=counts)]
    }
    assert ticked == {True: ["0", "1"], False: ["0", "0.2", "0.4", "0.6", "0.8", "1"]}


def test_a_heat_map_has_a_gap_where_a_decision_has_no_such_choice() -> None:
    rows = {"a": {"x": 0.9, "y": 0.1}, "b": {"y": 0.2, "z": 0.8}}
    drawn = heat_map("t", rows, {"a": "x", "b": "z"})
    assert drawn is not None
    assert drawn.count("<table") == 1 and drawn.count('class="none"') == 2
    assert drawn.count("✓") == 2


def test_a_heat_map_has_a_table_for_decisions_without_a_choice_of_the_others() -> None:
    """Blocks and widths in one were mostly gaps."""
    rows = {"a": {"x": 0.9}, "b": {"8": 1.0}, "c": {"y": 0.5}, "d": {"x": 0.1, "y": 0.4}}
    drawn = heat_map("t", rows, {"b": "8"})
    assert drawn is not None
    tables = [re.findall(r"<th>(\w+)</th>", table) for table in drawn.split("</table>")[:-1]]
    assert tables == [["8", "b"], ["x", "y", "a", "c", "d"]]
    assert drawn.count('class="none"') == 2


def test_agreement_of_costs_is_that_of_scipy() -> None:
    pairs = [(1.0, 2.0), (2.0, 1.0), (3.0, 3.0), (4.0, 4.0)]
    assert agreement(pairs) == "Mean error 37.5% over 4 networks; Kendall 0.67, Spearman 0.80."
    assert agreement([(2.0, 2.0), (2.0, 2.0)]) == "Mean error 0.0% over 2 networks."


def test_nested_html_is_escaped_once() -> None:
    assert join([tag("b", "a & b"), "<"]) == "<b>a &amp; b</b>&lt;"

"""Rows side by side: what was not measured, seeds that differ, columns and names that hold."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from nasengine import files
from nasengine.errors import InputError, StorageError
from nasengine.studies.comparison import Row, baseline_of, confidence_of, gain, rows
from nasengine.studies.comparison_notes import notes
from nasengine.studies.comparison_table import header, lines, write_comparison
from nasengine.studies.settings import settings_of
from nasengine.studies.summary import Summary
from nasengine.trial import Metric

METRICS = {
    "iou": Metric("iou", "", "max"),
    "iou.test_iou": Metric("test_iou", "", "max"),
    "flops": Metric("flops", "", "min"),
    "latency": Metric("latency", "ms", "min"),
}


def found(setting: str, seed: int, /, metrics: str = "iou", **values: float) -> Summary:
    known = {name: METRICS[name] for name in metrics.split()}
    folder = Path(f"{setting}-{seed}")
    return Summary(folder, {"strategy.name": setting}, seed, values, known, ("iou",), 2, 1.0)


def told(table: list[Row], baseline: str = "random") -> dict[str, dict[str, str]]:
    row = baseline_of(table, baseline)
    titles = header(table, row)
    return {cells[0]: dict(zip(titles, cells, strict=True)) for cells in lines(table, row)}


def test_a_row_without_the_goal_is_last_and_says_nothing(tmp_path: Path) -> None:
    unmeasured = found("unet (reference)", 0)
    table = rows([unmeasured, found("random", 0, iou=0.5), found("darts", 0, iou=0.6)])
    cells = told(table)
    assert list(cells) == ["darts", "random", "unet (reference)"]
    assert cells["unet (reference)"]["iou"] == "-"
    assert cells["unet (reference)"]["wins"] == "-"
    assert cells["unet (reference)"]["gain over random [95% interval]"] == "-"
    assert math.isnan(table[0].mean("iou"))
    assert told(table, "unet (reference)")["darts"]["wins"] == "-"
    write_comparison(table, baseline_of(table, "random"), tmp_path)
    assert (
        "| unet (reference) | 0 of 1 | - | - | - | - |" in (tmp_path / "comparison.md").read_text()
    )


def with_test(setting: str, seed: int, iou: float, test: float | None) -> Summary:
    values = {"iou": iou} if test is None else {"iou": iou, "iou.test_iou": test}
    summary = found(setting, seed, "iou iou.test_iou", **values)
    return replace(summary, tests={"iou": "iou.test_iou"})


def test_rows_are_judged_on_the_test_split_where_all_have_one(tmp_path: Path) -> None:
    random = [with_test("random", 0, 0.5, 0.45), with_test("random", 1, 0.5, 0.45)]
    lucky = [with_test("darts", 0, 0.6, 0.35), with_test("darts", 1, 0.6, 0.35)]
    table = rows([*random, *lucky])
    cells = told(table)
    assert list(cells) == ["random", "darts"]
    assert list(cells["darts"])[2] == "iou.test_iou"
    assert cells["darts"]["iou.test_iou"] == "0.350 ± 0.000"
    assert cells["darts"]["iou"] == "0.600 ± 0.000"
    assert cells["darts"]["gain over random [95% interval]"] == "-0.1"
    assert cells["darts"]["wins"] == "0/2"
    write_comparison(table, baseline_of(table, "random"), tmp_path)
    cells = told(rows([*random, lucky[0], with_test("darts", 1, 0.6, None)]))
    assert list(cells) == ["darts", "random"]
    assert list(cells["darts"])[2] == "iou"


def test_seeds_are_paired_where_both_were_measured() -> None:
    base = [found("random", seed, iou=value) for seed, value in enumerate((0.1, 0.5, 0.9))]
    other = [found("darts", 0), *(found("darts", s, iou=v) for s, v in ((1, 0.6), (2, 1.02)))]
    table = rows([*base, *other])
    cells = told(table)["darts"]
    assert cells["wins"] == "2/2"
    # By position, the seed without a value would have shifted every pair.
    assert cells["gain over random [95% interval]"].startswith("+0.11 [")
    back = told(table, "darts")["random"]
    assert back["wins"] == "0/2" and back["gain over darts [95% interval]"].startswith("-0.11 [")


def test_runs_that_do_not_compare_are_refused() -> None:
    first = found("random", 0, iou=0.5)
    with pytest.raises(InputError, match="random-0 and random-0: the same setting and seed twice"):
        rows([first, first])
    with pytest.raises(InputError, match="different goals"):
        rows([first, replace(found("darts", 0, "flops", flops=3.0), goals=("flops",))])


def test_one_seed_in_common_makes_no_pairs() -> None:
    base = [found("random", seed, iou=value) for seed, value in enumerate((0.1, 0.5))]
    cells = told(rows([*base, found("unet (reference)", 0, iou=0.4)]))["unet (reference)"]
    assert cells["gain over random [95% interval]"] == "+0.1"
    assert (cells["bootstrap"], cells["wins"]) == ("-", "1/1")


def test_lower_is_better_where_the_goal_is_a_minimum() -> None:
    runs = [
        replace(found(setting, seed, "flops iou", iou=0.5, flops=flops + seed), goals=("flops",))
        for setting, flops in (("random", 7.0), ("darts", 5.0), ("other", 7.0))
        for seed in (1, 0)
    ]
    unmeasured = replace(found("unet (reference)", 0, "flops"), goals=("flops",))
    table = rows([unmeasured, *runs])
    cells = told(table)
    assert list(cells) == ["darts", "random", "other", "unet (reference)"]
    assert list(table[1].runs) == [1, 0] and table[1].values("flops") == [7.0, 8.0]
    assert (cells["darts"][GAIN], cells["darts"]["wins"]) == ("+2", "2/2")
    assert (cells["other"][GAIN], cells["other"]["wins"]) == ("+0", "0/2 (2 level)")


def test_a_gain_of_many_is_written_as_the_metric_itself() -> None:
    runs = [
        replace(found(setting, seed, "flops", flops=flops * (1 + seed)), goals=("flops",))
        for setting, flops in (("random", 7e6), ("darts", 5e6))
        for seed in (0, 1)
    ]
    cells = told(rows(runs))["darts"]
    assert cells[GAIN] == "+3.00M [-9.71M, +15.71M]"
    assert cells["bootstrap"] == "[+2.00M, +4.00M]"


def test_every_value_stands_under_its_own_title() -> None:
    table = rows(
        [
            found("random", 0, "flops iou latency", iou=0.5, flops=7.0, latency=2.0),
            found("darts", 0, "latency iou", iou=0.6, latency=3.0),
        ]
    )
    for order in (table, table[::-1]):
        cells = told(order)
        assert (cells["random"]["flops"], cells["random"]["latency"]) == ("7.000", "2.00 ms")
        assert (cells["darts"]["flops"], cells["darts"]["latency"]) == ("-", "3.00 ms")


def names(folder: Path, *specs: Mapping[str, Any]) -> list[str]:
    paths = []
    for number, spec in enumerate(specs):
        paths.append(folder / str(number))
        paths[-1].mkdir()
        content = {"strategy": {"name": "random"}, "seed": number, **spec}
        (paths[-1] / "spec.toml").write_text(tomli_w.dumps(content))
    return [Row(setting).name for setting in settings_of(paths)]


FLOPS = {"name": "flops", "count_zeros": False}


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        (
            [{"estimators": {"flops": FLOPS, "size": {}}}, {"estimators": {"size": {}}}],
            ["flops", "no estimators.flops"],
        ),
        (
            [{"estimators": {"flops": {**FLOPS, "count_zeros": c}}} for c in (False, True)],
            ["count_zeros=False", "count_zeros=True"],
        ),
        (
            [{"strategy": {"name": "random"}}, {"strategy": {"name": "evolution", "sample": 2}}],
            ["random", "evolution"],
        ),
        (
            [{"space": {"width": 4, "depth": 2}}, {"space": {"width": 8, "depth": 3}}],
            ["depth=2, width=4", "depth=3, width=8"],
        ),
        (
            [
                {"space": {"width": 4}, "task": {"width": 4}},
                {"space": {"width": 8}, "task": {"width": 9}},
            ],
            ["space.width=4, task.width=4", "space.width=8, task.width=9"],
        ),
        (
            [{"space": {"prefix": "a"}}, {"space": {"prefix": ""}}, {"space": {}}],
            ["prefix=a", "prefix=''", "no space.prefix"],
        ),
    ],
)
def test_a_name_tells_a_row_apart(
    tmp_path: Path, specs: list[Mapping[str, Any]], expected: list[str]
) -> None:
    assert names(tmp_path, *specs) == expected


def test_a_reference_among_several_settings_has_a_plain_name() -> None:
    assert Row({"space.width": "", "strategy.name": "unet (reference)"}).name == "unet (reference)"


def test_a_name_is_no_formula_and_no_border(tmp_path: Path) -> None:
    table = rows([found("a $\\frac{$ | b", seed, iou=0.5 + seed / 9) for seed in (0, 1)])
    write_comparison(table, baseline_of(table, None), tmp_path)
    assert (tmp_path / "comparison.png").stat().st_size > 1000
    line = (tmp_path / "comparison.md").read_text().splitlines()[2]
    assert line.replace("\\|", "").count("|") == len(header(table, baseline_of(table, None))) + 1


def test_a_spreadsheet_finds_numbers(tmp_path: Path) -> None:
    def shifted(summary: Summary) -> Summary:
        return replace(summary, setting={**summary.setting, "space.shift": "-1"}, seconds=4.0)

    runs = [
        found(s, n, iou=v)
        for s, b in (("random", 0.1), ("darts", 0.4))
        for n, v in enumerate((b, 3 * b))
    ]
    many = [found(f"other {n}", seed, iou=0.2) for n in range(4) for seed in (0, 1)]
    table = rows(map(shifted, [*runs, *many, found("unet (reference)", 0)]))
    write_comparison(table, baseline_of(table, None), tmp_path)
    first, *_, last = csv.DictReader((tmp_path / "comparison.csv").read_text().splitlines())
    assert (first["strategy.name"], first["space.shift"], first["seeds"]) == ("darts", "-1", "2")
    assert float(first["low"]) < float(first["gain"]) < float(first["high"])
    assert float(first["bootstrap_low"]) < float(first["bootstrap_high"])
    assert float(first["confidence"]) == pytest.approx(0.99)
    gained = gain(table[1], table[0], "iou", 0.99)
    assert gained is not None and float(first["low"]) == gained.found.low
    assert (first["paired"], first["pairs"], first["wins"], first["ties"]) == (
        "True",
        "2",
        "2",
        "0",
    )
    assert (last["strategy.name"], last["mean"], last["gain"]) == ("unet (reference)", "", "")
    kept = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert len(kept) == 13 and (kept[3]["seed"], float(kept[3]["iou"])) == ("1", 0.4 * 3)
    assert {run["seconds"] for run in kept} == {"4.0"}
    assert {cells["search time"] for cells in told(table).values()} == {"4.0 s"}


def test_a_plot_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def full(path: Path) -> Iterator[None]:
        if path.suffix == ".png":
            raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(files, "durable_write", full)
    (tmp_path / "comparison.png").write_bytes(b"before")
    table = rows([found("random", 0, iou=0.5)])
    with pytest.raises(StorageError, match=r"cannot write .*comparison\.png: No space left"):
        write_comparison(table, baseline_of(table, None), tmp_path)
    assert (tmp_path / "comparison.png").read_bytes() == b"before"


def test_that_no_row_has_a_gain_is_told_with_what_to_do() -> None:
    """As of runs that differ in more than the strategy: their columns of gains are empty."""
    some = [found("random", 0, iou=0.5), found("darts", 0, iou=0.6)]
    apart = [
        replace(run, setting={**run.setting, "budget.trials": trials})
        for run, trials in zip(some, "39", strict=True)
    ]
    told_of = [notes(table, baseline_of(table, None)) for table in (rows(some), rows(apart))]
    assert not any("no gain" in note for note in told_of[0])
    assert "no gain over random: no row differs from one of it in the strategy alone" in (
        "\n".join(told_of[1])
    )


def test_intervals_hold_together_over_the_rows() -> None:
    random = [found("random", seed, iou=value) for seed, value in enumerate((0.1, 0.2, 0.3))]
    one = [found("darts", seed, iou=value) for seed, value in enumerate((0.5, 0.8, 0.6))]
    more = [found(f"other {n}", seed, iou=0.4) for n in range(4) for seed in range(3)]
    few, many = rows([*random, *one]), rows([*random, *one, *more])
    alone, among = (told(table)["darts"][GAIN] for table in (few, many))
    assert alone.split("[")[0] == among.split("[")[0] and alone != among
    assert among.split("[")[1].startswith("-"), "what five comparisons show is less"
    text = " ".join(notes(many, baseline_of(many, None)))
    assert "all 5 together: each has 99.0% (Bonferroni)" in text


def test_a_row_without_a_gain_makes_no_interval_wider() -> None:
    def under(width: str, summary: Summary) -> Summary:
        return replace(summary, setting={**summary.setting, "space.width": width})

    one = [
        found(s, seed, iou=v * (1 + seed))
        for s, v in (("random", 0.1), ("darts", 0.3))
        for seed in (0, 1)
    ]
    failed = [under("8", found("random", 0)), under("8", found("darts", 0, iou=0.5))]
    table = rows([*(under("4", run) for run in one), *failed])
    baseline = baseline_of(table, None)
    assert confidence_of(table, baseline) == 0.95
    assert "Bonferroni" not in " ".join(notes(table, baseline))


def test_notes_say_how_sure_a_value_is() -> None:
    def said(*runs: Summary) -> str:
        table = rows(runs)
        return " | ".join(notes(table, baseline_of(table, None)))

    counted = [
        replace(found(s, 0, "flops", flops=3.0), goals=("flops",), counted=frozenset({"flops"}))
        for s in ("random", "darts")
    ]
    assert "it is counted, so that measuring adds no chance" in said(*counted)
    assert "no intervals: they need two seeds" in said(*counted)
    assert "by the measurement that chose it" in said(found("random", 0, iou=0.5))
    untested = with_test("random", 0, 0.5, None)
    assert "by the split that chose it, which flatters it; the data have no" in said(untested)
    assert "on the test split, which chose nothing" in said(with_test("random", 0, 0.5, 0.4))
    both = [found(s, n, iou=v) for s in ("random", "darts") for n, v in enumerate((0.1, 0.3))]
    some = said(
        *both[:3], replace(both[3], values={"iou": 0.6}), found("unet (reference)", 0, iou=0.4)
    )
    assert "no intervals" not in some
    assert "where two seeds or more are shared, else unpaired (Welch), all 2 together" in some


def test_notes_say_what_was_spent_where_and_what_is_missing() -> None:
    runs = [
        replace(
            found(s, 0, iou=0.5),
            trials=10,
            ended={"complete": 7, "failed": count},
            budget={"trials": 10},
            machine=machine,
        )
        for s, count, machine in (("random", 0, "here"), ("darts", 3, "there"))
    ]
    table = rows([*runs, replace(found("unet (reference)", 1, iou=0.4), problem="iou: too dear")])
    said = notes(table, baseline_of(table, None))
    assert "trials not measured in full: darts 3 failed of 10" in said
    assert "measured on here and there: times and latencies do not compare" in said
    assert "unet (reference), seed 1: not measured in full: iou: too dear" in said
    (budget,) = [note for note in said if note.startswith("budget")]
    assert budget.startswith("budget of each search: 10 trials; search time is wall-clock")
    timed = [replace(run, budget={"seconds": 60.0}, machine="here") for run in runs]
    said = notes(rows(timed), baseline_of(rows(timed), None))
    assert any("one under way at the end is measured to its end" in note for note in said)
    assert "measured on here" in said


GAIN = "gain over random [95% interval]"


POINTS = {"random": [(0.5, 3.0), (0.7, 7.0)], "darts": [(0.55, 2.0), (0.6, 3.0), (0.9, 9.0)]}


def with_front(setting: str, seed: int, tested: bool = False) -> Summary:
    """Return a search for two goals; on the test split random search's networks are better."""
    front = [{"iou": iou, "flops": flops} for iou, flops in POINTS[setting]]
    test = 0.95 if setting == "random" else 0.4
    front = [{**network, **({"iou.test_iou": test} if tested else {})} for network in front]
    knee = front[1] if setting == "darts" else front[-1]
    run = found(setting, seed, "iou flops iou.test_iou", **knee)
    tests = {"iou": "iou.test_iou"}
    return replace(run, goals=("iou", "flops"), front=front, tests=tests)


VOLUME = "front's hypervolume"


def test_searches_for_two_goals_are_compared_by_their_whole_fronts(tmp_path: Path) -> None:
    reference = replace(found("unet (reference)", 0, "iou flops", iou=0.99, flops=9.0), seed=0)
    table = rows([with_front(s, seed) for s in ("random", "darts") for seed in (0, 1)])
    table += rows([reference])
    cells = told(table)
    # The knee of the better front is worse by the first goal.
    assert (cells["random"]["iou"], cells["darts"]["iou"]) == ("0.700 ± 0.000", "0.600 ± 0.000")
    assert list(cells) == ["darts", "random", "unet (reference)"]
    # Of 0.5 to 0.9 and 2 to 9, and a tenth beyond the worst, by hand.
    mine = [(0.35 / 0.4, 0.0), (0.75, 1 / 7), (0.0, 1.0)]
    area = (1.1 - mine[0][0]) * 1.1 + (mine[0][0] - 0.75) * (1.1 - 1 / 7) + 0.75 * 0.1
    assert table[1].mean(VOLUME) == pytest.approx(area / 1.1**2)
    assert cells["darts"]["wins"] == "2/2"
    assert (cells["unet (reference)"]["seeds"], cells["unet (reference)"][VOLUME]) == ("1", "-")
    baseline = baseline_of(table, "random")
    assert "the range of iou and flops over all fronts" in notes(table, baseline)[0]
    write_comparison(table, baseline, tmp_path)
    assert VOLUME in (tmp_path / "runs.csv").read_text().splitlines()[0]


def test_a_goal_in_which_no_fronts_differ_makes_no_volume_endless() -> None:
    level = [replace(with_front(s, 0), front=[{"iou": 0.5, "flops": 3.0}]) for s in POINTS]
    assert [row.mean(VOLUME) for row in rows(level)] == [1.0, 1.0]


def test_what_has_no_front_has_no_volume_and_keeps_others_from_none() -> None:
    failed = Summary(
        Path("evolution-0"), {"strategy.name": "evolution"}, 0, {}, problem="no network"
    )
    reference = found("unet (reference)", 0, "iou flops", iou=0.99, flops=9.0)
    reference = replace(reference, goals=("iou", "flops"))
    cells = told(rows([failed, reference, *(with_front(s, 0) for s in POINTS)]))
    assert list(cells)[:2] == ["darts", "random"]
    assert [row[VOLUME] for row in cells.values()][2:] == ["-", "-"]


def test_fronts_of_three_goals_are_compared_by_their_volume() -> None:
    def table(*goals: str) -> list[Row]:
        points = {"random": (0.5, 3.0, 2.0), "darts": (0.4, 2.0, 1.0)}
        fronts = {
            s: dict(zip(METRICS, (p[0], 0.0, *p[1:]), strict=True)) for s, p in points.items()
        }
        runs = (found(s, 0, " ".join(goals), **point) for s, point in fronts.items())
        return rows(replace(r, goals=goals, front=[r.values]) for r in runs)

    # Of the box of 1.1 to each side, one has a tenth by all of two goals, the other the reverse.
    three = table("iou", "flops", "latency")
    assert "iou, flops and latency over all" in notes(three, baseline_of(three, "random"))[0]
    worse, better = sorted(row.mean(VOLUME) for row in three)
    assert better == pytest.approx(0.1 * 1.1**2 / 1.1**3)
    assert worse == pytest.approx(1.1 * 0.1**2 / 1.1**3)


def test_fronts_of_many_goals_are_too_dear_to_weigh() -> None:
    goals = ("iou", "flops", "latency", "iou.test_iou")
    point = dict.fromkeys(goals, 1.0)
    runs = [
        replace(found(s, 0, " ".join(goals), **point), goals=goals, front=[point]) for s in POINTS
    ]
    assert list(told(rows(runs))["darts"])[2] == "iou"


def test_a_row_is_held_against_the_baseline_whatever_settings_its_strategy_has() -> None:
    def row(strategy: str, population: str, width: str) -> Row:
        return Row(
            {"strategy.name": strategy, "strategy.population": population, "space.width": width}
        )

    table = [row("random", "", w) for w in "48"] + [row("evolution", "5", w) for w in "48"]
    baseline = baseline_of(table, None)
    assert [baseline.of(one) for one in table] == [None, None, table[0], table[1]]


def test_fronts_are_compared_on_the_test_split_where_all_their_networks_have_it() -> None:
    table = rows([with_front(s, seed, tested=True) for s in POINTS for seed in (0, 1)])
    assert list(told(table)) == ["random", "darts"]
    assert "iou.test_iou and flops" in notes(table, baseline_of(table, "random"))[0]
    mixed = rows([with_front("random", 0, tested=True), with_front("darts", 0)])
    assert list(told(mixed)) == ["darts", "random"]

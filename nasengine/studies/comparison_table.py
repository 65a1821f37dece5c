"""A comparison as it is shown and kept: cells of text, notes, Markdown, CSV, a plot."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nasengine.files import write_atomically
from nasengine.quantities import format_count, format_duration
from nasengine.statistics import mean
from nasengine.studies.comparison import (
    Baseline,
    Gain,
    Row,
    confidence_of,
    gain,
    goals_of,
    judged,
    metric_of,
    ranked,
)
from nasengine.studies.comparison_notes import notes
from nasengine.studies.figure import write_figure
from nasengine.studies.summary import ABSENT, UNMEASURED

SPARE = ("bootstrap",)
"""Titles of `header` that a narrow table does without: the t interval is the one to judge by."""


def header(table: Sequence[Row], baseline: Baseline) -> list[str]:
    """Return the titles of `lines`."""
    title = f"gain over {baseline.name} [95% interval]"
    measured = ["setting", "seeds", judged(table), title, *SPARE, "wins", *_others(table)]
    return [*measured, "trials", "search time"]


def lines(table: Sequence[Row], baseline: Baseline) -> list[list[str]]:
    """Return the comparison as cells of text, the best first, the unmeasured last.

    The gain is by `judged`, positive when better; `notes` says how its intervals are made.
    """
    metric, others = judged(table), _others(table)
    confidence = confidence_of(table, baseline)
    goal = goals_of(table)[0]
    return [_line(row, baseline, goal, metric, others, confidence) for row in ranked(table)]


def _others(table: Sequence[Row]) -> list[str]:
    """Return the metrics beside the judged one that any row has."""
    shown = dict.fromkeys(metric for row in table for metric in row.shown)
    return [metric for metric in shown if metric != judged(table)]


def _line(
    row: Row, baseline: Baseline, goal: str, metric: str, others: Sequence[str], confidence: float
) -> list[str]:
    against = baseline.of(row)
    gained = ["", "", ""]
    if against is not None:
        gained = _gain_cells(gain(row, against, metric, confidence))
    cells = [row.name, _seeds(row, goal), row.cell(metric), *gained]
    return [*cells, *(row.cell(other) for other in others), *_used(row)]


def _seeds(row: Row, goal: str) -> str:
    """Return how many seeds have a value of the goal, and of how many where that is not all."""
    count = len(row.values(goal))
    return str(count) if count == len(row.runs) else f"{count} of {len(row.runs)}"


def _used(row: Row) -> list[str]:
    """Return the mean trials and the mean time of a search."""
    searched = [run for run in row.runs.values() if run.trials]
    if not searched:
        return ["", ""]
    seconds = mean([run.seconds for run in searched])
    return [f"{mean([run.trials for run in searched]):g}", format_duration(seconds)]


def _gain_cells(found: Gain | None) -> list[str]:
    """Return the gain with its interval, the bootstrap's, and the wins."""
    if found is None:
        return [ABSENT, ABSENT, ABSENT]
    wins = ABSENT
    if found.pairs:
        level = f" ({found.ties} level)" if found.ties else ""
        wins = f"{found.wins}/{found.pairs}{level}"
    gained = found.found
    if math.isnan(gained.low):
        return [_signed(gained.value), ABSENT, wins]
    interval, resampled = (
        f"[{_signed(low)}, {_signed(high)}]"
        for low, high in ((gained.low, gained.high), gained.bootstrap)
    )
    return [f"{_signed(gained.value)} {interval}", resampled, wins]


def _signed(value: float) -> str:
    """Write a gain in its metric's unit; a number of things as shortly as the metric itself."""
    return f"{value:+.4g}" if abs(value) < 10_000 else f"{'+' * (value > 0)}{format_count(value)}"


def markdown(table: Sequence[Row], baseline: Baseline) -> str:
    """Return the comparison as a Markdown table with its notes."""
    titles = header(table, baseline)
    ruled = [titles, ["---"] * len(titles), *lines(table, baseline)]
    drawn = "".join(f"| {' | '.join(map(_markdown_cell, cells))} |\n" for cells in ruled)
    return drawn + "\n" + "".join(f"- {note}\n" for note in notes(table, baseline))


def _markdown_cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())


def write_runs(table: Sequence[Row], path: Path) -> None:
    """Write every run as a line of CSV."""
    metrics = list(
        dict.fromkeys(m for row in table for run in row.runs.values() for m in run.values)
    )
    keys = list(table[0].setting)
    titles = [*keys, "seed", "trials", "seconds", *UNMEASURED, *metrics, "problem", "folder"]
    found = [
        [
            *_setting_cells(row),
            seed,
            run.trials,
            round(run.seconds, 3),
            *(run.ended.get(status, 0) for status in UNMEASURED),
            *(run.values.get(metric, "") for metric in metrics),
            run.problem,
            run.folder.name,
        ]
        for row in table
        for seed, run in sorted(row.runs.items())
    ]
    _write_csv(path, titles, found)


def write_rows(table: Sequence[Row], baseline: Baseline, path: Path) -> None:
    """Write every row of the table as a line of CSV, in numbers."""
    metric, confidence = judged(table), confidence_of(table, baseline)
    titles = [*table[0].setting, "seeds", "metric", "mean", "deviation", "baseline", "gain"]
    titles += ["low", "high", "confidence", "bootstrap_low", "bootstrap_high", "paired"]
    titles += ["pairs", "wins", "ties"]
    found = []
    for row in ranked(table):
        values = [len(row.values(metric)), metric, row.mean(metric), row.deviation(metric)]
        against = baseline.of(row)
        told = None if against is None else gain(row, against, metric, confidence)
        compared: list[Any] = []
        if against is not None and told is not None:
            gained = told.found
            bounds = [gained.low, gained.high, confidence, *gained.bootstrap]
            counted = [told.paired, told.pairs, told.wins, told.ties]
            compared = [against.name, gained.value, *bounds, *counted]
        line = [*_setting_cells(row), *values, *compared]
        found.append([*line, *[""] * (len(titles) - len(line))])
    _write_csv(path, titles, found)


def _setting_cells(row: Row) -> list[str]:
    return [value if value != ABSENT else "" for value in row.setting.values()]


def _write_csv(path: Path, titles: Sequence[str], found: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    for line in (titles, *found):
        writer.writerow([_csv_cell(value) for value in line])
    write_atomically(path, text.getvalue())


def _csv_cell(value: Any) -> Any:
    """Leave NaN empty, and keep a spreadsheet from taking text for a formula."""
    if isinstance(value, float) and math.isnan(value):
        return ""
    starts = ("=", "+", "-", "@", "\t", "\r")
    if not isinstance(value, str) or value[:1] not in starts or _is_number(value):
        return value
    return f"'{value}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def plot(table: Sequence[Row], path: Path) -> None:
    """Draw the judged metric of every run that has it, with means and standard deviations."""
    from matplotlib.figure import Figure

    name = judged(table)
    unit = metric_of(table, name).unit
    ordered = [row for row in ranked(table)[::-1] if row.values(name)]
    names = ["\n".join(textwrap.wrap(row.name, 36)) for row in ordered]
    figure = Figure(figsize=(8, 1.2 + 0.55 * len(ordered)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(ordered):
        values, spread = row.values(name), row.deviation(name)
        # One above the other, so that equal values are seen to be several.
        heights = [place + 0.4 * ((n + 0.5) / len(values) - 0.5) for n in range(len(values))]
        axes.plot(values, heights, "o", color="#9db4c8", markersize=5)
        error = 0.0 if math.isnan(spread) else spread
        axes.errorbar(row.mean(name), place, xerr=error, fmt="D", color="#1f4e79", capsize=4)
    # A name is a name, not a formula: a dollar in it would have to be sound TeX.
    axes.set_yticks(range(len(ordered)), names, parse_math=False)
    axes.set_ylim(-0.5, len(ordered) - 0.5)
    axes.set_xlabel(f"{name} ({unit})" if unit else name, parse_math=False)
    figure.suptitle("each run, mean and standard deviation", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    write_figure(figure, path)


FILES = ("comparison.md", "comparison.csv", "runs.csv", "comparison.png")


def write_comparison(table: Sequence[Row], baseline: Baseline, folder: Path) -> None:
    """Write the table as ``comparison.md``, ``.csv``, ``.png``, and every run in ``runs.csv``."""
    write_atomically(folder / "comparison.md", markdown(table, baseline))
    write_rows(table, baseline, folder / "comparison.csv")
    write_runs(table, folder / "runs.csv")
    plot(table, folder / "comparison.png")

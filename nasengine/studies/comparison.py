"""Comparing finished runs: one row a setting, over its seeds, against a baseline."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nasengine.errors import InputError, did_you_mean
from nasengine.files import write_atomically
from nasengine.quantities import format_duration, format_quantity
from nasengine.statistics import Difference, deviation, difference, mean
from nasengine.studies.summary import ABSENT, Summary
from nasengine.trial import Metric

SPARE = ("bootstrap",)
"""Titles of `header` that a narrow table does without: the t interval is the one to judge by."""


@dataclass(frozen=True)
class Row:
    """One setting over its seeds.

    Parameters
    ----------
    setting
        What was varied.
    runs
        Its runs, by seed.
    """

    setting: Mapping[str, str]
    runs: Mapping[int, Summary] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The setting as text; a bare yes, no or nothing has its key with it."""
        return ", ".join(_named(key, value) for key, value in self.setting.items() if value)

    def values(self, metric: str) -> list[float]:
        """Return the winners' values in order of seed, where they are measured."""
        return list(self._by_seed(metric).values())

    def _by_seed(self, metric: str) -> dict[int, float]:
        found = sorted(self.runs.items())
        return {seed: run.values[metric] for seed, run in found if metric in run.values}

    def pairs(self, other: Row, metric: str) -> list[tuple[float, float]]:
        """Return the values of this and of another row at the seeds where both are measured."""
        mine, others = self._by_seed(metric), other._by_seed(metric)
        return [(value, others[seed]) for seed, value in mine.items() if seed in others]

    def mean(self, metric: str) -> float:
        """Return the mean over seeds; NaN where it is measured at none."""
        values = self.values(metric)
        return mean(values) if values else math.nan

    def deviation(self, metric: str) -> float:
        """Return the standard deviation over seeds; NaN for a single one."""
        return deviation(self.values(metric))

    def against(self, baseline: Row, metric: str) -> Difference | None:
        """Return the gain over a baseline, positive when better; None where one has no value.

        It is of the seeds that both have, paired; where these are fewer than two, of all seeds.
        """
        sign = 1.0 if self.metric(metric).direction == "max" else -1.0
        pairs = self.pairs(baseline, metric)
        if len(pairs) > 1:
            return difference(
                [sign * a for a, _ in pairs], [sign * b for _, b in pairs], paired=True
            )
        mine, other = self.values(metric), baseline.values(metric)
        if not mine or not other:
            return None
        return difference([sign * v for v in mine], [sign * v for v in other], paired=False)

    def wins(self, baseline: Row, metric: str) -> int:
        """Count the seeds at which this is strictly better than the baseline."""
        sign = 1.0 if self.metric(metric).direction == "max" else -1.0
        return sum(sign * mine > sign * other for mine, other in self.pairs(baseline, metric))

    def cell(self, metric: str) -> str:
        """Return mean and standard deviation as text."""
        if not self.values(metric):
            return ABSENT
        unit = self.metric(metric).unit
        text, spread = format_quantity(self.mean(metric), unit), self.deviation(metric)
        return text if math.isnan(spread) else f"{text} ± {format_quantity(spread, unit)}"

    def metric(self, name: str) -> Metric:
        """Return what is known of a metric."""
        return next(run.metrics[name] for run in self.runs.values() if name in run.metrics)

    @property
    def goals(self) -> tuple[str, ...]:
        """The metrics that were optimised, the primary first."""
        return self._any.goals

    @property
    def shown(self) -> list[str]:
        """The primary metrics of the estimators, which a table has room for."""
        known = dict.fromkeys(name for run in self.runs.values() for name in run.metrics)
        return [name for name in known if "." not in name]

    @property
    def _any(self) -> Summary:
        return next(iter(self.runs.values()))


def _named(key: str, value: str) -> str:
    plain = key.removesuffix(".name")
    if value == ABSENT:
        return f"no {plain}"
    return f"{key.rpartition('.')[2]}={value}" if value in ("True", "False", "''") else value


def rows(summaries: Iterable[Summary]) -> list[Row]:
    """Group runs by setting, in order of appearance.

    Raises
    ------
    InputError
        If two runs have the same setting and seed, or the runs have different goals.
    """
    grouped: dict[tuple[tuple[str, str], ...], dict[int, Summary]] = {}
    goals: set[tuple[str, ...]] = set()
    for summary in summaries:
        runs = grouped.setdefault(tuple(summary.setting.items()), {})
        if summary.seed in runs:
            other = runs[summary.seed].folder
            raise InputError(f"{summary.folder} and {other}: the same setting and seed twice")
        runs[summary.seed] = summary
        goals.add(summary.goals)
    if len(goals) > 1:
        raise InputError(f"the runs have different goals: {sorted(goals)}")
    return [Row(dict(setting), runs) for setting, runs in grouped.items()]


def write_csv(table: Sequence[Row], path: Path) -> None:
    """Write every run of an ablation as a line of CSV."""
    metrics = list(
        dict.fromkeys(m for row in table for run in row.runs.values() for m in run.values)
    )
    keys = list(table[0].setting)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*map(_cell, keys), "seed", "trials", "seconds", *map(_cell, metrics)])
    for row in table:
        for seed, found in sorted(row.runs.items()):
            values = [found.values.get(metric, "") for metric in metrics]
            writer.writerow(
                [
                    *(_cell(said) if said != ABSENT else "" for said in row.setting.values()),
                    seed,
                    found.trials,
                    round(found.seconds, 3),
                    *values,
                ]
            )
    write_atomically(path, text.getvalue())


def _cell(text: str) -> str:
    """Keep a spreadsheet from taking text for a formula."""
    return (
        f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") and not _number(text) else text
    )


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def baseline_of(table: Sequence[Row], name: str | None) -> Row:
    """Return the row to compare with: the named one, else random search, else the first.

    Raises
    ------
    InputError
        If there is no such row.
    """
    names = {row.name: row for row in table}
    if name is not None and name not in names:
        raise InputError(f"--baseline: no row {name!r}; {did_you_mean(name, names)}")
    return names[name] if name is not None else names.get("random", table[0])


def header(table: Sequence[Row], baseline: Row) -> list[str]:
    """Return the titles of `lines`."""
    gain = f"gain over {baseline.name} [95% interval]"
    measured = ["setting", "seeds", judged(table), gain, *SPARE, "wins", *_others(table)]
    return [*measured, "trials", "search time"]


def lines(table: Sequence[Row], baseline: Row) -> list[list[str]]:
    """Return the comparison as cells of text, the best first, the unmeasured last.

    The gain is by `judged`, positive when better; see `nasengine.statistics.difference` for its
    interval and for the bootstrap's beside it. An interval that holds 0 shows no difference.
    """
    metric, others = judged(table), _others(table)
    return [_line(row, baseline, metric, others) for row in _ranked(table)]


def judged(table: Sequence[Row]) -> str:
    """Return the metric that rows are judged by: the goal's on the test split where all have it.

    A winner was chosen by the goal, so that its own value there is too good, and by how much
    differs between strategies.
    """
    goal = table[0].goals[0]
    runs = [run for row in table for run in row.runs.values() if goal in run.values]
    tests = {run.tests.get(goal, "") for run in runs}
    test = tests.pop() if len(tests) == 1 else ""
    return test if test and all(test in run.values for run in runs) else goal


def _others(table: Sequence[Row]) -> list[str]:
    """Return the metrics beside the judged one that any row has."""
    shown = dict.fromkeys(metric for row in table for metric in row.shown)
    return [metric for metric in shown if metric != judged(table)]


def _ranked(table: Sequence[Row]) -> list[Row]:
    metric = judged(table)
    sign = -1.0 if table[0].metric(metric).direction == "max" else 1.0

    def rank(row: Row) -> tuple[bool, float]:
        value = row.mean(metric)
        return (True, 0.0) if math.isnan(value) else (False, sign * value)

    return sorted(table, key=rank)


def _line(row: Row, baseline: Row, metric: str, others: Sequence[str]) -> list[str]:
    gain = ["", "", ""] if row is baseline else _gain(row, baseline, metric)
    trials = mean([run.trials for run in row.runs.values()])
    seconds = mean([run.seconds for run in row.runs.values()])
    used = [f"{trials:g}", format_duration(seconds)] if trials else ["", ""]
    cells = [row.name, str(len(row.runs)), row.cell(metric), *gain]
    return [*cells, *(row.cell(other) for other in others), *used]


def _gain(row: Row, baseline: Row, metric: str) -> list[str]:
    """Return the gain with its interval, the bootstrap's, and the wins."""
    found = row.against(baseline, metric)
    if found is None:
        return [ABSENT, ABSENT, ABSENT]
    pairs = len(row.pairs(baseline, metric))
    wins = f"{row.wins(baseline, metric)}/{pairs}" if pairs else ABSENT
    if math.isnan(found.low):
        return [f"{found.value:+.4g}", ABSENT, wins]
    interval, resampled = (
        f"[{low:+.4g}, {high:+.4g}]" for low, high in ((found.low, found.high), found.bootstrap)
    )
    return [f"{found.value:+.4g} {interval}", resampled, wins]


def markdown(table: Sequence[Row], baseline: Row) -> str:
    """Return the comparison as a Markdown table."""
    titles = header(table, baseline)
    ruled = [titles, ["---"] * len(titles), *lines(table, baseline)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in ruled)


def plot(table: Sequence[Row], path: Path) -> None:
    """Draw every run's judged metric by setting, with means and standard deviations."""
    from matplotlib.figure import Figure

    name = judged(table)
    unit = table[0].metric(name).unit
    ordered = _ranked(table)[::-1]
    names = ["\n".join(textwrap.wrap(row.name.replace(",", ", "), 36)) for row in ordered]
    figure = Figure(figsize=(8, 1.2 + 0.55 * len(ordered)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(ordered):
        values = row.values(name)
        if not values:
            continue
        spread = deviation(values)
        axes.plot(values, [place] * len(values), "o", color="#9db4c8", markersize=5)
        error = 0.0 if math.isnan(spread) else spread
        axes.errorbar(row.mean(name), place, xerr=error, fmt="D", color="#1f4e79", capsize=4)
    axes.set_yticks(range(len(ordered)), names)
    axes.set_xlabel(f"{name} ({unit})" if unit else name)
    figure.suptitle("each run, mean and standard deviation", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=150)


def write_comparison(table: Sequence[Row], baseline: Row, folder: Path) -> None:
    """Write the comparison as ``comparison.csv``, ``.md`` and ``.png``."""
    write_csv(table, folder / "comparison.csv")
    write_atomically(folder / "comparison.md", markdown(table, baseline))
    plot(table, folder / "comparison.png")

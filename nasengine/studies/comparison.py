"""Comparing finished runs: one row a setting, over its seeds, against a baseline."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasengine.errors import InputError, RunFolderError, did_you_mean
from nasengine.files import write_atomically
from nasengine.quantities import format_duration, format_quantity
from nasengine.statistics import Difference, deviation, difference, mean
from nasengine.trial import Metric, Trial


@dataclass(frozen=True)
class Summary:
    """What one finished run found.

    Parameters
    ----------
    folder
        The run's folder.
    setting
        What was varied, seed excepted.
    seed
        The seed.
    values
        The winner's measurements by metric.
    metrics
        The metrics, by name.
    goals
        Those optimised, the primary first.
    trials, seconds
        What the search used, supernet training included.
    """

    folder: Path
    setting: Mapping[str, str]
    seed: int
    values: Mapping[str, float]
    metrics: Mapping[str, Metric]
    goals: tuple[str, ...]
    trials: int
    seconds: float


def summarise(folder: Path, setting: Mapping[str, str]) -> Summary:
    """Read a finished run.

    Raises
    ------
    RunFolderError
        If it holds no finished run.
    """
    try:
        found = json.loads((folder / "best" / "metrics.json").read_text(encoding="utf-8"))
        spec = _identity(folder)["spec"]
        return Summary(
            folder,
            setting,
            spec["seed"],
            {name: m["value"] for name, m in found["searched"]["measurements"].items()},
            {
                name: Metric(name, about["unit"], about["direction"])
                for name, about in found["metrics"].items()
            },
            tuple(found["goals"]),
            found["trials"],
            found["seconds"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder}: not a finished run ({error})") from error


def settings_of(folders: Sequence[Path]) -> list[dict[str, str]]:
    """Say of each run what makes it different from the others, seed and name apart.

    Raises
    ------
    RunFolderError
        If a folder holds no run.
    """
    specs = [_flat(_identity(folder)["spec"]) for folder in folders]
    keys = {key for spec in specs for key in spec} - {"seed", "name"}
    differing = sorted(k for k in keys if len({repr(spec.get(k)) for spec in specs}) > 1)
    # Settings that one strategy alone has follow from its name.
    if "strategy.name" in differing:
        shared = [k for k in differing if all(k in spec for spec in specs)]
        twice = len({tuple(repr(s.get(k)) for k in differing) for s in specs})
        fewer = len({tuple(repr(s.get(k)) for k in shared) for s in specs})
        differing = shared if fewer == twice else differing
    keys_shown = differing or ["strategy.name"]
    return [{key: str(spec.get(key, "")) for key in keys_shown} for spec in specs]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    return {
        k: v
        for key, item in value.items()
        for k, v in _flat(item, f"{path}.{key}".lstrip(".")).items()
    }


def _identity(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder}: not a run's folder ({error})") from error


def summarise_references(folder: Path, trials: Mapping[str, Trial], like: Summary) -> list[Summary]:
    """Return reference networks as runs of no trial, with the metrics and goals of a real one."""
    first, *others = like.setting
    return [
        Summary(
            folder,
            {first: f"{name} (reference)", **dict.fromkeys(others, "")},
            like.seed,
            {metric: m.value for metric, m in trial.measurements.items()},
            like.metrics,
            like.goals,
            0,
            0.0,
        )
        for name, trial in trials.items()
    ]


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
        """The setting as text."""
        return ", ".join(self.setting.values())

    def values(self, metric: str) -> list[float]:
        """Return the winners' values in order of seed, where they are measured."""
        return [run.values[metric] for _, run in sorted(self.runs.items()) if metric in run.values]

    def mean(self, metric: str) -> float:
        """Return the mean over seeds."""
        return mean(self.values(metric))

    def deviation(self, metric: str) -> float:
        """Return the standard deviation over seeds; NaN for a single one."""
        return deviation(self.values(metric))

    def against(self, baseline: Row, metric: str) -> Difference:
        """Return the gain over a baseline, positive when better; paired by seed where possible."""
        sign = 1.0 if self.metric(metric).direction == "max" else -1.0
        mine, other = self.values(metric), baseline.values(metric)
        paired = sorted(self.runs) == sorted(baseline.runs)
        return difference([sign * v for v in mine], [sign * v for v in other], paired=paired)

    def wins(self, baseline: Row, metric: str) -> int:
        """Count the seeds at which this is strictly better than the baseline."""
        sign = 1.0 if self.metric(metric).direction == "max" else -1.0
        return sum(
            sign * run.values[metric] > sign * baseline.runs[seed].values[metric]
            for seed, run in self.runs.items()
            if seed in baseline.runs
        )

    def cell(self, metric: str) -> str:
        """Return mean and standard deviation as text."""
        if not self.values(metric):
            return "-"
        unit = self.metric(metric).unit
        text, spread = format_quantity(self.mean(metric), unit), self.deviation(metric)
        return text if math.isnan(spread) else f"{text} ± {format_quantity(spread, unit)}"

    def metric(self, name: str) -> Metric:
        """Return what is known of a metric."""
        return self._any.metrics[name]

    @property
    def goals(self) -> tuple[str, ...]:
        """The metrics that were optimised, the primary first."""
        return self._any.goals

    @property
    def shown(self) -> list[str]:
        """The primary metrics of the estimators, which a table has room for."""
        return [name for name in self._any.metrics if "." not in name]

    @property
    def _any(self) -> Summary:
        return next(iter(self.runs.values()))


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
                    *map(_cell, row.setting.values()),
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
    goal = table[0].goals[0]
    others = [metric for metric in table[0].shown if metric != goal]
    gain = f"gain over {baseline.name} [95% interval]"
    return ["setting", "seeds", goal, gain, "wins", *others, "trials", "search time"]


def lines(table: Sequence[Row], baseline: Row) -> list[list[str]]:
    """Return the comparison as cells of text, best primary goal first.

    The gain is positive when better; its interval is a bootstrap's. An interval that holds 0
    shows no difference.
    """
    goal = table[0].goals[0]
    sign = -1.0 if table[0].metric(goal).direction == "max" else 1.0
    ordered = sorted(table, key=lambda row: sign * row.mean(goal))
    return [_line(row, baseline, goal) for row in ordered]


def _line(row: Row, baseline: Row, goal: str) -> list[str]:
    gain, wins = "", ""
    if row is not baseline:
        found = row.against(baseline, goal)
        gain = f"{found.value:+.4g}"
        if not math.isnan(found.low):
            gain += f" [{found.low:+.4g}, {found.high:+.4g}]"
        wins = f"{row.wins(baseline, goal)}/{len(set(row.runs) & set(baseline.runs))}"
    others = [metric for metric in row.shown if metric != goal]
    trials = mean([run.trials for run in row.runs.values()])
    seconds = mean([run.seconds for run in row.runs.values()])
    used = [f"{trials:g}", format_duration(seconds)] if trials else ["", ""]
    cells = [row.name, str(len(row.runs)), row.cell(goal), gain, wins]
    return [*cells, *(row.cell(metric) for metric in others), *used]


def markdown(table: Sequence[Row], baseline: Row) -> str:
    """Return the comparison as a Markdown table."""
    titles = header(table, baseline)
    ruled = [titles, ["---"] * len(titles), *lines(table, baseline)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in ruled)


def plot(table: Sequence[Row], path: Path) -> None:
    """Draw every run's primary goal by setting, with means and standard deviations."""
    from matplotlib.figure import Figure

    goal = table[0].goals[0]
    metric = table[0].metric(goal)
    sign = -1.0 if metric.direction == "max" else 1.0
    ordered = sorted(table, key=lambda row: sign * row.mean(goal), reverse=True)
    figure = Figure(figsize=(7, 1.2 + 0.45 * len(ordered)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(ordered):
        values = row.values(goal)
        spread = deviation(values)
        axes.plot(values, [place] * len(values), "o", color="#9db4c8", markersize=5)
        error = 0.0 if math.isnan(spread) else spread
        axes.errorbar(row.mean(goal), place, xerr=error, fmt="D", color="#1f4e79", capsize=4)
    axes.set_yticks(range(len(ordered)), [row.name for row in ordered])
    axes.set_xlabel(f"{goal} ({metric.unit})" if metric.unit else goal)
    axes.set_title("each run, mean and standard deviation", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=150)


def write_comparison(table: Sequence[Row], baseline: Row, folder: Path) -> None:
    """Write the comparison as ``comparison.csv``, ``.md`` and ``.png``."""
    write_csv(table, folder / "comparison.csv")
    write_atomically(folder / "comparison.md", markdown(table, baseline))
    plot(table, folder / "comparison.png")

"""Comparing finished runs: one row a setting, over its seeds, each against its baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nasengine.errors import InputError, did_you_mean
from nasengine.metric_names import is_primary
from nasengine.quantities import format_quantity
from nasengine.statistics import Difference, deviation, difference, mean
from nasengine.studies.fronts import VOLUME, with_volumes
from nasengine.studies.grid import of_strategy
from nasengine.studies.summary import ABSENT, Summary
from nasengine.trial import Metric

STRATEGY = ("strategy.name", "strategy")
"""Where a setting names the strategy: by its name, or as a whole table."""

BARE = (*STRATEGY, "space", "task", "task.data")
"""Keys whose values say by themselves what they are, as those of every ``.name`` do."""


@dataclass(frozen=True)
class Row:
    """One setting over its seeds.

    Parameters
    ----------
    setting
        What was varied.
    runs
        Its runs, by seed; one that failed has no values.
    """

    setting: Mapping[str, str]
    runs: Mapping[int, Summary] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The setting as text: each value with its key, where it does not speak for itself."""
        keys = list(self.setting)
        return ", ".join(_named(key, value, keys) for key, value in self.setting.items() if value)

    @property
    def strategy(self) -> str:
        """The strategy in the setting; empty where all rows have the same."""
        return next((self.setting[key] for key in STRATEGY if key in self.setting), "")

    @property
    def apart_from_strategy(self) -> dict[str, str]:
        """The setting without what is the strategy's."""
        return {k: v for k, v in self.setting.items() if not of_strategy(k)}

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

    def cell(self, metric: str) -> str:
        """Return mean and standard deviation as text."""
        if not self.values(metric):
            return ABSENT
        unit = self.metric(metric).unit
        text, spread = format_quantity(self.mean(metric), unit), self.deviation(metric)
        return text if math.isnan(spread) else f"{text} ± {format_quantity(spread, unit)}"

    def metric(self, name: str) -> Metric:
        """Return what is known of a metric that this row has."""
        return next(run.metrics[name] for run in self.runs.values() if name in run.metrics)

    @property
    def shown(self) -> list[str]:
        """The primary metrics of the estimators, which a table has room for."""
        known = dict.fromkeys(name for run in self.runs.values() for name in run.metrics)
        return [name for name in known if is_primary(name)]


def _named(key: str, value: str, keys: Sequence[str]) -> str:
    bare = key.endswith(".name") or key in BARE
    if value == ABSENT:
        return f"no {key.removesuffix('.name')}"
    return value if bare and value != "''" else f"{_shortest(key, keys)}={value}"


def _shortest(key: str, keys: Sequence[str]) -> str:
    """Return the last parts of a key path that are enough to know it by."""
    parts = key.split(".")
    tails = (".".join(parts[-count:]) for count in range(1, len(parts)))
    alone = (t for t in tails if sum(k == t or k.endswith(f".{t}") for k in keys) == 1)
    return next(alone, key)


def rows(summaries: Iterable[Summary]) -> list[Row]:
    """Group runs by setting, in order of appearance; with several goals, their fronts are weighed.

    Raises
    ------
    InputError
        If two runs have the same setting and seed, or the runs have different goals.
    """
    summaries = list(summaries)
    goals = {summary.goals for summary in summaries if summary.goals}
    if len(goals) > 1:
        raise InputError(f"the runs have different goals: {sorted(goals)}")
    grouped: dict[tuple[tuple[str, str], ...], dict[int, Summary]] = {}
    for summary in with_volumes(summaries):
        runs = grouped.setdefault(tuple(summary.setting.items()), {})
        if summary.seed in runs:
            other = runs[summary.seed].folder
            raise InputError(f"{summary.folder} and {other}: the same setting and seed twice")
        runs[summary.seed] = summary
    return [Row(dict(setting), runs) for setting, runs in grouped.items()]


@dataclass(frozen=True)
class Baseline:
    """What each row is compared with: one row, or the one that differs in the strategy alone.

    Parameters
    ----------
    name
        The row's name, or the strategy's.
    rows
        Name of a row to its baseline; none for a row that has none.
    """

    name: str
    rows: Mapping[str, Row]

    def of(self, row: Row) -> Row | None:
        """Return a row's baseline; None where it has none, or is one itself."""
        found = self.rows.get(row.name)
        return None if found is None or found.name == row.name else found


def baseline_of(table: Sequence[Row], name: str | None, asked_by: str = "--baseline") -> Baseline:
    """Return what rows are compared with: by default random search under the same setting.

    Parameters
    ----------
    table
        The rows; those that are still to be run will do.
    name
        A row's name: all are compared with it. A strategy: each row is compared with the row
        that differs from it in the strategy alone. None: random search, else the first row.
    asked_by
        Where the name was given, for the error.

    Raises
    ------
    InputError
        If there is no such row.
    """
    named = {row.name: row for row in table}
    if name in named:
        return Baseline(named[name].name, dict.fromkeys(named, named[name]))
    strategies = dict.fromkeys(row.strategy for row in table if row.strategy)
    wanted = "random" if name is None else name
    if wanted in strategies:
        found = {row.name: _under(wanted, row, table) for row in table}
        return Baseline(wanted, {key: row for key, row in found.items() if row is not None})
    if name is None:
        return Baseline(table[0].name, dict.fromkeys(named, table[0]))
    raise InputError(f"{asked_by}: no row {name!r}; {did_you_mean(name, {**named, **strategies})}")


def _under(strategy: str, row: Row, table: Sequence[Row]) -> Row | None:
    """Return the row of a strategy that has all else in common with another one."""
    rest = row.apart_from_strategy
    return next(
        (r for r in table if r.strategy == strategy and r.apart_from_strategy == rest), None
    )


@dataclass(frozen=True)
class Gain:
    """How a row stands to its baseline.

    Parameters
    ----------
    found
        The difference of the means, positive where the row is better, and its intervals.
    pairs, wins, ties
        Seeds that both have, and at how many of them the row is better, or level.
    paired
        Whether the intervals are of pairs; else of all seeds of both.
    """

    found: Difference
    pairs: int
    wins: int
    ties: int
    paired: bool


def gain(row: Row, baseline: Row, metric: str, confidence: float = 0.95) -> Gain | None:
    """Return the gain of a row over its baseline; None where one of them has no value.

    It is of the seeds that both have, paired; where these are fewer than two, of all seeds.
    """
    mine, other = row.values(metric), baseline.values(metric)
    if not mine or not other:
        return None
    sign = row.metric(metric).sign
    pairs = [(sign * a, sign * b) for a, b in row.pairs(baseline, metric)]
    paired = len(pairs) > 1
    first, second = (
        zip(*pairs, strict=True) if paired else ([sign * v for v in side] for side in (mine, other))
    )
    found = difference(list(first), list(second), paired=paired, confidence=confidence)
    wins, ties = sum(a > b for a, b in pairs), sum(a == b for a, b in pairs)
    return Gain(found, len(pairs), wins, ties, paired)


def compared(table: Sequence[Row], baseline: Baseline) -> list[tuple[Row, Row]]:
    """Return the rows that have a gain, each with what it is held against."""
    metric = judged(table)
    pairs = [(row, other) for row in table if (other := baseline.of(row)) is not None]
    return [(row, other) for row, other in pairs if row.values(metric) and other.values(metric)]


def confidence_of(table: Sequence[Row], baseline: Baseline) -> float:
    """Return the confidence of each t interval with which all of them hold in 95% (Bonferroni)."""
    return 1 - 0.05 / max(1, len(compared(table, baseline)))


def judged(table: Sequence[Row]) -> str:
    """Return the metric that rows are judged by: the goal's on the test split where all have it.

    A winner was chosen by the goal, so that its own value there is too good, and by how much
    differs between strategies. With two or three goals it is the volume of the fronts; with more,
    the first goal of their knees.
    """
    goal = goals_of(table)[0]
    runs = [run for row in table for run in row.runs.values() if goal in run.values]
    if any(VOLUME in run.values for run in runs):
        return VOLUME
    tests = {run.tests.get(goal, "") for run in runs}
    test = tests.pop() if len(tests) == 1 else ""
    return test if test and all(test in run.values for run in runs) else goal


def goals_of(table: Sequence[Row]) -> tuple[str, ...]:
    """Return the metrics that were optimised, the primary first."""
    return next(run.goals for row in table for run in row.runs.values() if run.goals)


def metric_of(table: Sequence[Row], name: str) -> Metric:
    """Return what is known of a metric that any row has."""
    runs = (run for row in table for run in row.runs.values())
    return next(run.metrics[name] for run in runs if name in run.metrics)


def ranked(table: Sequence[Row]) -> list[Row]:
    """Return the rows in order of their means, the best first, the unmeasured last."""
    metric = judged(table)
    sign = metric_of(table, metric).sign

    def rank(row: Row) -> tuple[bool, float]:
        value = row.mean(metric)
        return (True, 0.0) if math.isnan(value) else (False, -sign * value)

    return sorted(table, key=rank)

"""What a reader must know to trust a comparison: split, intervals, budgets, what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from nasengine.quantities import format_duration
from nasengine.studies.comparison import (
    Baseline,
    Row,
    compared,
    confidence_of,
    gain,
    goals_of,
    judged,
)
from nasengine.studies.fronts import VOLUME, columns_of
from nasengine.studies.summary import UNMEASURED, Summary


def notes(table: Sequence[Row], baseline: Baseline) -> list[str]:
    """Say what a comparison is judged by, how its intervals are made, and what is missing."""
    runs = [run for row in table for run in row.runs.values()]
    searches = [run for run in runs if run.trials]
    return [
        _judged(table),
        *_intervals(table, baseline),
        *_budgets(searches),
        *_unmeasured_trials(table),
        *_machines(runs),
        *(problem for row in table for problem in _problems(row)),
    ]


def _judged(table: Sequence[Row]) -> str:
    metric, goal = judged(table), goals_of(table)[0]
    if metric == VOLUME:
        return _fronts(table)
    shown = "mean and standard deviation over seeds, of each search's winner"
    if metric != goal:
        return f"{metric}: {shown}, on the test split, which chose nothing"
    runs = [run for row in table for run in row.runs.values() if run.goals]
    if any(goal in run.counted for run in runs):
        return f"{metric}: {shown}; it is counted, so that measuring adds no chance"
    split = any(run.tests.get(goal) for run in runs)
    known, also = ("split", "; the data have no test split") if split else ("measurement", "")
    return f"{metric}: {shown}, by the {known} that chose it, which flatters it{also}"


def _fronts(table: Sequence[Row]) -> str:
    runs = [run for row in table for run in row.runs.values()]
    *others, last = columns_of(runs).values()
    return (
        f"{VOLUME}: mean and standard deviation over seeds, of the share of a box that each "
        f"search's front dominates; the box is the range of {', '.join(others)} and {last} over "
        "all fronts compared here, and a tenth beyond the worst; the other columns tell of each "
        "front's knee"
    )


def _intervals(table: Sequence[Row], baseline: Baseline) -> Iterator[str]:
    pairs = compared(table, baseline)
    gains = [found for pair in pairs if (found := gain(*pair, judged(table))) is not None]
    if not gains:
        if len(table) > 1 and not any(map(baseline.of, table)):
            yield (
                f"no gain over {baseline.name}: no row differs from one of it in the strategy "
                "alone; --baseline ROW compares all rows with one"
            )
        return
    if {other.name for _, other in pairs} - {baseline.name}:
        yield f"baseline: the row of {baseline.name} that differs in the strategy alone"
    if all(math.isnan(found.found.low) for found in gains):
        yield "no intervals: they need two seeds of a row, and values that vary"
        return
    paired = {found.paired for found in gains}
    how = "of pairs by seed" if paired == {True} else "of unpaired seeds (Welch)"
    if len(paired) > 1:
        how = "of pairs by seed where two seeds or more are shared, else unpaired (Welch)"
    confidence = confidence_of(table, baseline)
    many = len(gains)
    together = f", all {many} together: each has {confidence:.1%} (Bonferroni)" if many > 1 else ""
    yield (
        f"gain: positive is better; 95% interval by Student's t {how}{together}; one that holds 0 "
        "shows no difference"
    )
    yield (
        "bootstrap: 95% percentile interval of each row alone, uncorrected; too narrow for few "
        "seeds"
    )


def _budgets(searches: Sequence[Summary]) -> Iterator[str]:
    allowed = dict.fromkeys(_budget_text(run.budget) for run in searches if run.budget)
    if not allowed:
        return
    each = next(iter(allowed)) if len(allowed) == 1 else f"not the same, {' | '.join(allowed)}"
    timed = any("seconds" in run.budget for run in searches)
    late = "; one under way at the end is measured to its end" if timed else ""
    yield (
        f"budget of each search: {each}{late}; search time is wall-clock time, training of "
        "supernets included, references and final measurements not"
    )


def _budget_text(budget: Mapping[str, float]) -> str:
    said = {"trials": lambda n: f"{n:g} trial{'s' * (n != 1)}", "seconds": format_duration}
    return " or ".join(said[key](value) for key, value in budget.items())


def _unmeasured_trials(table: Sequence[Row]) -> Iterator[str]:
    """Say how many trials each row spent on networks that were not measured in full."""
    told = []
    for row in table:
        runs = [run for run in row.runs.values() if run.trials]
        counts = {s: sum(run.ended.get(s, 0) for run in runs) for s in UNMEASURED}
        if any(counts.values()):
            said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
            told.append(f"{row.name} {said} of {sum(run.trials for run in runs)}")
    if told:
        yield f"trials not measured in full: {'; '.join(told)}"


def _machines(runs: Sequence[Summary]) -> Iterator[str]:
    machines = list(dict.fromkeys(run.machine for run in runs if run.machine))
    if len(machines) == 1:
        yield f"measured on {machines[0]}"
    elif machines:
        yield f"measured on {' and '.join(machines)}: times and latencies do not compare"


def _problems(row: Row) -> Iterator[str]:
    """Say which seeds of a row have no result, and why."""
    for seed, run in sorted(row.runs.items()):
        if run.problem:
            yield f"{row.name}, seed {seed}: not measured in full: {run.problem}"

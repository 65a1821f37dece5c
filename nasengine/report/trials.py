"""How the trials went: best so far, the front, the cost of what was gained, and all of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from nasengine.metric_names import is_primary
from nasengine.objectives import hypervolume
from nasengine.quantities import format_duration
from nasengine.screen import BAR
from nasengine.trial import Status, Trial

from .charts import Axis, Series, chart
from .html import MISSING, Html, details, grid, join, section, table, tag
from .outcome import counts
from .record import Record

MOST_ROWS = 500
"""Trials that are listed; the history has the others."""

MOST_POINTS = 1000
"""Dots of one kind in a chart."""

_TRIAL = Axis("trial", counts=True)
_NUMBER = re.compile(r"[0-9]+%?")
"""What says itself in a row of letters, as most choices of widths do."""


def search(record: Record) -> Html | None:
    """Return the charts over the trials."""
    goals = record.goals
    complete = [t for t in record.history.complete if all(g in t.measurements for g in goals)]
    if not goals or not complete:
        return None
    charts = []
    if len(record.history) > 1:
        charts.append(_best_so_far(record, complete, goals[0]))
    if len(goals) > 1:
        charts += [_front(record, complete, goals[0], other) for other in goals[1:4]]
        charts.append(_hypervolume(record, complete))
    else:
        beside = dict.fromkeys([*_costs(record)[:4], *record.objectives.screens])
        charts += [_trade(record, complete, goals[0], metric) for metric in beside]
    charts += [_screen(record, metric) for metric in record.objectives.screens]
    front = _front_table(record, complete) if len(goals) > 1 else None
    return section("The trials in pictures", grid(charts, "charts"), front)


def _front_table(record: Record, complete: Sequence[Trial]) -> Html:
    """List the front, best by the first goal first; ★ is what is recommended."""
    front = sorted(record.objectives.front(complete), key=record.objectives.losses)
    names = [*record.goals, *(n for n in record.metrics if is_primary(n) and n not in record.goals)]
    letters = _letters(list(record.history))
    rows = (_row(record, trial, names, letters) for trial in front[:MOST_ROWS])
    count = "1 network" if len(front) == 1 else f"{len(front)} networks"
    told = f"The front: {count}; ★ is the {record.objectives.recommendation}"
    if len(front) == 2:
        told += f" (of two extremes, the better by {record.goals[0]})"
    titles = ["trial", "status", "architecture", *names, "time"]
    return details(told, _key(letters), table(titles, rows, numbers_from=3))


def _costs(record: Record) -> list[str]:
    """Return the metrics that a network is better for having less of, beside the goal."""
    return [
        name
        for name, metric in record.metrics.items()
        if metric.direction == "min" and is_primary(name) and name not in record.goals
    ]


def _axis(record: Record, metric: str) -> Axis:
    return Axis(metric, record.metrics[metric].unit)


def _points(
    record: Record, trials: Sequence[Trial], across: str, up: str
) -> tuple[list[tuple[float, float]], list[str]]:
    """Return the trials that have both metrics as points, with what each says."""
    points, titles = [], []
    for trial in trials:
        if across in trial.measurements and up in trial.measurements:
            points.append((trial.value(across), trial.value(up)))
            values = [f"{name} {record.text(name, trial.value(name))}" for name in (up, across)]
            titles.append(", ".join([trial.reference or f"trial {trial.number}", *values]))
    return points, titles


def _marks(record: Record, across: str, up: str) -> list[Series]:
    """Return the references and the winner as marks."""
    found = []
    for place, (name, trial) in enumerate(record.references.items()):
        points, titles = _points(record, [trial], across, up)
        found.append(Series(name, points, 3 + place % 4, "diamonds", titles))
    if record.winner is not None:
        name = "the knee: delivered" if len(record.goals) > 1 else "delivered"
        points, titles = _points(record, [record.winner], across, up)
        found.append(Series(name, points, 2, "stars", titles))
    return found


def _best_so_far(record: Record, complete: Sequence[Trial], goal: str) -> Html | None:
    pick = max if _direction(record, goal) == "max" else min
    best, line = None, []
    for trial in complete:
        value = trial.value(goal)
        best = value if best is None else pick(best, value)
        line.append((float(trial.number), best))
    line.append((float(record.history[-1].number), line[-1][1]))
    shown, thinned = _thin(complete)
    measured = [(float(t.number), t.value(goal)) for t in shown]
    titles = [f"trial {t.number}: {record.text(goal, t.value(goal))}" for t in shown]
    broken = [t for t in record.history if t.status is Status.INFEASIBLE and goal in t.measurements]
    series = [
        Series("a trial", measured, 1, "dots", titles),
        Series("infeasible", [(float(t.number), t.value(goal)) for t in broken], 0, "rings"),
        Series("best so far", line, 2, "step"),
    ]
    return chart(f"Best {goal} so far", series, _TRIAL, _axis(record, goal), thinned.strip())


def _thin(trials: Sequence[Trial]) -> tuple[Sequence[Trial], str]:
    """Return few enough trials to draw, and what to say of it."""
    step = -(-len(trials) // MOST_POINTS)
    if step <= 1:
        return trials, ""
    return trials[::step], f" Of {len(trials)} dots one in {step} is drawn."


def _direction(record: Record, goal: str) -> str | None:
    return next(item.goal for item in record.objectives.goals if item.metric == goal)


def _front(record: Record, complete: Sequence[Trial], up: str, across: str) -> Html | None:
    front = record.objectives.front(complete)
    on_front = {trial.number for trial in front}
    others, thinned = _thin([trial for trial in complete if trial.number not in on_front])
    # From the best of the one to the best of the other, as the steps of what is dominated go.
    place = record.goals.index(across)
    front = sorted(front, key=lambda trial: record.objectives.losses(trial)[place])
    rest, rest_titles = _points(record, others, across, up)
    line, titles = _points(record, front, across, up)
    series = [
        Series("dominated", rest, 0, "dots", rest_titles),
        Series("", line, 1, "step"),
        Series("the front", line, 1, "dots", titles),
        *_marks(record, across, up),
    ]
    note = f"{len(front)} of {len(complete)} complete trials are on the front.{thinned}"
    title = f"Front: {up} against {across}"
    return chart(title, series, _axis(record, across), _axis(record, up), note)


def _screen(record: Record, metric: str) -> Html | None:
    """Draw which trials a screen let on, and what it took."""
    screen = record.objectives.screens[metric]
    found = {
        float(t.number): t.measurements[metric] for t in record.history if metric in t.measurements
    }
    held = [(number, m.value) for number, m in found.items() if screen.holds_back(m)]
    on = [(number, m.value) for number, m in found.items() if not screen.holds_back(m)]
    bars = [(number, m.details[BAR]) for number, m in found.items() if BAR in m.details]
    series = [
        Series("went on", on, 1, "dots"),
        Series("held back", held, 0, "rings"),
        Series("what it took", bars, 2, "step"),
    ]
    title = f"{metric}: who goes on, {screen.asked()}"
    return chart(title, series, _TRIAL, _axis(record, metric))


def _hypervolume(record: Record, complete: Sequence[Trial]) -> Html | None:
    """Draw the volume over the trials, each goal scaled to the range that the trials have."""
    losses = [record.objectives.losses(trial) for trial in complete]
    finite = [row for row in losses if all(map(math.isfinite, row))]
    if len(finite) < 2 or len(finite[0]) > 3:
        return None
    low, high = (
        [min(c) for c in zip(*finite, strict=True)],
        [max(c) for c in zip(*finite, strict=True)],
    )
    scaled = [
        tuple((v - a) / ((b - a) or 1.0) for v, a, b in zip(row, low, high, strict=True))
        for row in losses
    ]
    limit = [1.1] * len(low)
    kept: list[tuple[float, ...]] = []
    line: list[tuple[float, float]] = []
    for trial, row in zip(complete, scaled, strict=True):
        if not any(all(a <= b for a, b in zip(other, row, strict=True)) for other in kept):
            kept = [o for o in kept if not all(a <= b for a, b in zip(row, o, strict=True))]
            kept.append(row)
            line.append((float(trial.number), hypervolume(kept, limit)))
    line.append((float(record.history[-1].number), line[-1][1]))
    note = "Goals scaled to the range of the complete trials; reference point 1.1."
    return chart(
        "Hypervolume", [Series("", line, 2, "step")], _TRIAL, Axis("dominated volume"), note
    )


def _trade(record: Record, complete: Sequence[Trial], goal: str, cost: str) -> Html | None:
    shown, thinned = _thin(complete)
    points, titles = _points(record, shown, cost, goal)
    series = [Series("a trial", points, 1, "dots", titles), *_marks(record, cost, goal)]
    if sum(len(each.points) for each in series) < 3:
        return None
    limits = [o.at_most for o in record.objectives.limits if o.metric == cost]
    said = [f"Limit: at most {record.text(cost, limit)}." for limit in limits if limit is not None]
    title = f"{goal} against {cost}"
    return chart(title, series, _axis(record, cost), _axis(record, goal), " ".join(said) + thinned)


def every_trial(record: Record) -> Html | None:
    """Return a table of the trials."""
    trials = list(record.history)
    if not trials:
        return None
    metrics = [
        name
        for name in record.metrics
        if (is_primary(name) or name in record.goals)
        and any(name in trial.measurements for trial in trials)
    ]
    decisions = ", ".join(trials[0].architecture)
    letters = _letters(trials)
    titles = ["trial", "status", "architecture", *metrics, "time"]
    shown = trials[:MOST_ROWS]
    left = f" The first {MOST_ROWS} of {len(trials)}; history.sqlite has all."
    note = f"{counts(trials)}. Choices in the order of the decisions: {decisions}."
    return section(
        "Every trial",
        tag("p", note + (left if len(trials) > MOST_ROWS else ""), class_="note"),
        _key(letters),
        table(titles, (_row(record, t, metrics, letters) for t in shown), numbers_from=3),
    )


def _letters(trials: Sequence[Trial]) -> dict[str, str]:
    """Return choice to a letter, in order of their names; none where letters do not suffice.

    Numbers need none.
    """
    every = {choice for trial in trials for choice in trial.architecture.values()}
    choices = sorted(choice for choice in every if not _NUMBER.fullmatch(choice))
    if len(choices) > len(ascii_uppercase):
        return {}
    return dict(zip(choices, ascii_uppercase, strict=False))


def _key(letters: Mapping[str, str]) -> Html | None:
    parts = [tag("span", _choice(c, letters), c) for c in letters]
    return tag("p", *parts, class_="legend") if parts else None


def _choice(choice: str, letters: Mapping[str, str]) -> Html:
    """Return a choice as its letter on its colour, or in full."""
    if letters and _NUMBER.fullmatch(choice):
        return tag("span", choice, class_="letter plain")
    if choice not in letters:
        return tag("span", choice, " ")
    letter = letters[choice]
    colour = 1 + ascii_uppercase.index(letter) % 6
    return tag("span", letter, class_=f"letter c{colour}", title=choice)


def _row(
    record: Record, trial: Trial, metrics: Sequence[str], letters: Mapping[str, str]
) -> list[Html | str]:
    best = record.winner is not None and record.winner.number == trial.number
    status = trial.status.value
    reason = tag("small", trial.reason) if trial.reason else None
    values = [
        record.text(name, trial.value(name)) if name in trial.measurements else MISSING
        for name in metrics
    ]
    return [
        tag("b", f"★ {trial.number}") if best else f"{trial.number}",
        join([tag("span", status, class_=f"status {status}"), reason]),
        tag("span", *(_choice(c, letters) for c in trial.architecture.values()), class_="choices"),
        *values,
        format_duration(trial.seconds) if trial.seconds else MISSING,
    ]

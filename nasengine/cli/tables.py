"""Tables for people: the outcome of a run, a measured architecture, a checked spec."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nasengine.machine import busy
from nasengine.metric_names import estimator_of, is_primary, own_name
from nasengine.objectives import Objective
from nasengine.quantities import (
    format_bytes,
    format_duration,
    format_quantity,
    format_share,
    format_size,
)
from nasengine.runs.experiment import Experiment
from nasengine.runs.goals import known_metrics
from nasengine.runs.own_code import command_on
from nasengine.runs.ranges import Few, measure_few, metric_range, predicted_range
from nasengine.runs.result import compare
from nasengine.runs.run import Outcome
from nasengine.runs.spec import GoalTable
from nasengine.runs.verdict import leading
from nasengine.search import Search
from nasengine.trial import Direction, Measurement
from nasengine.workload import estimate

MOST_OF_FRONT = 20
"""Networks of a front that are shown; metrics.json has all."""


def show_outcome(console: Console, outcome: Outcome, folder: Path) -> None:
    """Print the searched network beside the references, and plainly whether the search won."""
    comparison = compare(outcome)
    beside = " beside the references (and as a multiple of them)" if outcome.references else ""
    table = Table(title=f"the searched network{beside}", title_justify="left")
    table.add_column("metric")
    for name in comparison.networks:
        table.add_column(name, justify="right")
    for metric in leading(comparison.metrics, comparison.goals, comparison.standings()):
        about, cells = comparison.metrics[metric], []
        for name, measured in comparison.networks.items():
            text = _cell(measured.get(metric), about.unit)
            ratio = comparison.ratio(metric, name)
            if name != "searched" and math.isfinite(ratio) and is_primary(metric):
                cells.append(Text.assemble(text, (f" ({ratio:.2f}x)", "dim")))
            else:
                cells.append(Text(text))
        table.add_row(metric, *cells)
    console.print()
    console.print(table)
    for line in comparison.verdict():
        console.print(f"- {line}", highlight=False, soft_wrap=True)
    if len(comparison.goals) > 1:
        _show_front(console, outcome, folder)
    found = outcome.winner.architecture.said
    console.print(f"- architecture: {found}", highlight=False, soft_wrap=True)
    what = outcome.search.objectives.recommendation
    console.print(
        f"- trial {outcome.winner.number}, the {what}, is delivered in {folder / 'best'}; "
        f"all metrics and the search in pictures: {folder / 'report.html'}",
        highlight=False,
        soft_wrap=True,
    )


def _show_front(console: Console, outcome: Outcome, folder: Path) -> None:
    """Print the front, best by the first goal first, thinned where it is long."""
    objectives, winner = outcome.search.objectives, outcome.winner.number
    front = sorted(outcome.front, key=lambda t: (*objectives.losses(t), t.number))
    step = -(-len(front) // MOST_OF_FRONT)
    shown = [t for place, t in enumerate(front) if place % step == 0 or t.number == winner]
    count = _several(len(front), "network")
    part = f", {len(shown)} shown" if len(shown) < len(front) else ""
    table = Table(
        title=f"the front: {count} that no other beats in everything{part}", title_justify="left"
    )
    goals = {goal.metric: goal.goal for goal in objectives.goals}
    metrics = known_metrics(outcome.search)
    names = [*goals]
    names += [m for m in metrics if m not in goals and is_primary(m) and m in front[0].measurements]
    table.add_column("trial", justify="right")
    for name in names:
        table.add_column(f"{name} ({goals[name]})" if name in goals else name, justify="right")
    table.add_column("")
    for trial in shown:
        cells = [_cell(trial.measurements.get(name), metrics[name].unit) for name in names]
        mark = f"{objectives.recommendation}: delivered" if trial.number == winner else ""
        table.add_row(str(trial.number), *cells, mark, style="bold" if mark else "")
    console.print(table)
    if len(front) == 2:
        first = objectives.goals[0].metric
        console.print(f"- of two extremes, the better by {first} is the knee", highlight=False)
    console.print(
        f"- every architecture of it is in {folder / 'front'}; a network of it with its weights: "
        + command_on(folder, "export", "--trial", "N"),
        highlight=False,
        soft_wrap=True,
    )


def show_measured(
    console: Console, name: str, found: Mapping[str, Measurement], units: Mapping[str, str]
) -> None:
    """Print one architecture's measurements."""
    console.print(name, style="italic", highlight=False, soft_wrap=True)
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for metric, measurement in found.items():
        table.add_row(metric, _cell(measurement, units[metric]))
    console.print(table)


def _cell(measurement: Measurement | None, unit: str) -> str:
    if measurement is None:
        return "-"
    text = format_quantity(measurement.value, unit)
    spread = measurement.details.get("std")
    return f"{text} ± {format_quantity(spread, unit)}" if spread else text


def check_facts(experiment: Experiment, search: Search) -> dict[str, Any]:
    """Return what a check finds, as JSON values."""
    space = experiment.space
    costs = {
        key: _cost_facts(search, key, experiment.references)
        for key in experiment.estimators
        if search.has_cost_table(key)
    }
    end = next(node.name for node in space.graph.nodes if node.kind == "output")
    units = known_metrics(search)
    return {
        "space": {
            "name": experiment.spec.space["name"],
            "architectures": space.size,
            "decisions": len(space.decisions),
            "slots": len(space.graph.slots),
            "widths": len(space.graph.widths),
            "input": list(search.task.input_shape),
            "output": list(search.shapes.out[end]),
        },
        "device": search.device,
        "objectives": [
            _objective_facts(metric, wanted, search, units[metric].unit)
            for metric, wanted in experiment.spec.objectives.items()
        ],
        "references": list(experiment.references),
        "costs": costs,
        "limited": _limited_facts(experiment, search, but=costs),
        "budget": experiment.spec.budget.model_dump(exclude_none=True),
        "estimate": _estimate_facts(experiment, search),
    }


def _objective_facts(
    metric: str, wanted: Direction | GoalTable, search: Search, unit: str
) -> dict[str, Any]:
    """Return a goal and its limits; one relative to what is yet to be measured as it is written."""
    table = wanted if isinstance(wanted, GoalTable) else GoalTable(goal=wanted)
    objective = next((o for o in search.objectives.items if o.metric == metric), Objective(metric))
    limits = [
        f"{words} {given if known is None else format_quantity(known, unit)}"
        for words, given, known in (
            ("at most", table.at_most, objective.at_most),
            ("at least", table.at_least, objective.at_least),
        )
        if given is not None
    ]
    if objective.screen is not None:
        limits.append(objective.screen.asked())
    return {"metric": metric, "goal": table.goal, "limits": " and ".join(limits)}


def data_facts(search: Search) -> dict[str, Any]:
    """Return what the task's data hold, as JSON values."""
    from nasengine.census import census_of

    return census_of(search.task, search.splits)


def _held(found: Mapping[str, Any]) -> str:
    """Say what the targets of a split are."""
    if of := found.get("values"):
        sides = "x".join(map(str, of["shape"])) or "one"
        least, mean, most = (f"{of[name]:.4g}" for name in ("least", "mean", "largest"))
        return f"values, {sides} a sample: {least} to {most}, mean {mean}"
    return "; ".join(
        f"{name} in {held['samples']}, {format_share(held['share'])} of all"
        for name, held in found["classes"].items()
    )


def _estimate_facts(experiment: Experiment, search: Search) -> dict[str, float] | None:
    budget = experiment.spec.budget
    expected = estimate(search, experiment.strategy, experiment.final.values())
    if not expected.bytes:
        return None  # Nothing is trained.
    return {
        "search_seconds": expected.search_seconds,
        "trial_seconds": expected.trial_seconds,
        "final_seconds": expected.final_seconds,
        "seconds": expected.seconds(budget.trials, len(experiment.references), budget.seconds),
        "bytes": expected.bytes,
    }


def _cost_facts(search: Search, key: str, references: Sequence[str]) -> dict[str, Any]:
    table, counts = search.cost_table(key), search.estimators[key].counts
    found = metric_range(search, key) if counts else predicted_range(search, key)
    assert found is not None  # What counts and has a table has a range.
    return {
        "unit": table.unit,
        **asdict(found),
        "how": "" if counts else f"as its table predicts, timed{busy()}",
        "references": {name: table.predict(search.space.reference(name)) for name in references},
    }


def _limited_facts(
    experiment: Experiment, search: Search, but: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return what limited metrics without a table come to, or why that is not known."""
    limited = [
        metric
        for metric, wanted in experiment.spec.objectives.items()
        if isinstance(wanted, GoalTable) and (wanted.at_most, wanted.at_least) != (None, None)
    ]
    facts: dict[str, dict[str, Any]] = {}
    few: dict[str, Few] = {}
    for metric in (metric for metric in limited if metric not in but):
        key = estimator_of(metric)
        estimator, counted = search.estimators[key], metric_range(search, metric)
        unit = known_metrics(search)[metric].unit
        if counted is not None:
            facts[metric] = {"unit": unit, **asdict(counted), "how": ""}
        elif estimator.trains:
            facts[metric] = {"unknown": "known only once networks are trained"}
        else:
            few[key] = few.get(key) or measure_few(search, key, experiment.references)
            facts[metric] = {"unit": unit, **_few_facts(search, metric, few[key])}
    return facts


def _few_facts(search: Search, metric: str, few: Few) -> dict[str, Any]:
    """Return what a metric came to of a few networks that were measured."""
    own = own_name(metric, search.estimators[estimator_of(metric)].metrics(search)[0].name)
    found = few.range(own)
    if found is None:
        return {"unknown": f"no network could be measured: {few.reason or 'it has no value'}"}
    values = few.values(own)
    limit = next((each for each in search.objectives.limits if each.metric == metric), None)
    met = sum(limit.violation(value) == 0 for value in values) if limit else None
    failed = f"; of others: {few.reason}" if few.reason else ""
    within = "" if met is None else f", {met or 'none'} of them within the limit"
    return {
        **asdict(found),
        "references": {name: held[own] for name, held in few.references.items() if own in held},
        "how": f"{_several(len(values), 'network')}, measured here{busy()}{within}{failed}",
    }


def beyond(facts: Mapping[str, Any], search: Search) -> list[str]:
    """Say which limits none of the networks that were timed or predicted meets.

    What is counted is held to its limits before; what is measured may come out otherwise.
    """
    said = []
    for limit in search.objectives.limits:
        found = {**facts["costs"], **facts["limited"]}.get(limit.metric, {})
        if not found.get("how"):
            continue
        for key, asked, nearest, is_beyond in (
            ("at_most", limit.at_most, found["smallest"], operator.gt),
            ("at_least", limit.at_least, found["largest"], operator.lt),
        ):
            if asked is not None and is_beyond(nearest, asked):
                value, near = (format_quantity(v, found["unit"]) for v in (asked, nearest))
                said.append(
                    f"objectives.{limit.metric}.{key}: {value} is met by no network that was "
                    f"looked at; the nearest has {near}"
                )
    return said


def _several(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _range_line(name: str, found: Mapping[str, Any]) -> str:
    """Say what a metric comes to over the space, or why that is not known."""
    if "unknown" in found:
        return f"{name}: {found['unknown']}"
    low, middle, high = (
        format_quantity(found[key], found["unit"]) for key in ("smallest", "median", "largest")
    )
    beside = "".join(
        f", {reference} {format_quantity(value, found['unit'])}"
        for reference, value in found.get("references", {}).items()
    )
    how = f" ({found['how']})" if found["how"] else ""
    spread = f"{low} to {high}, half of the networks below {middle}" if low != high else low
    return f"{name}: {spread}{beside}{how}"


def _decided(space: Mapping[str, int]) -> str:
    """Say what is decided: what fills the slots, and widths."""
    slots, widths = space["slots"], space["widths"]
    in_slots = _several(space["decisions"] - widths, "decision")
    parts = [f"{in_slots} in {_several(slots, 'slot')}" if slots else ""]
    parts += [_several(widths, "width") if widths else ""]
    return " and ".join(filter(None, parts))


def show_check(
    console: Console, facts: Mapping[str, Any], notes: Sequence[str], warned: int = 0
) -> None:
    """Print what a check found, and whether there were warnings."""
    space = facts["space"]
    into, out = ("x".join(str(size) for size in space[key]) for key in ("input", "output"))
    lines = [
        *notes,
        f"space {space['name']}: {format_size(space['architectures'])} architectures, "
        f"{_decided(space)}; {into} to {out}",
        f"device: {facts['device']}",
        "objectives: "
        + "; ".join(
            " ".join(filter(None, [o["metric"], o["goal"], o["limits"]]))
            for o in facts["objectives"]
        ),
    ]
    ranges = {**facts["costs"], **facts["limited"]}
    lines += [_range_line(name, found) for name, found in ranges.items()]
    expected = facts["estimate"]
    if expected:
        said = {
            "search_seconds": "for the search itself",
            "trial_seconds": "for each network",
            "final_seconds": "for each at the end",
        }
        parts = [
            f"{format_duration(expected[k])} {what}" for k, what in said.items() if expected[k]
        ]
        lines.append(
            f"roughly {format_duration(expected['seconds'])} of training on this machine"
            f"{busy()} ({', '.join(parts)}), "
            f"about {format_bytes(expected['bytes'])} of activations in a step"
        )
    lines += facts.get("files", [])
    for split, found in facts.get("data", {}).items():
        count = found["samples"]
        lines.append(f"{split}: {count} sample{'s' * (count != 1)} ({_held(found)})")
    if drawn := facts.get("picture"):
        lines.append(f"{drawn['samples']} training samples are drawn in {drawn['path']}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    if warned:
        told = "a warning" if warned == 1 else f"{warned} warnings"
        console.print(f"the spec can be run, with {told} to look into", style="yellow")
    else:
        console.print("the spec is sound", style="green")

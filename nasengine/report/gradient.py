"""How a gradient search went: losses, costs, doubts, and what the alphas came to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .charts import Axis, Point, Series, chart, heat_map, spark
from .html import Html, details, grid, section, tag
from .record import Event, Record

_ITERATION = Axis("iteration")
_MOST_SPARKS = 32


def gradient_search(record: Record) -> Html | None:
    """Return the section of a gradient search; None where there was none."""
    # After a crash some iterations are told twice: the later line is the one gone on from.
    told = {event["iteration"]: event for event in record.log.get("darts", [])}
    events = [told[iteration] for iteration in sorted(told)]
    if not events:
        return None
    charts = [_losses(events), *_costs(events), _entropy(events), _margins(events)]
    return section(
        "The gradient search",
        grid(charts, "charts"),
        _alphas(record, events[-1]),
        _paths(record, events),
    )


def _line(events: Sequence[Event], *keys: str) -> list[Point]:
    """Return a value over the iterations, where it is known."""
    found = []
    for event in events:
        value = event
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None  # type: ignore[assignment]
        if isinstance(value, (int, float)):
            found.append((float(event["iteration"]), float(value)))
    return found


def _losses(events: Sequence[Event]) -> Html | None:
    series = [
        Series("weights' share of the data", _line(events, "task_loss"), 1),
        Series("alphas' share, with costs", _line(events, "alpha_loss"), 2),
    ]
    return chart("Loss", series, _ITERATION, Axis("loss"))


def _costs(events: Sequence[Event]) -> list[Html | None]:
    found = []
    for key, last in events[-1].get("costs", {}).items():
        series = [
            Series("expected under the alphas", _line(events, "costs", key, "expected"), 1),
            Series("of what would be derived", _line(events, "costs", key, "derived"), 2, "step"),
            Series("target", _line(events, "costs", key, "target"), 3, "dashed"),
        ]
        found.append(chart(f"Cost: {key}", series, _ITERATION, Axis(key, last.get("unit", ""))))
    return found


def _band(title: str, key: str, events: Sequence[Event], note: str) -> Html | None:
    """Draw a value of every slot: the mean, and the least and the most of them."""
    rows = [(float(e["iteration"]), list(e.get(key, {}).values())) for e in events]
    rows = [(at, values) for at, values in rows if values]
    series = [
        Series("least and most", [(at, max(values)) for at, values in rows], 0),
        Series("least and most", [(at, min(values)) for at, values in rows], 0),
        Series("mean over the slots", [(at, sum(values) / len(values)) for at, values in rows], 1),
    ]
    return chart(title, series, _ITERATION, Axis(title.lower()), note)


def _entropy(events: Sequence[Event]) -> Html | None:
    note = "Share of the largest possible: 1 is undecided, 0 decided."
    return _band("Entropy of the alphas", "entropy", events, note)


def _margins(events: Sequence[Event]) -> Html | None:
    return _band("Margin", "margins", events, "The best softmax weight less the second best.")


def _softmax(alphas: Sequence[float]) -> list[float]:
    largest = max(alphas)
    powers = [math.exp(alpha - largest) for alpha in alphas]
    return [power / sum(powers) for power in powers]


def _choices(record: Record, event: Event) -> dict[str, list[str]]:
    """Return slot to choices, in the order of the alphas; names that are not kept are numbered."""
    named = record.decisions
    for told in record.log.get("darts_choices", []):
        named.update(told["choices"])
    for table in record.tables.values():
        for decision, costs in table.per_decision().items():
            named.setdefault(decision, list(costs))
    found = {}
    for slot, alphas in event.get("alphas", {}).items():
        # A cost table lists the baselines too, after the choices.
        names = list(named.get(slot, []))[: len(alphas)]
        if len(names) < len(alphas):
            names = [f"choice {place}" for place in range(1, len(alphas) + 1)]
            best = max(range(len(alphas)), key=alphas.__getitem__)
            names[best] = event.get("derived", {}).get(slot, names[best])
        found[slot] = names
    return found


def _alphas(record: Record, last: Event) -> Html | None:
    rows = {
        slot: dict(zip(names, _softmax(last["alphas"][slot]), strict=True))
        for slot, names in _choices(record, last).items()
    }
    derived = record.log.get("darts_derived", [])
    chosen = derived[0]["architecture"] if derived else last.get("derived", {})
    moved = derived[0].get("moved", []) if derived else []
    note = "Softmax of the alphas at the end; ✓ marks what was derived."
    if moved:
        note += f" To keep within a target, not the arg-max at {', '.join(moved)}."
    return heat_map("What the alphas came to", rows, chosen, note)


def _paths(record: Record, events: Sequence[Event]) -> Html | None:
    """Draw how the softmax of every slot's alphas went."""
    last = events[-1]
    if len(events) < 2:
        return None
    shown = list(_choices(record, last).items())[:_MOST_SPARKS]
    shares = {
        slot: [(float(e["iteration"]), _softmax(e["alphas"][slot])) for e in events]
        for slot, _ in shown
    }
    every = [share for rows in shares.values() for _, row in rows for share in row]
    low, high = min(every), max(every)
    drawn = []
    for slot, names in shown:
        lines = {name: [(at, row[i]) for at, row in shares[slot]] for i, name in enumerate(names)}
        strong = max(names, key=lambda name: lines[name][-1][1])
        drawn.append(spark(slot, lines, strong, low, high))
    left = len(last["alphas"]) - len(drawn)
    said = f"Softmax of the alphas, all on one scale from {low:.3g} to {high:.3g}."
    note = tag("p", f"{said} And {left} more slots." if left else said, class_="note")
    return details("Every slot's alphas over the iterations", note, grid(drawn, "sparks"))


def notes(record: Record) -> Html | None:
    """Return the warnings of the run, and its notes on demand."""
    warnings = list(dict.fromkeys(str(e.get("text", "")) for e in record.log.get("warning", [])))
    told = list(dict.fromkeys(str(e.get("text", "")) for e in record.log.get("note", [])))
    listed = tag("ul", *(tag("li", text) for text in warnings), class_="warnings")
    return (
        section(
            "Warnings and notes",
            listed if warnings else None,
            details("notes", tag("ul", *(tag("li", text) for text in told))) if told else None,
        )
        if warnings or told
        else None
    )

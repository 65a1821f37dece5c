"""How a gradient search went: losses, costs, doubts, and what the alphas came to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from .charts import Axis, Point, Series, chart, heat_map, spark
from .events import CostFacts, Iteration
from .html import Html, details, grid, section, tag
from .record import Record

_ITERATION = Axis("iteration", counts=True)
_MOST_SPARKS = 32


def gradient_search(record: Record) -> Html | None:
    """Return the section of a gradient search; None where there was none."""
    # After a crash some iterations are told twice: the later line is the one gone on from.
    told = {event.iteration: event for event in record.log.iterations}
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


def _line(events: Sequence[Iteration], value: Callable[[Iteration], float | None]) -> list[Point]:
    """Return a value over the iterations, where it is known."""
    found = [(float(event.iteration), value(event)) for event in events]
    return [(at, known) for at, known in found if known is not None]


def _losses(events: Sequence[Iteration]) -> Html | None:
    series = [
        Series("weights' share of the data", _line(events, lambda e: e.task_loss), 1),
        Series("alphas' share, with costs", _line(events, lambda e: e.alpha_loss), 2),
    ]
    return chart("Loss", series, _ITERATION, Axis("loss"))


def _costs(events: Sequence[Iteration]) -> list[Html | None]:
    return [_cost(events, key, last.unit) for key, last in events[-1].costs.items()]


def _cost(events: Sequence[Iteration], key: str, unit: str) -> Html | None:
    def line(value: Callable[[CostFacts], float | None]) -> list[Point]:
        return _line(events, lambda e: value(e.costs[key]) if key in e.costs else None)

    series = [
        Series("expected under the alphas", line(lambda cost: cost.expected), 1),
        Series("of what would be derived", line(lambda cost: cost.derived), 2, "step"),
        Series("target", line(lambda cost: cost.target), 3, "dashed"),
    ]
    return chart(f"Cost: {key}", series, _ITERATION, Axis(key, unit))


def _band(
    title: str,
    value: Callable[[Iteration], Mapping[str, float]],
    events: Sequence[Iteration],
    note: str,
) -> Html | None:
    """Draw a value of every decision: the mean, and the least and the most of them."""
    rows = [(float(event.iteration), list(value(event).values())) for event in events]
    rows = [(at, values) for at, values in rows if values]
    series = [
        Series("least and most", [(at, max(values)) for at, values in rows], 0),
        Series("least and most", [(at, min(values)) for at, values in rows], 0),
        Series(
            "mean over the decisions", [(at, sum(values) / len(values)) for at, values in rows], 1
        ),
    ]
    return chart(title, series, _ITERATION, Axis(title.lower()), note)


def _entropy(events: Sequence[Iteration]) -> Html | None:
    note = "Share of the largest possible: 1 is undecided, 0 decided."
    return _band("Entropy of the alphas", lambda e: e.entropy, events, note)


def _margins(events: Sequence[Iteration]) -> Html | None:
    note = "The best softmax weight less the second best."
    return _band("Margin", lambda e: e.margins, events, note)


def _softmax(alphas: Sequence[float]) -> list[float]:
    largest = max(alphas)
    powers = [math.exp(alpha - largest) for alpha in alphas]
    return [power / sum(powers) for power in powers]


def _choices(record: Record, event: Iteration) -> dict[str, list[str]]:
    """Return decision to choices, as the alphas are; numbered where the log has no names."""
    named = {
        decision: names for told in record.log.choices for decision, names in told.choices.items()
    }
    found = {}
    for decision, alphas in event.alphas.items():
        names = named.get(decision, [])
        if len(names) != len(alphas):
            names = [f"choice {place}" for place in range(1, len(alphas) + 1)]
            best = max(range(len(alphas)), key=alphas.__getitem__)
            names[best] = event.derived.get(decision, names[best])
        found[decision] = names
    return found


def _alphas(record: Record, last: Iteration) -> Html | None:
    rows = {
        decision: dict(zip(names, _softmax(last.alphas[decision]), strict=True))
        for decision, names in _choices(record, last).items()
    }
    derived = record.log.derived
    chosen = derived[0].architecture if derived else last.derived
    moved = derived[0].moved if derived else []
    of = f" first, of {len(derived)} networks" if len(derived) > 1 else ""
    note = f"Softmax of the alphas at the end; ✓ marks what was derived{of}."
    if moved:
        note += f" To keep within a target, not the arg-max at {', '.join(moved)}."
    return heat_map("What the alphas came to", rows, chosen, note)


def _sizes(event: Iteration) -> dict[str, int]:
    return {decision: len(alphas) for decision, alphas in event.alphas.items()}


def _paths(record: Record, events: Sequence[Iteration]) -> Html | None:
    """Draw how the softmax of every decision's alphas went."""
    last = events[-1]
    events = [event for event in events if _sizes(event) == _sizes(last)]
    if len(events) < 2 or not last.alphas:
        return None
    shown = list(_choices(record, last).items())[:_MOST_SPARKS]
    shares = {
        decision: [(float(e.iteration), _softmax(e.alphas[decision])) for e in events]
        for decision, _ in shown
    }
    every = [share for rows in shares.values() for _, row in rows for share in row]
    low, high = min(every), max(every)
    drawn = []
    for decision, names in shown:
        lines = {
            name: [(at, row[i]) for at, row in shares[decision]] for i, name in enumerate(names)
        }
        strong = max(names, key=lambda name: lines[name][-1][1])
        drawn.append(spark(decision, lines, strong, low, high))
    left = len(last.alphas) - len(drawn)
    said = f"Softmax of the alphas, all on one scale from {low:.3g} to {high:.3g}."
    note = tag("p", f"{said} And {left} more decisions." if left else said, class_="note")
    return details("Every decision's alphas over the iterations", note, grid(drawn, "sparks"))


def notes(record: Record) -> Html | None:
    """Return the warnings of the run, and its notes on demand."""
    warnings = list(dict.fromkeys(event.text for event in record.log.warnings))
    if record.log.unread:
        lines = "a line is" if record.log.unread == 1 else f"{record.log.unread} lines are"
        warnings.append(f"log.jsonl: {lines} not as written, and left out of this page")
    told = list(dict.fromkeys(event.text for event in record.log.notes))
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

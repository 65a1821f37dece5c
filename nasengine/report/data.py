"""What a run learned from and was judged by: how much there is of it, in which split."""

from __future__ import annotations

from collections.abc import Iterable

from nasengine.quantities import format_share

from .events import ClassFacts, Data, SplitFacts
from .html import MISSING, Html, bullets, join, section, table, tag
from .record import Record

MOST_CLASSES = 12
"""Classes that have a column; ``nasengine check --data`` tells of all."""

_ROLES = {"train": "trained on", "validation": "chose the winner", "test": "chose nothing"}


def data(record: Record) -> Html | None:
    """Return the section of the data; None where none were read."""
    if not record.log.data:
        return None
    told = record.log.data[-1]
    return section("The data", _splits(told), _note(told), bullets(told.facts) or None)


def _splits(told: Data) -> Html:
    names = _classes(told)
    rows = [
        [
            join([split, tag("small", _ROLES.get(split, ""))]),
            str(held.samples),
            *_cells(held, names),
        ]
        for split, held in told.splits.items()
    ]
    return table(["split", "samples", *(names or ["values"])], rows)


def _classes(told: Data) -> list[str]:
    """Return the classes of any split, each once."""
    names = dict.fromkeys(name for held in told.splits.values() for name in held.classes)
    return [*names][:MOST_CLASSES]


def _cells(held: SplitFacts, names: Iterable[str]) -> Iterable[Html | str]:
    if of := held.values:
        yield f"{of.least:.4g} to {of.largest:.4g}, mean {of.mean:.4g}"
    for name in names:
        yield _cell(held.classes[name]) if name in held.classes else MISSING


def _cell(held: ClassFacts) -> Html:
    return join([str(held.samples), tag("small", format_share(held.share))])


def _note(told: Data) -> Html:
    shown = _classes(told)
    known = {name for held in told.splits.values() for name in held.classes}
    parts = ["Of each class: the samples that hold it, and its share of all targets."] * bool(shown)
    if len(known) > len(shown):
        parts.append(f"{len(known) - len(shown)} more classes are not shown.")
    parts.append("splits.csv in the run's folder says which sample is in which split.")
    return tag("p", " ".join(parts), class_="note")

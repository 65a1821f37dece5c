"""How the winner and the references were trained."""

from __future__ import annotations

from .charts import Axis, Point, Series, chart
from .html import Html, grid, section
from .record import Record


def training(record: Record) -> Html | None:
    """Return the loss curves of the winner and of the references, a line a seed."""
    names = {f"reference-{name}": name for name in record.references}
    if record.winner is not None:
        names[f"trial-{record.winner.number}"] = "searched"
    curves: dict[str, dict[int, float]] = {}
    rates: dict[str, dict[int, float]] = {}
    for event in record.log.steps:
        # After a crash some steps are told twice: the later line is the one gone on from.
        if event.what.partition("/")[0] in names:
            curves.setdefault(event.what, {})[event.step] = event.loss
            rates.setdefault(event.what, {})[event.step] = event.learning_rate
    if not curves:
        return None
    colours = {label: 2 if name == "searched" else 0 for label, name in names.items()}
    free = iter([1, 3, 4, 5, 6] * (1 + len(names) // 5))
    colours = {label: colour or next(free) for label, colour in colours.items()}
    series = []
    # The searched one lies on top.
    for what in sorted(curves, key=lambda what: what.startswith("trial-")):
        label = what.partition("/")[0]
        series.append(Series(names[label], _sorted(curves[what]), colours[label]))
    step = Axis("step")
    loss = chart("Training loss", series, step, Axis("loss"), _note(curves))
    [first, *_] = rates.values()
    rate = chart("Learning rate", [Series("", _sorted(first))], step, Axis("learning rate"))
    return section("Training", grid([loss, rate], "charts"))


def _sorted(curve: dict[int, float]) -> list[Point]:
    return [(float(step), float(curve[step])) for step in sorted(curve)]


def _note(curves: dict[str, dict[int, float]]) -> str:
    networks = len({what.partition("/")[0] for what in curves})
    per_seed = "; a line a seed" if len(curves) > networks else ""
    return f"Mean over the steps since the point before{per_seed}."

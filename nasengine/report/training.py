"""How the winner and the references were trained, by every estimator that trains."""

from __future__ import annotations

from collections.abc import Mapping

from .charts import Axis, Point, Series, chart
from .events import Step
from .html import Html, grid, section
from .record import Record

_STEP = Axis("step", counts=True)
Curves = Mapping[str, Mapping[int, Step]]
"""What is trained, to its steps; after a crash some are told twice, and the later one counts."""


def training(record: Record) -> Html | None:
    """Return the loss curves of the winner and of the references, a line a seed.

    An estimator for the search and one for the end train by recipes of their own: charts each.
    """
    names = {trial.label: name for name, trial in record.references.items()}
    if record.winner is not None:
        names[record.winner.label] = "searched"
    found: dict[str, dict[str, dict[int, Step]]] = {}
    for event in record.log.steps:
        if event.what.partition("/")[0] in names:
            curves = found.setdefault(event.estimator, {})
            curves.setdefault(event.what, {})[event.step] = event
    charts = []
    for estimator, curves in found.items():
        by = f", {estimator}" if len(found) > 1 else ""
        series = _series(curves, names)
        charts.append(chart(f"Training loss{by}", series, _STEP, Axis("loss"), _note(curves)))
        rate = [Series("", _rates(next(iter(curves.values()))))]
        charts.append(chart(f"Learning rate{by}", rate, _STEP, Axis("learning rate")))
    return section("Training", grid(charts, "charts"))


def _series(curves: Curves, names: Mapping[str, str]) -> list[Series]:
    """Return a line for each training, those of the searched network on top."""
    # As they are marked among the trials.
    colours = {label: 3 + place % 4 for place, label in enumerate(names)}
    colours |= {label: 2 for label, name in names.items() if name == "searched"}
    found = []
    for what in sorted(curves, key=lambda what: what.startswith("trial-")):
        label = what.partition("/")[0]
        found.append(Series(names[label], _losses(curves[what]), colours[label]))
    return found


def _losses(curve: Mapping[int, Step]) -> list[Point]:
    return [(float(step), float(curve[step].loss)) for step in sorted(curve)]


def _rates(curve: Mapping[int, Step]) -> list[Point]:
    return [(float(step), float(curve[step].learning_rate)) for step in sorted(curve)]


def _note(curves: Curves) -> str:
    networks = len({what.partition("/")[0] for what in curves})
    per_seed = "; a line a seed" if len(curves) > networks else ""
    return f"Mean over the steps since the point before{per_seed}."

"""What the cost tables predicted beside what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress

from nasengine import statistics
from nasengine.estimator import CostTable
from nasengine.trial import Trial

from .charts import Axis, Series, chart
from .events import Derivation
from .html import MISSING, Html, grid, section, table
from .record import Record

Pair = tuple[float, float]


def costs(record: Record) -> Html | None:
    """Return predicted against measured costs: of what was derived, and of all networks."""
    charts = []
    for key, made in record.tables.items():
        pairs, names = _pairs(made, key, [*record.history, *record.references.values()])
        if len(pairs) > 1:
            charts.append(_scatter(key, made.unit, pairs, names))
    return section(
        "Costs, predicted and measured",
        _derived(record),
        grid(charts, "charts"),
    )


def _pairs(made: CostTable, key: str, trials: Sequence[Trial]) -> tuple[list[Pair], list[str]]:
    """Return (measured, predicted) of the networks that the table knows every choice of."""
    pairs, names = [], []
    for trial in trials:
        with suppress(KeyError):
            pairs.append((trial.value(key), made.predict(trial.architecture)))
            names.append(trial.reference or f"trial {trial.number}")
    return pairs, names


def _scatter(key: str, unit: str, pairs: list[Pair], names: list[str]) -> Html | None:
    ends = [min(min(pair) for pair in pairs), max(max(pair) for pair in pairs)]
    series = [
        Series("equal", [(end, end) for end in ends], 0, "dashed"),
        Series("a network", pairs, 1, "dots", names),
    ]
    return chart(
        f"{key}, by its table",
        series,
        Axis(f"measured {key}", unit),
        Axis("predicted", unit),
        agreement(pairs),
    )


def agreement(pairs: Sequence[Pair]) -> str:
    """Say how well predictions agree with measurements.

    Examples
    --------
    >>> agreement([(1.0, 1.1), (2.0, 2.2), (4.0, 4.4)])
    'Mean error 10.0% over 3 networks; Kendall 1.00, Spearman 1.00.'
    """
    found = statistics.agreement([guess for _, guess in pairs], [real for real, _ in pairs])
    said, error = f"{len(pairs)} networks", found["mean_relative_error"]
    if not math.isnan(error):
        said = f"Mean error {error:.1%} over {said}"
    # A ranking of two says nothing.
    distinct = min(len({pair[side] for pair in pairs}) for side in (0, 1))
    if distinct < 3:
        return said + "."
    return f"{said}; Kendall {found['kendall']:.2f}, Spearman {found['spearman']:.2f}."


def _derived(record: Record) -> Html | None:
    """Return predicted and measured costs of every architecture that was derived."""
    rows = [
        tuple(_compared(record, event, key))
        for event in record.log.derived
        for key in event.predicted
    ]
    if not rows:
        return None
    titles = ["derived", "cost", "target", "predicted", "measured", "error", "within target"]
    # A resumed run tells of the same architecture again.
    return table(titles, dict.fromkeys(rows), numbers_from=2)


def _compared(record: Record, event: Derivation, key: str) -> Iterator[str]:
    """Yield one derived architecture's cost: asked, predicted, measured."""
    same = [t for t in record.history if dict(t.architecture) == event.architecture]
    found = same[0].measurements.get(key) if same else None
    target, predicted = event.targets.get(key), event.predicted[key]
    yield f"trial {same[0].number}" if same else "not measured"
    yield key
    yield record.text(key, target) if target is not None else MISSING
    yield record.text(key, predicted)
    yield record.text(key, found.value) if found else MISSING
    yield _gap(predicted, found.value) if found else MISSING
    yield _kept(target, found.value) if found and target is not None else MISSING


def _gap(predicted: float, measured: float) -> str:
    return f"{(predicted - measured) / measured:+.1%}" if measured else MISSING


def _kept(target: float, measured: float) -> str:
    return "yes" if measured <= target else "no"

"""What a network that was trained comes to on samples that it was not trained on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nasengine.evaluation import predict, score
from nasengine.trial import Metric

if TYPE_CHECKING:
    from nasengine.search import Search
    from nasengine.task import Samples

_PER_SAMPLE_LIMIT = 500
"""Larger splits keep no figure per sample: they would swell the history."""

PerSample = dict[str, tuple[float | None, ...]]


def held_out_metrics(search: Search, primary: str | None) -> list[Metric]:
    """Return the task's metrics and ``loss``, the primary one first, and the same on test."""
    found = [*search.task.metrics_from(primary), Metric("loss", "", "min")]
    return found + [Metric(f"test_{m.name}", m.unit, m.direction, test_of=m.name) for m in found]


def on_held_out(
    network: nn.Module,
    validation: Samples,
    test: Samples | None,
    search: Search,
    primary: str,
    device: str | None = None,
) -> tuple[dict[str, float], PerSample]:
    """Return the values of `held_out_metrics`, and the primary ones on each sample alone.

    Parameters
    ----------
    network
        On the device.
    validation, test
        The splits, the second where there is one.
    search
        Its task.
    primary
        The primary metric.
    device
        By default the search's.

    Returns
    -------
    Values by metric; of the primary metric, and of the same on test, the value on each sample, for
    paired tests: None where it is not finite. Large splits are left out of these.

    Raises
    ------
    EstimationFailed
        If an output is NaN or infinite.
    """
    values: dict[str, float] = {}
    per_sample: PerSample = {}
    for prefix, samples in {"": validation, "test_": test}.items():
        if samples is None:
            continue
        outputs = predict(network, samples.inputs, device or search.device)
        found = score(outputs, samples.targets, search.task)
        values.update({f"{prefix}{name}": value for name, value in found.items()})
        if len(samples) <= _PER_SAMPLE_LIMIT:
            per_sample[f"{prefix}{primary}"] = _each(outputs, samples, search, primary)
    return values, per_sample


def _each(
    outputs: Tensor, samples: Samples, search: Search, metric: str
) -> tuple[float | None, ...]:
    """Return a metric of each sample alone."""
    parts = zip(torch.split(outputs, 1), torch.split(samples.targets, 1), strict=True)
    values = [search.task.evaluate(output, target)[metric] for output, target in parts]
    return tuple(round(value, 6) if math.isfinite(value) else None for value in values)

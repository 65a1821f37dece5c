"""Statistics of a comparison over seeds: spread, and the confidence of a difference."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample (n - 1); NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))


@dataclass(frozen=True)
class Difference:
    """The difference of two means, and how sure it is.

    Parameters
    ----------
    value
        Mean of the first less mean of the second.
    low, high
        Bounds of its 95% bootstrap confidence interval; NaN for fewer than two values.
    """

    value: float
    low: float
    high: float


def difference(
    first: Sequence[float], second: Sequence[float], *, paired: bool, resamples: int = 10_000
) -> Difference:
    """Return the difference of means with its percentile bootstrap interval (Efron 1979).

    Parameters
    ----------
    first, second
        Values, one a seed.
    paired
        Whether the values of equal position share a seed; they are then resampled together.
    resamples
        How many; they are drawn from a fixed seed, so that the same values give the same interval.

    Examples
    --------
    >>> found = difference([1.0, 1.1, 0.9], [0.5, 0.6, 0.4], paired=True)
    >>> round(found.value, 6), found.low > 0
    (0.5, True)
    """
    value = mean(first) - mean(second)
    if min(len(first), len(second)) < 2:
        return Difference(value, math.nan, math.nan)
    rng = random.Random(0)
    if paired:
        gaps = [a - b for a, b in zip(first, second, strict=True)]
        drawn = sorted(mean(rng.choices(gaps, k=len(gaps))) for _ in range(resamples))
    else:
        drawn = sorted(
            mean(rng.choices(first, k=len(first))) - mean(rng.choices(second, k=len(second)))
            for _ in range(resamples)
        )
    return Difference(
        value, drawn[int(0.025 * resamples)], drawn[min(resamples - 1, int(0.975 * resamples))]
    )


def agreement(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, float]:
    """Say how well one quantity agrees with another: rank correlations and mean relative error.

    Parameters
    ----------
    predicted, measured
        Of the same networks, in the same order.

    Returns
    -------
    ``spearman``, ``kendall`` (tau-b), and ``mean_absolute_error`` as a share of the measured
    value; NaN where one of the two does not vary.

    Examples
    --------
    >>> quality = agreement([1.0, 2.0, 3.3], [1.0, 2.0, 3.0])
    >>> {name: round(value, 3) for name, value in quality.items()}
    {'spearman': 1.0, 'kendall': 1.0, 'mean_absolute_error': 0.033}
    """
    from scipy.stats import kendalltau, spearmanr

    varies = len(set(predicted)) > 1 and len(set(measured)) > 1
    errors = [
        abs(p - m) / abs(m) if m else math.nan for p, m in zip(predicted, measured, strict=True)
    ]
    return {
        "spearman": float(spearmanr(predicted, measured).statistic) if varies else math.nan,
        "kendall": float(kendalltau(predicted, measured).statistic) if varies else math.nan,
        "mean_absolute_error": mean(errors),
    }

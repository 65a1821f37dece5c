"""Intervals over seeds hold what they promise, also for few seeds."""

from __future__ import annotations

import math
import random

import pytest

from nasengine.runs.result import Comparison
from nasengine.statistics import agreement, difference
from nasengine.trial import Measurement, Metric

CASES = 1000


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("paired", [True, False])
def test_a_95_percent_interval_covers_the_truth_in_95_percent(seeds: int, paired: bool) -> None:
    rng = random.Random(seeds)
    covered = 0
    for _ in range(CASES):
        common = [rng.gauss(0, 3 * paired) for _ in range(seeds)]
        first = [1.0 + c + rng.gauss(0, 1) for c in common]
        second = [c + rng.gauss(0, 1) for c in common]
        found = difference(first, second, paired=paired, resamples=1)
        covered += found.low <= 1.0 <= found.high
    # Welch's interval is wider than needed where two seeds leave it hardly a degree of freedom.
    most = 0.995 if not paired and seeds <= 3 else 0.97
    assert 0.93 <= covered / CASES <= most


def test_the_bootstrap_stands_beside_it_and_is_the_narrower() -> None:
    found = difference([1.0, 1.4, 1.1], [0.5, 0.6, 0.4], paired=True)
    low, high = found.bootstrap
    assert found.low < low < found.value < high < found.high
    assert (low, high) == difference([1.0, 1.4, 1.1], [0.5, 0.6, 0.4], paired=True).bootstrap


def test_what_does_not_vary_has_no_width_and_one_value_no_interval() -> None:
    assert difference([2.0] * 3, [1.0] * 3, paired=False) == difference(
        [2.0] * 3, [1.0] * 3, paired=True
    )
    found = difference([2.0] * 3, [1.0] * 3, paired=False)
    assert (found.low, found.high, found.bootstrap) == (1.0, 1.0, (1.0, 1.0))
    alone = difference([2.0], [1.0, 1.5], paired=False)
    assert alone.value == 0.75
    assert all(math.isnan(bound) for bound in (alone.low, alone.high, *alone.bootstrap))


def test_a_verdict_over_two_seeds_asks_for_more_than_a_plain_gain() -> None:
    """Two standard errors, right for many seeds, called this better: its interval holds 0."""

    def over_seeds(*values: float) -> dict[str, Measurement]:
        return {"iou": Measurement(sum(values) / len(values), {"values": list(values)})}

    def verdict(second: dict[str, Measurement]) -> str:
        networks = {"searched": over_seeds(0.71, 0.75), "unet": second}
        return Comparison({"iou": Metric("iou", "", "max")}, networks, ("iou",)).verdict()[0]

    assert verdict(over_seeds(0.65, 0.67)).startswith("level with unet")
    assert "95% interval of the difference: -0." in verdict(over_seeds(0.65, 0.67))
    assert verdict(over_seeds(0.10, 0.11)).startswith("better than unet")


def test_a_relative_error_is_called_one() -> None:
    assert agreement([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])["mean_relative_error"] == pytest.approx(
        4 / 3
    )

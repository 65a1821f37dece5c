"""Intervals over seeds hold what they promise, also for few seeds."""

from __future__ import annotations

import math
import random

import pytest

from nasengine.runs.result import Comparison
from nasengine.statistics import (
    agreement,
    bootstrap_interval,
    difference,
    spearman_interval,
    t_interval,
)
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
        low, high = t_interval(first, second, paired=paired)
        covered += low <= 1.0 <= high
    # Welch's interval is wider than needed where two seeds leave it hardly a degree of freedom.
    most = 0.995 if not paired and seeds <= 3 else 0.97
    assert 0.93 <= covered / CASES <= most


def test_the_bootstrap_stands_beside_it_and_is_the_narrower() -> None:
    found = difference([1.0, 1.4, 1.1], [0.5, 0.6, 0.4], paired=True)
    low, high = found.bootstrap
    assert found.low < low < found.value < high < found.high
    assert (low, high) == difference([1.0, 1.4, 1.1], [0.5, 0.6, 0.4], paired=True).bootstrap


@pytest.mark.parametrize("paired", [True, False])
def test_what_does_not_vary_and_one_value_have_no_interval(paired: bool) -> None:
    """Two or three equal values are no proof that nothing ever varies."""
    found = difference([2.0] * 3, [1.0] * 3, paired=paired)
    assert found.value == 1.0
    assert all(math.isnan(bound) for bound in (found.low, found.high, *found.bootstrap))
    alone = difference([2.0], [1.0, 1.5], paired=False)
    assert alone.value == 0.75
    assert all(math.isnan(bound) for bound in (alone.low, alone.high, *alone.bootstrap))
    # What rounding leaves behind is no spread: 0.3 - 0.2 is not quite 0.8 - 0.7.
    assert math.isnan(t_interval([0.3, 0.8], [0.2, 0.7], paired=True)[0])


@pytest.mark.parametrize(("paired", "margin"), [(True, 0.196), (False, 0.277)])
def test_the_bootstrap_leaves_out_a_fortieth_on_either_side(paired: bool, margin: float) -> None:
    """Of a hundred values its interval is the normal one, whose 1.96 is not the 1.64 of 90%."""
    first = [1.0] * 50 + [3.0] * 50
    second = [5.0] * 100 if paired else [value + 4 for value in first]
    found = bootstrap_interval(first, second, paired=paired)
    middle = -3.0 if paired else -4.0
    assert found == pytest.approx((middle - margin, middle + margin), abs=0.015)
    assert found == bootstrap_interval(first, second, paired=paired)


def test_agreement_without_a_spread_or_a_value_has_none() -> None:
    assert all(map(math.isnan, agreement([], []).values()))
    some = agreement([1.0, 1.0, 3.0], [0.0, 1.0, 2.0])
    assert some["mean_relative_error"] == 0.25, "of what is not 0"
    assert math.isnan(agreement([1.0, 2.0], [0.0, 0.0])["mean_relative_error"])


def test_equal_values_share_their_ranks() -> None:
    """Spearman of mean ranks; Kendall's tau-b: 5 pairs in order, of 5 and of 6 that can be."""
    found = agreement([1.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0])
    assert found["spearman"] == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert found["kendall"] == pytest.approx(5 / math.sqrt(5 * 6))


def test_few_pairs_and_a_perfect_ranking_have_no_interval() -> None:
    assert all(map(math.isnan, (*spearman_interval(0.8, 3), *spearman_interval(-1.0, 10))))
    low, high = spearman_interval(-0.8, 4)
    assert -1 < low < -0.8 < high < 1


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
    assert agreement([-1.5, -2.2], [-1.0, -2.0])["mean_relative_error"] == pytest.approx(0.3)

"""A screen: of what a cheap estimator likes best, a share goes on to the dear ones.

Successive halving, asynchronously: a trial is held against those that are as far as it is by then,
not against a rung that would have to be filled first (Li et al., A System for Massively Parallel
Hyperparameter Tuning, MLSys 2020, Algorithm 2: https://arxiv.org/abs/1810.05934). What the cheap
estimator is, is open: a short training, inherited weights, a zero-cost score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from nasengine.trial import Direction, Measurement

BAR = "screen_bar"
"""The detail of a measurement that holds what its trial had to reach to go on."""


@dataclass(frozen=True)
class Screen:
    """Which trials go on: those among the best share of all so far.

    Parameters
    ----------
    share
        Above 0 and below 1.
    better
        Which way is better. Equal values go on together.
    """

    share: float
    better: Direction

    def bar(self, others: Sequence[float]) -> float | None:
        """Return what a trial has to reach, given the values of others; None where all pass.

        Of n trials, it among them, the best share goes on, rounded up: so the first one does.

        Examples
        --------
        >>> screen = Screen(1 / 3, "max")
        >>> [screen.bar(others) for others in ([], [0.6], [0.6, 0.7, 0.5])]
        [None, 0.6, 0.6]
        """
        place = self._going_on(len(others) + 1)
        if place > len(others):
            return None
        return sorted(others, reverse=self.better == "max")[place - 1]

    def _going_on(self, trials: int) -> int:
        """Return how many of so many go on."""
        # Rounded: in binary, 28% of 25 are more than seven.
        return math.ceil(round(self.share * trials, 9))

    def expected_share(self, trials: int) -> float:
        """Return which share goes on of so many trials that come in no order.

        It is above `share`: the first goes on, and the early ones are held against few.

        Examples
        --------
        >>> [round(Screen(1 / 3, "max").expected_share(n), 2) for n in (1, 6, 100)]
        [1.0, 0.51, 0.35]
        """
        return fmean(self._going_on(n) / n for n in range(1, trials + 1))

    def holds_back(self, measurement: Measurement) -> bool:
        """Say whether a measurement kept its trial from going on."""
        bar, value = measurement.details.get(BAR), measurement.value
        if bar is None:
            return False
        return not (value >= bar if self.better == "max" else value <= bar)

    def distance(self, value: float) -> float:
        """Return a number between 0 and 1 that is higher the worse a value is, at any scale.

        Trials that were held back at different times are compared by it: their bars differ.

        Examples
        --------
        >>> screen = Screen(0.5, "max")
        >>> 0 < screen.distance(0.8) < screen.distance(0.3) < screen.distance(-1e30) < 1
        True
        >>> screen.distance(2e20) < screen.distance(1e20)
        True
        """
        # About the logarithm, for scores such as SynFlow's reach 1e20; exponents are above -1074.
        fraction, exponent = math.frexp(abs(value))
        size = (2 * fraction + exponent + 1074) / 2200 if value else 0.0
        worse = (value < 0) == (self.better == "max")
        return 0.5 + (size if worse else -size) / 2

    def asked(self) -> str:
        """Say it.

        Examples
        --------
        >>> Screen(1 / 3, "max").asked()
        'among the best 33.3% so far'
        """
        return f"among the best {100 * self.share:.3g}% so far"


def with_bars(
    measurements: Mapping[str, Measurement], bars: Mapping[str, float]
) -> dict[str, Measurement]:
    """Return measurements, with what their trial has to reach to go on among the details."""
    return {
        metric: replace(m, details={**m.details, BAR: bars[metric]}) if metric in bars else m
        for metric, m in measurements.items()
    }

"""A screen: of what a cheap estimator likes best, a share goes on to the dear ones.

Successive halving, asynchronously: a trial is held against the trials before it, not against a
rung of its own that would have to be filled first (Li et al., A System for Massively Parallel
Hyperparameter Tuning, MLSys 2020, Algorithm 2: https://arxiv.org/abs/1810.05934). What the cheap
estimator is, is open: a short training, inherited weights, a zero-cost score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
        Which way is better.
    """

    share: float
    better: Direction

    def bar(self, earlier: Sequence[float]) -> float | None:
        """Return what a trial has to reach, given the values before it; None where all pass.

        Of n trials, it among them, the best share goes on, rounded up: so the first one does.

        Examples
        --------
        >>> screen = Screen(1 / 3, "max")
        >>> [screen.bar(earlier) for earlier in ([], [0.6], [0.6, 0.7, 0.5])]
        [None, 0.6, 0.6]
        """
        known = [value for value in earlier if not math.isnan(value)]
        # Rounded, or a third of three would be more than one.
        place = math.ceil(round(self.share * (len(known) + 1), 9))
        if place > len(known):
            return None
        return sorted(known, reverse=self.better == "max")[place - 1]

    def holds_back(self, measurement: Measurement) -> bool:
        """Say whether a measurement kept its trial from going on."""
        bar, value = measurement.details.get(BAR), measurement.value
        if bar is None:
            return False
        return not (value >= bar if self.better == "max" else value <= bar)

    def distance(self, value: float) -> float:
        """Return a number between 0 and 1 that is higher the worse a value is.

        Trials that were held back at different times are compared by it: their bars differ.

        Examples
        --------
        >>> screen = Screen(0.5, "max")
        >>> 0 < screen.distance(0.8) < screen.distance(0.3) < 1
        True
        """
        better = value if self.better == "max" else -value
        return 1.0 if math.isnan(value) else 0.5 - math.atan(better) / math.pi

    def asked(self) -> str:
        """Say it.

        Examples
        --------
        >>> Screen(1 / 3, "max").asked()
        'among the best 33.3% so far'
        """
        return f"among the best {100 * self.share:.3g}% so far"

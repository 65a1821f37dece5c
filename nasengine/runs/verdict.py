"""Whether a search won: what a difference shows, on which split, and what it does not show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nasengine.statistics import Difference, difference
from nasengine.trial import Measurement


@dataclass(frozen=True)
class Judged:
    """By what two networks are judged.

    Parameters
    ----------
    metric
        The metric that decides: the goal, or the same on the test split.
    exact
        Whether it is without chance.
    split
        ``test`` where nothing was chosen by it, ``validation`` where the winner was and the
        estimator knows a test split, empty where it knows none.
    trials
        How many trials the winner was chosen from.
    goals
        How many goals it was chosen by.
    """

    metric: str
    exact: bool = False
    split: str = ""
    trials: int = 0
    goals: int = 1

    def say(
        self, reference: str, values: str, gain: float, mine: Measurement, other: Measurement
    ) -> str:
        """Say how the winner stands to a reference; ``gain`` is positive where it is better.

        `better` and `worse` are said where the metric is exact, or an interval excludes 0;
        without an interval it is `ahead` or `behind`, with where and of how many.
        """
        values += " on the test split" if self.split == "test" else ""
        if self.exact or gain == 0:
            return f"{_word(gain)} {reference}: {values}"
        noise, found = self._interval(mine, other)
        if found is None:
            return self._unproven(reference, values, gain)
        bounds = f"95% interval of the difference: {found.low:+.3g} to {found.high:+.3g}"
        if self._chosen:
            bounds += f", widened for the choice among {self.trials} trials"
        # Of a metric that is no mean over samples, the samples may say the contrary.
        opposed = found.value * (mine.value - other.value) <= 0
        if found.low <= 0 <= found.high or opposed:
            return f"level with {reference}: {values}, within the noise between {noise} ({bounds})"
        return f"{_word(gain)} {reference}: {values} ({bounds}, over {noise})"

    @property
    def _chosen(self) -> bool:
        return self.split != "test" and self.trials > 1

    def _unproven(self, reference: str, values: str, gain: float) -> str:
        said = f"{'ahead of' if gain > 0 else 'behind'} {reference}: {values}"
        if self._chosen and gain > 0:
            what = "best of" if self.goals == 1 else "choice among"
            where = "split" if self.split else "measurement"
            said += f" on the {where} that chose it: the {what} {self.trials} trials"
            return said + ("; no test split" if self.split else "; nothing else was measured")
        return said + " (measured once: a small difference may be chance)"

    def _interval(self, mine: Measurement, other: Measurement) -> tuple[str, Difference | None]:
        """Return the interval of the difference over seeds, else over the samples.

        The winner is the luckiest of many: its interval holds with them all (Bonferroni).
        """
        confidence = 1 - 0.05 / (self.trials if self._chosen else 1)
        seeds = [m.details.get("values", ()) for m in (mine, other)]
        if min(map(len, seeds)) > 1:
            # Equal seeds do not make two architectures' trainings alike: they are no pairs.
            found = difference(*seeds, paired=False, resamples=1, confidence=confidence)
            return "seeds", found
        samples = [m.details.get("per_sample", ()) for m in (mine, other)]
        if len(samples[0]) != len(samples[1]):
            return "", None
        pairs = [p for p in zip(*samples, strict=True) if None not in p]
        if len(pairs) < 2:
            return "", None
        first, second = zip(*pairs, strict=True)
        found = difference(first, second, paired=True, resamples=1, confidence=confidence)
        return "samples", found


def _word(gain: float) -> str:
    if gain == 0:
        return "level with"
    return "better than" if gain > 0 else "worse than"


def ties(values: Sequence[float], best: float, text: str, *, alone: bool) -> list[str]:
    """Say where the trials are level, and the choice among them is none.

    Parameters
    ----------
    values
        The goal's, of every complete trial.
    best
        The winner's.
    text
        Goal and best value as text.
    alone
        Whether it is the only goal: others may tell trials apart.

    Examples
    --------
    >>> ties([0.5, 0.5], 0.5, "acc 0.500", alone=True)
    ['all 2 trials are level: acc 0.500 in each; the earliest is taken']
    >>> ties([0.5, 0.5, 0.1], 0.5, "acc 0.500", alone=True)
    ['2 of 3 trials share the best: acc 0.500; the earliest is taken']
    """
    taken = "; the earliest is taken" if alone else ""
    known = [value for value in values if not math.isnan(value)]
    if len(known) > 1 and len(set(known)) == 1:
        return [f"all {len(known)} trials are level: {text} in each{taken}"]
    equal = known.count(best)
    if alone and equal > 1:
        return [f"{equal} of {len(known)} trials share the best: {text}{taken}"]
    return []

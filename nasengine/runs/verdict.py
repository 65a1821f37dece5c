"""Whether a search won: what a difference shows, on which split, and what it does not show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nasengine.metric_names import is_primary
from nasengine.quantities import format_quantity
from nasengine.statistics import mean, t_interval
from nasengine.trial import Measurement

Word = Literal["better", "worse", "level", "ahead", "behind", "not compared"]

WORDS: Mapping[Word, str] = {
    "better": "better than",
    "worse": "worse than",
    "level": "level with",
    "ahead": "ahead of",
    "behind": "behind",
}
"""How a standing is said of a reference."""


@dataclass(frozen=True)
class Standing:
    """How the winner of a search stands to a reference network.

    Parameters
    ----------
    reference
        The reference's name.
    word
        ``better`` and ``worse`` where the metric is exact or an interval excludes 0, ``level``
        where it holds 0, ``ahead`` and ``behind`` where nothing is proven.
    metric
        What they are judged by.
    mine, other
        Its values.
    split
        ``test`` where nothing was chosen by it, ``validation`` where the winner was and the
        estimator knows a test split, empty where it knows none.
    chosen_among
        How many trials the winner was chosen from by this same value; 1 where it was not.
    goals
        By how many goals it was chosen.
    exact
        Whether the metric is without chance.
    noise
        What the interval is over: ``seeds`` or ``samples``; empty where there is none.
    count
        How many of them there are; 0 where that is not known.
    interval
        Of the difference, the widening for the choice included.
    ratios
        Cost to searched / reference.
    """

    reference: str
    word: Word
    metric: str
    mine: float | None = None
    other: float | None = None
    split: str = ""
    chosen_among: int = 1
    goals: int = 1
    exact: bool = False
    noise: str = ""
    interval: tuple[float, float] | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    count: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON's values."""
        return asdict(self)

    def said(self, unit: str) -> str:
        """Say it in a sentence, with the metric's unit, and where and of how many it is so."""
        if self.word == "not compared" or self.mine is None or self.other is None:
            return f"against {self.reference}: not compared, {self.metric} is not measured of both"
        mine, other = (format_quantity(value, unit) for value in (self.mine, self.other))
        values = f"{self.metric} {mine} against {other}"
        values += " on the test split" if self.split == "test" else ""
        costs = "".join(f", {ratio:.2f}x the {name}" for name, ratio in self.ratios.items())
        said = f"{WORDS[self.word]} {self.reference}: {values}{self._how_sure()}"
        nothing = f"; {self.unlearned} learned nothing: train longer" if self.unlearned else ""
        return said + nothing + costs.replace(",", ";", 1)

    @property
    def unlearned(self) -> str:
        """Which network has 0 of a quality, so that the other's lead shows nothing; else empty.

        Of what is better when less, the worse network has no 0.
        """
        if self.word == "better" and self.noise and self.other == 0:
            return self.reference
        return (
            "the searched network" if self.word == "worse" and self.noise and not self.mine else ""
        )

    def _how_sure(self) -> str:
        if self.exact or self.mine == self.other:
            return ""
        if self.interval is None:
            return self._unproven()
        low, high = self.interval
        bounds = f"95% interval of the difference: {low:+.3g} to {high:+.3g}"
        if self.chosen_among > 1:
            bounds += f", widened for the choice among {self.chosen_among} trials"
        over = f"{self.count} {self.noise}" if self.count else self.noise
        if self.word == "level":
            return f", within the noise between {over} ({bounds})"
        once = ", one training each" if self.noise == "samples" else ""
        return f" ({bounds}, over {over}{once})"

    def _unproven(self) -> str:
        if self.chosen_among > 1 and self.word == "ahead":
            what = "best of" if self.goals == 1 else "choice among"
            where = "split" if self.split else "measurement"
            said = f" on the {where} that chose it: the {what} {self.chosen_among} trials"
            return said + ("; no test split" if self.split else "; nothing else was measured")
        return " (measured once: a small difference may be chance)"


def leading(
    metrics: Iterable[str], goals: Iterable[str], standings: Iterable[Standing]
) -> list[str]:
    """Return what a short table shows: by what was judged, the goals, each estimator's own value.

    Examples
    --------
    >>> judged = [Standing("unet", "better", "full.test_iou")]
    >>> leading(["flops", "iou", "iou.f1", "full.test_iou"], ["iou"], judged)
    ['full.test_iou', 'iou', 'flops']
    """
    known = list(metrics)
    first = [*(standing.metric for standing in standings), *goals]
    own = [name for name in known if is_primary(name)]
    return [name for name in dict.fromkeys([*first, *own]) if name in known]


_Interval = tuple[str, int, tuple[float, float] | None]
"""What an interval is over, how many of them there are, and the interval."""

_UNKNOWN: _Interval = ("", 0, None)


@dataclass(frozen=True)
class Judged:
    """By what two networks are judged; the fields are those of `Standing`."""

    metric: str
    exact: bool = False
    split: str = ""
    chosen_among: int = 1
    goals: int = 1

    def standing(
        self,
        reference: str,
        sign: int,
        mine: Measurement,
        other: Measurement,
        ratios: Mapping[str, float],
    ) -> Standing:
        """Judge a winner against a reference; ``sign`` is 1 where more is better, else -1."""
        difference = mine.value - other.value
        noise, count, interval = _UNKNOWN if self.exact else self._interval(mine, other)
        word = _word(sign * difference)
        if not self.exact and difference and interval is None:
            word = "ahead" if word == "better" else "behind"
        elif interval is not None and _within(interval, difference):
            word = "level"
        return Standing(
            reference,
            word,
            mine=mine.value,
            other=other.value,
            noise=noise,
            interval=interval,
            ratios=ratios,
            count=count,
            **vars(self),
        )

    def _interval(self, mine: Measurement, other: Measurement) -> _Interval:
        """Return the interval of the difference over seeds, else over the samples.

        The winner is the luckiest of many: its interval holds with them all (Bonferroni).
        """
        confidence = 1 - 0.05 / self.chosen_among
        seeds = [m.details.get("values", ()) for m in (mine, other)]
        if min(map(len, seeds)) > 1:
            # Equal seeds do not make two architectures' trainings alike: they are no pairs.
            bounds = t_interval(*seeds, paired=False, confidence=confidence)
            return _known("seeds", min(map(len, seeds)), bounds)
        samples = [m.details.get("per_sample", ()) for m in (mine, other)]
        if len(samples[0]) != len(samples[1]):
            return _UNKNOWN
        pairs = [pair for pair in zip(*samples, strict=True) if None not in pair]
        if not pairs:
            return _UNKNOWN
        first, second = zip(*pairs, strict=True)
        bounds = t_interval(first, second, paired=True, confidence=confidence)
        return _known("samples", len(pairs), bounds)


def _known(noise: str, count: int, bounds: tuple[float, float]) -> _Interval:
    """Return an interval with what it is over; nothing where the values have no spread."""
    return _UNKNOWN if math.isnan(bounds[0]) else (noise, count, bounds)


def _within(interval: tuple[float, float], difference: float) -> bool:
    """Say whether a difference is within the noise.

    Of a metric that is no mean over samples, the samples may say the contrary: that is noise too.
    """
    return interval[0] <= 0 <= interval[1] or mean(interval) * difference <= 0


def _word(gain: float) -> Word:
    if gain == 0:
        return "level"
    return "better" if gain > 0 else "worse"


@dataclass(frozen=True)
class Tie:
    """Trials that share the best value, so that the choice among them is none.

    Parameters
    ----------
    level
        How many do.
    of
        Of how many.
    metric, value
        The goal and its value.
    alone
        Whether it is the only goal: others may tell trials apart.
    """

    level: int
    of: int
    metric: str
    value: float
    alone: bool

    @property
    def all(self) -> bool:
        """Whether every trial is level."""
        return self.level == self.of

    @property
    def heading(self) -> str:
        """How many, in words."""
        return (
            f"all {self.of} trials are level" if self.all else f"{self.level} of {self.of} trials"
        )

    def said(self, unit: str) -> str:
        """Say it in a sentence, with the metric's unit.

        Examples
        --------
        >>> Tie(2, 2, "acc", 0.5, alone=True).said("")
        'all 2 trials are level: acc 0.500 in each; the earliest is taken'
        >>> Tie(2, 3, "acc", 0.5, alone=True).said("")
        '2 of 3 trials share the best: acc 0.500; the earliest is taken'
        """
        text = f"{self.metric} {format_quantity(self.value, unit)}"
        said = f": {text} in each" if self.all else f" share the best: {text}"
        return f"{self.heading}{said}" + ("; the earliest is taken" if self.alone else "")


def tie(values: Sequence[float], metric: str, best: float, *, alone: bool) -> Tie | None:
    """Return how many trials are level with the winner; None where that is the only one.

    Parameters
    ----------
    values
        The goal's, of every complete trial.
    metric, best
        The goal, and the winner's value.
    alone
        Whether it is the only goal: where others tell trials apart, only all being level counts.
    """
    known = [value for value in values if not math.isnan(value)]
    level = len(known) if len(set(known)) == 1 else known.count(best)
    if level < 2 or not (alone or level == len(known)):
        return None
    return Tie(level, len(known), metric, known[0] if level == len(known) else best, alone)

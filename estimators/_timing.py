"""Timing that can be trusted: warm-up until stable, interleaved repeats, robust statistics."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TypeVar

import torch

from nasengine.errors import EstimationFailed

Run = Callable[[], object]
Clock = Callable[[], float]
Key = TypeVar("Key", bound=Hashable)

ATTEMPTS = 3
"""How often a reading that cannot be trusted is taken."""

_WINDOW = 3
_STABLE = 0.05

_TURN = 3
"""Timed runs of a call, and of the yardstick, before it is the other's turn."""


def clock(device: str) -> Clock:
    """Return the clock of a device, in seconds: it waits for the work that was given to it."""
    if device == "cpu":
        return time.perf_counter

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised


@dataclass(frozen=True)
class Yardstick:
    """What is timed in turn with every other call.

    Parameters
    ----------
    run
        The call.
    pace
        The milliseconds that it takes undisturbed.
    """

    run: Run
    pace: float


@dataclass(frozen=True)
class Reading:
    """What repeated runs took.

    Parameters
    ----------
    raw
        Milliseconds, in order.
    slowness
        How many times as long as undisturbed the yardstick took beside each; empty without one.

    Examples
    --------
    >>> reading = Reading((1.0, 2.0, 3.0, 4.0, 5.0))
    >>> reading.median, reading.p90, round(reading.spread, 3)
    (3.0, 4.6, 0.667)
    >>> Reading((1.0, 2.0, 2.0), (1.0, 2.0, 2.0)).samples
    (1.0, 1.0, 1.0)
    """

    raw: tuple[float, ...]
    slowness: tuple[float, ...] = ()

    @property
    def samples(self) -> tuple[float, ...]:
        """Milliseconds at the yardstick's pace."""
        if not self.slowness:
            return self.raw
        return tuple(taken / slow for taken, slow in zip(self.raw, self.slowness, strict=True))

    @property
    def median(self) -> float:
        """Half of the runs were faster."""
        return median(self.samples)

    @property
    def p90(self) -> float:
        """Nine of ten runs were faster."""
        return quantiles(self.samples, n=10, method="inclusive")[-1]

    @property
    def spread(self) -> float:
        """The range of the middle half of the runs, relative to the median."""
        first, _, third = quantiles(self.samples, n=4, method="inclusive")
        return (third - first) / self.median

    def fault(self, max_spread: float) -> str:
        """Say why it cannot be trusted; empty when it can."""
        if not all(math.isfinite(sample) for sample in self.samples):
            return "a reading is not finite"
        if self.median <= 0:
            return "the clock saw no time pass"
        if self.spread > max_spread:
            return (
                f"the middle half of {len(self.samples)} readings spans {self.spread:.0%} of "
                f"their median of {self.median:.3g} ms, and max_spread allows {max_spread:.0%}: is "
                f"the machine busy?"
            )
        return ""


def warm_up(run: Run, now: Clock, seconds: float) -> None:
    """Run until two windows in a row take about the same, for some seconds at most."""
    end = now() + seconds
    before = math.inf
    while now() < end:
        latest = median(sample(run, now, _WINDOW))
        if abs(latest - before) <= _STABLE * latest:
            return
        before = latest


def sample(run: Run, now: Clock, repeats: int, seconds: float = 0.0) -> list[float]:
    """Time single runs in milliseconds: so many at least, and for so many seconds at least.

    Runs of microseconds are many in a second; ten times the repeats are enough of them.
    """
    taken: list[float] = []
    end = now() + seconds
    while len(taken) < repeats or (now() < end and len(taken) < 10 * repeats):
        start = now()
        run()
        taken.append((now() - start) * 1e3)
    return taken


def undisturbed(samples: Sequence[float]) -> float:
    """Return what a call takes when the machine does little else: the lower quartile.

    What else it does only ever adds. On a quiet machine that is nearly the median.
    """
    if not all(math.isfinite(sample) for sample in samples):
        return math.nan
    return quantiles(samples, n=4, method="inclusive")[0] if len(samples) > 1 else samples[0]


def beside(run: Run, yardstick: Yardstick, now: Clock, repeats: int, seconds: float) -> Reading:
    """Time a call in turn with a yardstick: as often, and as long, as `sample` does alone."""
    raw: list[float] = []
    slowness: list[float] = []
    while len(raw) < repeats or (sum(raw) < 1e3 * seconds and len(raw) < 10 * repeats):
        (taken,) = rounds({"yardstick": yardstick.run, "call": run}, now, [_TURN])
        slow = median(taken["yardstick"]) / yardstick.pace
        raw += taken["call"]
        slowness += [slow if 0 < slow < math.inf else 1.0] * _TURN
    return Reading(tuple(raw), tuple(slowness))


def read(
    run: Run,
    yardstick: Yardstick | None,
    now: Clock,
    repeats: int,
    seconds: float,
    max_spread: float,
) -> Reading:
    """Warm up and time a call; again where the reading cannot be trusted.

    Raises
    ------
    EstimationFailed
        Saying what was wrong with the last attempt.
    """
    fault = ""
    for _ in range(ATTEMPTS):
        warm_up(run, now, max(seconds, 1.0))
        if yardstick is None:
            reading = Reading(tuple(sample(run, now, repeats, seconds)))
        else:
            reading = beside(run, yardstick, now, repeats, seconds)
        fault = reading.fault(max_spread)
        if not fault:
            return reading
    raise EstimationFailed(f"not measured in {ATTEMPTS} attempts: {fault}")


def rounds(
    runs: Mapping[Key, Run], now: Clock, counts: Sequence[int]
) -> Iterator[dict[Key, list[float]]]:
    """Time many calls in turn, so that a slow minute of the machine slows all of them alike.

    Parameters
    ----------
    runs
        The calls; each is run once untimed before its timed runs, so that what was run between
        is out of the caches for all alike.
    counts
        Timed runs of each call in each round.

    Yields
    ------
    Milliseconds of each call, round by round.
    """
    for count in counts:
        taken: dict[Key, list[float]] = {}
        for key, run in runs.items():
            run()
            taken[key] = sample(run, now, count)
        yield taken

"""Axes: where the ticks are, what they say, and where a value lies."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nasengine.quantities import format_bytes, format_count

_LARGEST = 1e150
"""Beyond it differences and squares may overflow; nobody reads such a chart."""


def drawable(value: float) -> bool:
    """Say whether a value has a place on an axis: NaN, infinity and their like have none."""
    return abs(value) < _LARGEST


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Return about `count` round numbers from low to high.

    Examples
    --------
    >>> ticks(0, 100)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    >>> ticks(0.61, 0.78)
    [0.65, 0.7, 0.75]
    """
    if not high - low > max(1e-9 * max(abs(low), abs(high)), 1 / _LARGEST):
        return [low]
    rough = (high - low) / max(1, count)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(index * step, digits) for index in range(first, last + 1)]


def tick_text(value: float, unit: str) -> str:
    """Write a tick, as short as it can be; the axis' title has the unit.

    Examples
    --------
    >>> tick_text(1_500_000, "parameters"), tick_text(0.25, ""), tick_text(0.0, "ms")
    ('1.5M', '0.25', '0')
    """
    if unit in ("bytes", "B"):
        return format_bytes(value)
    if abs(value) >= 1000:
        text = format_count(value)
        number, prefix = (text[:-1], text[-1]) if text[-1].isalpha() else (text, "")
        return (number.rstrip("0").rstrip(".") if "." in number else number) + prefix
    return f"{value:.6g}"


@dataclass(frozen=True)
class Scale:
    """A straight line from values to places on a page.

    Parameters
    ----------
    low, high
        The values at its ends.
    start, end
        Their places.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.end - self.start), 1)

    @classmethod
    def over(
        cls, values: Iterable[float], start: float, end: float, *, margin: float = 0.05
    ) -> Scale:
        """Return a scale that all drawable values lie on, with some room at its ends.

        Examples
        --------
        >>> Scale.over([0, 10], 0, 100, margin=0)(5)
        50.0
        """
        known = [value for value in values if drawable(value)]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        largest = max(abs(low), abs(high))
        room = (high - low) * margin
        if margin and high - low <= max(1e-9 * largest, 1 / _LARGEST):
            room = largest * 0.1 if largest > 1 / _LARGEST else 1.0
        floor = 0.0 if low >= 0 and low - room < 0 else low - room
        return cls(floor, high + room, start, end)

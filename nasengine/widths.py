"""Numbers of channels that a search chooses, and what a node's channels are made of.

The channels of a node are its `Channels`: whole numbers and widths in the order in which they lie
there, several where tensors were concatenated. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from operator import index
from typing import SupportsIndex

from nasengine.errors import SpaceError
from nasengine.factories import described


@dataclass(frozen=True)
class Width:
    """A number of channels that is a decision; ``2 * width`` is twice as many, by the same one.

    Parameters
    ----------
    decision
        Its name.
    options
        Each choice's name with its number of channels, from the narrowest to the widest.

    Examples
    --------
    >>> width = Width("level", (("8", 8), ("16", 16)))
    >>> width.of({"level": "8"}), (2 * width).of({"level": "8"}), width.widest
    (8, 16, 16)
    """

    decision: str
    options: tuple[tuple[str, int], ...]

    def __mul__(self, factor: int) -> Width:
        if not _is_whole(factor) or factor < 1:
            raise SpaceError(
                f"width {self.decision!r} is multiplied by whole numbers, from 1 on; got "
                f"{described(factor)}; another number of channels is another graph.width"
            )
        return Width(self.decision, tuple((name, count * factor) for name, count in self.options))

    __rmul__ = __mul__

    def __str__(self) -> str:
        return "|".join(str(count) for _, count in self.options)

    @property
    def choices(self) -> tuple[str, ...]:
        """The names of the choices."""
        return tuple(name for name, _ in self.options)

    @property
    def widest(self) -> int:
        """The most channels."""
        return self.options[-1][1]

    def of(self, choices: Mapping[str, str]) -> int:
        """Return the channels that were chosen."""
        return dict(self.options)[choices[self.decision]]


_COMBINATIONS = 10_000
"""Combinations of widths that a node may depend on: each is an entry of every cost table."""

Channels = tuple[int | Width, ...]
"""What lies beside one another in a node's channels."""


def searched_width(name: str, options: Iterable[int] | Mapping[str, int]) -> Width:
    """Check what a space gives for a width: numbers of channels, or these by name.

    Raises
    ------
    SpaceError
        If the decision's name is no identifier, or the numbers do not increase from 1 on.
    """
    where = f"width {name!r}"
    if not isinstance(name, str) or not name.isidentifier():
        raise SpaceError(f"{where}: a name must be a Python identifier")
    if not isinstance(options, Iterable):
        raise SpaceError(
            f"{where}: several numbers of channels, such as (8, 16); got {described(options)}"
        )
    named = [*options.items()] if isinstance(options, Mapping) else [(str(o), o) for o in options]
    listed = ", ".join(str(count) for _, count in named) or "none"
    if not all(_is_whole(count) for _, count in named):
        raise SpaceError(f"{where}: channels are whole numbers; got {listed}")
    counts = [index(count) for _, count in named]
    if not counts or counts[0] < 1 or any(one >= other for one, other in pairwise(counts)):
        raise SpaceError(f"{where}: numbers of channels increase, from 1 on; got {listed}")
    for choice, _ in named:
        if not isinstance(choice, str) or not choice or "@" in choice:
            raise SpaceError(
                f"{where}: the name of a choice is text without an @; got {described(choice)}"
            )
    return Width(name, tuple(zip(dict(named), counts, strict=True)))


def _is_whole(number: object) -> bool:
    return isinstance(number, SupportsIndex) and not isinstance(number, bool)


def combinations(widths: Sequence[Width], most: int) -> list[dict[str, str]]:
    """Return the choices that widths may have together, all widest first.

    Where these are more than `most`, each width's own beside the widest of the others.

    Examples
    --------
    >>> width = Width("a", (("2", 2), ("4", 4)))
    >>> combinations([width], 9)
    [{'a': '4'}, {'a': '2'}]
    """
    every = [[(width.decision, choice) for choice in width.choices[::-1]] for width in widths]
    if prod(map(len, every)) <= most:
        return [dict(choices) for choices in product(*every)]
    full = dict(choices[0] for choices in every)
    return [full, *({**full, name: c} for choices in every for name, c in choices[1:])]


def check_count(where: str, widths: Sequence[Width]) -> None:
    """Refuse what depends on too many widths together.

    Raises
    ------
    SpaceError
        Naming them.
    """
    count = prod(len(width.options) for width in widths)
    if count > _COMBINATIONS:
        raise SpaceError(
            f"{where} depends on {count:,} combinations of widths "
            f"({', '.join(width.decision for width in widths)}); at most {_COMBINATIONS:,} are "
            f"taken: let nodes share widths, offer fewer, or lead them through operations of fixed "
            f"channels"
        )


def joined(parts: Iterable[Channels]) -> Channels:
    """Return the channels of a concatenation.

    Examples
    --------
    >>> joined([(3,), (5,), (Width("a", (("2", 2),)),)])[0]
    8
    """
    found: list[int | Width] = []
    for part in (part for channels in parts for part in channels):
        if found and isinstance(part, int) and isinstance(found[-1], int):
            found[-1] += part
        else:
            found.append(part)
    return tuple(found)


def times(factor: int, channels: Channels) -> Channels:
    """Return channels so many times: every part of them, where it lies."""
    return tuple(factor * part for part in channels)


def widest(channels: Channels) -> int:
    """Return the most that channels come to."""
    return sum(part.widest if isinstance(part, Width) else part for part in channels)


def chosen(channels: Channels, choices: Mapping[str, str]) -> int:
    """Return how many channels there are under a choice for every width."""
    return sum(part.of(choices) if isinstance(part, Width) else part for part in channels)


def searched(channels: Iterable[int | Width]) -> Iterator[Width]:
    """Yield the parts that a search chooses."""
    return (part for part in channels if isinstance(part, Width))


def written(channels: Channels) -> str:
    """Say channels, with what there is to choose from, and by which decisions.

    Examples
    --------
    >>> written((3, Width("a", (("2", 2), ("4", 4)))))
    '3+2|4 (by a)'
    """
    names = ", ".join(dict.fromkeys(width.decision for width in searched(channels)))
    return "+".join(map(str, channels)) + f" (by {names})" * bool(names)

"""Moves in a search space, written once: sample, mutate, cross over, enumerate, encode.

Every function takes the space's `decisions` and a `random.Random`; none knows networks.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from nasengine.architecture import Architecture

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Decisions = Mapping[str, tuple[str, ...]]


def sample(decisions: Decisions, rng: random.Random) -> Architecture:
    """Draw an architecture uniformly.

    Examples
    --------
    >>> sample({"a": ("x", "y"), "b": ("z",)}, random.Random(0))
    Architecture(a='y', b='z')
    """
    return Architecture({name: _pick(choices, rng) for name, choices in decisions.items()})


def _pick(items: Sequence[str], rng: random.Random) -> str:
    """Return what ``rng.choice`` does, in a third of its time: every search draws most of all."""
    width = len(items).bit_length()
    index = rng.getrandbits(width)
    while index >= len(items):
        index = rng.getrandbits(width)
    return items[index]


def mutate(architecture: Architecture, decisions: Decisions, rng: random.Random) -> Architecture:
    """Change one decision, drawn uniformly among those with an alternative.

    A space of a single architecture returns it as it is.
    """
    free = [name for name, choices in decisions.items() if len(choices) > 1]
    if not free:
        return architecture
    name = _pick(free, rng)
    now = architecture[name]
    return architecture.replace(name, _pick([c for c in decisions[name] if c != now], rng))


def cross_over(a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
    """Take each decision from one of two parents, with equal chance."""
    return Architecture({name: rng.choice((a[name], b[name])) for name in a})


def neighbours(architecture: Architecture, decisions: Decisions) -> Iterator[Architecture]:
    """Yield every architecture that differs in one decision."""
    for name, choices in decisions.items():
        now = architecture[name]
        for choice in choices:
            if choice != now:
                yield architecture.replace(name, choice)


def enumerate_all(decisions: Decisions) -> Iterator[Architecture]:
    """Yield every architecture, the last decision changing fastest."""
    for choices in itertools.product(*decisions.values()):
        yield Architecture(dict(zip(decisions, choices, strict=True)))


def encode(architecture: Architecture, decisions: Decisions) -> npt.NDArray[np.float64]:
    """Return the one-hot encoding, decision by decision: shape (sum of choices,)."""
    import numpy as np

    return np.array(
        [float(architecture[name] == c) for name, choices in decisions.items() for c in choices]
    )

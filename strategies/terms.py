"""Costs as arrays: an axis a decision, for what works out sums over choices."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import numpy.typing as npt

from nasengine.estimator import row_key
from nasengine.moves import Decisions

Floats = npt.NDArray[np.float64]

Names = tuple[str, ...]
"""The decisions on which a cost depends."""


def term_arrays(
    terms: Mapping[Names, Mapping[str, float]], decisions: Decisions
) -> dict[Names, Floats]:
    """Return a table's terms (`CostTable.terms`) as arrays, in the order of the decisions.

    Each has an axis a decision, by the order of its choices; decisions on which nothing depends
    have zeros.

    Examples
    --------
    >>> term_arrays({("slot",): {"a": 1.0, "b": 2.0}}, {"slot": ("b", "a"), "width": ("8",)})
    {('slot',): array([2., 1.]), ('width',): array([0.])}
    """
    tied = {name for names in terms for name in names}
    free: dict[Names, Mapping[str, float]] = {
        (name,): dict.fromkeys(choices, 0.0)
        for name, choices in decisions.items()
        if name not in tied
    }
    place = {name: number for number, name in enumerate(decisions)}
    found = {}
    for names, row in sorted(
        {**terms, **free}.items(), key=lambda term: min(map(place.__getitem__, term[0]))
    ):
        choices = [decisions[name] for name in names]
        costs = [row[row_key(chosen)] for chosen in product(*choices)]
        found[names] = np.array(costs).reshape([len(each) for each in choices])
    return found

"""The alphas of a search: what they say, and how sure they are of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nasengine.architecture import Architecture

Decisions = Mapping[str, Sequence[str]]

_CERTAIN = 2.0
"""Standard errors that a margin must be away from zero."""


def derive(alphas: Mapping[str, Tensor], decisions: Decisions) -> Architecture:
    """Return the arg-max of every decision, the first of equal ones."""
    return Architecture(
        {name: decisions[name][int(alpha.argmax())] for name, alpha in alphas.items()}
    )


def log_probabilities(alphas: Mapping[str, Tensor]) -> dict[str, tuple[float, ...]]:
    """Return log softmax(alpha), in double precision: what architectures are ranked by."""
    return {
        name: tuple(torch.log_softmax(alpha.detach().double(), 0).tolist())
        for name, alpha in alphas.items()
    }


def margins(alphas: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the difference of the two largest softmax weights; 1 where there is one choice."""
    found = {}
    for name, alpha in alphas.items():
        top = torch.softmax(alpha.detach().double(), 0).sort(descending=True).values.tolist()
        found[name] = top[0] - top[1] if len(top) > 1 else 1.0
    return found


def entropies(alphas: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the entropy of the softmax weights as a share of the largest possible, 0 to 1."""
    found = {}
    for name, alpha in alphas.items():
        logs = torch.log_softmax(alpha.detach().double(), 0)
        entropy = float(-(logs.exp() * logs).sum())
        found[name] = entropy / math.log(len(alpha)) if len(alpha) > 1 else 0.0
    return found


def unsure(trajectory: Tensor, decisions: Decisions) -> list[str]:
    """Return the decisions whose two best choices are within noise of each other.

    The difference of the two alphas is the sum of what T updates added to it. Had the updates no
    direction, that sum would be of the size of their standard deviation times the square root of
    T; a difference of less than twice as much could as well have come out the other way.

    Parameters
    ----------
    trajectory
        The alphas before the first update and after every one: (T + 1, all choices in order).
    decisions
        Decision to its choices.

    Examples
    --------
    >>> steady = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.21, 0.0], [0.3, 0.0]])
    >>> unsure(steady, {"a": ("x", "y")})
    []
    >>> unsure(torch.tensor([[0.0, 0.0], [0.5, 0.0], [-0.3, 0.0], [0.1, 0.0]]), {"a": ("x", "y")})
    ['a']
    """
    found, start = [], 0
    for name, choices in decisions.items():
        part = trajectory[:, start : start + len(choices)].double()
        start += len(choices)
        if len(choices) < 2:
            continue
        first, second = torch.topk(part[-1], 2).indices.tolist()
        steps = (part[:, first] - part[:, second]).diff()
        difference = float(steps.sum())
        spread = float(steps.std()) if len(steps) > 1 else math.inf
        if not difference > _CERTAIN * spread * math.sqrt(len(steps)):
            found.append(name)
    return found


def flat(alphas: Mapping[str, Tensor]) -> Tensor:
    """Return all alphas in one row: (all choices in order,)."""
    return torch.cat([alpha.detach().cpu() for alpha in alphas.values()])

"""The loss of the alphas: the task's, the costs', and penalties that hold costs under targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .costs import Cost

if TYPE_CHECKING:
    from nasengine.elimination import Floats, Names

Reading = Literal["expected", "straight_through", "as_printed"]

_GROWTH = 1.3
"""By how much a penalty's step grows with every update that finds the target missed."""


class Penalty:
    """The multiplier of one target: dual ascent on the derived architecture's cost.

    The penalty is `strength` times the relative excess of the expected cost. Its strength grows
    with every update that finds the derived architecture above the target, ever faster while it
    stays there, and is zero while the derived architecture is within it.

    Parameters
    ----------
    target
        The limit, in the cost's unit.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self.multiplier = 0.0
        self.rate = 1.0
        self.missed = False

    @property
    def strength(self) -> float:
        """What the relative excess is multiplied by now."""
        return self.multiplier if self.missed else 0.0

    def excess(self, cost: Any) -> Any:
        """Return by how much a cost is above the target, relative to it."""
        return (cost - self.target) / (self.target or 1.0)

    def update(self, derived: float) -> None:
        """Adapt to the cost of the architecture that would be derived now."""
        over = self.excess(derived)
        self.missed = over > 0
        # At least a tenth: a target missed by a hair is missed.
        step = max(over, 0.1) if self.missed else over
        self.multiplier = max(0.0, self.multiplier + self.rate * step)
        if self.missed:
            self.rate *= _GROWTH

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        return {"multiplier": self.multiplier, "rate": self.rate, "missed": self.missed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.multiplier, self.rate = state["multiplier"], state["rate"]
        self.missed = state["missed"]


class ArchitectureLoss:
    """The paper's equation (1) over any costs, and a penalty for every target.

    L = (1 - sum beta_k) L_task + sum beta_k L_arch_k + sum strength_k excess_k, where L_arch is
    equation (4) in one of its readings (Chen et al. 2023).

    Parameters
    ----------
    costs
        With a beta or a target; others are only told about.
    reading
        ``expected``: P_i is the mean under the probabilities. ``straight_through``: that of the
        arg-max, with the gradient of the mean. ``as_printed``: that of the arg-max, which has no
        gradient.
    device
        Where the alphas are.
    """

    def __init__(self, costs: Sequence[Cost], reading: Reading, device: str) -> None:
        self.costs = tuple(costs)
        self.reading = reading
        self.penalties = {c.key: Penalty(c.aim) for c in costs if c.aim is not None}
        self._device = device
        self._terms = {cost.key: _tensors(cost.terms, device) for cost in costs}
        self._shares = {cost.key: _tensors(cost.shares, device) for cost in costs}

    def __call__(
        self,
        task_loss: Tensor,
        probabilities: Mapping[str, Tensor],
        strengths: Mapping[str, Tensor],
    ) -> Tensor:
        """Return the total loss, a scalar.

        Parameters
        ----------
        task_loss
            A scalar.
        probabilities
            Decision to the distribution over its choices: (choices,).
        strengths
            From `strengths`: given anew for every step, since a recorded one reads tensors alone.
        """
        read = {name: _read(p, self.reading) for name, p in probabilities.items()}
        total = (1 - sum(cost.beta for cost in self.costs)) * task_loss
        for cost in self.costs:
            if cost.beta:
                total = total + cost.beta * _sum(self._shares[cost.key], read)
            if cost.key in self.penalties:
                expected = cost.fixed + _sum(self._terms[cost.key], read)
                excess = self.penalties[cost.key].excess(expected)
                total = total + strengths[cost.key] * excess
        return total

    def strengths(self) -> dict[str, Tensor]:
        """Return what the penalties multiply excesses by now: scalars by cost."""
        return {
            key: torch.tensor(penalty.strength, device=self._device)
            for key, penalty in self.penalties.items()
        }

    def update(self, derived: Mapping[str, float]) -> None:
        """Adapt the penalties to the cost of the architecture that would be derived now."""
        for key, penalty in self.penalties.items():
            penalty.update(derived[key])

    def facts(self, probabilities: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
        """Say of every cost what it is expected to be, and L_arch, as read and as printed."""
        found: dict[str, dict[str, Any]] = {}
        p = {name: value.detach() for name, value in probabilities.items()}
        for cost in self.costs:
            shares = self._shares[cost.key]
            found[cost.key] = {
                "unit": cost.unit,
                "expected": cost.fixed + float(_sum(self._terms[cost.key], p)),
                "loss": float(_sum(shares, {n: _read(v, self.reading) for n, v in p.items()})),
                "as_printed": float(
                    _sum(shares, {n: _read(v, "as_printed") for n, v in p.items()})
                ),
            }
            if cost.key in self.penalties:
                penalty = self.penalties[cost.key]
                found[cost.key] |= {"target": penalty.target, "strength": penalty.strength}
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the penalties' state."""
        return {key: penalty.state_dict() for key, penalty in self.penalties.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        for key, penalty in self.penalties.items():
            if key in state:
                penalty.load_state_dict(state[key])


def _tensors(terms: Mapping[Names, Floats], device: str) -> dict[Names, Tensor]:
    return {
        names: torch.tensor(costs, dtype=torch.float32, device=device)
        for names, costs in terms.items()
    }


def _sum(terms: Mapping[Names, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the terms' means under independent weights of the decisions' choices."""
    return torch.stack([_mean(costs, names, weights) for names, costs in terms.items()]).sum()


def _mean(costs: Tensor, names: Sequence[str], weights: Mapping[str, Tensor]) -> Tensor:
    for name in reversed(names[1:]):
        costs = (costs * weights[name]).sum(-1)
    return (weights[names[0]] * costs).sum()


def _read(probability: Tensor, reading: Reading) -> Tensor:
    if reading == "expected":
        return probability
    hard = one_hot(probability.detach().argmax(), len(probability)).to(probability)
    return hard if reading == "as_printed" else hard + probability - probability.detach()

"""Recipes for training a network, as data. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from nasengine.plugin import Plugin

RecipeName = Literal["adamw", "paper"]
PrecisionName = Literal["auto", "fp32", "bf16"]
"""``auto`` is bfloat16 where the device is quick at it and a check of its gradients agrees."""


@dataclass(frozen=True)
class Recipe:
    """How weights are trained; an iteration is one step of the optimiser.

    Parameters
    ----------
    optimiser
        AdamW, or SGD with momentum 0.9.
    learning_rate
        The highest one of the schedule.
    weight_decay
        As the optimiser means it: decoupled for AdamW, L2 for SGD.
    batch
        Samples in a step.
    iterations
        Steps in all.
    one_cycle
        Whether learning rate and momentum follow `one_cycle`; else they are constant.
    """

    optimiser: Literal["adamw", "sgd"]
    learning_rate: float
    weight_decay: float
    batch: int
    iterations: int
    one_cycle: bool

    def rates(self, step: int) -> tuple[float, float]:
        """Return (learning rate, momentum) at a step, from 0."""
        if self.one_cycle:
            return one_cycle(step, self.iterations, self.learning_rate)
        return self.learning_rate, 0.9


RECIPES: Mapping[RecipeName, Recipe] = MappingProxyType(
    {
        "adamw": Recipe("adamw", 1e-3, 1e-4, 16, 300, one_cycle=True),
        # Chen et al. 2023, section 4.2: taken literally it undertrains (see benchmarks/results).
        "paper": Recipe("sgd", 3e-4, 1e-4, 16, 600, one_cycle=False),
    }
)


def one_cycle(step: int, total: int, highest: float) -> tuple[float, float]:
    """Return learning rate and momentum of the one-cycle schedule (Smith & Topin 2018).

    Cosine from a tenth of the highest rate up to it in the first 20% of the steps, then down to a
    thousandth; the momentum (AdamW: beta 1) goes from 0.95 to 0.85 and back. A function of the
    step, so that a checkpoint has nothing to keep of it.

    Parameters
    ----------
    step
        From 0 to `total` - 1.
    total
        Steps in all.
    highest
        The highest learning rate.

    Examples
    --------
    >>> [round(one_cycle(step, 101, 1.0)[0], 3) for step in (0, 19, 60, 100)]
    [0.1, 1.0, 0.493, 0.001]
    """
    top = 0.2 * total - 1
    if step <= top:
        done = step / top if top > 0 else 1.0
        return _cosine(highest / 10, highest, done), _cosine(0.95, 0.85, done)
    done = (step - top) / (total - 1 - top) if total - 1 > top else 1.0
    return _cosine(highest, highest / 1000, done), _cosine(0.85, 0.95, done)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * done))


_CHANGEABLE = ("iterations", "batch", "learning_rate", "weight_decay")
"""What of a recipe `RecipeSettings` may change."""


class RecipeSettings(Plugin):
    """Settings of an estimator that trains: a recipe, and what to change of it."""

    recipe: RecipeName = "adamw"
    """`adamw`: AdamW with a one-cycle schedule; `paper`: the SGD of Light SDI-NAS."""
    iterations: int | None = Field(default=None, gt=0)
    """Steps of the optimiser; by default the recipe's (300; paper: 600)."""
    batch: int | None = Field(default=None, gt=1)
    """Samples in a step, at least 2 for batch norms; by default the recipe's (16)."""
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The highest learning rate; by default the recipe's (0.001; paper: 0.0003)."""
    weight_decay: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """By default the recipe's (0.0001)."""
    precision: PrecisionName = "fp32"
    """`bf16` trains in bfloat16 (weights and losses stay float32), `auto` where the machine is
    quick at it; both only where a check of the first gradients agrees with `fp32`."""

    def resolved(self) -> Recipe:
        """Return the recipe with the changes that the spec makes to it."""
        changes = {name: getattr(self, name) for name in _CHANGEABLE}
        return replace(RECIPES[self.recipe], **{k: v for k, v in changes.items() if v is not None})

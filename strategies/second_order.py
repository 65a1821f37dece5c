"""The second-order gradient of DARTS: through one step of the weights.

Liu, Simonyan, Yang: DARTS: Differentiable Architecture Search (ICLR 2019), equations 7 and 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[[Sequence[Tensor]], Tensor]
"""A loss as a function of the weights; the alphas that it closes over stay the same tensors."""


def unrolled_gradient(
    validation_loss: Loss,
    training_loss: Loss,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    step: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    rate: float,
) -> tuple[Tensor, list[Tensor]]:
    """Return the validation loss after a virtual step of the weights, and its gradient.

    Equation 7, with its matrix-vector product by the finite difference of equation 8.

    Parameters
    ----------
    validation_loss, training_loss
        Scalars, from weights.
    weights
        Where the step begins; not changed.
    alphas
        What the gradient is of.
    step
        Training gradients to what one step of the optimiser adds to the weights.
    rate
        By how much a step's change of the weights answers to its gradient: the learning rate.
    """
    start = [weight.detach() for weight in weights]
    gradients = _gradients(training_loss, start)
    moved = [
        (weight + change).requires_grad_()
        for weight, change in zip(start, step(gradients), strict=True)
    ]
    loss = validation_loss(moved)
    found = torch.autograd.grad(loss, [*alphas, *moved], allow_unused=True)
    direct = _filled(found[: len(alphas)], alphas)
    vector = _filled(found[len(alphas) :], moved)
    mixed = _mixed_product(training_loss, start, alphas, vector)
    return loss.detach(), [d - rate * m for d, m in zip(direct, mixed, strict=True)]


def _mixed_product(
    loss: Loss, weights: Sequence[Tensor], alphas: Sequence[Tensor], vector: Sequence[Tensor]
) -> list[Tensor]:
    """Return the mixed second derivative of a loss by alphas and weights, times a vector."""
    norm = float(
        torch.sqrt(sum((v.double().square().sum() for v in vector), torch.zeros(()).double()))
    )
    if norm == 0:
        return [torch.zeros_like(alpha) for alpha in alphas]
    epsilon = 0.01 / norm
    ahead, behind = (
        _filled(
            torch.autograd.grad(
                loss([w + side * v for w, v in zip(weights, vector, strict=True)]),
                alphas,
                allow_unused=True,
            ),
            alphas,
        )
        for side in (epsilon, -epsilon)
    )
    return [(a - b) / (2 * epsilon) for a, b in zip(ahead, behind, strict=True)]


def _gradients(loss: Loss, weights: Sequence[Tensor]) -> list[Tensor]:
    tracked = [weight.detach().requires_grad_() for weight in weights]
    return _filled(torch.autograd.grad(loss(tracked), tracked, allow_unused=True), tracked)


def _filled(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(t) if g is None else g for g, t in zip(gradients, like, strict=True)]

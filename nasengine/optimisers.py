"""Optimisers as every training here needs them: fused, resumable, their rates set from outside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sgd(
    parameters: Sequence[Tensor], rate: float, momentum: float, weight_decay: float
) -> torch.optim.SGD:
    """Return SGD in one pass over memory, for parameters that need not have gradients every step.

    torch's own fused SGD fails where parameters get their first gradients in different steps, as
    those of sampled candidates do. A momentum of zeros to begin with gives the same steps.
    """
    found = torch.optim.SGD(
        parameters, lr=rate, momentum=momentum, weight_decay=weight_decay, fused=True
    )
    if momentum:
        for parameter in parameters:
            found.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return found


def keep_strides(optimiser: torch.optim.Optimizer) -> None:
    """Lay the optimiser's state out as its parameters, which a checkpoint does not keep.

    Elementwise arithmetic rounds differently over other strides, and is slower.
    """
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


def set_rates(optimiser: torch.optim.Optimizer, rate: float, momentum: float) -> None:
    """Set learning rate and momentum (AdamW: beta 1) of every group."""
    for group in optimiser.param_groups:
        group["lr"] = rate
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum

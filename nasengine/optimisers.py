"""Optimisers as every training here needs them: fused, resumable, their rates set from outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

LARGE = 2**16
"""Numbers in a weight from which `StepsInBackward` steps it by itself: nearly all bytes of a
network lie in such weights, and a call for each of the others would cost more than it saves."""


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


class StepsInBackward:
    """Steps every large weight as soon as its gradient is complete, and lets the gradient go.

    What a step of training holds at most is then its activations, without the gradients that would
    pile up beside them. The steps are those of the optimiser, bit for bit. Only for steps of one
    backward pass, whose gradients nothing else reads.

    Parameters
    ----------
    optimiser
        Of one group of parameters; the large ones get groups of their own.

    Examples
    --------
    >>> layer = torch.nn.Linear(256, 256)
    >>> steps = StepsInBackward(sgd(list(layer.parameters()), 0.1, 0.9, 0.0))
    >>> before = layer.weight.sum().item()
    >>> steps.step(layer(torch.ones(1, 256)).sum())
    >>> layer.weight.grad is None and layer.weight.sum().item() < before
    True
    """

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        self.optimiser = optimiser
        (group,) = optimiser.param_groups
        self._large = [p for p in group["params"] if p.numel() >= LARGE]
        group["params"] = [p for p in group["params"] if p.numel() < LARGE]
        for parameter in self._large:
            optimiser.add_param_group({**group, "params": [parameter]})

    def step(self, loss: Tensor) -> None:
        """Go back from a loss, and take one step down its gradient."""
        self.optimiser.zero_grad(set_to_none=True)
        with self._stepping():
            loss.backward()  # type: ignore[no-untyped-call]
        self._step_group(0)

    @contextmanager
    def _stepping(self) -> Iterator[None]:
        hooks = [
            parameter.register_post_accumulate_grad_hook(partial(self._step_large, index))
            for index, parameter in enumerate(self._large, 1)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _step_large(self, index: int, parameter: Tensor) -> None:
        self._step_group(index)
        parameter.grad = None

    def _step_group(self, index: int) -> None:
        # By its index: a state that is loaded makes the groups anew.
        groups = self.optimiser.param_groups
        self.optimiser.param_groups = [groups[index]]
        try:
            self.optimiser.step()
        finally:
            self.optimiser.param_groups = groups

"""All passes, in their order, each with its switch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from nasengine.passes.batch_norms import sum_in_cascades
from nasengine.passes.conv_bias import drop_conv_biases
from nasengine.passes.dilated_depthwise import interleave_dilated_depthwise
from nasengine.passes.fold_weights import fold_mixture_weights
from nasengine.passes.forget_norms import forget_norms
from nasengine.passes.inplace_relu import overwrite_batch_norms
from nasengine.passes.skip_zeros import skip_zeros

M = TypeVar("M", bound=nn.Module)


def memory_format(tensor: Tensor) -> torch.memory_format:
    """Return the format that images are best kept in: channels last for (N, C, H, W)."""
    return torch.channels_last if tensor.ndim == 4 else torch.contiguous_format


def lay_channels_last(module: nn.Module) -> int:
    """Lay the weights of convolutions out channels last; return how many."""
    weights = [
        part._parameters.get("weight")
        for part in module.modules()
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    found = [weight for weight in weights if weight is not None]
    for weight in found:
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return len(found)


PASSES: Mapping[str, Callable[[nn.Module], int]] = {
    "channels_last": lay_channels_last,
    "dilated_depthwise": interleave_dilated_depthwise,
    "conv_bias": drop_conv_biases,
    "cascade_sums": sum_in_cascades,
    "inplace_relu": overwrite_batch_norms,
    "fold_weights": fold_mixture_weights,
    "forget_norms": forget_norms,
    "skip_zeros": skip_zeros,
}
"""Passes by name, in the order of their application; each returns how often it applied."""


def prepare(module: M, *, without: Collection[str] = ()) -> M:
    """Apply every pass in place, but those named; parameters and names stay.

    Inputs should be channels last too, and a step runs in `Precision.context`.

    Parameters
    ----------
    module
        A supernet or a derived network, before its optimiser is made.
    without
        Names of passes to leave out.

    Raises
    ------
    ValueError
        If there is no pass of such a name.
    """
    unknown = set(without) - set(PASSES)
    if unknown:
        raise ValueError(f"no passes {sorted(unknown)}; there are {sorted(PASSES)}")
    for name, apply in PASSES.items():
        if name not in without:
            apply(module)
    return module

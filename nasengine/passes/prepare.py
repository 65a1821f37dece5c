"""All passes, in their order, each with its switch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from torch import nn

from nasengine.passes.batch_norms import sum_in_cascades
from nasengine.passes.channels_last import lay_channels_last
from nasengine.passes.conv_bias import drop_conv_biases
from nasengine.passes.dilated_depthwise import interleave_dilated_depthwise
from nasengine.passes.fold_weights import fold_mixture_weights
from nasengine.passes.forget_norms import forget_norms
from nasengine.passes.inplace_relu import overwrite_batch_norms
from nasengine.passes.pointwise import take_rows_for_samples
from nasengine.passes.skip_zeros import skip_zeros
from nasengine.passes.upsampling import interpolate_by_products

M = TypeVar("M", bound=nn.Module)


PASSES: Mapping[str, Callable[[nn.Module], int]] = {
    "channels_last": lay_channels_last,
    "dilated_depthwise": interleave_dilated_depthwise,
    "pointwise": take_rows_for_samples,
    "conv_bias": drop_conv_biases,
    "cascade_sums": sum_in_cascades,
    "upsampling": interpolate_by_products,
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

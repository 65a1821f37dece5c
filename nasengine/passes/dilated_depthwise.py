"""Pass: dilated depthwise convolutions are computed on interleaved sub-grids."""

from __future__ import annotations

from torch import nn

from nasengine.passes.convolutions import PreparedConv2d, is_own_conv, prepared
from nasengine.passes.tracing import replace_each


def interleave_dilated_depthwise(module: nn.Module) -> int:
    """Replace every dilated depthwise convolution that keeps its image's size; return how many.

    It is faster, and it keeps training clear of a fault of torch: see `PreparedConv2d`.
    """
    return replace_each(module, _interleaving)


def _interleaving(module: nn.Module) -> nn.Module | None:
    if not is_own_conv(module) or not is_interleavable(module):
        return None
    new = prepared(module)
    new.interleaves = True
    return new


def is_interleavable(conv: nn.Conv2d) -> bool:
    """Say whether a convolution is dilated, depthwise, and keeps the image's size."""
    if isinstance(conv, PreparedConv2d) and conv.interleaves:
        return False
    return (
        _is_dilated_depthwise(conv)
        and all(size % 2 for size in conv.kernel_size)
        and _keeps_size(conv)
        and conv.stride == (1, 1)
        and conv.padding_mode == "zeros"
    )


def has_faulty_convolution(module: nn.Module) -> bool:
    """Say whether torch would compute a dilated depthwise convolution by its own kernel.

    Such a module must not be trained in bfloat16 on a CPU: torch 2.13 may return wrong gradients.
    """
    return any(
        isinstance(part, nn.Conv2d)
        and _is_dilated_depthwise(part)
        and not (isinstance(part, PreparedConv2d) and part.interleaves)
        for part in module.modules()
    )


def _is_dilated_depthwise(conv: nn.Conv2d) -> bool:
    """Say whether it has dilation and a group for every channel, or nearly so."""
    return max(conv.dilation) > 1 and conv.groups > 1


def _keeps_size(conv: nn.Conv2d) -> bool:
    """Say whether as much is padded on each side as the kernel reaches out."""
    if isinstance(conv.padding, str):
        return conv.padding == "same"
    reach = [d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    return list(conv.padding) == reach

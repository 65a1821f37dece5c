"""Pass: to 1x1 convolutions, the rows of images are samples."""

from __future__ import annotations

from torch import nn

from nasengine.passes.convolutions import PreparedConv2d, is_own_conv, prepared
from nasengine.passes.tracing import replace_each


def take_rows_for_samples(module: nn.Module) -> int:
    """Replace every 1x1 convolution that reads each pixel once; return how many.

    On one thread it is up to 1.4 times as fast in float32: see `PreparedConv2d`.
    """
    return replace_each(module, _by_rows)


def _by_rows(module: nn.Module) -> nn.Module | None:
    if not is_own_conv(module) or not _is_pointwise(module):
        return None
    new = prepared(module)
    new.by_rows = True
    return new


def _is_pointwise(conv: nn.Conv2d) -> bool:
    if isinstance(conv, PreparedConv2d) and conv.by_rows:
        return False
    padded = conv.padding not in ("valid", "same", (0, 0))
    return conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1 and not padded

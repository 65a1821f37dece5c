"""A convolution that computes as `nn.Conv2d` does, another way."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasengine.passes.forgotten import remember_copy
from nasengine.passes.tracing import has_hooks, recast

_ENOUGH, _WORTH = 16, 24 * 24
"""Samples from which torch gives a 1x1 convolution to oneDNN, and pixels that make it worth it."""


class PreparedConv2d(nn.Conv2d):
    """A convolution with the parameters and settings of an `nn.Conv2d`, computed another way.

    Attributes
    ----------
    interleaves
        Whether the convolution, a dilated depthwise one, is computed on interleaved sub-grids.
        At dilation d, a pixel reads pixels of its own row and column modulo d only: the image is
        d x d interleaved sub-grids, each convolved on its own. torch's own kernel for dilated
        depthwise convolutions takes two to four times as long on CPUs, and in torch 2.13 returns
        wrong weight gradients in bfloat16 with channels last.
    by_rows
        Whether the convolution, a 1x1 one, may take the rows of its images for samples. On one
        thread torch gives float32 ones of fewer than 16 samples not to oneDNN, but to a product of
        matrices that is slower, and fills its gradient with zeros first. Worth it for images of
        24 x 24 pixels and more.
    drops_bias
        Whether the bias is left out while training: a batch norm alone reads the output, and takes
        out whatever constant a channel has. The bias stays a parameter, at zero, to be counted and
        exported.

    Shape
    -----
    (N, C_in, H, W) to (N, C_out, H', W').
    """

    interleaves: bool = False
    by_rows: bool = False
    drops_bias: bool = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Convolve."""
        bias = None if self.drops_bias and self.training else self.bias
        # The fault is the CPU's, and so is what it costs to go without.
        if self.interleaves and input.device.type == "cpu":
            return self._interleaved(input, bias)
        if self.by_rows and (rows := _rows_of_a_sample(input)):
            return self._by_rows(input, bias, rows)
        output: Tensor = self._conv_forward(input, self.weight, bias)
        return output

    def _by_rows(self, x: Tensor, bias: Tensor | None, rows: int) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)
        samples = pixels.reshape(-1, rows, *pixels.shape[2:]).permute(0, 3, 1, 2)
        found = F.conv2d(samples, self.weight, bias).permute(0, 2, 3, 1)
        return found.reshape(*pixels.shape[:3], -1).permute(0, 3, 1, 2)

    def _interleaved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        d_h, d_w = self.dilation
        height, width = x.shape[-2:]
        # Zeros to the right and below are the zeros of the padding, only more of them.
        right, below = -width % d_w, -height % d_h

        def split(image: Tensor) -> Tensor:
            # `pad` keeps channels last only where there is something to pad.
            padded = F.pad(image, (0, right, 0, below)) if right or below else image
            return split_grids(padded, d_h, d_w)

        grids = split(x)
        remember_copy(grids, x, split)
        padding = [(size - 1) // 2 for size in self.kernel_size]
        convolved = F.conv2d(grids, self.weight, bias, 1, padding, 1, self.groups)
        merged = merge_grids(convolved, d_h, d_w)
        return merged[..., :height, :width] if right or below else merged


def _rows_of_a_sample(x: Tensor) -> int:
    """Return how many rows of (N, C, H, W) make a sample of 16 and more, 0 where none need to."""
    if x.ndim < 4:
        return 0
    number, _, height, width = x.shape
    as_it_is = (
        number >= _ENOUGH
        or height * width < _WORTH
        or torch.get_num_threads() > 1
        or x.dtype is not torch.float32
        or x.device.type != "cpu"
        or not x.is_contiguous(memory_format=torch.channels_last)
        or torch.is_autocast_enabled("cpu")
    )
    divisors = (rows for rows in range(number * height // _ENOUGH, 0, -1) if height % rows == 0)
    return 0 if as_it_is else next(divisors, 0)


def is_own_conv(module: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Say whether a module is torch's convolution or ours, and no other thing happens in it."""
    if not isinstance(module, nn.Conv2d):
        return False
    return type(module) in (nn.Conv2d, PreparedConv2d) and not has_hooks(module)


def prepared(module: nn.Conv2d) -> PreparedConv2d:
    """Return a convolution with the same parameters, hooks and settings."""
    if isinstance(module, PreparedConv2d):
        return module
    return recast(module, PreparedConv2d)


def split_grids(x: Tensor, d_h: int, d_w: int) -> Tensor:
    """Turn (N, C, H d_h, W d_w) into its sub-grids, (N d_h d_w, C, H, W), in its memory format."""
    n, c, h, w = x.shape
    if is_channels_last(x):
        grids = x.permute(0, 2, 3, 1).reshape(n, h // d_h, d_h, w // d_w, d_w, c)
        grids = grids.permute(0, 2, 4, 1, 3, 5).reshape(-1, h // d_h, w // d_w, c)
        return grids.permute(0, 3, 1, 2)
    grids = x.reshape(n, c, h // d_h, d_h, w // d_w, d_w)
    return grids.permute(0, 3, 5, 1, 2, 4).reshape(-1, c, h // d_h, w // d_w)


def merge_grids(grids: Tensor, d_h: int, d_w: int) -> Tensor:
    """Undo `split_grids`."""
    n, c, h, w = grids.shape[0] // (d_h * d_w), *grids.shape[1:]
    if is_channels_last(grids):
        x = grids.permute(0, 2, 3, 1).reshape(n, d_h, d_w, h, w, c)
        return x.permute(0, 3, 1, 4, 2, 5).reshape(n, h * d_h, w * d_w, c).permute(0, 3, 1, 2)
    x = grids.reshape(n, d_h, d_w, c, h, w)
    return x.permute(0, 3, 4, 1, 5, 2).reshape(n, c, h * d_h, w * d_w)


def is_channels_last(x: Tensor) -> bool:
    """Say whether (N, C, H, W) lies channels last, as torch decides it where both formats fit."""
    return x.is_contiguous(memory_format=torch.channels_last) or (
        x.stride(1) == 1 and not x.is_contiguous()
    )

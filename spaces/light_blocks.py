"""The blocks of Light SDI-NAS and of the networks that it is compared with.

Chen, Niu, Lin, Zhang, Liu, Wang: Lightweight Convolutional Neural Networks for Surface Defect
Segmentation based on Neural Architecture Search (2023), table 1. Every block is a factory from
(channels in, channels out) to a module from (N, C_in, H, W) to (N, C_out, H, W). Convolutions are
3x3, padded to keep the size, with bias; dilated ones have dilation 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nasengine.factories import Factory

_DILATION = 2


def _convolution(channels_in: int, channels_out: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=dilation, dilation=dilation)


def _depthwise(channels: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels)


def _pointwise(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 1)


def _single(channels_in: int, channels_out: int, dilation: int) -> list[nn.Module]:
    return [
        _convolution(channels_in, channels_out, dilation),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]


def _double(channels_in: int, channels_out: int, dilation: int) -> list[nn.Module]:
    return [
        *_single(channels_in, channels_out, dilation),
        _convolution(channels_out, channels_out, dilation),
        nn.BatchNorm2d(channels_out),
    ]


def single_conv(channels_in: int, channels_out: int) -> nn.Module:
    """Return Single Conv: convolution, batch normalisation, ReLU."""
    return nn.Sequential(*_single(channels_in, channels_out, 1))


def single_dilation_conv(channels_in: int, channels_out: int) -> nn.Module:
    """Return Single Dilation Conv: dilated convolution, batch normalisation, ReLU."""
    return nn.Sequential(*_single(channels_in, channels_out, _DILATION))


def double_conv(channels_in: int, channels_out: int) -> nn.Module:
    """Return Double Conv, the UNet's own block; its FLOPs show no ReLU after the second."""
    return nn.Sequential(*_double(channels_in, channels_out, 1))


def double_dilation_conv(channels_in: int, channels_out: int) -> nn.Module:
    """Return Double Dilation Conv: Double Conv with both convolutions dilated."""
    return nn.Sequential(*_double(channels_in, channels_out, _DILATION))


def double_dw_conv(channels_in: int, channels_out: int) -> nn.Module:
    """Return Double DWconv: a depthwise separable convolution, then a depthwise one."""
    return nn.Sequential(
        _depthwise(channels_in),
        nn.BatchNorm2d(channels_in),
        _pointwise(channels_in, channels_out),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        _depthwise(channels_out),
        nn.BatchNorm2d(channels_out),
    )


def double_dw_d_conv(channels_in: int, channels_out: int) -> nn.Module:
    """Return Double DW-D-Conv: two dilated depthwise separable convolutions."""
    return nn.Sequential(
        _depthwise(channels_in, _DILATION),
        _pointwise(channels_in, channels_out),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        _depthwise(channels_out, _DILATION),
        _pointwise(channels_out, channels_out),
        nn.BatchNorm2d(channels_out),
    )


class Cutconnect(nn.Module):
    """Cutconnect Block: a convolution whose output is concatenated with its input and fused.

    Parameters
    ----------
    channels_in, channels_out
        Channels of the input and of the output.

    Shape
    -----
    (N, C_in, H, W) to (N, C_out, H, W).
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.block = single_conv(channels_in, channels_out)
        self.fuse = nn.Sequential(
            _pointwise(channels_in + channels_out, channels_out), nn.BatchNorm2d(channels_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the fused features."""
        fused: Tensor = self.fuse(torch.cat((self.block(x), x), 1))
        return fused


def cutconnect(channels_in: int, channels_out: int) -> nn.Module:
    """Return the Cutconnect Block."""
    return Cutconnect(channels_in, channels_out)


def max_pool(_channels_in: int, _channels_out: int) -> nn.Module:
    """Return 2x2 max pooling."""
    return nn.MaxPool2d(2)


def upsample_bilinear(_channels_in: int, _channels_out: int) -> nn.Module:
    """Return bilinear 2x upsampling."""
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


def upsample_nearest(_channels_in: int, _channels_out: int) -> nn.Module:
    """Return nearest-neighbour 2x upsampling."""
    return nn.Upsample(scale_factor=2, mode="nearest")


def head(channels_in: int, channels_out: int) -> nn.Module:
    """Return the final 1x1 convolution, which gives logits."""
    return _pointwise(channels_in, channels_out)


CANDIDATES: Mapping[str, Factory] = {
    "single_conv": single_conv,
    "single_dilation_conv": single_dilation_conv,
    "double_dw_conv": double_dw_conv,
    "double_dw_d_conv": double_dw_d_conv,
    "cutconnect": cutconnect,
}
"""The blocks that are searched, in table 1's order."""

BASELINES: Mapping[str, Factory] = {
    "double_conv": double_conv,
    "double_dilation_conv": double_dilation_conv,
}
"""The blocks that the paper tried and dropped."""

UPSAMPLINGS: Mapping[str, Factory] = {"bilinear": upsample_bilinear, "nearest": upsample_nearest}
"""Ways to double the size without parameters."""

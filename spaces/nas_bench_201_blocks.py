"""The operations of NAS-Bench-201 (Dong and Yang 2020), as its public code builds them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from nasengine.factories import Factory
from nasengine.operations import Zero


def _relu_conv_bn(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    )


def none(_channels_in: int, _channels_out: int) -> nn.Module:
    """Return the cut connection."""
    return Zero()


def skip_connect(_channels_in: int, _channels_out: int) -> nn.Module:
    """Return the identity."""
    return nn.Identity()


def nor_conv_1x1(channels_in: int, channels_out: int) -> nn.Module:
    """Return ReLU, 1x1 convolution, batch normalisation."""
    return _relu_conv_bn(channels_in, channels_out, 1)


def nor_conv_3x3(channels_in: int, channels_out: int) -> nn.Module:
    """Return ReLU, 3x3 convolution, batch normalisation."""
    return _relu_conv_bn(channels_in, channels_out, 3)


def avg_pool_3x3(_channels_in: int, _channels_out: int) -> nn.Module:
    """Return 3x3 average pooling of stride 1, which does not count the padding."""
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


class Reduction(nn.Module):
    """The residual block between two stages: half the size, other channels.

    Parameters
    ----------
    channels_in, channels_out
        Channels of the input and of the output.

    Shape
    -----
    (N, C_in, H, W) to (N, C_out, ceil(H / 2), ceil(W / 2)); the sides must be even.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            _relu_conv_bn(channels_in, channels_out, 3, stride=2),
            _relu_conv_bn(channels_out, channels_out, 3),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(channels_in, channels_out, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both paths."""
        total: Tensor = self.shortcut(x) + self.convolutions(x)
        return total


def stem(channels_in: int, channels_out: int) -> nn.Module:
    """Return the first 3x3 convolution and its batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
    )


def head(channels_in: int, channels_out: int) -> nn.Module:
    """Return batch normalisation, ReLU, global pooling and the linear classifier."""
    return nn.Sequential(
        nn.BatchNorm2d(channels_in),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels_in, channels_out),
    )


OPERATIONS: Mapping[str, Factory] = {
    "none": none,
    "skip_connect": skip_connect,
    "nor_conv_1x1": nor_conv_1x1,
    "nor_conv_3x3": nor_conv_3x3,
    "avg_pool_3x3": avg_pool_3x3,
}
"""The operations of an edge, in the benchmark's order."""

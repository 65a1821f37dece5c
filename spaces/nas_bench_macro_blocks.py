"""The layers of NAS-Bench-Macro (Su et al. 2021), as its public code builds them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from nasengine.factories import Factory


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project; a shortcut where shapes allow.

    Parameters
    ----------
    channels_in, channels_out
        Channels of the input and of the output.
    expansion
        Channels inside, as a multiple of `channels_in`.
    kernel
        Kernel of the depthwise convolution.
    stride
        Stride of the depthwise convolution.

    Shape
    -----
    (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self, channels_in: int, channels_out: int, expansion: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        inside = channels_in * expansion
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in, inside, 1, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            nn.Conv2d(inside, inside, kernel, stride, kernel // 2, groups=inside, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            nn.Conv2d(inside, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        features: Tensor = self.layers(x)
        return features + x if self.shortcut else features


def identity(_channels_in: int, _channels_out: int) -> nn.Module:
    """Return the layer left out."""
    return nn.Identity()


def mb3(channels_in: int, channels_out: int) -> nn.Module:
    """Return a 3x3 inverted residual of expansion 3."""
    return InvertedResidual(channels_in, channels_out, 3, 3, 1)


def mb6(channels_in: int, channels_out: int) -> nn.Module:
    """Return a 5x5 inverted residual of expansion 6."""
    return InvertedResidual(channels_in, channels_out, 6, 5, 1)


def identity_down(channels_in: int, channels_out: int) -> nn.Module:
    """Return what stands for the identity where a stage begins: a 1x1 convolution of stride 2."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, 2, bias=False), nn.BatchNorm2d(channels_out)
    )


def mb3_down(channels_in: int, channels_out: int) -> nn.Module:
    """Return a 3x3 inverted residual of expansion 3 and stride 2."""
    return InvertedResidual(channels_in, channels_out, 3, 3, 2)


def mb6_down(channels_in: int, channels_out: int) -> nn.Module:
    """Return a 5x5 inverted residual of expansion 6 and stride 2."""
    return InvertedResidual(channels_in, channels_out, 6, 5, 2)


def stem(channels_in: int, channels_out: int) -> nn.Module:
    """Return the first 3x3 convolution, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def features(channels_in: int, channels_out: int) -> nn.Module:
    """Return the last 1x1 convolution and global pooling, flattened."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def classifier(channels_in: int, channels_out: int) -> nn.Module:
    """Return the linear classifier."""
    return nn.Linear(channels_in, channels_out)


LAYERS: Mapping[str, Factory] = {"identity": identity, "mb3": mb3, "mb6": mb6}
"""The choices of a layer that keeps its shape, in the order of the benchmark's digits."""

FIRST_LAYERS: Mapping[str, Factory] = {
    "identity": identity_down,
    "mb3": mb3_down,
    "mb6": mb6_down,
}
"""The same where a stage begins."""

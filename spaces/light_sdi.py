"""Light SDI: which light block stands in each of the nine places of a UNet.

Chen, Niu, Lin, Zhang, Liu, Wang: Lightweight Convolutional Neural Networks for Surface Defect
Segmentation based on Neural Architecture Search (2023): figure of the search space, tables 1, A1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from nasengine.graph import Node, SpaceGraph
from nasengine.space import SearchSpace

_LEVELS = 5
_SLOTS = (
    *(f"encoder_{level}" for level in range(1, _LEVELS + 1)),
    *(f"decoder_{step}" for step in range(1, _LEVELS)),
)

_SHORT = {
    "single": "single_conv",
    "dilation": "single_dilation_conv",
    "dw": "double_dw_conv",
    "dw_d": "double_dw_d_conv",
    "cut": "cutconnect",
}

# Table A1, encoder 1 to 5 and decoder 1 to 4.
_PUBLISHED = {
    "neu_inclusion": "dw_d single single single dilation cut single single cut",
    "neu_patches": "single single cut single cut cut cut single single",
    "neu_scratches": "cut single cut single single single single single single",
    "dagm_tile": "dw single cut single cut dilation cut single cut",
    "wafer_cement": "cut single single dilation dw dilation single dilation cut",
}


class LightSDI(SearchSpace):
    """UNet for segmentation with nine slots of five light blocks: 1,953,125 architectures.

    Widths double at each of five levels; max pooling, parameter-free upsampling, skip connections
    and the final 1x1 convolution are fixed. A decoder slot reads the concatenation of the
    upsampled tensor and the skip. Images need sides that are divisible by 16.

    References: ``unet`` (Double Conv everywhere), ``single_u`` (Single Conv), ``kd_u`` (Single
    Dilation Conv), ``cut_u`` (Cutconnect), and what the paper's searches found (table A1):
    ``neu_inclusion``, ``neu_patches``, ``neu_scratches``, ``dagm_tile``, ``wafer_cement``.

    Shape
    -----
    Networks go from (N, channels, H, W) to logits (N, classes, H, W).

    Examples
    --------
    >>> space = LightSDI(width=8)
    >>> space.size, list(space.decisions)[0], space.reference("single_u")["decoder_4"]
    (1953125, 'encoder_1', 'single_conv')
    """

    widths: ClassVar[tuple[str, ...]] = ("width",)

    channels: int = Field(default=3, gt=0)
    """Channels of the images."""
    classes: int = Field(default=1, gt=0)
    """Channels of the output: 1 for a binary mask, else the number of classes."""
    width: int = Field(default=64, gt=0)
    """Channels of the first level; doubled at each of the four further ones."""
    upsampling: Literal["bilinear", "nearest"] = "bilinear"
    """How the decoder doubles the size; the paper does not say, and neither has parameters."""

    def define(self, graph: SpaceGraph) -> None:
        """Wire the UNet."""
        from .light_blocks import BASELINES, CANDIDATES, UPSAMPLINGS, head, max_pool

        def block(name: str, source: Node, level: int) -> Node:
            out = self.width * 2 ** (level - 1)
            return graph.slot(name, source, CANDIDATES, out, baselines=BASELINES)

        x = block("encoder_1", graph.input(self.channels), 1)
        skips = [x]
        for level in range(2, _LEVELS + 1):
            x = graph.operation(f"pool_{level - 1}", x, max_pool)
            x = block(f"encoder_{level}", x, level)
            skips.append(x)
        for step, skip in enumerate(reversed(skips[:-1]), start=1):
            x = graph.operation(f"upsample_{step}", x, UPSAMPLINGS[self.upsampling])
            x = graph.concat(f"merge_{step}", (x, skip))
            x = block(f"decoder_{step}", x, _LEVELS - step)
        graph.output(graph.operation("head", x, head, out=self.classes))

    def references(self) -> Mapping[str, Mapping[str, str]]:
        """Return the paper's fixed networks and the architectures of its table A1."""
        everywhere = {
            "unet": "double_conv",
            "single_u": "single_conv",
            "kd_u": "single_dilation_conv",
            "cut_u": "cutconnect",
        }
        published = {
            name: dict(zip(_SLOTS, (_SHORT[word] for word in row.split()), strict=True))
            for name, row in _PUBLISHED.items()
        }
        return {
            **{name: dict.fromkeys(_SLOTS, choice) for name, choice in everywhere.items()},
            **published,
        }

"""Light SDI: which light block stands in each of the nine places of a UNet.

Chen, Niu, Lin, Zhang, Liu, Wang: Lightweight Convolutional Neural Networks for Surface Defect
Segmentation based on Neural Architecture Search (2023): figure of the search space, tables 1, A1.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from nasengine.graph import Node, SpaceGraph
from nasengine.quantities import as_share
from nasengine.space import SearchSpace
from nasengine.widths import Width

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


def _share(given: object) -> float:
    share = as_share(given)
    if share is None:
        raise ValueError('a share above 0 and up to 1, such as 0.5 or "50%", is needed')
    return share


Share = Annotated[
    float,
    BeforeValidator(_share),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 1}, {"type": "string"}]}
    ),
]
"""A share, such as 0.5 or ``"50%"``."""


class LightSDI(SearchSpace):
    """UNet for segmentation with nine slots of five light blocks: 1,953,125 architectures.

    Widths double at each of five levels; max pooling, parameter-free upsampling, skip connections
    and the final 1x1 convolution are fixed. A decoder slot reads the concatenation of the
    upsampled tensor and the skip. Images need sides that are divisible by 16.

    References: ``unet`` (Double Conv everywhere), ``single_u`` (Single Conv), ``kd_u`` (Single
    Dilation Conv), ``cut_u`` (Cutconnect), and what the paper's searches found (table A1):
    ``neu_inclusion``, ``neu_patches``, ``neu_scratches``, ``dagm_tile``, ``wafer_cement``.

    With `searched_widths`, which the paper has not, each level's channels are decided too, by
    ``width_1`` to ``width_5``: one width for a level's encoder and decoder, the fifth for
    ``encoder_5``. References have all channels; further ones are UNets with a share at every level,
    ``unet_25`` with 25%.

    Shape
    -----
    Networks go from (N, channels, H, W) to logits (N, classes, H, W).

    Examples
    --------
    >>> space = LightSDI(width=8)
    >>> space.size, list(space.decisions)[0], space.reference("single_u")["decoder_4"]
    (1953125, 'encoder_1', 'single_conv')
    >>> space = LightSDI(width=8, searched_widths=("50%", "75%", "100%"))
    >>> space.decisions["width_2"], space.reference("unet")["width_2"]
    (('50%', '75%', '100%'), '100%')
    >>> space.graph.channels_of("decoder_4", {"width_1": "50%", "width_2": "75%"})
    (16, 4)
    >>> [name for name in space.references() if name.startswith("unet_")]
    ['unet_50', 'unet_75']
    """

    widths: ClassVar[tuple[str, ...]] = ("width",)

    channels: int = Field(default=3, gt=0)
    """Channels of the images."""
    classes: int = Field(default=1, gt=0)
    """Channels of the output: 1 for a binary mask, else the number of classes."""
    width: int = Field(default=64, gt=0)
    """Channels of the first level; doubled at each of the four further ones."""
    searched_widths: tuple[Share, ...] = ()
    """Shares of a level's channels to choose from, such as `["50%", "75%", "100%"]`: they increase
    and end with the whole. Without any, every level has all of its channels, as in the paper."""
    upsampling: Literal["bilinear", "nearest"] = "bilinear"
    """How the decoder doubles the size; the paper does not say, and neither has parameters."""

    @model_validator(mode="after")
    def _check_widths(self) -> LightSDI:
        """Refuse shares that are no choice, or that a level has too few channels for."""
        shares = self.searched_widths
        if shares and (len(shares) < 2 or shares[-1] != 1):
            raise ValueError(
                "searched_widths are at least two shares and end with the whole, such as "
                '["50%", "100%"]'
            )
        for level, widths in self._widths.items():
            counts = [0, *widths.values()]
            if any(one >= other for one, other in pairwise(counts)):
                raise ValueError(
                    f"searched_widths are shares that increase, and of this width the channels of "
                    f"level {level} would be {', '.join(map(str, counts[1:]))}"
                )
        return self

    def _channels(self, level: int) -> int:
        return self.width << (level - 1)

    @property
    def _widths(self) -> dict[int, dict[str, int]]:
        """The channels that each level is to choose from, if any, by the names of the shares."""
        levels = range(1, _LEVELS + 1) if self.searched_widths else ()
        return {
            level: {
                f"{100 * share:.10g}%": round(share * self._channels(level))
                for share in self.searched_widths
            }
            for level in levels
        }

    @property
    def _everywhere(self) -> list[dict[str, str]]:
        """The choices of all widths that are the same at every level, from the narrowest on."""
        names = [f"width_{level}" for level in self._widths]
        return [
            dict(zip(names, same, strict=True)) for same in zip(*self._widths.values(), strict=True)
        ]

    def define(self, graph: SpaceGraph) -> None:
        """Wire the UNet."""
        from .light_blocks import BASELINES, CANDIDATES, UPSAMPLINGS, head, max_pool

        out: dict[int, int | Width] = {
            **{level: self._channels(level) for level in range(1, _LEVELS + 1)},
            **{level: graph.width(f"width_{level}", of) for level, of in self._widths.items()},
        }

        def block(name: str, source: Node, level: int) -> Node:
            return graph.slot(name, source, CANDIDATES, out[level], baselines=BASELINES)

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
        fixed = {name: dict.fromkeys(_SLOTS, choice) for name, choice in everywhere.items()}
        *narrower, widest = self._everywhere or [{}]
        return {
            **{name: {**widest, **blocks} for name, blocks in {**fixed, **published}.items()},
            **{
                f"unet_{widths['width_1'].removesuffix('%')}": {**widths, **fixed["unet"]}
                for widths in narrower
            },
        }

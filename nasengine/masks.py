"""Masks: the channels of the widest network that a narrower one has.

The narrower network of a block is the widest one's with its first channels; the others are
multiplied by zero, or where widths are mixed, by what the wider ones weigh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from nasengine.widths import Channels, Width, searched


def reaching(weights: Tensor) -> list[Tensor]:
    """Return the sum of the weights from each choice on.

    Added one by one: a GPU has no `cumsum` that is the same every time.
    """
    return [*accumulate(reversed(weights.unbind()))][::-1]


def mask_of(
    channels: Channels, weights: Mapping[str, Sequence[Tensor]], device: torch.device | None
) -> Tensor:
    """Return what each channel is multiplied by: (C,).

    Parameters
    ----------
    channels
        What they are made of.
    weights
        Of each width in these, what each of its choices is reached by (`reaching`).
    device
        Where fixed channels have their ones.
    """
    parts = []
    for part in channels:
        if isinstance(part, int):
            parts.append(torch.ones(part, device=device))
            continue
        counts = [0, *(count for _, count in part.options)]
        steps = (count - before for before, count in pairwise(counts))
        own = weights[part.decision]
        parts += [w.expand(step) for w, step in zip(own, steps, strict=True)]
    return torch.cat(parts)


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """Return a tensor, (N, C, ...), with each channel multiplied."""
    return x * mask.to(x.dtype).view(1, -1, *(1,) * (x.ndim - 2))


class AtWidths(nn.Module):
    """The channels of a node as a network of given widths has them: those beyond are zero.

    Parameters
    ----------
    channels
        What the node's channels are made of.
    widths
        A choice for some or all of the widths in these; the others stay as they are.

    Shape
    -----
    (N, C, ...) to (N, C, ...).
    """

    def __init__(self, channels: Channels, widths: Mapping[str, str]) -> None:
        super().__init__()
        self.mask: Tensor

        def reached(width: Width) -> list[Tensor]:
            last = width.choices.index(widths.get(width.decision, width.choices[-1]))
            return [torch.tensor(float(index <= last)) for index in range(len(width.choices))]

        weights = {width.decision: reached(width) for width in searched(channels)}
        self.register_buffer("mask", mask_of(channels, weights, None), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tensor without what lies beyond the widths."""
        return masked(x, self.mask)

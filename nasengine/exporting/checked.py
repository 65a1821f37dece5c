"""What a network is exported as must compute what the network does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nasengine.errors import ExportFailed

_TOLERANCE = 1e-3
"""Largest difference to torch, relative to the largest output, of a model that is delivered."""


def checked_difference(outputs: Tensor, wanted: Tensor, what: str) -> float:
    """Return the largest difference of outputs; refuse a model in which it is too large."""
    difference = float((outputs - wanted).abs().max())
    allowed = _TOLERANCE * max(1.0, float(wanted.abs().max()))
    if not difference <= allowed:
        raise ExportFailed(f"{what} differs from the network by {difference:.3g}")
    return difference


def example(input_shape: Sequence[int]) -> Tensor:
    """Return three random samples: one or two could pass for a broadcast dimension."""
    return torch.rand(3, *input_shape, generator=torch.Generator().manual_seed(0))

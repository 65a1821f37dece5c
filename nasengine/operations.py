"""Operations whose meaning the engine knows: nothing, and everything.

`torch.nn.Identity` and `Zero` let the engine see which architectures compute the same.
"""

from __future__ import annotations

from torch import Tensor, nn


class Zero(nn.Module):
    """The candidate that cuts a connection: zeros of the input's shape.

    Shape
    -----
    (N, C, H, W) to (N, C, H, W); any shape is kept.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros."""
        return x * 0.0

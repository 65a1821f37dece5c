"""Operations whose meaning the engine knows: nothing, and everything.

`torch.nn.Identity` and `Zero` let the engine see which architectures compute the same.
"""

from __future__ import annotations

from torch import Tensor, nn

from nasengine.errors import SpaceError


class Zero(nn.Module):
    """The candidate that cuts a connection: zeros of the input's shape.

    The class itself is a factory: ``{"none": Zero}``.

    Parameters
    ----------
    channels_in, channels_out
        Of the slot; they must be equal, where given.

    Raises
    ------
    SpaceError
        If the slot changes the channels.

    Shape
    -----
    (N, C, H, W) to (N, C, H, W); any shape is kept.
    """

    def __init__(self, channels_in: int | None = None, channels_out: int | None = None) -> None:
        super().__init__()
        if channels_in != channels_out:
            raise SpaceError(
                f"Zero keeps its input's shape, and the slot goes from {channels_in} to "
                f"{channels_out} channels: give it equal ones, or bring them there before it"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros."""
        return x * 0.0

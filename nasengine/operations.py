"""Operations whose meaning the engine knows: nothing, and everything.

`torch.nn.Identity` and `Zero` let the engine see which architectures compute the same.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from nasengine.errors import SpaceError

Meaning = Literal["zero", "identity", "module"]
"""Of a module: that it cuts a connection, that it passes on what it reads, or what it computes."""


class Zero(nn.Module):
    """The candidate that cuts a connection: zeros of the input's shape.

    The class itself is a factory: ``{"none": Zero}``. Like `nn.Identity`, it is for slots that
    read one node.

    Parameters
    ----------
    channels_in, channels_out
        Of the slot; they must be equal, where given.
    further
        Taken as `nn.Identity` takes them, so that both are refused alike where several are read.

    Raises
    ------
    SpaceError
        If the slot changes the channels.

    Shape
    -----
    (N, C, H, W) to (N, C, H, W); any shape is kept.
    """

    def __init__(
        self, channels_in: int | None = None, channels_out: int | None = None, *further: int
    ) -> None:
        super().__init__()
        if not further and channels_in != channels_out:
            raise SpaceError(
                f"Zero keeps its input's shape, and the slot goes from {channels_in} to "
                f"{channels_out} channels: give it equal ones, or bring them there before it"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros."""
        return x * 0.0


def meaning_of(module: nn.Module) -> Meaning:
    """Say whether a module is a `Zero`, an `nn.Identity` or a real one."""
    if isinstance(module, Zero):
        return "zero"
    return "identity" if type(module) is nn.Identity else "module"

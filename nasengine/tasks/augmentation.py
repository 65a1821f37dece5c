"""Random transformations of a batch: one draw a sample, without a loop over the samples."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate_and_flip(
    inputs: Tensor, targets: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Turn each sample by a multiple of 90 degrees and mirror it, both at random.

    A transposition and two flips, each with probability one half, are the eight symmetries of
    the square, all equally likely. Samples that are not square are not transposed: they turn by
    180 degrees and are mirrored.

    Parameters
    ----------
    inputs
        (N, C, H, W).
    targets
        (N, H, W), moved as the inputs are.
    generator
        Draws on its own device; the samples stay on theirs.
    """
    number, _, height, width = inputs.shape
    draws = torch.randint(0, 2, (3, number), generator=generator, device=generator.device)
    transpose, vertical, horizontal = draws.bool().to(inputs.device)
    masks = targets.unsqueeze(1)
    if height == width:
        inputs, masks = (_where(transpose, t, t.transpose(2, 3)) for t in (inputs, masks))
    inputs, masks = (_where(vertical, t, t.flip(2)) for t in (inputs, masks))
    inputs, masks = (_where(horizontal, t, t.flip(3)) for t in (inputs, masks))
    return inputs, masks.squeeze(1)


def shift_and_mirror(inputs: Tensor, generator: torch.Generator, reach: int) -> Tensor:
    """Move each sample by up to `reach` pixels, its border reflected, and mirror half of them.

    Parameters
    ----------
    inputs
        (N, C, H, W); `reach` is smaller than H and W.
    generator
        Draws on its own device; the samples stay on theirs.
    reach
        In pixels; 0 only mirrors.
    """
    number, _, height, width = inputs.shape
    device = generator.device
    mirror = torch.randint(0, 2, (number,), generator=generator, device=device).bool()
    moves = torch.randint(-reach, reach + 1, (2, number), generator=generator, device=device)
    rows, columns = (
        _reflected(move, size).to(inputs.device)
        for move, size in zip(moves, (height, width), strict=True)
    )
    sample = torch.arange(number, device=inputs.device)[:, None, None]
    # Indices around a slice put the channels last.
    moved = inputs[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return _where(mirror.to(inputs.device), moved, moved.flip(3)).contiguous()


def _where(chosen: Tensor, plain: Tensor, moved: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], moved, plain)


def _reflected(move: Tensor, size: int) -> Tensor:
    place = (torch.arange(size, device=move.device) + move[:, None]).abs()
    return torch.where(place >= size, 2 * (size - 1) - place, place)

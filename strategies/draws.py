"""The batches of a gradient search: a share of the samples for the weights, one for the alphas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nasengine.batches import Batches
from nasengine.errors import SpecError
from nasengine.randomness import derive_seed

if TYPE_CHECKING:
    from nasengine.search import Search

    from .darts import Darts
    from .nni_darts import NniDarts

Batch = tuple[Tensor, Tensor]
"""Inputs (N, C, H, W) and targets, on the device."""


@dataclass
class Draws:
    """Augmented batches of one share of the training samples, on the device."""

    search: Search
    indices: Tensor
    batches: Batches
    step: str

    def draw(self, iteration: int) -> Batch:
        """Return the next batch."""
        search = self.search
        samples = search.splits.train.on(search.device)
        inputs, targets = samples.batch(self.indices[self.batches.draw()])
        seed = derive_seed(search.seed, "darts", "augment", self.step, iteration)
        generator = torch.Generator().manual_seed(seed)
        return search.task.augment(inputs, targets, generator)


def make_draws(settings: Darts | NniDarts, search: Search) -> tuple[Draws, Draws]:
    """Return the batches for the weights and those for the alphas.

    Raises
    ------
    SpecError
        If a share is smaller than a batch.
    """

    def draws(indices: Tensor, step: str) -> Draws:
        seed = derive_seed(search.seed, "darts", "batches", step)
        generator = torch.Generator().manual_seed(seed)
        return Draws(search, indices, Batches(len(indices), settings.batch, generator), step)

    for_weights, for_alphas = shares(len(search.splits.train), settings, search.seed)
    return draws(for_weights, "weights"), draws(for_alphas, "alphas")


def shares(count: int, settings: Darts | NniDarts, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the samples for the weights and of those for the alphas.

    Raises
    ------
    SpecError
        If a share is smaller than a batch.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "darts", "shares"))
    order = torch.randperm(count, generator=generator)
    cut = count - round(count * settings.alpha_share)
    parts = (order[:cut], order[cut:]) if settings.alpha_share else (order, order)
    smallest = min(len(part) for part in parts)
    if settings.batch > smallest:
        raise SpecError(
            f"strategy.batch: {settings.batch} is more than the {smallest} samples of a share "
            f"({count} training samples, alpha_share = {settings.alpha_share:g}); lower batch, or "
            f"set alpha_share to 0"
        )
    return parts

"""Batches of indices: drawn by a generator, and gone on with after a resume."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Batches:
    """An endless stream of batches of indices: one permutation of the samples after another.

    Parameters
    ----------
    count
        Number of samples.
    batch
        Samples in a batch; every batch is full, and may span two permutations.
    generator
        Where the permutations come from.

    Examples
    --------
    >>> batches = Batches(4, 2, torch.Generator().manual_seed(0))
    >>> sorted(torch.cat([batches.draw(), batches.draw()]).tolist())
    [0, 1, 2, 3]
    """

    def __init__(self, count: int, batch: int, generator: torch.Generator) -> None:
        if count < 1:
            raise ValueError("no samples to draw from")
        self.count = count
        self.batch = batch
        self.generator = generator
        self._left = torch.empty(0, dtype=torch.int64)

    def draw(self) -> Tensor:
        """Return the next indices: shape (batch,), int64."""
        while len(self._left) < self.batch:
            order = torch.randperm(self.count, generator=self.generator)
            self._left = torch.cat([self._left, order])
        drawn, self._left = self._left[: self.batch], self._left[self.batch :]
        return drawn

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state, the generator's included."""
        return {"left": self._left, "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state."""
        self._left = state["left"]
        self.generator.set_state(state["generator"])

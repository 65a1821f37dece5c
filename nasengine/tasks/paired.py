"""Images with their masks on disk, read and checked together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nasengine.errors import DataError
from nasengine.task import Samples, Splits

from .images import Reader

ToClasses = Callable[[NDArray[np.int64], Path], NDArray[np.int64]]
"""Turns a mask's values into class indices, or raises a DataError that names the file."""


@dataclass(frozen=True)
class Pair:
    """One image on disk.

    Parameters
    ----------
    name
        For messages and pictures.
    image
        Its file.
    mask
        Its mask's file; none where the image has no defect.
    group
        What it comes from: images of one group stay in one split.
    """

    name: str
    image: Path
    mask: Path | None
    group: str


@dataclass(frozen=True)
class Loaded:
    """What was read of a list of pairs: (N, C, H, W), (N, H, W) and a digest an image."""

    pairs: Sequence[Pair]
    inputs: NDArray[np.float32]
    targets: NDArray[np.int64]
    digests: Sequence[str]

    def samples(self, indices: Sequence[int]) -> Samples:
        """Return some of them as a split."""
        chosen = list(indices)
        return Samples(
            inputs=torch.from_numpy(self.inputs[chosen]),
            targets=torch.from_numpy(self.targets[chosen]),
            names=tuple(self.pairs[index].name for index in chosen),
        )

    def splits(self, indices: Mapping[str, Sequence[int]]) -> Splits:
        """Return the splits train, validation and, where it holds any, test."""
        test = indices.get("test")
        return Splits(
            train=self.samples(indices["train"]),
            validation=self.samples(indices["validation"]),
            test=self.samples(test) if test else None,
        )


def read_pairs(pairs: Sequence[Pair], reader: Reader, to_classes: ToClasses) -> Loaded:
    """Read images and masks.

    Raises
    ------
    DataError
        Naming the file and what is wrong with it.
    """
    inputs = np.empty((len(pairs), reader.channels, *reader.size), dtype=np.float32)
    targets = np.zeros((len(pairs), *reader.size), dtype=np.int64)
    digests = []
    for index, pair in enumerate(pairs):
        inputs[index], size, digest = reader.image(pair.image)
        digests.append(digest)
        if pair.mask is None:
            continue
        values, mask_size = reader.mask(pair.mask)
        if mask_size != size:
            raise DataError(
                f"{pair.mask}: {mask_size[1]} x {mask_size[0]} pixels, but its image "
                f"{pair.image} has {size[1]} x {size[0]}"
            )
        targets[index] = to_classes(values, pair.mask)
    return Loaded(pairs, inputs, targets, digests)

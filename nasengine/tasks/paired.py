"""Images with their masks on disk, read and checked together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nasengine.errors import DataError
from nasengine.task import IGNORED, Samples, Splits

from .images import Reader, colour_name, read_each, sizes_text

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
    """What was read of a list of pairs.

    Parameters
    ----------
    pairs
        The list.
    reader
        What brought them to their size.
    inputs, targets
        (N, C, H, W) and (N, H, W).
    digests
        Of the pixels, one an image.
    sizes
        (H, W) of the files, and how many have it.
    values
        Those that the masks hold.
    erased
        Masks that lost all of a class when they were brought to the size.
    blurred
        Masks that are saved lossily and are not black and white alone.
    """

    pairs: Sequence[Pair]
    reader: Reader
    inputs: NDArray[np.float32]
    targets: NDArray[np.int64]
    digests: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    values: set[int] = field(default_factory=set)
    erased: list[Path] = field(default_factory=list)
    blurred: list[Path] = field(default_factory=list)

    def samples(self, indices: Sequence[int]) -> Samples:
        """Return some of them as a split."""
        inputs, targets = torch.from_numpy(self.inputs), torch.from_numpy(self.targets)
        return Samples(inputs, targets, tuple(pair.name for pair in self.pairs)).take(indices)

    def splits(self, indices: Mapping[str, Sequence[int]]) -> Splits:
        """Return the splits train, validation and, where it holds any, test."""
        test = indices.get("test")
        return Splits(
            train=self.samples(indices["train"]),
            validation=self.samples(indices["validation"]),
            test=self.samples(test) if test else None,
            facts=self.facts(),
            doubts=self.doubts(),
        )

    def facts(self) -> tuple[str, ...]:
        """Say what the files hold."""
        found = f"images, width x height: {sizes_text(self.sizes, self.reader.size)}"
        if set(self.sizes) != {self.reader.size}:
            found += f", masks by mask_resize = {self.reader.mask_resize!r}"
        values = listed(self.values, colour_name if self.reader.colours else str)
        return (found, f"mask values: {values}")

    def doubts(self) -> tuple[str, ...]:
        """Say what is doubtful about them."""
        masks = sum(pair.mask is not None for pair in self.pairs)
        found = []
        if self.erased:
            found.append(
                f"{len(self.erased)} of {masks} masks lose all of a class when they are brought to "
                f"{self.reader.size[1]} x {self.reader.size[0]} (such as {self.erased[0]}): "
                f"defects that small are trained and judged as none; take a larger size, or "
                f'mask_resize = "cover"'
            )
        if self.blurred:
            found.append(
                f"{len(self.blurred)} of {masks} masks are saved lossily (JPEG) and are not black "
                f"and white alone (such as {self.blurred[0]}): they are cut at half; save masks "
                f"as PNG"
            )
        return tuple(found)


def listed(values: Collection[int], name: Callable[[int], str] = str) -> str:
    """Return values as text, by their names, the first of them if they are many.

    Examples
    --------
    >>> listed({255, 0}), listed(range(200))
    ('0, 255', '200 values: 0, 1, 2, 3, 4, 5, 6, 7, ..., 199')
    """
    ordered = [name(value) for value in sorted(values)]
    if len(ordered) <= 10:
        return ", ".join(ordered) or "none"
    return f"{len(ordered)} values: {', '.join(ordered[:8])}, ..., {ordered[-1]}"


def read_pairs(pairs: Sequence[Pair], reader: Reader, to_classes: ToClasses) -> Loaded:
    """Read images and masks.

    Raises
    ------
    DataError
        Naming the files and what is wrong with each, the first of them if they are many.
    """
    inputs = np.empty((len(pairs), reader.channels, *reader.size), dtype=np.float32)
    targets = np.zeros((len(pairs), *reader.size), dtype=np.int64)
    loaded = Loaded(pairs, reader, inputs, targets)
    read_each(len(pairs), lambda index: _read_pair(loaded, index, to_classes))
    return loaded


def _read_pair(loaded: Loaded, index: int, to_classes: ToClasses) -> None:
    pair = loaded.pairs[index]
    loaded.inputs[index], size, digest = loaded.reader.image(pair.image)
    loaded.digests.append(digest)
    loaded.sizes[size] += 1
    if pair.mask is not None:
        loaded.targets[index] = _read_mask(loaded, pair.image, pair.mask, size, to_classes)


def _read_mask(
    loaded: Loaded, image: Path, path: Path, size: tuple[int, int], to_classes: ToClasses
) -> NDArray[np.int64]:
    """Return the classes at the reader's size, and keep in `loaded` what there is to say."""
    mask = loaded.reader.mask(path)
    if mask.values.shape != size:
        raise DataError(
            f"{path}: {mask.values.shape[1]} x {mask.values.shape[0]} pixels, but its image "
            f"{image} has {size[1]} x {size[0]}"
        )
    classes = to_classes(mask.values.astype(np.int64), path)
    resized = loaded.reader.resized(classes)
    loaded.values.update(np.unique(mask.values).tolist())
    if set(np.unique(classes).tolist()) - {0, IGNORED} - set(np.unique(resized).tolist()):
        loaded.erased.append(path)
    if mask.blurred:
        loaded.blurred.append(path)
    return resized

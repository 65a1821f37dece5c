"""Images and masks on disk are read together, and stay on one another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nasengine.task import IGNORED
from nasengine.tasks.images import Reader
from nasengine.tasks.paired import Loaded, Pair, read_pairs


def read(folder: Path, mask: np.ndarray, size: int) -> Loaded:
    """Return an image that is white where its mask is marked, read at a size."""
    Image.fromarray(np.where(mask == 1, 255, 0).astype(np.uint8)).save(folder / "image.png")
    Image.fromarray(mask.astype(np.uint8)).save(folder / "mask.png")
    pair = Pair("a", folder / "image.png", folder / "mask.png", "a")
    reader = Reader((size, size), 1, max_pixels=10_000)
    return read_pairs([pair], reader, lambda values, _: np.where(values == 9, IGNORED, values))


def test_a_mask_lies_on_its_image_at_any_size(tmp_path: Path) -> None:
    mask = np.zeros((32, 32))
    mask[4:12, 8:28] = 1
    for size in (32, 16, 8):
        samples = read(tmp_path, mask, size).samples([0])
        assert ((samples.inputs[0, 0] > 0.5) == (samples.targets[0] == 1)).all()


def test_a_speck_that_is_lost_is_doubted_unless_it_is_ignored(tmp_path: Path) -> None:
    mask = np.zeros((32, 32))
    mask[0, 0] = 9
    assert read(tmp_path, mask, 8).doubts() == ()
    mask[0, 1] = 1
    (doubt,) = read(tmp_path, mask, 8).doubts()
    assert "1 of 1 masks lose all of a class when they are brought to 8 x 8" in doubt

"""DAGM 2007 on a made-up copy of its layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nasengine.errors import DataError
from nasengine.tasks.dagm import Dagm


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class2: eight images in each folder, every second with a label."""
    generator = np.random.default_rng(0)
    for part, first in (("Train", 1), ("Test", 9)):
        folder = tmp_path / "Class2" / part
        (folder / "Label").mkdir(parents=True)
        (folder / "Label" / "Labels.txt").write_text("1\n")
        for number in range(first, first + 8):
            pixels = generator.integers(0, 256, (32, 32)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:04d}.PNG")
            if number % 2:
                mask = np.zeros((32, 32), np.uint8)
                mask[:8, :8] = 255
                Image.fromarray(mask).save(folder / "Label" / f"{number:04d}_label.PNG")
    return tmp_path


def dagm(root: Path, **settings: Any) -> Dagm:
    return Dagm(**{"root": root, "class_id": 2, "size": 16, "validation": 0.25, **settings})


def test_defective_images_of_both_folders_are_divided(root: Path) -> None:
    splits = dagm(root).load(seed=0)
    assert (len(splits.train), len(splits.validation), splits.test) == (6, 2, None)
    assert splits.train.inputs.shape == (6, 3, 16, 16)
    assert (splits.train.targets.flatten(1).sum(1) == 16).all()
    assert {name.split("/")[0] for name in splits.train.names} == {"Train", "Test"}


def test_whatever_is_marked_is_a_defect(root: Path) -> None:
    label = root / "Class2/Train/Label/0001_label.PNG"
    mask = np.asarray(Image.open(label))
    Image.fromarray(mask // 255).save(label)
    assert (dagm(root).load(seed=0).train.targets.flatten(1).sum(1) == 16).all()


def test_the_default_share_is_the_papers() -> None:
    from nasengine.tasks.splits import count_of

    validation = Dagm(root=Path()).validation
    assert (count_of(validation, 150), count_of(validation, 300)) == (25, 50)


def test_all_images_keep_the_authors_test(root: Path) -> None:
    splits = dagm(root, defects_only=False).load(seed=0)
    assert (len(splits.train), len(splits.validation)) == (6, 2)
    assert splits.test is not None
    assert len(splits.test) == 8
    assert all(name.startswith("Test/") for name in splits.test.names)
    assert int((splits.test.targets.flatten(1).sum(1) == 0).sum()) == 4


def test_mistakes_are_named(root: Path) -> None:
    def fails(source: Dagm, *parts: str) -> None:
        with pytest.raises(DataError) as caught:
            source.load(seed=0)
        assert all(part in str(caught.value) for part in parts), str(caught.value)

    fails(dagm(root, class_id=3), "Class3", "no such folder")
    fails(dagm(root, validation=8), "leave none to train on")
    with pytest.raises(ValueError, match="test"):
        dagm(root, defects_only=False, test=2)
    label = root / "Class2/Train/Label/0001_label.PNG"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(label)
    fails(dagm(root), "0001_label.PNG: 8 x 8 pixels", "0001.PNG has 32 x 32")
    (root / "Class2/Train/0001.PNG").unlink()
    fails(dagm(root), "0001_label.PNG: has no image 0001.PNG")
    label.unlink()
    twin = (root / "Class2/Train/0002.PNG").read_bytes()
    (root / "Class2/Test/0010.PNG").write_bytes(twin)
    fails(dagm(root, defects_only=False), "0002.PNG", "0010.PNG (test)", "the same pixels")
    for path in root.glob("Class2/*/Label/*.PNG"):
        path.unlink()
    fails(dagm(root), "no image with a label found")

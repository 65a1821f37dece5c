"""NEU_Seg: its layout, its classes, and a split that no copy crosses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nasengine.errors import DataError
from nasengine.tasks.copies import copies
from nasengine.tasks.neu_seg import DEFECTS, NeuSeg


def save(root: Path, split: str, number: int, pixels: np.ndarray, label: int) -> None:
    for part, suffix in (("images", "jpg"), ("annotations", "png")):
        (root / part / split).mkdir(parents=True, exist_ok=True)
        mask = np.zeros((20, 20), np.uint8)
        mask[4:10, 5:15] = label
        picture = Image.fromarray(pixels if part == "images" else mask)
        picture.save(root / part / split / f"{number:06d}.{suffix}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Nine images of three defects; the same IDs in both public folders; groups of one or two."""
    generator = np.random.default_rng(0)
    rows = ["split,id,defect,source_group"]
    for number in range(9):
        split = "training" if number < 5 else "test"
        pixels = generator.integers(0, 256, (20, 20, 3)).astype(np.uint8)
        save(tmp_path, split, number % 5, pixels, 1 + number % 3)
        rows.append(f"{split},{number % 5:06d},{DEFECTS[number % 3]},{min(number, 6)}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def neu(root: Path, **settings: Any) -> NeuSeg:
    return NeuSeg(**{"root": root, "size": 20, "validation": 1, **settings})


def fails(source: NeuSeg, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        source.load(seed=0)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_one_defect_is_a_binary_problem_on_its_images(root: Path) -> None:
    source = neu(root, defect="patches")
    splits = source.load(seed=0)
    assert source.classes == ("background", "patches")
    assert (len(splits.train), len(splits.validation)) == (2, 1)
    assert set(splits.train.targets.flatten().tolist()) == {0, 1}
    assert int((splits.train.targets[0] == 1).sum()) == 60


def test_all_defects_are_classes_and_each_is_in_every_split(root: Path) -> None:
    manifest = (root / "manifest.csv").read_text()
    alone = manifest.splitlines()
    rows = [f"{line.rpartition(',')[0]},{number}" for number, line in enumerate(alone[1:])]
    (root / "manifest.csv").write_text("\n".join([alone[0], *rows]) + "\n")
    source = neu(root, test=1)
    splits = source.load(seed=0)
    assert source.classes == ("background", "inclusion", "patches", "scratches")
    assert splits.test is not None
    for samples in (splits.train, splits.validation, splits.test):
        assert samples.targets.flatten(1).max(1).values.sort().values.tolist() == [1, 2, 3]


def test_the_same_id_in_both_folders_is_two_images(root: Path) -> None:
    splits = neu(root).load(seed=0)
    names = {*splits.train.names, *splits.validation.names}
    assert {"training/000000", "test/000000"} <= names
    assert len(names) == 9


def test_groups_of_the_manifest_stay_whole(root: Path) -> None:
    lines = (root / "manifest.csv").read_text().splitlines()
    patches = [line for line in lines if "patches" in line]
    grouped = [line.rpartition(",")[0] + ",7" for line in patches[:2]] + patches[2:]
    (root / "manifest.csv").write_text("\n".join([lines[0], *grouped]) + "\n")
    pair = {"/".join(line.split(",")[:2]) for line in patches[:2]}
    for seed in range(6):
        splits = neu(root, defect="patches").load(seed=seed)
        assert pair == set(splits.train.names) or pair == set(splits.validation.names)


def test_a_group_of_several_defects_stays_whole(root: Path) -> None:
    """The images from number 6 are one group, of all three defects."""
    for seed in range(6):
        splits = neu(root).load(seed=seed)
        groups = [
            {"six" if n in {"test/000001", "test/000002", "test/000003"} else n for n in s.names}
            for s in (splits.train, splits.validation)
        ]
        assert not groups[0] & groups[1]


def test_without_a_manifest_turned_copies_stay_together(tmp_path: Path) -> None:
    """Saved again as JPEG, so that no two files or pixels are the same."""
    generator = np.random.default_rng(1)
    for number in range(6):
        noise = Image.fromarray(generator.integers(0, 256, (24, 24)).astype(np.uint8))
        pixels = np.asarray(noise.resize((96, 96), Image.Resampling.BICUBIC))
        save(tmp_path, "training", number, pixels[::4, ::4][:20, :20], 1)
        (tmp_path / "images/training" / f"{number:06d}.jpg").unlink()
        (tmp_path / "annotations/training" / f"{number:06d}.png").unlink()
        for split, turned in (("training", pixels), ("test", np.rot90(pixels, 1 + number % 3))):
            save(tmp_path, split, number, np.ascontiguousarray(turned), 1)
            mask = np.zeros((96, 96), np.uint8)
            mask[:9] = 1
            Image.fromarray(mask).save(tmp_path / "annotations" / split / f"{number:06d}.png")
    for seed in range(4):
        splits = neu(tmp_path, defect="inclusion", size=96, validation=2).load(seed=seed)
        numbers = [{n.split("/")[1] for n in s.names} for s in (splits.train, splits.validation)]
        assert not numbers[0] & numbers[1]
        assert (len(splits.train), len(splits.validation)) == (10, 2)


def test_without_a_manifest_the_mask_says_which_defect(root: Path) -> None:
    (root / "manifest.csv").unlink()
    splits = neu(root, defect="scratches").load(seed=0)
    assert len(splits.train) + len(splits.validation) == 3


def test_mistakes_are_named(root: Path, tmp_path: Path) -> None:
    fails(neu(tmp_path / "none"), "none: no such folder")
    fails(neu(root, defect="inclusion", validation=3), "leave none to train on")
    save(root, "training", 0, np.zeros((20, 20), np.uint8), 4)
    fails(neu(root), "000000.png", "label 4 is beyond the classes", "3 (scratches)")
    (root / "images/training/000000.jpg").unlink()
    fails(neu(root), "000000.jpg: no such file")
    (root / "manifest.csv").write_text("split,id,defect\n")
    fails(neu(root), "manifest.csv: no column 'source_group'")
    (root / "manifest.csv").write_text("split,id,defect,source_group\ntest,1,scratch,2\n")
    fails(neu(root), "unknown defect 'scratch'; did you mean 'scratches'?")
    (root / "manifest.csv").write_text("split,id,defect,source_group\n")
    fails(neu(root), "no image of 'all' among 0 found")
    (root / "manifest.csv").unlink()
    fails(neu(root), "000000.png: has no image training/000000.jpg")
    save(root, "training", 0, np.zeros((20, 20), np.uint8), 4)
    fails(neu(root), "000000.png", "label 4")
    save(root, "training", 0, np.zeros((20, 20), np.uint8), 0)
    fails(neu(root), "000000.png: holds no defect")
    (root / "annotations/training/000001.png").unlink()
    save(root, "training", 0, np.zeros((20, 20), np.uint8), 1)
    fails(neu(root), "000001.jpg: has no mask")


@pytest.mark.parametrize("path", ["../../outside", "/outside"])
def test_a_manifest_cannot_point_out_of_the_folder(root: Path, path: str) -> None:
    (root / "manifest.csv").write_text(f"split,id,defect,source_group\n{path},1,patches,2\n")
    fails(neu(root), "manifest.csv", "outside", "not a plain name")


def test_the_real_images(real_data: Path) -> None:
    source = NeuSeg(root=real_data / "neu_seg", defect="inclusion", size=32)
    splits = source.load(seed=0)
    assert (len(splits.train), len(splits.validation), splits.test) == (197, 50, None)
    assert 0.02 < float(splits.train.targets.float().mean()) < 0.1
    again = source.load(seed=1)
    assert set(again.validation.names) != set(splits.validation.names)


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 48, 48, generator=torch.Generator().manual_seed(0))


def test_copies_are_found_turned_mirrored_and_saved_again() -> None:
    images = pictures(3)
    turned = [
        one
        for turn in range(4)
        for one in (images[:1].rot90(turn, (2, 3)), images[:1].rot90(turn, (2, 3)).flip(3))
    ]
    again = images[1:2] + 0.15 * pictures(4)[3:]
    assert copies(torch.cat([images, *turned, again])) == ["0", "1", "2", *["0"] * 8, "1"]


def test_copies_of_copies_are_one_group() -> None:
    """The first and the third are too far apart to be taken for one another by themselves."""
    middle, one, other = pictures(3).split(1)
    first, third = middle + 0.75 * one, middle + 0.75 * other
    assert copies(torch.cat([first, third])) == ["0", "1"]
    assert copies(torch.cat([first, third, middle])) == ["0", "0", "0"]


def test_the_same_pixels_stay_together_whatever_the_manifest_says(root: Path) -> None:
    first, again = (root / f"images/training/{number:06d}.jpg" for number in (0, 3))
    again.write_bytes(first.read_bytes())
    for seed in range(4):
        splits = neu(root, defect="inclusion").load(seed=seed)
        held = set(splits.validation.names)
        assert len({"training/000000", "training/000003"} & held) != 1

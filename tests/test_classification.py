"""Classification, its built-in textures and its class folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch.nn.functional import pad

from nasengine.errors import DataError, SpecError
from nasengine.plugin import build
from nasengine.task import DataSource, Task
from nasengine.tasks.augmentation import shift_and_mirror
from nasengine.tasks.class_folders import ClassFolders
from nasengine.tasks.classification import Classification
from nasengine.tasks.textures import Textures


def test_default_data_is_built_in() -> None:
    task = build(Task, {"name": "classification"}, where="task")
    assert task.input_shape == (3, 32, 32)
    assert task.outputs == 8
    assert task.metrics[0].name == "accuracy"


def test_metrics_by_hand() -> None:
    task = Classification(data=Textures(number=3))
    logits = torch.eye(3)[[0, 0, 1, 0]]
    found = task.evaluate(logits, torch.tensor([0, 0, 1, 1]))
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    assert found["f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_a_class_that_is_only_predicted_counts_in_f1_alone() -> None:
    found = Classification(data=Textures(number=4)).evaluate(
        torch.eye(4)[[0, 2]], torch.tensor([0, 0])
    )
    assert found["balanced_accuracy"] == 0.5, "the recall of the one class there is"
    assert found["f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_label_smoothing_changes_the_loss() -> None:
    logits, targets = torch.eye(8)[:4] * 5, torch.arange(4)
    plain = Classification().loss(logits, targets)
    assert float(Classification(label_smoothing=0.1).loss(logits, targets)) > float(plain)


def test_shifts_move_by_whole_pixels_within_reach_and_reflect_the_border() -> None:
    image, reach = torch.arange(48.0).reshape(1, 1, 8, 6), 2
    many = image.expand(1000, -1, -1, -1)
    moved = shift_and_mirror(many, torch.Generator().manual_seed(0), reach)
    around = pad(image, (reach,) * 4, mode="reflect")[0, 0]
    crops = [
        around[down : down + 8, across : across + 6]
        for down in range(2 * reach + 1)
        for across in range(2 * reach + 1)
    ]
    expected = {tuple(c.flatten().tolist()) for crop in crops for c in (crop, crop.flip(1))}
    assert {tuple(one.flatten().tolist()) for one in moved} == expected


def test_training_images_move_by_an_eighth_or_not_at_all() -> None:
    spot = torch.zeros(400, 3, 32, 32)
    spot[:, :, 15, 15] = 1
    labels, source = torch.arange(400), torch.Generator().manual_seed(0)
    moved, same = Classification().augment(spot, labels, source)
    rows = moved[:, 0].flatten(1).argmax(1) // 32
    assert (int(rows.min()), int(rows.max())) == (15 - 4, 15 + 4)
    assert torch.equal(same, labels)
    still, _ = Classification(augmentation=False).augment(spot, labels, source)
    assert torch.equal(still, spot)


def test_without_reach_it_only_mirrors() -> None:
    image = torch.rand(40, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    moved = shift_and_mirror(image, torch.Generator().manual_seed(0), 0)
    plain = (moved == image).flatten(1).all(1)
    mirrored = (moved == image.flip(3)).flatten(1).all(1)
    assert (plain | mirrored).all()
    assert 8 < int(plain.sum()) < 32


def test_grey_levels_do_not_tell_textures_apart() -> None:
    """The five nearest neighbours by mean and spread of an image do little better than chance."""
    splits = Textures(train=240, validation=80).load(seed=0)

    def features(inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([inputs.mean((1, 2, 3)), inputs.std((1, 2, 3))], 1)

    distance = torch.cdist(features(splits.validation.inputs), features(splits.train.inputs))
    votes = splits.train.targets[distance.topk(5, largest=False).indices]
    found = votes.mode(1).values
    assert float((found == splits.validation.targets).float().mean()) < 0.3


def test_textures_take_turns() -> None:
    splits = Textures(train=9, validation=4, test=4, number=4).load(seed=0)
    assert splits.train.targets.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert splits.test is not None
    assert splits.train.inputs.shape[1:] == (3, 32, 32)


def test_textures_vary_in_colour_and_noise_and_stay_in_range() -> None:
    few = {"size": 16, "train": 8, "validation": 2}
    plain = Textures(noise=0.0, **few).load(seed=0).train.inputs
    loud = Textures(noise=1.0, **few).load(seed=0).train.inputs
    means = plain.mean((2, 3))
    assert ((means - means.mean(1, keepdim=True)).abs().amax(1) > 0.001).all(), "a colour cast"
    assert float(loud.min()) >= 0 and float(loud.max()) <= 1
    rough = [(x[..., 1:] - x[..., :-1]).abs().mean() for x in (plain, loud)]
    assert rough[1] > 2 * rough[0]
    assert Textures(number=3, **few).load(seed=0).train.targets.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("crack", "good"):
        for number in range(5):
            save(tmp_path / name / f"{number}.png", generator.integers(0, 256, (9, 12, 3)))
    return tmp_path


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def source(root: Path, **settings: Any) -> ClassFolders:
    return ClassFolders(**{"root": root, "names": ("good", "crack"), "size": 8, **settings})


def fails(data: DataSource, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        data.load(seed=0)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_each_class_is_divided(root: Path) -> None:
    splits = source(root, test=1).load(seed=0)
    assert splits.test is not None
    assert splits.train.targets.bincount().tolist() == [3, 3]
    assert splits.validation.targets.tolist() == splits.test.targets.tolist() == [0, 1]
    for name, label in zip(splits.train.names, splits.train.targets.tolist(), strict=True):
        assert name.startswith(("good", "crack")[label])


def test_the_same_pixels_of_a_class_stay_together(root: Path) -> None:
    for number in range(5):
        (root / "good" / f"again {number}.png").write_bytes(
            (root / "good" / f"{number}.png").read_bytes()
        )
    for seed in range(8):
        splits = source(root, validation=2).load(seed=seed)
        good = [name for name in splits.validation.names if name.startswith("good")]
        assert len(good) == 2 and good[0][-5] == good[1][-5]


@pytest.mark.parametrize(("share", "said"), [(1.0, "from 0 to below 1"), (0, "must be some")])
def test_a_share_that_leaves_nothing_is_refused(root: Path, share: float, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        source(root, validation=share)


def test_a_class_may_be_called_train(root: Path) -> None:
    (root / "good").rename(root / "train")
    splits = source(root, names=("train", "crack"), test=1).load(seed=0)
    assert splits.train.targets.bincount().tolist() == [3, 3]


def test_stated_splits_are_taken(root: Path) -> None:
    for name in ("good", "crack"):
        for split in ("train", "validation"):
            (root / split).mkdir(exist_ok=True)
        (root / name).rename(root / "train" / name)
        save(root / "validation" / name / "x.png", np.full((9, 9), len(name)))
    splits = source(root).load(seed=0)
    assert (len(splits.train), len(splits.validation), splits.test) == (10, 2, None)
    save(root / "validation/good/y.png", np.asarray(Image.open(root / "train/good/0.png")))
    fails(source(root), "train/good/0.png (train)", "y.png (validation)", "the same pixels")


def test_mistakes_in_folders_are_named(root: Path) -> None:
    fails(source(root / "none"), "none: no such folder")
    fails(source(root, names=("good", "hole")), "crack: a folder that is no class", "good, hole")
    fails(source(root, validation=5), "good", "leave none to train on")
    fails(source(root, max_pixels=10), "12 x 9 pixels are more than max_pixels = 10")
    (root / "hole").mkdir()
    fails(source(root, names=("good", "crack", "hole")), "hole: no images found")
    (root / "hole").rmdir()
    for name in ("good/0.png", "crack/1.png"):
        (root / name).write_bytes(b"no image")
    fails(source(root), "good/0.png: not an image", "crack/1.png: not an image")


def test_what_was_read_is_told(root: Path) -> None:
    (fact,) = source(root, size=8).load(seed=0).facts
    assert fact.endswith("10 of 12 x 9; brought to 8 x 8, squashed where the ratio differs")


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", "../b"], ["a", ".."], ["a", "b/c"]])
def test_names_are_those_of_folders(names: list[str]) -> None:
    with pytest.raises(SpecError, match=r"data: .*names"):
        build(DataSource, {"name": "class_folders", "root": "r", "names": names}, where="data")


def test_hidden_files_are_no_images(root: Path) -> None:
    count = len(source(root).load(seed=0).train)
    (root / "good" / "._0.png").write_bytes(b"left by macOS")
    assert len(source(root).load(seed=0).train) == count

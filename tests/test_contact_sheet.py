"""The picture of samples shows each image above its mask and its prediction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nasengine.task import IGNORED, Samples
from nasengine.tasks.contact_sheet import draw_samples


@pytest.mark.parametrize("channels", [1, 3])
def test_images_masks_and_predictions_stand_in_columns(tmp_path: Path, channels: int) -> None:
    targets = torch.zeros(3, 96, 100, dtype=torch.int64)
    targets[1] = 2
    samples = Samples(torch.full((3, channels, 96, 100), 0.5), targets, ("a", "b", "c"))
    draw_samples(samples, tmp_path / "s.png", predictions=targets.flip(0) // 2, count=2)
    with Image.open(tmp_path / "s.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (4 + 3 * 100, 4 + 2 * 104, 3)
    assert pixels[4, 4].tolist() == [128, 128, 128]
    assert pixels[104, 4].tolist() == [0, 0, 0]
    of_class_2, of_class_1 = pixels[104, 108].tolist(), pixels[204, 108].tolist()
    assert of_class_2 != of_class_1 != [0, 0, 0]
    assert pixels[0, 0].tolist() == [255, 255, 255]


def test_labels_are_not_drawn(tmp_path: Path) -> None:
    samples = Samples(torch.rand(2, 3, 96, 96), torch.tensor([0, 1]), ("a", "b"))
    draw_samples(samples, tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as image:
        assert image.size == (4 + 2 * 100, 4 + 100)


@pytest.mark.parametrize(("sides", "drawn"), [((32, 32), (96, 96)), ((20, 35), (60, 105))])
def test_small_samples_are_enlarged_by_a_whole_factor(
    tmp_path: Path, sides: tuple[int, int], drawn: tuple[int, int]
) -> None:
    inputs = torch.rand(1, 3, *sides)
    draw_samples(Samples(inputs, torch.tensor([0]), ("a",)), tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as image:
        pixels = np.asarray(image)[4:-4, 4:-4]
    assert pixels.shape[:2] == drawn
    # Every third pixel is the sample itself: nothing is blurred.
    expected = (inputs[0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert (pixels[1::3, 1::3] == expected).all()


def test_what_is_ignored_is_grey(tmp_path: Path) -> None:
    targets = torch.zeros(1, 96, 96, dtype=torch.int64)
    targets[0, :48] = IGNORED
    targets[0, 48:60] = 1
    draw_samples(Samples(torch.zeros(1, 3, 96, 96), targets, ("a",)), tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as sheet:
        column = [sheet.getpixel((50, row)) for row in (4 + 100 + 10, 4 + 100 + 50, 4 + 100 + 90)]
    assert column == [(128, 128, 128), (230, 60, 50), (0, 0, 0)]


def test_several_classes_are_named_beside_their_colours(tmp_path: Path) -> None:
    targets = torch.zeros(2, 96, 96, dtype=torch.int64)
    targets[0, 48:60] = 2
    samples = Samples(torch.zeros(2, 3, 96, 96), targets, ("a", "b"))
    names = ("background", "pit", "a long name of a weld that stands in a line of its own")
    for classes, height in ((names[:2], 0), (names, 40)):
        draw_samples(samples, tmp_path / "s.png", classes=classes)
        with Image.open(tmp_path / "s.png") as sheet:
            assert sheet.size == (204, 204 + height)
            colours = [colour for _, colour in sheet.getcolors(99999)]
            assert ((230, 60, 50) in colours) is (height > 0)  # pit, which no mask has

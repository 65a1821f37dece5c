"""The built-in data: reproducible, varied, and not to be solved by a threshold."""

import time

import pytest
import torch

from nasengine.errors import SpecError
from nasengine.plugin import build
from nasengine.task import DataSource, Samples
from nasengine.tasks.surface_defects import SurfaceDefects


@pytest.fixture(scope="module")
def samples() -> Samples:
    return SurfaceDefects(size=64, train=150, validation=1).load(seed=0).train


def iou(predicted: torch.Tensor, targets: torch.Tensor) -> float:
    found = targets > 0
    return float((predicted & found).sum() / (predicted | found).sum())


def test_no_threshold_finds_the_defects(samples: Samples) -> None:
    """Even the best one chosen on these very images, absolute or against the image's median."""
    grey = samples.inputs[:, 0]
    centred = grey - grey.flatten(1).median(1).values[:, None, None]
    best = 0.0
    for level in torch.linspace(0.02, 0.98, 33).tolist():
        best = max(best, iou(grey > level, samples.targets), iou(grey < level, samples.targets))
        for predicted in (centred > level / 2, centred < -level / 2, centred.abs() > level / 2):
            best = max(best, iou(predicted, samples.targets))
    assert best < 0.38


def test_defects_can_be_seen(samples: Samples) -> None:
    """Most defects differ from what surrounds them: the masks are where something is."""
    seen = 0
    for image, mask in zip(samples.inputs[:, 0], samples.targets > 0, strict=True):
        if not mask.any():
            continue
        wide = torch.nn.functional.max_pool2d(mask[None].float(), 9, stride=1, padding=4)[0] > 0
        ring = image[wide & ~mask]
        seen += int((image[mask].mean() - ring.mean()).abs() > 0.3 * ring.std())
    assert seen > 0.75 * int((samples.targets > 0).flatten(1).any(1).sum())


def test_coverage_is_that_of_real_defects(samples: Samples) -> None:
    covered = (samples.targets > 0).float().mean((1, 2))
    assert 0.03 < float((covered == 0).float().mean()) < 0.2
    assert 0.03 < float(covered.mean()) < 0.15
    assert float(covered.max()) < 0.7


def test_light_and_surface_vary(samples: Samples) -> None:
    level = samples.inputs.mean((1, 2, 3))
    assert float(level.std()) > 0.06
    assert len({name.split("-")[2] for name in samples.names}) == 6


def test_the_first_images_do_not_depend_on_their_number() -> None:
    few = SurfaceDefects(size=24, train=2, validation=1).load(seed=5)
    more = SurfaceDefects(size=24, train=4, validation=3, test=1).load(seed=5)
    assert torch.equal(few.train.inputs, more.train.inputs[:2])
    assert torch.equal(few.train.targets, more.train.targets[:2])
    assert few.test is None
    assert more.test is not None


def test_the_pixels_are_pinned() -> None:
    """A change of the images changes every result, so it has to be meant.

    Within a tolerance, as processors differ in the last digit of a Fourier transform.
    """
    train = SurfaceDefects(size=32, train=4, validation=1).load(seed=0).train
    assert train.names == PINNED_NAMES
    assert train.targets.sum((1, 2)).tolist() == pytest.approx(PINNED_COVER, abs=2)
    assert train.inputs.mean((1, 2, 3)).tolist() == pytest.approx(PINNED_MEANS, abs=1e-3)


PINNED_NAMES = (
    "train-0000-leather-patches",
    "train-0001-plaster-scratches",
    "train-0002-leather-inclusions-patches",
    "train-0003-plaster-inclusions",
)
PINNED_COVER = [117, 31, 64, 50]
PINNED_MEANS = [0.2935, 0.3268, 0.4079, 0.3164]


def test_every_defect_is_drawn_on_its_own() -> None:
    for index, defect in enumerate(SurfaceDefects().defects):
        source = SurfaceDefects(size=32, train=4, validation=1, defects=(defect,), clean=0.0)
        splits = source.load(seed=index)
        assert (splits.train.targets.flatten(1).sum(1) > 0).all()
        assert all(name.endswith(defect) for name in splits.train.names)


def test_several_classes_use_the_defects_own_index() -> None:
    source = SurfaceDefects(size=32, train=30, validation=1, multiclass=True)
    assert source.classes == ("background", *source.defects)
    assert set(source.load(seed=0).train.targets.unique().tolist()) == set(range(6))


def test_contrast_makes_it_easier() -> None:
    def distance(contrast: float) -> float:
        source = SurfaceDefects(
            size=48, train=12, validation=1, clean=0.0, contrast=contrast, defects=("patches",)
        )
        train = source.load(seed=0).train
        inside = train.targets > 0
        return float(train.inputs[:, 0][~inside].mean() - train.inputs[:, 0][inside].mean())

    assert distance(0.3) < distance(1.0) < distance(2.0)


def test_all_clean_or_none() -> None:
    assert SurfaceDefects(size=16, train=5, clean=1.0).load(0).train.targets.max() == 0


def test_one_channel_is_the_same_picture() -> None:
    three = SurfaceDefects(size=16, train=2, validation=1).load(seed=1).train.inputs
    one = SurfaceDefects(size=16, train=2, validation=1, channels=1).load(seed=1).train.inputs
    assert torch.equal(three[:, :1], one)
    assert torch.equal(three[:, 2:], one)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"surfaces": []}, "surfaces must name at least one"),
        ({"defects": ["pits", "pits"]}, "each once"),
        ({"lighting": ["sun"]}, "data.lighting"),
        ({"size": 8}, "data.size"),
        ({"contrast": 0}, "data.contrast"),
        ({"channels": 2}, "data.channels"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(DataSource, {"name": "surface_defects", **settings}, where="data")
    assert message in str(caught.value)


def test_making_them_takes_seconds() -> None:
    began = time.process_time()
    SurfaceDefects(train=30, validation=1).load(seed=0)
    assert time.process_time() - began < 3

"""Every installed task and data source keeps its contract; one without a row here fails."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasengine.plugin import installed
from nasengine.task import DataSource, Task
from nasengine.tasks.class_folders import ClassFolders
from nasengine.tasks.classification import Classification
from nasengine.tasks.dagm import Dagm
from nasengine.tasks.folder import Folder
from nasengine.tasks.neu_seg import NeuSeg
from nasengine.tasks.segmentation import Segmentation
from nasengine.tasks.surface_defects import SurfaceDefects
from nasengine.tasks.textures import Textures
from nasengine.testing.tasks import DataSourceContract, TaskContract


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def picture(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A grey image of noise with a dark rectangle, and the rectangle."""
    generator = np.random.default_rng(number)
    image, mask = generator.integers(100, 200, (24, 24)), np.zeros((24, 24))
    row, column = generator.integers(0, 16, 2)
    mask[row : row + 8, column : column + 6] = 1
    return np.where(mask > 0, image // 2, image), mask


def folder(root: Path) -> DataSource:
    for number in range(10):
        image, mask = picture(number)
        save(root / "images" / f"{number}.png", image)
        save(root / "masks" / f"{number}.png", mask * 255)
    return Folder(images=root / "images", masks=root / "masks", size=(16, 24), channels=1)


def neu_seg(root: Path) -> DataSource:
    for number in range(12):
        image, mask = picture(number)
        save(root / "images/training" / f"{number:06d}.jpg", image)
        save(root / "annotations/training" / f"{number:06d}.png", mask * (1 + number % 3))
    return NeuSeg(root=root, size=16, validation=1)


def dagm(root: Path) -> DataSource:
    for number in range(10):
        part = "Train" if number < 5 else "Test"
        image, mask = picture(number)
        save(root / "Class1" / part / f"{number:04d}.PNG", image)
        save(root / "Class1" / part / "Label" / f"{number:04d}_label.PNG", mask * 255)
    return Dagm(root=root, size=24)


def class_folders(root: Path) -> DataSource:
    for number in range(12):
        save(root / ("dark", "light")[number % 2] / f"{number}.png", picture(number)[0])
    return ClassFolders(root=root, names=("dark", "light"), size=16)


SOURCES: dict[str, Callable[[Path], DataSource]] = {
    "surface_defects": lambda root: SurfaceDefects(size=24, train=8, validation=4, test=2),
    "folder": folder,
    "neu_seg": neu_seg,
    "dagm": dagm,
    "class_folders": class_folders,
    "textures": lambda root: Textures(size=16, train=8, validation=8),
}

SMALL = SurfaceDefects(size=24, train=12, validation=4)
TASKS: dict[str, tuple[Task, ...]] = {
    "segmentation": (
        Segmentation(data=SMALL),
        Segmentation(data=SMALL.model_copy(update={"multiclass": True}), rotations=False),
    ),
    "classification": (
        Classification(data=Textures(size=16, train=16, validation=8)),
        Classification(
            data=Textures(size=16, train=16, validation=8, channels=1), augmentation=False
        ),
    ),
}


def test_every_data_source_has_a_row() -> None:
    assert set(SOURCES) == set(installed("data"))


def test_every_task_has_a_row() -> None:
    assert set(TASKS) == set(installed("task"))


class TestDataSources(DataSourceContract):
    @pytest.fixture(params=SOURCES)
    def source(self, request: pytest.FixtureRequest, tmp_path: Path) -> DataSource:
        return SOURCES[request.param](tmp_path)


@pytest.mark.parametrize("name", ["folder", "neu_seg", "dagm", "class_folders"])
def test_a_split_seed_keeps_the_split_while_seeds_vary(name: str, tmp_path: Path) -> None:
    fixed = SOURCES[name](tmp_path).model_copy(update={"split_seed": 7})
    assert len({fixed.load(seed=seed).validation.names for seed in range(6)}) == 1


class TestTasks(TaskContract):
    @pytest.fixture(
        params=[(name, index) for name, rows in TASKS.items() for index in range(len(rows))],
        ids=lambda param: f"{param[0]}-{param[1]}",
    )
    def task(self, request: pytest.FixtureRequest) -> Task:
        name, index = request.param
        return TASKS[name][index]

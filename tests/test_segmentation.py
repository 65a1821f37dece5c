"""The segmentation task: settings, outputs, augmentation."""

import pytest
import torch

from nasengine.errors import SpecError
from nasengine.plugin import build
from nasengine.task import Task
from nasengine.tasks.augmentation import rotate_and_flip
from nasengine.tasks.segmentation import Segmentation
from nasengine.tasks.surface_defects import SurfaceDefects
from nasengine.testing.tasks import perfect_outputs


def test_default_data_is_built_in() -> None:
    task = build(Task, {"name": "segmentation"}, where="task")
    assert isinstance(task, Segmentation)
    assert task.input_shape == (3, 96, 96)
    assert task.outputs == 1
    assert task.metrics[0].name == "iou"


def test_data_is_a_table_of_its_own() -> None:
    data = {
        "name": "surface_defects",
        "size": 32,
        "multiclass": True,
        "defects": ["pits", "stains"],
    }
    task = build(Task, {"name": "segmentation", "data": data}, where="task")
    assert task.input_shape == (3, 32, 32)
    assert task.outputs == 3
    assert [m.name for m in task.metrics][-2:] == ["iou_pits", "iou_stains"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": {"name": "surface_defect"}}, "task.data.name: unknown data 'surface_defect'"),
        ({"data": {"name": "surface_defects", "sise": 3}}, "task.data.sise: unknown key"),
        ({"data": "surface_defects"}, "a table with a name is needed"),
        ({"dice": -1.0}, "task.dice"),
        ({"dice": 0.0, "cross_entropy": 0.0}, "there would be no loss"),
        ({"epsilon": float("nan")}, "task.epsilon"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(Task, {"name": "segmentation", **settings}, where="task")
    assert message in str(caught.value)


def test_weights_change_the_loss() -> None:
    targets = torch.tensor([[[0, 1]]])
    outputs = perfect_outputs(targets, 1, sharpness=0.5)
    data = SurfaceDefects(size=16)
    only_dice = Segmentation(data=data, cross_entropy=0.0).loss(outputs, targets)
    only_bce = Segmentation(data=data, dice=0.0).loss(outputs, targets)
    both = Segmentation(data=data).loss(outputs, targets)
    assert float(both) == pytest.approx(float(only_dice + only_bce))
    wide = Segmentation(data=data, epsilon=9.0).loss(outputs, targets)
    assert float(wide) != pytest.approx(float(both))


def symmetries(image: torch.Tensor) -> list[torch.Tensor]:
    turned = [image.rot90(k, (-2, -1)) for k in range(4)]
    return turned + [t.flip(-1) for t in turned]


def test_rotations_reach_all_eight_symmetries_equally() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    number = 1600
    moved, _ = rotate_and_flip(
        image.expand(number, -1, -1, -1),
        torch.zeros(number, 3, 3, dtype=torch.int64),
        torch.Generator().manual_seed(0),
    )
    counts = [
        int((moved[:, 0] == wanted).flatten(1).all(1).sum()) for wanted in symmetries(image[0, 0])
    ]
    assert sum(counts) == number
    assert min(counts) > 140


def test_images_that_are_not_square_keep_their_shape() -> None:
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    moved, _ = rotate_and_flip(
        image.expand(200, -1, -1, -1),
        torch.zeros(200, 2, 3, dtype=torch.int64),
        torch.Generator().manual_seed(0),
    )
    assert moved.shape == (200, 1, 2, 3)
    assert len({tuple(m.flatten().tolist()) for m in moved}) == 4


def test_masks_move_with_their_images() -> None:
    inputs = torch.arange(2 * 16.0).reshape(2, 1, 4, 4)
    moved, targets = rotate_and_flip(inputs, inputs[:, 0].long(), torch.Generator().manual_seed(3))
    assert torch.equal(moved[:, 0].long(), targets)
    assert not torch.equal(moved, inputs)


def test_without_rotations_the_batch_is_itself() -> None:
    task = Segmentation(data=SurfaceDefects(size=16), rotations=False)
    inputs, targets = torch.rand(2, 3, 16, 16), torch.zeros(2, 16, 16, dtype=torch.int64)
    same = task.augment(inputs, targets, torch.Generator())
    assert same[0] is inputs
    assert same[1] is targets


def test_classes_with_one_metric_name_are_refused(tmp_path: object) -> None:
    data = {"name": "folder", "images": "i", "masks": "m", "names": ["ok", "a b", "a-b"]}
    with pytest.raises(SpecError, match="iou_a_b"):
        build(Task, {"name": "segmentation", "data": data}, where="task")

"""The metrics of both tasks: by hand, against torchmetrics, and where nothing is to be found."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasengine.task import IGNORED
from nasengine.tasks.classification import Classification
from nasengine.tasks.confusion import confusion, intersection_over_union, precision_recall_f1
from nasengine.tasks.segmentation import Segmentation
from nasengine.tasks.surface_defects import SurfaceDefects
from nasengine.tasks.textures import Textures
from nasengine.testing.tasks import perfect_outputs

BINARY = Segmentation(data=SurfaceDefects(size=16))
SEVERAL = Segmentation(
    data=SurfaceDefects(size=16, multiclass=True, defects=("scratches", "pits", "stains"))
)


def masks(*rows: str) -> torch.Tensor:
    """One image a string, of one row of pixels."""
    return torch.tensor([[[int(c) for c in row]] for row in rows])


def evaluate(
    task: Segmentation, predicted: torch.Tensor, targets: torch.Tensor
) -> dict[str, float]:
    return dict(task.evaluate(perfect_outputs(predicted, task.outputs), targets))


def test_iou_is_over_the_data_set_and_the_other_over_images() -> None:
    found = evaluate(BINARY, masks("1100", "1000"), masks("1110", "1100"))
    assert found["iou"] == pytest.approx(3 / 5)
    assert found["iou_per_image"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["precision"] == 1
    assert found["recall"] == pytest.approx(3 / 5)
    assert found["f1"] == pytest.approx(6 / 8)


def test_background_is_no_part_of_the_iou() -> None:
    assert evaluate(BINARY, masks("0000"), masks("0001"))["iou"] == 0


def test_nothing_to_find_and_nothing_found_is_right() -> None:
    assert set(evaluate(BINARY, masks("0000"), masks("0000")).values()) == {1.0}


def test_finding_something_where_nothing_is_is_wrong() -> None:
    assert set(evaluate(BINARY, masks("0100"), masks("0000")).values()) == {0.0}


def test_a_clean_image_counts_as_one_per_image() -> None:
    found = evaluate(BINARY, masks("1100", "0000"), masks("0011", "0000"))
    assert found["iou"] == 0
    assert found["iou_per_image"] == 0.5


def test_images_are_found_by_any_pixel_of_a_defect_and_right_where_nothing_is_marked() -> None:
    # Found, missed, beside it; good, a false alarm.
    targets = masks("1100", "1100", "1100", "0000", "0000")
    predicted = masks("0110", "0000", "0011", "0000", "0001")
    found = evaluate(BINARY, predicted, targets)
    assert found["image_recall"] == pytest.approx(1 / 3)
    assert found["image_accuracy"] == pytest.approx(2 / 5)
    # A defect that is taken for another is found; what is ignored is neither found nor marked.
    assert evaluate(SEVERAL, masks("0220"), masks("0110"))["image_recall"] == 1
    ignored = torch.where(masks("0330") == 3, IGNORED, 0)
    assert evaluate(SEVERAL, masks("0110"), ignored)["image_accuracy"] == 1


def test_several_classes_each_have_an_iou_and_absent_ones_do_not_count() -> None:
    found = evaluate(SEVERAL, masks("01120"), masks("01220"))
    assert list(found) == [metric.name for metric in SEVERAL.metrics]
    assert found["iou_scratches"] == 0.5
    assert found["iou_pits"] == 0.5
    assert found["iou_stains"] == 1
    assert found["iou"] == 0.5


def test_evaluating_in_parts_counts_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, targets = torch.randint(0, 3, (2, 150, 4, 4), generator=generator)
    whole = confusion(predicted, targets, 3)
    parts = [confusion(predicted[i : i + 1], targets[i : i + 1], 3) for i in range(150)]
    assert torch.equal(whole, torch.cat(parts))
    assert int(whole.sum()) == 150 * 16


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 4))
def test_metrics_agree_with_arithmetic(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted, targets = torch.randint(0, classes, (2, 3, 5, 5), generator=generator)
    counts = confusion(predicted, targets, classes).sum(0)
    iou, (precision, recall, f1) = intersection_over_union(counts), precision_recall_f1(counts)
    for k in range(classes):
        p, g = predicted == k, targets == k
        hit, union = int((p & g).sum()), int((p | g).sum())
        assert float(iou[k]) == pytest.approx(hit / union if union else 1)
        if p.any() and g.any():
            assert float(precision[k]) == pytest.approx(hit / int(p.sum()))
            assert float(recall[k]) == pytest.approx(hit / int(g.sum()))
            assert float(f1[k]) == pytest.approx(2 * hit / int(p.sum() + g.sum()))


def test_torchmetrics_agrees() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.functional import classification as reference
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 4, (6, 8, 8), generator=generator)
    logits = torch.randn(6, 4, 8, 8, generator=generator)
    found = SEVERAL.evaluate(logits, targets)
    iou = reference.multiclass_jaccard_index(logits, targets, 4, average="none")[1:]
    assert found["iou"] == pytest.approx(float(iou.mean()), rel=1e-6)
    f1 = reference.multiclass_f1_score(logits, targets, 4, average="none")[1:]
    assert found["f1"] == pytest.approx(float(f1.mean()), rel=1e-6)
    binary = BINARY.evaluate(logits[:, :1], (targets > 1).long())
    for name, function in (
        ("iou", reference.binary_jaccard_index),
        ("precision", reference.binary_precision),
        ("recall", reference.binary_recall),
        ("f1", reference.binary_f1_score),
    ):
        expected = float(function(logits[:, 0].sigmoid(), (targets > 1).long()))
        assert binary[name] == pytest.approx(expected, rel=1e-6)
    task = Classification(data=Textures(number=4))
    labels = torch.arange(6) % 4
    scores = task.evaluate(logits[:, :, 0, 0], labels)
    micro = reference.multiclass_accuracy(logits[:, :, 0, 0], labels, 4, average="micro")
    macro = reference.multiclass_accuracy(logits[:, :, 0, 0], labels, 4, average="macro")
    assert scores["accuracy"] == pytest.approx(float(micro))
    assert scores["balanced_accuracy"] == pytest.approx(float(macro))


def test_what_is_not_there_and_not_found_is_found_perfectly() -> None:
    """Of four classes: found half, there and not found, found and not there, neither."""
    counts = torch.tensor([[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    precision, recall, f1 = precision_recall_f1(counts)
    assert precision.tolist() == [0.5, 0, 0, 1]
    assert recall.tolist() == [0.5, 0, 0, 1]
    assert f1.tolist() == [0.5, 0, 0, 1]
    assert intersection_over_union(counts).tolist() == [pytest.approx(1 / 3), 0, 0, 1]

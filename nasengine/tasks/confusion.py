"""Counts of true and false positives, and the metrics that follow from them.

Counted directly: one `bincount` a chunk of images gives every metric of both tasks. torchmetrics
agrees (a test compares them) but takes seconds to import and a pass for each metric.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 64


def confusion(predictions: Tensor, targets: Tensor, classes: int) -> Tensor:
    """Return how often each class was taken for each: (N, classes, classes), int64, on CPU.

    Parameters
    ----------
    predictions
        (N, ...), int64, class indices.
    targets
        The same shape; those that are no class (`IGNORED`) are not counted.
    classes
        How many there are.

    Examples
    --------
    >>> confusion(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]]), 2).tolist()
    [[[1, 1], [0, 1]]]
    """
    counts = []
    for predicted, target in zip(
        torch.split(predictions, _CHUNK),
        torch.split(targets.to(predictions.device), _CHUNK),
        strict=True,
    ):
        number = len(predicted)
        image = torch.arange(number, device=predicted.device).unsqueeze(1)
        cell = (image * classes + target.reshape(number, -1)) * classes
        cell = cell + predicted.reshape(number, -1)
        counted = target.reshape(number, -1) >= 0
        flat = torch.bincount(cell[counted], minlength=number * classes**2)
        counts.append(flat.reshape(number, classes, classes).cpu())
    return torch.cat(counts)


def intersection_over_union(counts: Tensor) -> Tensor:
    """Return TP / (TP + FP + FN) of each class; 1 where there is nothing to find and none found.

    Parameters
    ----------
    counts
        (..., K, K), as `confusion` gives them.

    Returns
    -------
    Tensor
        (..., K), float64.
    """
    true, predicted, actual = _sums(counts)
    return _ratio(true, predicted + actual - true, empty=1.0)


def precision_recall_f1(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return precision, recall and F1 of each class, (..., K) each; 1 as for the IoU, else 0.

    Parameters
    ----------
    counts
        (..., K, K), as `confusion` gives them.
    """
    true, predicted, actual = _sums(counts)
    empty = ((predicted + actual) == 0).double()
    precision = _ratio(true, predicted, empty=empty)
    recall = _ratio(true, actual, empty=empty)
    return precision, recall, _ratio(2 * true, predicted + actual, empty=1.0)


def image_recall_accuracy(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of the images with a defect in which it is found, and of all judged right.

    A defect is found where any of its pixels is; an image without one is judged right where
    nothing is marked. The recall is 1 or 0 where no image has a defect, as that of pixels.

    Parameters
    ----------
    counts
        (N, K, K) of N images, as `confusion` gives them; class 0 is no defect.

    Examples
    --------
    >>> hit, missed, alarm = [[7, 1], [1, 1]], [[8, 0], [2, 0]], [[9, 1], [0, 0]]
    >>> [float(share) for share in image_recall_accuracy(torch.tensor([hit, missed, alarm, alarm]))]
    [0.5, 0.25]
    """
    defective = counts[:, 1:].sum((1, 2)) > 0
    marked = counts[:, :, 1:].sum((1, 2)) > 0
    found = counts[:, 1:, 1:].sum((1, 2)) > 0
    right = torch.where(defective, found, ~marked).double()
    empty = float(not marked.any())
    return _ratio(found.double().sum(), defective.double().sum(), empty=empty), right.mean()


def occurring(counts: Tensor) -> Tensor:
    """Return which classes occur, in the targets or in the predictions: (..., K), bool."""
    return (counts.sum(-1) + counts.sum(-2)) > 0


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the last dimension where the mask holds; 1 where it never does."""
    weights = mask.double()
    return _ratio((values * weights).sum(-1), weights.sum(-1), empty=1.0)


def _sums(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    counts = counts.double()
    return counts.diagonal(dim1=-2, dim2=-1), counts.sum(-2), counts.sum(-1)


def _ratio(above: Tensor, below: Tensor, empty: float | Tensor) -> Tensor:
    fallback = torch.as_tensor(empty, dtype=above.dtype).expand_as(above)
    return torch.where(below > 0, above / below.clamp(min=1), fallback)

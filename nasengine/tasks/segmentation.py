"""Segmentation: one class for every pixel.

Loss and augmentation are those of Chen et al. 2023, "Lightweight Convolutional Neural Networks
for Surface Defect Segmentation based on Neural Architecture Search", equations (2) and (3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, model_validator

from nasengine.plugin import Nested
from nasengine.task import DataSource, Targets
from nasengine.trial import Metric

from .sourced import SourcedTask
from .surface_defects import SurfaceDefects

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Segmentation(SourcedTask):
    """One class for every pixel: background and defects, binary or several classes.

    With one foreground class a network has one output (sigmoid), with several it has one a
    class, background included (soft-max). The metrics are over the whole split, of the
    foreground: with several classes the mean over those that occur. `iou_per_image` is the mean
    of each image's own, 1 for an image without defect in which none was found. By image,
    `image_recall` is the share of those with a defect in which some of it was found, of whatever
    class, and `image_accuracy` the share of all that were judged right: something found, or
    nothing marked where nothing is. What the data mark as ignored counts for nothing, in loss and
    metrics alike.

    Examples
    --------
    >>> task = Segmentation(data=SurfaceDefects(size=32))
    >>> task.input_shape, task.outputs, task.metrics[0].name
    ((3, 32, 32), 1, 'iou')
    """

    targets: ClassVar[Targets] = "masks"
    ignores: ClassVar[bool] = True

    data: Annotated[DataSource, Nested(DataSource)] = Field(default_factory=SurfaceDefects)
    """Where the images and masks come from."""
    dice: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the dice loss, equation (3)."""
    cross_entropy: float = Field(0.5, ge=0, allow_inf_nan=False)
    """Weight of the (binary) cross-entropy: the 0.5 of equation (2)."""
    epsilon: float = Field(1.0, gt=0, allow_inf_nan=False)
    """The eps of equation (3), which the paper leaves open."""
    rotations: bool = True
    """Turn by multiples of 90 degrees and mirror the training images at random."""

    @model_validator(mode="after")
    def _check(self) -> Segmentation:
        if not self.dice and not self.cross_entropy:
            raise ValueError("dice and cross_entropy are both 0: there would be no loss")
        if len(self.data.classes) < 2:
            raise ValueError("segmentation needs a background and at least one class beside it")
        names = [metric.name for metric in self.metrics]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"classes share the metric's name {twice[0]!r}; rename one")
        return self

    @property
    def outputs(self) -> int:
        """One for a binary problem, else the number of classes."""
        return 1 if len(self.data.classes) == 2 else len(self.data.classes)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """IoU first; for several classes each class's own at the end."""
        names = ["iou", "iou_per_image", "precision", "recall", "f1"]
        names += ["image_recall", "image_accuracy"]
        if self.outputs > 1:
            names += [f"iou_{_identifier(name)}" for name in self.data.classes[1:]]
        return tuple(Metric(name, "", "max") for name in names)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of equation (2), a scalar in float32.

        Parameters
        ----------
        outputs
            (N, outputs, H, W), logits.
        targets
            (N, H, W), int64: classes, or `IGNORED`.
        """
        from .losses import binary_loss, multiclass_loss

        loss = binary_loss if self.outputs == 1 else multiclass_loss
        return loss(outputs, targets, self.dice, self.cross_entropy, self.epsilon)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the class of every pixel, (N, H, W) int64, from logits (N, outputs, H, W)."""
        return (outputs[:, 0] > 0).long() if self.outputs == 1 else outputs.argmax(1)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Return the metrics over a split.

        Parameters
        ----------
        outputs
            (N, outputs, H, W), logits.
        targets
            (N, H, W), int64: classes, or `IGNORED`.
        """
        from .confusion import (
            confusion,
            image_recall_accuracy,
            intersection_over_union,
            mean_where,
            occurring,
            precision_recall_f1,
        )

        each = confusion(self.predict(outputs), targets, len(self.data.classes))
        whole = each.sum(0)
        present = occurring(whole)[1:]
        iou = intersection_over_union(whole)[1:]
        by_image = mean_where(intersection_over_union(each)[:, 1:], occurring(each)[:, 1:])
        others = (mean_where(value[1:], present) for value in precision_recall_f1(whole))
        images = image_recall_accuracy(each)
        values = [mean_where(iou, present), by_image.mean(), *others, *images, *iou]
        # A binary problem has no metric a class: the last value is then the first again.
        return {metric.name: float(v) for metric, v in zip(self.metrics, values, strict=False)}

    def augment(
        self, inputs: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Turn and mirror each sample at random, image and mask alike.

        Parameters
        ----------
        inputs
            (N, C, H, W).
        targets
            (N, H, W).
        generator
            What the draws come from.
        """
        if not self.rotations:
            return inputs, targets
        from .augmentation import rotate_and_flip

        return rotate_and_flip(inputs, targets, generator)


def _identifier(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().casefold())

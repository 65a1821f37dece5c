"""Classification: one class for every image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, model_validator

from nasengine.plugin import Nested
from nasengine.task import DataSource, Targets
from nasengine.trial import Metric

from .sourced import SourcedTask
from .textures import Textures

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Classification(SourcedTask):
    """One class for every image: cross-entropy, and accuracy.

    `balanced_accuracy` is the mean recall of the classes that occur, `f1` the mean of their F1.

    Examples
    --------
    >>> task = Classification()
    >>> task.input_shape, task.outputs, task.metrics[0].name
    ((3, 32, 32), 8, 'accuracy')
    """

    targets: ClassVar[Targets] = "labels"

    data: Annotated[DataSource, Nested(DataSource)] = Field(default_factory=Textures)
    """Where the images and labels come from."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    augmentation: bool = True
    """Mirror the training images and shift them by up to an eighth of their size, at random."""

    @model_validator(mode="after")
    def _check(self) -> Classification:
        if len(self.data.classes) < 2:
            raise ValueError("classification needs at least two classes")
        return self

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return len(self.data.classes)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Accuracy first."""
        return tuple(Metric(name, "", "max") for name in ("accuracy", "balanced_accuracy", "f1"))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy, a scalar in float32.

        Parameters
        ----------
        outputs
            (N, outputs), logits.
        targets
            (N,), int64.
        """
        from torch.nn import functional

        return functional.cross_entropy(
            outputs.float(), targets, label_smoothing=self.label_smoothing
        )

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Return the metrics over a split.

        Parameters
        ----------
        outputs
            (N, outputs), logits.
        targets
            (N,), int64.
        """
        from .confusion import confusion, mean_where, precision_recall_f1

        counts = confusion(outputs.argmax(1, keepdim=True), targets[:, None], self.outputs).sum(0)
        _, recall, f1 = precision_recall_f1(counts)
        return {
            "accuracy": float(counts.diagonal().sum() / counts.sum()),
            "balanced_accuracy": float(mean_where(recall, counts.sum(-1) > 0)),
            "f1": float(mean_where(f1, counts.sum(-1) + counts.sum(-2) > 0)),
        }

    def augment(
        self, inputs: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mirror and shift each image at random; labels stay.

        Parameters
        ----------
        inputs
            (N, C, H, W).
        targets
            (N,).
        generator
            What the draws come from.
        """
        if not self.augmentation:
            return inputs, targets
        from .augmentation import shift_and_mirror

        return shift_and_mirror(inputs, generator, min(inputs.shape[2:]) // 8), targets

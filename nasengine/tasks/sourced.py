"""What tasks that take their samples from a data source have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import model_validator

from nasengine.task import DataSource, Splits, Task, Usage

_PER = {"masks": "masks (a class for every pixel)", "labels": "labels (a class for every image)"}


class SourcedTask(Task):
    """A task whose samples are those of its `data`.

    Attributes
    ----------
    targets
        Which targets the loss takes: those of another kind are refused.
    """

    targets: ClassVar[Literal["masks", "labels"]]
    data: DataSource

    @model_validator(mode="after")
    def _check_targets(self) -> SourcedTask:
        given = self.data.targets
        if given and given != self.targets:
            other = "segmentation" if given == "masks" else "classification"
            raise ValueError(
                f"{type(self).__name__.lower()} needs {_PER[self.targets]}, and data of "
                f"{type(self.data).__name__} are {_PER[given]}: name other data, or the "
                f"task {other}"
            )
        return self

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(outputs, H, W) of the input's size for masks, (outputs,) for labels."""
        return (self.outputs, *self.data.shape[1:]) if self.targets == "masks" else (self.outputs,)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.data.shape

    @property
    def usage(self) -> Usage:
        """The data's classes; one output is a threshold's, several are the classes' own."""
        decision: Literal["threshold", "argmax"] = "threshold" if self.outputs == 1 else "argmax"
        return Usage(self.data.inputs, self.data.classes, decision)

    def load(self, seed: int) -> Splits:
        """Return the data source's samples, with a doubt for classes that a split lacks.

        Raises
        ------
        DataError
            If they cannot be used.
        """
        from .census import absent

        splits = self.data.load(seed)
        return replace(splits, doubts=(*splits.doubts, *absent(splits, self.data.classes)))

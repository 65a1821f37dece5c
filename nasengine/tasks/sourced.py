"""What tasks that take their samples from a data source have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import model_validator

from nasengine.plugin import Nested
from nasengine.task import DataSource, Splits, Task, Usage

_PER = {
    "masks": "masks (a class for every pixel)",
    "labels": "labels (a class for every image)",
    "values": "values (numbers)",
}
_TASK = {
    "masks": "the task segmentation",
    "labels": "the task classification",
    "values": "a task of values",
}


class SourcedTask(Task):
    """A task whose samples are those of its `data`: only outputs, metrics and loss are its own.

    By its `targets`, data of another kind are refused, and networks whose outputs have another
    shape; of masks and labels, the classes are told of with what is delivered.
    """

    data: Annotated[DataSource, Nested(DataSource)]
    """Where the samples come from."""

    @model_validator(mode="after")
    def _check_targets(self) -> SourcedTask:
        given = self.data.targets
        if given and self.targets and given != self.targets:
            raise ValueError(
                f"{type(self).__name__.lower()} needs {_PER[self.targets]}, and data of "
                f"{type(self.data).__name__} are {_PER[given]}: name other data, or {_TASK[given]}"
            )
        return self

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        """(outputs, H, W) of the input's size for masks, (outputs,) for labels, else open."""
        forms = {"masks": (self.outputs, *self.data.shape[1:]), "labels": (self.outputs,)}
        return forms.get(self.targets)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image, or (C, ...) of what is none."""
        return self.data.shape

    @property
    def usage(self) -> Usage:
        """The data's classes; one output is a threshold's, several are the classes' own."""
        if self.targets not in ("masks", "labels"):
            return Usage(self.data.inputs)
        decision: Literal["threshold", "argmax"] = "threshold" if self.outputs == 1 else "argmax"
        return Usage(self.data.inputs, self.data.classes, decision)

    def load(self, seed: int) -> Splits:
        """Return the data source's samples, with a doubt for classes that a split hardly holds.

        Raises
        ------
        DataError
            If they cannot be used.
        """
        from nasengine.census import lacking

        splits = self.data.load(seed)
        if self.targets not in ("masks", "labels"):
            return splits
        return replace(splits, doubts=(*splits.doubts, *lacking(splits, self.data.classes)))

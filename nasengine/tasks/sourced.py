"""What tasks that take their samples from a data source have in common."""

from __future__ import annotations

from nasengine.task import DataSource, Splits, Task


class SourcedTask(Task):
    """A task whose samples are those of its `data`."""

    data: DataSource

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.data.shape

    def load(self, seed: int) -> Splits:
        """Return the data source's samples.

        Raises
        ------
        DataError
            If they cannot be used.
        """
        return self.data.load(seed)

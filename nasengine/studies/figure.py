"""The figures of a study, written as its tables are."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from nasengine.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    write_atomically(path, drawn.getvalue())

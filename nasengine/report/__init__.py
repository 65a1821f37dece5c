"""The report of a run: one HTML file that needs nothing else, made from the run's folder alone."""

from __future__ import annotations

from pathlib import Path

from nasengine.files import write_atomically

from .page import page
from .record import read_record

__all__ = ["write_report"]


def write_report(folder: Path, output: Path | None = None, *, finished: bool | None = None) -> Path:
    """Write a run's report, by default as ``report.html`` into its folder.

    Nothing of the run is changed and none of its code is run; a run that goes on can be reported
    on as well.

    Parameters
    ----------
    folder
        The run's folder.
    output
        The file to write.
    finished
        Whether the run has ended, where the caller knows better than the folder.

    Returns
    -------
    The file.

    Raises
    ------
    RunFolderError
        If the folder holds no run, or its history is damaged.
    StorageError
        If the disk refuses.
    """
    path = folder / "report.html" if output is None else output
    write_atomically(path, page(read_record(folder, finished=finished)))
    return path

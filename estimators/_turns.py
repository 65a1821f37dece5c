"""What one process at a time may do, and what the others say while they wait."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from nasengine.files import exclusive

if TYPE_CHECKING:
    from pathlib import Path

    from nasengine.search import Search

SAID = 5.0
"""Seconds of waiting that are worth a line."""


def in_turn(path: Path, search: Search, what: str) -> AbstractContextManager[None]:
    """Hold a lock; while another process does, stop if asked to, and say once what it waits for.

    Parameters
    ----------
    path
        The lock's file.
    search
        Whose reporter and stop signal.
    what
        What is done in turn, for the line.
    """
    start, said = time.monotonic(), False

    def waiting() -> None:
        nonlocal said
        search.pause_point()
        if not said and time.monotonic() - start > SAID:
            said = True
            search.reporter.note(f"{what}: waits for another process, which holds {path}")

    return exclusive(path, waiting)

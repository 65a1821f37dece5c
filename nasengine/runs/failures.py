"""What a plugin raised: a line with its place for people, the traceback for the run's log."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasengine.guard import describe

if TYPE_CHECKING:
    from nasengine.search import Search

_MOST = 20_000
"""Characters of a traceback that are kept, the last ones."""


def said(error: BaseException, search: Search, part: object) -> str:
    """Say an error with the last line of a plugin's file that led to it; log its traceback.

    Parameters
    ----------
    error
        What was raised.
    search
        Its space and its task are where a candidate's code may stand; its log keeps the traceback.
    part
        The strategy or the estimator that was asked.
    """
    text = f"{type(error).__name__}: {describe(error)}"
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    search.reporter.record("traceback", {"error": text, "traceback": trace[-_MOST:]})
    return f"{text} ({_place(error, (search.space, search.task, part))})"


def _place(error: BaseException, parts: tuple[object, ...]) -> str:
    """Return the last line in a file of these parts; in anyone's file if none is among them."""
    places = [
        (frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    own = {_file(part) for part in parts}
    file, line = ([p for p in places if p[0] in own] or places)[-1]
    return f"{Path(file).name}, line {line}"


def _file(part: object) -> Any:
    return getattr(sys.modules.get(type(part).__module__), "__file__", None)

"""What goes wrong inside a space's `define`, told with its class, file, line and reason."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from nasengine.errors import NasengineError, SpaceError, did_you_mean
from nasengine.graph import SpaceGraph

if TYPE_CHECKING:
    from nasengine.space import SearchSpace

_METHODS = ("input", "operation", "slot", "add", "concat", "output", "width")


@contextmanager
def located(space: type[SearchSpace]) -> Iterator[None]:
    """Make whatever `define` raises a `SpaceError` that says where.

    Raises
    ------
    SpaceError
        Naming the class, its file and the line in it. Other errors of nasengine, such as an extra
        that is not installed, pass as they are.
    """
    try:
        yield
    except SpaceError as error:
        raise SpaceError(f"{_place(space, error.__traceback__)}: {error}") from error
    except NasengineError:
        raise
    except Exception as error:
        where = _place(space, error.__traceback__)
        raise SpaceError(f"{where}: {type(error).__name__}: {error}{_advice(error)}") from error


def _place(space: type[SearchSpace], trace: TracebackType | None) -> str:
    """Say the last line of the space's own file that ran."""
    try:
        file = inspect.getfile(inspect.unwrap(space.define))
    except TypeError:  # A `define` that is no function, such as a partial.
        return f"{space.__name__}.define"
    frames = traceback.extract_tb(trace)
    own = [frame for frame in frames if frame.filename == file] or frames
    return f"{space.__name__}.define ({own[-1].filename}, line {own[-1].lineno})"


def _advice(error: Exception) -> str:
    """Say what a method of the graph takes, or which one may be meant."""
    text = str(error)
    called = re.match(r"SpaceGraph\.(\w+)\(\)", text)
    if isinstance(error, TypeError) and called and called[1] in _METHODS:
        takes = list(inspect.signature(getattr(SpaceGraph, called[1])).parameters)[1:]
        return f"; graph.{called[1]} takes {', '.join(takes)}"
    name = getattr(error, "name", None)
    if isinstance(error, NameError) and name in _METHODS:
        return f"; did you mean graph.{name}?"
    if isinstance(error, TypeError | AttributeError) and re.search(r"\bNode\b", text):
        return (
            "; nodes are wired, not computed with: graph.add sums them, graph.concat joins them, "
            "graph.operation applies a module"
        )
    if isinstance(error, TypeError | AttributeError) and re.search(r"\bWidth\b", text):
        return "; a width is multiplied by whole numbers alone; further channels have a graph.width"
    if isinstance(error, AttributeError) and isinstance(getattr(error, "obj", None), SpaceGraph):
        return f"; {did_you_mean(str(name), _METHODS)}"
    return ""

"""Every error that nasengine raises on purpose, as one tree.

::

    NasengineError
    ├── InputError              what the user gave is wrong (exit status 2)
    │   ├── SpecError           the TOML spec
    │   ├── PluginError         a plugin that is not there, or an extra not installed
    │   ├── SpaceError          a search space whose graph or candidates do not fit
    │   ├── ArchitectureError   an architecture that is not of its space
    │   ├── DataError           images, masks, tables
    │   └── RunFolderError      a run folder in use, changed, damaged or not one
    ├── EstimationFailed        one candidate could not be measured (the search goes on)
    ├── StorageError            the disk refused to keep what was measured (exit status 1)
    └── SearchFailed            the search ended without a network (exit status 1)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

MAX_LISTED = 1000
"""Characters of a list of allowed names; where they come from a damaged file, they may be any."""


class NasengineError(Exception):
    """Root of every error that nasengine raises on purpose."""


class InputError(NasengineError):
    """What the user gave is wrong; the message says what, where, and what is allowed."""


class SpecError(InputError):
    """The spec has a key, a type or a value that is not allowed."""


class PluginError(InputError):
    """A plugin is unknown, cannot be imported, or needs an extra that is not installed."""


class SpaceError(InputError):
    """A search space is not a valid graph, or its candidates do not fit their slots."""


class ArchitectureError(InputError):
    """An architecture does not belong to its search space."""


class DataError(InputError):
    """Images, masks or tables cannot be used."""


class RunFolderError(InputError):
    """A run folder is in use, was changed, is damaged, or is not one."""


class EstimationFailed(NasengineError):
    """One candidate could not be measured; the trial is recorded as failed with this reason."""


class ExportFailed(NasengineError):
    """A network cannot be written in a form; the run's other results are not touched."""


class StorageError(NasengineError):
    """The disk refused to keep what was measured."""


class SearchFailed(NasengineError):
    """The search ended without a network to deliver."""


class Interrupted(BaseException):
    """A signal asked the run to stop; raised at the next safe point, after a checkpoint.

    Not a `NasengineError`: like `KeyboardInterrupt`, it must pass through ``except Exception``.
    """


def did_you_mean(got: str, allowed: Iterable[str]) -> str:
    """Say which names are allowed, the nearest first.

    Examples
    --------
    >>> did_you_mean("widht", ["width", "classes"])
    "did you mean 'width'? Allowed: classes, width"
    >>> did_you_mean("zzz", ["width"])
    'allowed: width'
    >>> did_you_mean("9", ["16", "4", "8"])
    'allowed: 4, 8, 16'
    >>> did_you_mean("zzz", [])
    'none is allowed here'
    """
    names = sorted(allowed, key=_by_numbers)
    if not names:
        return "none is allowed here"
    listed = ", ".join(names)
    if len(listed) > MAX_LISTED:
        listed = f"{listed[:MAX_LISTED]}..."
    folded = {name.casefold(): name for name in names}
    close = get_close_matches(got.casefold(), folded, n=1, cutoff=0.6)
    if close:
        return f"did you mean {folded[close[0]]!r}? Allowed: {listed}"
    return f"allowed: {listed}"


def _by_numbers(name: str) -> list[str | int]:
    """Return what puts level_2 before level_10."""
    parts = re.split(r"([0-9]{1,9})", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def origin(error: BaseException) -> str:
    """Say in one line what an error comes from: the first of the causes that it was raised from.

    Examples
    --------
    >>> try:
    ...     try:
    ...         raise ValueError("only 4 axes are supported")
    ...     except ValueError as found:
    ...         raise RuntimeError("step 3 failed") from found
    ... except RuntimeError as error:
    ...     print(origin(error))
    ValueError: only 4 axes are supported
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"

"""Files that are never half written."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nasengine.errors import StorageError

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


@contextlib.contextmanager
def durable_write(path: Path) -> Iterator[None]:  # noqa: ARG001
    """Surround every durable write of the engine: the seam where tests let it crash or fail."""
    yield


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace a file so that a crash leaves the old one or the new one, durable on return.

    Raises
    ------
    StorageError
        If the disk refuses, naming the file.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with durable_write(path):
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def make_folder(path: Path) -> Path:
    """Make a folder if there is none; return it.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {path}: {error.strerror or error}") from error
    return path


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield everything inside a folder, without following symbolic links."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from walk(Path(entry.path))


def remove_temporaries(folder: Path) -> None:
    """Remove what `write_atomically` left behind in processes that were killed."""
    for entry in list(walk(folder)):
        if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(OSError):
                Path(entry.path).unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write JSON atomically: indented, no NaN.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")

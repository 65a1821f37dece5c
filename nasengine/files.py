"""Files that are never half written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import ConfigDict, RootModel, ValidationError

from nasengine.errors import RunFolderError, StorageError

if TYPE_CHECKING:
    from filelock import BaseFileLock

T = TypeVar("T")

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
    """Make a folder if there is none, durable on return; return it.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    if path.is_dir():
        return path
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        with durable_write(path):
            path.mkdir(parents=True, exist_ok=True)
            for folder in reversed(missing):
                sync_folder(folder.parent)
    except OSError as error:
        raise StorageError(f"cannot make {path}: {error.strerror or error}") from error
    return path


def copy_files(source: Path, target: Path) -> None:
    """Copy a folder's files into another folder, each durable on return.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            make_folder(place.parent)
            write_atomically(place, path.read_bytes())


@contextlib.contextmanager
def exclusive(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock, between processes as between threads; the system frees that of one that dies.

    Parameters
    ----------
    path
        The lock's file, which stays; locks are told apart by it.
    waiting
        Called every tenth of a second while others hold it or are next; what it raises ends the
        wait.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    # Who waits holds the place of the next: one that lets go and comes again is behind it.
    following = _acquired(path.with_name(f"{path.name}.next"), waiting)
    try:
        held = _acquired(path, waiting)
    finally:
        following.release()
    try:
        yield
    finally:
        held.release()


def _acquired(path: Path, waiting: Callable[[], None]) -> BaseFileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=0)
            return lock
        except Timeout:
            waiting()
            time.sleep(0.1)
        except OSError as error:
            raise StorageError(f"cannot lock {path}: {error.strerror or error}") from error


def machine_folder() -> Path:
    """Return this user's folder for what all runs on this machine share, such as a lock.

    It lies in the folder for temporary files, where anyone may have made one of its name, or a
    link: that one is not used.

    Raises
    ------
    StorageError
        If it cannot be made, or is not this user's alone.
    """
    user = os.getuid() if os.name == "posix" else None
    root = Path(tempfile.gettempdir())
    path = root / ("nasengine" if user is None else f"nasengine-{user}")
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
    except OSError as error:
        raise StorageError(f"cannot make {path}: {error.strerror or error}") from error
    others = user is not None and (found.st_uid != user or found.st_mode & 0o022)
    if not stat.S_ISDIR(found.st_mode) or others:
        raise StorageError(
            f"{path}: is no folder that this user alone writes to; remove it, or name a folder "
            "for temporary files in TMPDIR"
        )
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


def storable(text: str) -> str:
    r"""Return text as UTF-8 can hold it: what it cannot (a lone surrogate) becomes an escape.

    Examples
    --------
    >>> storable("a name of bytes: \udcff")
    'a name of bytes: \\udcff'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write JSON atomically: indented, no NaN.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


class _Read(RootModel[T], Generic[T]):
    """JSON as it was written: nothing is taken for something else, and numbers are finite."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


def read_json(path: Path, shape: type[T]) -> T:
    """Read a JSON file that this engine wrote.

    Parameters
    ----------
    path
        The file.
    shape
        What it holds: a dataclass, or a type such as ``dict[str, float]``. Keys that a dataclass
        does not have, as a later version may write them, are passed over.

    Raises
    ------
    RunFolderError
        If it cannot be read or is damaged: naming the file, the place in it and what stands there.
    """
    try:
        return parse_json(path.read_bytes(), shape)
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RunFolderError(f"{path}: damaged: {error}") from error


def parse_json(content: bytes | str, shape: type[T]) -> T:
    """Read JSON that this engine wrote; see `read_json`.

    Raises
    ------
    ValueError
        If it is damaged, saying where in it and what stands there.

    Examples
    --------
    >>> parse_json('{"a": {"b": "x"}}', dict[str, dict[str, float]])
    Traceback (most recent call last):
    ValueError: a.b: Input should be a valid number, got 'x'
    """
    try:
        root: T = _reader(shape).model_validate_json(content).root  # type: ignore[arg-type]
    except ValidationError as error:
        raise ValueError(_first_problem(error)) from None
    return root


@cache
def _reader(shape: Any) -> type[RootModel[Any]]:
    """Return what reads a shape; a history reads the same one for every trial."""
    return _Read[shape]


def _first_problem(error: ValidationError) -> str:
    """Say where the first problem is, what is needed there, and what was found."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(f"{part!s:.80}" for part in problem["loc"])
    said = f"{place}: {problem['msg']}" if place else problem["msg"]
    if problem["type"] in ("missing", "json_invalid"):
        return said
    return f"{said}, got {problem['input']!r:.60}"

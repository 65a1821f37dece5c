"""The history on disk: one SQLite file, one writer, the only truth about a run's trials.

Each record has a checksum, which format 1 had not: a digit that the disk changed is still a digit.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from nasengine import files
from nasengine.architecture import Architecture
from nasengine.errors import RunFolderError, StorageError
from nasengine.files import parse_json
from nasengine.history import History
from nasengine.trial import Measurement, Status, Trial, measurements_to

FORMAT = 2

_SCHEMA = """
BEGIN;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT NOT NULL);
CREATE TABLE trials (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL, architecture TEXT NOT NULL,
    status TEXT NOT NULL, measurements TEXT NOT NULL, reason TEXT NOT NULL,
    seconds REAL NOT NULL, attempts INTEGER NOT NULL, left_behind TEXT NOT NULL,
    checksum TEXT NOT NULL);
CREATE TABLE reference_networks (
    name TEXT PRIMARY KEY, key TEXT NOT NULL, architecture TEXT NOT NULL,
    status TEXT NOT NULL, measurements TEXT NOT NULL, reason TEXT NOT NULL,
    seconds REAL NOT NULL, checksum TEXT NOT NULL);
COMMIT;
"""

_FROM_FORMAT_1 = """
BEGIN;
ALTER TABLE facts ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
ALTER TABLE trials ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
ALTER TABLE reference_networks ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
COMMIT;
"""

_TRIAL = "key, architecture, status, measurements, reason, seconds"
_ALL_TABLES = "SELECT 1 FROM facts, trials, reference_networks LIMIT 1"

T = TypeVar("T")


class Storage:
    """Keeps trials in ``history.sqlite``.

    What `finish` has returned from is on the disk: it survives a crash of the process and of the
    machine. What `begin` has returned from survives a crash of the process.

    Parameters
    ----------
    path
        The file; made if there is none.
    read_only
        Only read, also while another process writes; the file is there.

    Raises
    ------
    RunFolderError
        If the file is not a history, or of a later format.
    StorageError
        If the disk refuses.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        try:
            if read_only:
                self._connection = _open_to_read(path)
                weakref.finalize(self, self._connection.close)
            else:
                self._connection = sqlite3.connect(path, isolation_level=None)
                # Closed with its last user at the latest, which may be a process that failed.
                weakref.finalize(self, self._connection.close)
                self._connection.execute("PRAGMA journal_mode = WAL")
                if not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    self._connection.executescript(_SCHEMA)
                self._connection.execute(_ALL_TABLES)
                if not self._has_checksums():
                    self._connection.executescript(_FROM_FORMAT_1)
            # Of records that format 1 wrote it is empty.
            self._checksum = "checksum" if self._has_checksums() else "''"
            # The checksums are of what is found: this is of what holds it together.
            (whole,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        except (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError) as error:
            raise RunFolderError(f"{path}: not a history: {error}") from error
        if whole != "ok":
            raise RunFolderError(f"{path}: damaged: {whole!s:.200}")
        self._inode = _inode(path)
        found = self.fact("format", int, 0)
        if found > FORMAT:
            raise RunFolderError(
                f"{path}: written by a later nasengine (format {found}, this one reads {FORMAT})"
            )
        if found < FORMAT and not read_only:
            self.set_fact("format", FORMAT)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def fact(self, name: str, shape: type[T], default: T) -> T:
        """Return a kept JSON value, of a shape as `nasengine.files.read_json` takes it."""
        # Each is read, not this one by its index: a damaged name is seen, not taken for missing.
        kept = dict[str, Any]()
        for found, *row in self._read(f"SELECT name, value, {self._checksum} FROM facts"):
            with self._undamaged(found):
                (kept[found],) = _checked(found, row)
        with self._undamaged(name):
            return parse_json(kept[name], shape) if name in kept else default

    def set_fact(self, name: str, value: Any) -> None:
        """Keep a JSON value, durable on return."""
        self._write("FULL", _fact(name, value))

    @property
    def seconds(self) -> float:
        """Seconds of search, up to the last trial that began or ended."""
        return self.fact("seconds", float, 0.0)

    def set_seconds(self, seconds: float) -> None:
        """Keep the seconds of search, durable on return."""
        self.set_fact("seconds", seconds)

    def history(self) -> History:
        """Return every trial so far.

        Raises
        ------
        RunFolderError
            If the file is damaged.
        """
        rows = self._read(f"SELECT number, {_TRIAL}, {self._checksum} FROM trials ORDER BY number")
        trials = [self._trial(_place(number), number, row) for number, *row in rows]
        with self._undamaged("trials"):
            return History(trials)

    def begin(self, trial: Trial, left_behind: str = "", seconds: float | None = None) -> int:
        """Keep that a trial is being measured.

        Parameters
        ----------
        trial
            The trial.
        left_behind
            What an earlier attempt left on the disk, as any text; another text than the last
            time means that the last attempt got somewhere.
        seconds
            Seconds of search so far, kept with it.

        Returns
        -------
        How many attempts, this one included, began from the same place.
        """
        before = self._read(
            "SELECT attempts, left_behind FROM trials WHERE number = ?", trial.number
        )
        same = bool(before) and before[0][1] == left_behind
        attempts = int(before[0][0]) + 1 if same else 1
        self._write("NORMAL", _kept(trial, attempts, left_behind), *_seconds(seconds))
        return attempts

    def keep_measured(self, trial: Trial) -> None:
        """Keep what was measured so far of a trial that goes on, durable on return."""
        values = [*_row(trial), trial.number]
        self._write(
            "FULL",
            (
                f"UPDATE trials SET ({_TRIAL}, checksum) = (?, ?, ?, ?, ?, ?, ?) WHERE number = ?",
                values,
            ),
        )

    def forget_attempt(self, number: int) -> None:
        """Keep that the last attempt was ended on purpose, and counts for nothing."""
        self._write("NORMAL", ("UPDATE trials SET attempts = 0 WHERE number = ?", [number]))

    def finish(self, trial: Trial, seconds: float | None = None) -> None:
        """Keep how a trial ended, with the seconds of search so far, durable on return."""
        self._write("FULL", _kept(trial, 1, ""), *_seconds(seconds))

    def references(self) -> dict[str, Trial]:
        """Return the reference networks measured so far."""
        query = f"SELECT name, {_TRIAL}, {self._checksum} FROM reference_networks ORDER BY rowid"
        rows = self._read(query)
        return {
            name: replace(self._trial(_place(-1, name), -1, row), reference=name)
            for name, *row in rows
        }

    def set_reference(self, trial: Trial) -> None:
        """Keep a reference network's measurements, as far as they are, durable on return."""
        values = [trial.reference, *_row(trial)]
        statement = "INSERT OR REPLACE INTO reference_networks VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        self._write("FULL", (statement, values))

    def final(self, number: int) -> Mapping[str, Measurement]:
        """Return what only a winner is measured by, as far as it was."""
        return self.fact(f"final-{number}", dict[str, Measurement], {})

    def set_final(self, number: int, measurements: Mapping[str, Measurement]) -> None:
        """Keep what only a winner is measured by, durable on return."""
        self.set_fact(f"final-{number}", measurements_to(measurements))

    def _read(self, query: str, *values: Any) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise RunFolderError(f"{self.path}: damaged: {error}") from error

    def _has_checksums(self) -> bool:
        columns = self._connection.execute("SELECT name FROM pragma_table_info('trials')")
        return ("checksum",) in columns.fetchall()

    def _trial(self, place: str, number: int, row: Sequence[Any]) -> Trial:
        with self._undamaged(place):
            return _trial(number, _checked(place, row))

    @contextmanager
    def _undamaged(self, place: str) -> Iterator[None]:
        """Name the file and the place in it where what it holds is not what was written."""
        try:
            yield
        except (ValueError, TypeError) as error:
            raise RunFolderError(f"{self.path}: damaged: {place}: {error!s:.200}") from error

    def _write(self, durability: str, *statements: tuple[str, list[Any]]) -> None:
        """Do all of it or nothing."""
        try:
            with files.durable_write(self.path):
                # SQLite would go on writing to a file that is no longer there.
                if _inode(self.path) != self._inode:
                    raise OSError("it is no longer the file that was opened")
                self._connection.execute(f"PRAGMA synchronous = {durability}")
                with self._connection:
                    self._connection.execute("BEGIN")
                    for statement, values in statements:
                        self._connection.execute(statement, values)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"cannot write {self.path}: {error}") from error


def _open_to_read(path: Path) -> sqlite3.Connection:
    """Open a history that may lie in a folder that cannot be written."""
    # Without a write-ahead log beside it the file is complete, and SQLite need not make one.
    complete = not path.with_name(f"{path.name}-wal").exists()
    address = f"{path.resolve().as_uri()}?mode=ro" + ("&immutable=1" if complete else "")
    connection = sqlite3.connect(address, uri=True, isolation_level=None)
    try:
        connection.execute(_ALL_TABLES)
    except BaseException:
        connection.close()
        raise
    return connection


def _fact(name: str, value: Any) -> tuple[str, list[Any]]:
    text = json.dumps(value)
    values = [name, text, _checksum(name, [text])]
    return "INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", values


def _seconds(seconds: float | None) -> list[tuple[str, list[Any]]]:
    return [] if seconds is None else [_fact("seconds", seconds)]


def _kept(trial: Trial, attempts: int, left_behind: str) -> tuple[str, list[Any]]:
    *row, checksum = _row(trial)
    values = [trial.number, *row, attempts, left_behind, checksum]
    return "INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values


def _place(number: int, reference: str = "") -> str:
    """Name a record, of a trial or of a reference."""
    return f"reference {reference!r:.80}" if reference else f"trial {number}"


def _checksum(place: str, values: Sequence[Any]) -> str:
    return hashlib.sha256(repr([place, *values]).encode()).hexdigest()[:16]


def _checked(place: str, row: Sequence[Any]) -> Sequence[Any]:
    """Return a record without the checksum at its end, if it is the one that was written."""
    *values, checksum = row
    if checksum not in ("", _checksum(place, values)):
        raise ValueError("the checksum does not match")
    return values


def _row(trial: Trial) -> list[Any]:
    """Return the values of `_TRIAL`, and their checksum."""
    values = [
        trial.key,
        json.dumps(dict(trial.architecture)),
        trial.status.value,
        json.dumps(measurements_to(trial.measurements)),
        trial.reason,
        float(trial.seconds),
    ]
    return [*values, _checksum(_place(trial.number, trial.reference), values)]


def _trial(number: int, row: Sequence[Any]) -> Trial:
    key, choices, status, measurements, reason, seconds = row
    if not (isinstance(key, str) and isinstance(reason, str) and math.isfinite(seconds)):
        raise ValueError(f"{[key, reason, seconds]!r:.100}")
    return Trial(
        number,
        Architecture(parse_json(choices, dict[str, str])),
        key,
        Status(status),
        parse_json(measurements, dict[str, Measurement]),
        reason,
        float(seconds),
    )


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino

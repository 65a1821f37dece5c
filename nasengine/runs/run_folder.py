"""One run is one folder: its spec, its history, its checkpoints, its result.

::

    runs/light-sdi-1/
        spec.toml            the resolved spec; can be run again
        identity.json        what a resume must find unchanged
        environment.json     machine, packages, command
        history.sqlite       every trial: the only truth
        log.jsonl            what was reported along the way
        checkpoints/ tables/ trials/
        best/                the result
        report.html          all of it on one page
"""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import tomli_w
from filelock import FileLock, Timeout

from nasengine.errors import RunFolderError, StorageError
from nasengine.files import (
    copy_files,
    make_folder,
    read_json,
    remove_temporaries,
    storable,
    sync_folder,
    walk,
    write_atomically,
    write_json,
)
from nasengine.machine import processor
from nasengine.reporter import Reporter
from nasengine.runs.experiment import Experiment
from nasengine.runs.identity import changes_since, identity, packages
from nasengine.runs.own_code import command_on
from nasengine.runs.run_files import no_run, read_identity
from nasengine.runs.storage import Storage

_ACCEPTABLE = ("code.", "packages.")
"""What may change under a run where the user says that it changes no result."""


@dataclass(frozen=True)
class _Owner:
    """Who holds a run's folder."""

    process: int
    host: str


class RunFolder:
    """A run's folder, held by one process at a time.

    Parameters
    ----------
    path
        The folder, which holds a run.

    Raises
    ------
    RunFolderError
        If another process holds it (naming process and host), or it holds no run.
    """

    def __init__(self, path: Path) -> None:
        _check_is_run(path)
        _check_has_history(path)
        self.path = path
        self._lock = FileLock(path / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(f"{path}: in use by {_owner(path)}") from None
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            remove_temporaries(path)
            write_json(path / "owner.json", asdict(_Owner(os.getpid(), socket.gethostname())))
            self.storage = Storage(path / "history.sqlite")
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the history and let the folder go."""
        self.storage.close()
        self._lock.release()

    @classmethod
    def create(
        cls,
        root: Path,
        experiment: Experiment,
        command: Sequence[str],
        measured: Path | None = None,
    ) -> RunFolder:
        """Make ``root/<name>-<number>`` with the next free number.

        Parameters
        ----------
        root, experiment, command
            Where, and what it describes.
        measured
            The folder that the search was checked in: what it measured for that (a latency table)
            is the run's.

        Raises
        ------
        RunFolderError
            If the folder cannot be made or written.
        """
        described, name = _description(experiment, command), experiment.spec.name
        try:
            make_folder(root)
            taken = [
                int(rest)
                for found in root.iterdir()
                if found.name.startswith(f"{name}-")
                and (rest := found.name.removeprefix(f"{name}-")).isdecimal()
            ]
            number = max(taken, default=0) + 1
            while True:
                path = root / f"{name}-{number}"
                try:
                    path.mkdir()
                    sync_folder(root)
                    break
                except FileExistsError:  # Another process was quicker.
                    number += 1
        except (OSError, ValueError, StorageError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunFolderError(f"{root}: cannot hold runs: {reason}") from error
        return cls._begun(path, described, measured)

    @classmethod
    def create_at(cls, path: Path, experiment: Experiment, command: Sequence[str]) -> RunFolder:
        """Make a run in a folder that holds none yet.

        Raises
        ------
        RunFolderError
            If it holds one already, or cannot be written.
        """
        if (path / "identity.json").exists():
            raise RunFolderError(f"{path}: holds a run already")
        return cls._begun(path, _description(experiment, command))

    @classmethod
    def _begun(cls, path: Path, described: _Description, measured: Path | None = None) -> RunFolder:
        try:
            make_folder(path)
            if measured is not None:
                copy_files(measured, path)
            write_atomically(path / "spec.toml", described.spec)
            write_json(path / "environment.json", described.environment)
            Storage(path / "history.sqlite").close()
            sync_folder(path)
            write_json(path / "identity.json", described.identity)  # Now it is a run.
        except (OSError, StorageError) as error:
            raise RunFolderError(f"{path}: cannot hold a run: {error}") from error
        return cls(path)

    def check_identity(self, experiment: Experiment, but: tuple[str, ...] = ()) -> None:
        """Refuse to go on with something else than what the run began with.

        Parameters
        ----------
        experiment
            What to go on with.
        but
            Keys that may have changed all the same: ``packages``, where nothing is measured.

        Raises
        ------
        RunFolderError
            With the list of what changed: the spec (budget excepted), the search space, code
            files, package versions.
        """
        found = changes_since(self.identity, experiment)
        changes = [change for change in found if not change.startswith(but)]
        if changes:
            listed = "\n  ".join(changes)
            command = command_on(self.path, "resume", "--accept-changes")
            advice = f"\nwhere none of it changes a result: {command}"
            may_be_taken = all(change.startswith(_ACCEPTABLE) for change in changes)
            raise RunFolderError(
                f"{self.path}: changed since the run began:\n  {listed}"
                f"{advice if may_be_taken else ''}"
            )

    def accept_changes(self, experiment: Experiment, log: Reporter) -> None:
        """Take up own code and packages that changed since the run began; the log keeps what did.

        Raises
        ------
        RunFolderError
            If the spec or the search space changed, budget and execution excepted.
        """
        self.check_identity(experiment, but=_ACCEPTABLE)
        changes = changes_since(self.identity, experiment)
        for change in changes:  # Told first: a crash in between tells it twice, never not at all.
            log.warn(f"accepted, though changed since the run began: {change}")
        if changes:
            write_json(self.path / "identity.json", identity(experiment))

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the run began with.

        Raises
        ------
        RunFolderError
            If it is damaged, or of a later format.
        """
        return read_identity(self.path)

    def write_spec(self, experiment: Experiment) -> None:
        """Replace the kept spec after a change that a resume allows; one that is the same stays."""
        resolved = tomli_w.dumps(experiment.resolved())
        if resolved == (self.path / "spec.toml").read_text(encoding="utf-8"):
            return
        write_json(self.path / "identity.json", identity(experiment))
        write_atomically(self.path / "spec.toml", resolved)


def _owner(path: Path) -> str:
    try:
        owner = read_json(path / "owner.json", _Owner)
        return f"process {owner.process} on {owner.host}"
    except RunFolderError:
        return "another process"


def _check_is_run(path: Path) -> None:
    try:
        if not (path / "identity.json").is_file():
            begun = (path / "spec.toml").is_file()
            advice = f": it ended before it began; nasengine run {path / 'spec.toml'}"
            raise no_run(path, f"no identity.json{advice if begun else ''}")
        links = [entry.path for entry in walk(path) if entry.is_symlink()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunFolderError(f"{path!s:.200}: not a run's folder: {reason}") from error
    if links:
        # What is written through a link would land outside of the run's folder.
        raise RunFolderError(f"{links[0]}: a symbolic link, which a run's folder does not hold")


def _check_has_history(path: Path) -> None:
    """Refuse a run whose history is gone, which would be begun anew: it had one as it began."""
    history = path / "history.sqlite"
    if not history.is_file() or not history.stat().st_size:
        raise RunFolderError(f"{history}: damaged: it is missing or empty")


class _Description(NamedTuple):
    """What a run's folder begins with."""

    spec: str
    environment: dict[str, Any]
    identity: dict[str, Any]


def _description(experiment: Experiment, command: Sequence[str]) -> _Description:
    """Describe a run; what of its spec cannot be used is refused here, before it has a folder."""
    import torch

    device = experiment.device
    environment = {
        "command": [storable(word) for word in command],
        "python": platform.python_version(),
        "packages": packages(),
        "system": platform.platform(),
        "processor": processor(),
        "host": socket.gethostname(),
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device != "cpu" else "",
        "threads": experiment.spec.threads or torch.get_num_threads(),
        "executable": sys.executable,
    }
    spec = tomli_w.dumps(experiment.resolved())
    return _Description(spec, environment, identity(experiment))

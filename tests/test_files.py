"""Files that are never half written: what is made durable, and in which order."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path

import pytest
import torch

from nasengine.checkpoint import SavePace, save_checkpoint
from nasengine.errors import RunFolderError, StorageError
from nasengine.files import (
    machine_folder,
    read_json,
    remove_temporaries,
    walk,
    write_atomically,
    write_json,
)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is written, as it is written: a file's bytes, a folder's names, a new name."""
    found: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        found.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def replaced(path: Path, target: Path) -> Path:
        found.append(f"-> {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    return found


def test_bytes_are_on_the_disk_before_they_have_the_name(tmp_path: Path, done: list[str]) -> None:
    write_atomically(tmp_path / "a.txt", "text")
    assert done == ["file", "-> a.txt", "folder"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_checkpoint_before_is_durable_before_it_is_followed(
    tmp_path: Path, done: list[str]
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path / "c", {"step": torch.tensor(step)})
    assert done == ["file", "-> c", "folder", "-> c.previous", "folder", "file", "-> c", "folder"]


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "a.json", [1])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*a\.json: No space left"):
        write_json(tmp_path / "a.json", [2])
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert read_json(tmp_path / "a.json", list[int]) == [1]


def test_json_holds_no_nan_and_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, [math.nan])
    path.write_text('[1, "2", NaN]')
    with pytest.raises(RunFolderError, match=r"a\.json: damaged: 1: .*, got '2'"):
        read_json(path, list[int])
    path.write_text("[1.5, NaN]")
    with pytest.raises(RunFolderError, match="finite"):
        read_json(path, list[float])


def test_a_walk_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    (tmp_path / "in" / "round").symlink_to(tmp_path)
    assert sorted(entry.name for entry in walk(tmp_path)) == ["deeper", "in", "round"]


def test_only_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    orphan, kept, link = (tmp_path / n for n in (".a.json.12.tmp", ".mine.tmp", ".b.json.12.tmp"))
    orphan.write_text("half")
    kept.write_text("whole")
    link.symlink_to(kept)
    remove_temporaries(tmp_path)
    assert not orphan.exists() and kept.exists() and link.is_symlink()


@pytest.mark.skipif(os.name != "posix", reason="folders of users")
def test_another_users_folder_is_not_this_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert machine_folder().is_dir()
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    with pytest.raises(StorageError, match="no folder that this user alone writes to"):
        machine_folder()


def test_saving_takes_a_fiftieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("nasengine.checkpoint.time.monotonic", lambda: now[0])
    pace, saved = SavePace(10.0), list[float]()

    def save() -> None:
        saved.append(now[0])
        now[0] += 2.0

    for second in range(300):
        now[0] = max(now[0], float(second))
        pace.save_if_due(save, at_once=False)
    assert saved == [10.0, 112.0, 214.0], "two seconds each: a hundred apart"
    assert pace.save_if_due(save, at_once=True)
    always = SavePace(0.0)
    assert always.save_if_due(save, at_once=False)
    assert always.save_if_due(save, at_once=False)

"""The history on disk: what was recorded is there again, whatever happened to the process."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasengine.architecture import Architecture
from nasengine.errors import RunFolderError, StorageError
from nasengine.history import History
from nasengine.runs.storage import FORMAT, Storage
from nasengine.trial import Measurement, Status, Trial

measurements = st.dictionaries(
    st.text(max_size=8),
    st.builds(
        Measurement,
        st.floats(allow_nan=False, allow_infinity=False),
        # What has a meaning of its own has a shape of its own.
        st.dictionaries(
            st.text(max_size=5).filter(lambda name: name not in ("std", "values")),
            st.lists(st.integers(-9, 9), max_size=3),
            max_size=2,
        ),
    ),
    max_size=3,
)
ended = st.sampled_from([Status.COMPLETE, Status.FAILED, Status.INFEASIBLE, Status.LOST])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(measurements, ended, st.text(max_size=20)), max_size=5))
def test_trials_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory,
    facts: list[tuple[dict[str, Measurement], Status, str]],
) -> None:
    path = tmp_path_factory.mktemp("history") / "history.sqlite"
    trials = [
        Trial(number, Architecture({"slot": str(number)}), f"k{number}", status, found, reason, 0.5)
        for number, (found, status, reason) in enumerate(facts)
    ]
    storage = Storage(path)
    for trial in trials:
        storage.begin(trial)
        storage.finish(trial)
    storage.close()
    assert list(Storage(path).history()) == trials


def test_a_trial_begun_and_never_ended_is_running(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "history.sqlite")
    storage.begin(Trial(0, Architecture({"a": "b"}), "key"))
    assert [t.status for t in storage.history()] == [Status.RUNNING]


def test_a_file_that_is_no_history_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"this is not a database, and long enough to be taken for one" * 20)
    with pytest.raises(RunFolderError, match=r"history\.sqlite: not a history"):
        Storage(path)


@pytest.mark.parametrize("table", ["facts", "trials", "reference_networks"])
def test_a_history_without_one_of_its_tables_is_not_begun_anew(table: str, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    Storage(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"DROP TABLE {table}")
    connection.close()
    for read_only in (False, True):
        with pytest.raises(RunFolderError, match=f"not a history: no such table: {table}"):
            Storage(path, read_only=read_only)


def write(path: Path) -> None:
    """Write a history of one record of each kind, of every value that it may have."""
    trial = Trial(
        0,
        Architecture({"width": "8"}),
        "k8",
        Status.COMPLETE,
        {"iou": Measurement(0.85, {"std": 0.08})},
        "after 8 s",
        8.0,
    )
    storage = Storage(path)
    storage.begin(replace(trial, status=Status.RUNNING))
    storage.finish(trial, seconds=8.5)
    storage.set_reference(replace(trial, number=-1, reference="unet"))
    storage.close()


def everything(path: Path, read_only: bool) -> tuple[object, ...]:
    storage = Storage(path, read_only=read_only)
    with closing(storage):
        return list(storage.history()), storage.references(), storage.seconds


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("facts", "name"),
        ("facts", "value"),
        ("facts", "checksum"),
        *[
            (table, column)
            for table in ("trials", "reference_networks")
            for column in ("key", "architecture", "measurements", "reason", "seconds", "checksum")
        ],
    ],
)
def test_another_digit_anywhere_is_seen(table: str, column: str, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    write(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        where = "WHERE name = 'seconds'" if table == "facts" else ""
        ((before,),) = connection.execute(f"SELECT {column} FROM {table} {where}").fetchall()
        digits = "[0-9]" if column != "name" else "s"
        after = re.sub(digits, lambda digit: "9" if digit[0] != "9" else "7", str(before), count=1)
        assert after != str(before)
        connection.execute(f"UPDATE {table} SET {column} = ? {where}", [after])
    damaged = {"facts": "[s9]econds", "trials": "trial 0", "reference_networks": "reference 'unet'"}
    for read_only in (False, True):
        told = f"damaged: {damaged[table]}: the checksum does not match"
        with pytest.raises(RunFolderError, match=told):
            everything(path, read_only=read_only)


def test_a_flipped_bit_is_seen_or_makes_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    write(path)
    content, wanted, rng, refused = path.read_bytes(), everything(path, True), random.Random(0), 0
    used = [at for at, byte in enumerate(content) if byte]  # Most of the file is empty.
    for _ in range(600):
        flipped = bytearray(content)
        flipped[rng.choice(used)] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            assert everything(path, read_only=True) == wanted
        except RunFolderError as error:
            assert "history.sqlite" in str(error)
            refused += 1
    assert refused > 200


def test_what_was_measured_on_the_way_has_its_checksum(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "history.sqlite")
    trial = Trial(0, Architecture({"a": "b"}), "key")
    storage.begin(trial)
    trial = replace(trial, measurements={"iou": Measurement(0.5)}, seconds=3)
    storage.keep_measured(trial)
    storage.forget_attempt(0)
    assert list(storage.history()) == [trial]


def test_a_history_of_the_first_format_is_read_and_gone_on_with(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    shutil.copy(root / "tests/fixtures/run_format_1/interrupted/history.sqlite", path)
    before = list(Storage(path, read_only=True).history())
    storage = Storage(path)
    trial = Trial(len(before), Architecture({"a": "b"}), "key", Status.COMPLETE)
    storage.finish(trial)
    assert list(storage.history()) == [*before, trial]
    assert storage.fact("format", int, 0) == FORMAT == 2


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    storage = Storage(path)
    storage.set_fact("format", FORMAT + 1)
    storage.close()
    with pytest.raises(RunFolderError, match="written by a later nasengine"):
        Storage(path)


def test_a_disk_that_refuses_is_named_and_never_swallowed(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "history.sqlite")
    storage._connection.execute("PRAGMA max_page_count = 8")
    big = Trial(0, Architecture({"a": "b"}), "k", Status.FAILED, {}, "x" * 100_000)
    with pytest.raises(StorageError, match=r"cannot write .*history\.sqlite: .*full"):
        storage.finish(big)


def test_every_write_that_is_announced_was_synchronised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As it is outside of tests, which wait for no disk: conftest.py.
    monkeypatch.setattr(sqlite3, "connect", sqlite3.connect.func)  # type: ignore[attr-defined]
    storage = Storage(tmp_path / "history.sqlite")
    statements: list[str] = []
    storage._connection.set_trace_callback(statements.append)
    storage.finish(Trial(0, Architecture({"a": "b"}), "k", Status.COMPLETE))
    assert statements[0] == "PRAGMA synchronous = FULL"
    with sqlite3.connect(tmp_path / "history.sqlite") as other:
        assert other.execute("SELECT count(*) FROM trials").fetchone() == (1,)
    other.close()


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(Status)), max_size=15))
def test_history_keeps_its_lists_right_in_any_order_of_ends(
    events: list[tuple[int, Status]],
) -> None:
    history = History()
    for number in range(5):
        history.record(Trial(number, Architecture({"a": "b"}), f"k{number}"))
    for number, status in events:
        history.record(Trial(number, Architecture({"a": "b"}), f"k{number}", status))
        assert history.complete == [t for t in history if t.status is Status.COMPLETE]
    assert history.keys == {f"k{n}" for n in range(5)}


def test_history_refuses_a_gap() -> None:
    with pytest.raises(ValueError, match="trial 1 cannot follow 0 trials"):
        History().record(Trial(1, Architecture({"a": "b"}), "k"))

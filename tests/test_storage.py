"""The history on disk: what was recorded is there again, whatever happened to the process."""

from __future__ import annotations

import sqlite3
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
        st.dictionaries(st.text(max_size=5), st.lists(st.integers(-9, 9), max_size=3), max_size=2),
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

"""A run killed before and after every durable write, then resumed, ends as one never killed.

Each kill is `os._exit` in a forked child, so that nothing is cleaned up: no `finally`, no buffer
flushed, no lock released by Python.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from nasengine import files
from nasengine.errors import StorageError
from nasengine.experiment import Experiment
from nasengine.run import run
from nasengine.run_folder import RunFolder
from test_spec import tables

KILLED = 99

STRATEGIES: dict[str, dict[str, Any]] = {
    "darts": {"iterations": 6, "batch": 2, "arch_every": 2, "save_seconds": 0, "top_k": 2},
    "evolution": {"population": 3, "sample": 2},
    "optuna": {},
    "nni": {},
}
TRIALS = {"darts": 2, "evolution": 4, "optuna": 4, "nni": 4}

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork"),
    # One thread of Python runs here; those of torch do nothing while the child is made.
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(600),
]


def spec_for(strategy: str, folder: Path) -> Path:
    table = tables()
    table["strategy"] = {"name": strategy, **STRATEGIES[strategy]}
    table["budget"] = {"trials": TRIALS[strategy]}
    path = folder / f"{strategy}.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked child; return its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def run_it(spec: Path, folder: Path) -> None:
    """Begin a run in a folder, or go on with it."""
    experiment = Experiment.load(spec)
    if (folder / "identity.json").exists():
        run_folder = RunFolder(folder)
        run_folder.check_identity(experiment)
    else:
        run_folder = RunFolder.create_at(folder, experiment, ["test"])
    with run_folder:
        run(experiment, run_folder)


def at_write(number: int, act: Callable[[], None], *, after: bool) -> Any:
    """Replace the seam around durable writes: act before or after the n-th one."""
    count = 0

    @contextmanager
    def seam(path: Path) -> Iterator[None]:
        nonlocal count
        count += 1
        mine = count == number
        if mine and not after:
            act()
        yield
        if mine and after:
            act()

    return seam


def found_in(folder: Path) -> Any:
    """Return all that a run found, times apart."""
    connection = sqlite3.connect(folder / "history.sqlite")
    trials = connection.execute(
        "SELECT number, key, architecture, status, measurements, reason FROM trials ORDER BY number"
    ).fetchall()
    references = connection.execute(
        "SELECT name, key, measurements FROM reference_networks ORDER BY name"
    ).fetchall()
    connection.close()
    metrics = json.loads((folder / "best" / "metrics.json").read_text())
    del metrics["seconds"]
    return trials, references, metrics, (folder / "best" / "architecture.json").read_text()


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of such a short run, and writes nothing that a resume reads."""
    monkeypatch.setattr("nasengine.picture.draw", lambda *_, **__: None)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_at_every_durable_write(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_for(strategy, tmp_path)
    counted = tmp_path / "writes"

    def whole() -> None:
        writes = 0

        @contextmanager
        def count(path: Path) -> Iterator[None]:
            nonlocal writes
            writes += 1
            yield

        files.durable_write = count
        run_it(spec, tmp_path / "whole")
        counted.write_text(str(writes))

    assert in_child(whole) == 0
    wanted = found_in(tmp_path / "whole")
    writes = int(counted.read_text())
    assert writes >= 20
    for number in range(1, writes + 1):
        for after in (False, True):
            folder = tmp_path / f"killed-{number}-{after}"

            def killed(number: int = number, after: bool = after, folder: Path = folder) -> None:
                files.durable_write = at_write(number, lambda: os._exit(KILLED), after=after)
                run_it(spec, folder)

            assert in_child(killed) == KILLED
            assert in_child(lambda folder=folder: run_it(spec, folder)) == 0
            assert found_in(folder) == wanted, f"killed at write {number}, after: {after}"


def test_a_crash_during_a_resume_is_resumed(tmp_path: Path) -> None:
    spec = spec_for("darts", tmp_path)
    assert in_child(lambda: run_it(spec, tmp_path / "whole")) == 0
    folder = tmp_path / "killed"
    for number in (12, 3, 5, 4, 6):

        def killed(number: int = number) -> None:
            files.durable_write = at_write(number, lambda: os._exit(KILLED), after=True)
            run_it(spec, folder)

        assert in_child(killed) == KILLED
    assert in_child(lambda: run_it(spec, folder)) == 0
    assert found_in(folder) == found_in(tmp_path / "whole")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(5, "I/O error")])
def test_a_disk_that_refuses_at_any_write_is_told_and_gone_on_from(
    tmp_path: Path, error: OSError
) -> None:
    spec = spec_for("evolution", tmp_path)
    assert in_child(lambda: run_it(spec, tmp_path / "whole")) == 0
    wanted = found_in(tmp_path / "whole")

    def refuse() -> None:
        raise error

    for number in range(5, 21, 3):
        folder = tmp_path / f"refused-{number}"

        def refused(number: int = number, folder: Path = folder) -> None:
            files.durable_write = at_write(number, refuse, after=False)
            with pytest.raises(StorageError, match=error.strerror):
                run_it(spec, folder)

        assert in_child(refused) == 0
        assert in_child(lambda folder=folder: run_it(spec, folder)) == 0
        assert found_in(folder) == wanted

"""A run killed before and after every durable write, then resumed, ends as one never killed.

Each kill is `os._exit` in a forked child, so that nothing is cleaned up: no `finally`, no buffer
flushed, no lock released by Python.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sqlite3
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from test_spec import tables

from nasengine import files
from nasengine.cli import main
from nasengine.errors import Interrupted, RunFolderError, StorageError
from nasengine.reporter import Reporter
from nasengine.runs.experiment import Experiment
from nasengine.runs.run import run
from nasengine.runs.run_folder import RunFolder
from nasengine.trial import Trial

KILLED = 99

SPACE = '''
from nasengine import SearchSpace
from nasengine.testing.stubs import _conv, _double, _head, _pointwise


class Three(SearchSpace):
    """Three slots in a row: eight architectures."""

    def define(self, graph):
        x = graph.input(3)
        for name in ("a", "b", "c"):
            choices = {"pointwise": _pointwise, "conv": _conv}
            x = graph.slot(name, x, choices, out=4, baselines={"double": _double})
        graph.output(graph.operation("head", x, _head, out=1))

    def references(self):
        return {"big": dict.fromkeys(("a", "b", "c"), "double")}
'''

STRATEGIES: dict[str, dict[str, Any]] = {
    "darts": {"iterations": 10, "batch": 2, "arch_every": 2, "save_seconds": 0, "top_k": 2},
    "evolution": {"population": 3, "sample": 2},
    "optuna": {},
    "nni": {},
}
TRIALS = {"darts": 2, "evolution": 7, "optuna": 7, "nni": 7}
WRITES = {"darts": 28, "evolution": 25, "optuna": 25, "nni": 25}
"""How many durable writes each run makes at least; each is killed before and after."""

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
    (folder / "three.py").write_text(SPACE)
    table["space"] = {"name": "three.py:Three"}
    del table["estimators"]["parameters"]
    table["objectives"] = {"firsts": "max"}
    path = folder / f"{strategy}.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def begin_child(work: Callable[[], None]) -> int:
    """Run in a forked child; return its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 pytest must not go on in the child
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def end_child(child: int) -> int:
    """Wait for a child; return its exit status."""
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked child; return its exit status."""
    return end_child(begin_child(work))


def all_well(works: Iterable[Callable[[], None]], at_once: int = 2) -> None:
    """Run every work in a child of its own, some at once; all must succeed."""
    children: list[int] = []
    for work in works:
        if len(children) == at_once:
            assert end_child(children.pop(0)) == 0
        children.append(begin_child(work))
    assert [end_child(child) for child in children] == [0] * len(children)


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
    monkeypatch.setattr("nasengine.delivery.picture.draw", lambda *_, **__: None)


def whole_run(spec: Path, folder: Path) -> int:
    """Run to the end in a child; return the number of durable writes.

    What the child imported is imported here, so that later children need not.
    """
    counted = folder.with_suffix(".json")

    def whole() -> None:
        writes = 0

        @contextmanager
        def count(path: Path) -> Iterator[None]:
            nonlocal writes
            writes += 1
            yield

        files.durable_write = count
        run_it(spec, folder)
        counted.write_text(json.dumps([writes, sorted(sys.modules)]))

    assert in_child(whole) == 0
    writes, modules = json.loads(counted.read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in modules:
            with suppress(Exception):
                importlib.import_module(module)
        # Shapes are inferred once here: the first time takes longest, and starts no thread.
        Experiment.load(spec).search(folder)
    return int(writes)


def survives(spec: Path, folder: Path, wanted: Any, number: int, after: bool) -> None:
    """Kill a run at one write, go on with it, and compare what it found."""

    def killed() -> None:
        files.durable_write = at_write(number, lambda: os._exit(KILLED), after=after)
        run_it(spec, folder)

    assert in_child(killed) == KILLED
    run_it(spec, folder)
    assert found_in(folder) == wanted, f"killed at write {number}, after: {after}"
    shutil.rmtree(folder)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_at_every_durable_write(strategy: str, tmp_path: Path) -> None:
    spec = spec_for(strategy, tmp_path)
    writes = whole_run(spec, tmp_path / "whole")
    wanted = found_in(tmp_path / "whole")
    assert writes >= WRITES[strategy]
    points = [(number, after) for number in range(1, writes + 1) for after in (False, True)]
    all_well(
        partial(survives, spec, tmp_path / f"killed-{number}-{after}", wanted, number, after)
        for number, after in points
    )


def test_the_kill_points_are_two_hundred() -> None:
    assert 2 * sum(WRITES.values()) >= 200


def test_a_crash_during_a_resume_is_resumed(tmp_path: Path) -> None:
    spec = spec_for("darts", tmp_path)
    whole_run(spec, tmp_path / "whole")
    folder = tmp_path / "killed"
    for number in (12, 3, 5, 4, 6):

        def killed(number: int = number) -> None:
            files.durable_write = at_write(number, lambda: os._exit(KILLED), after=True)
            run_it(spec, folder)

        assert in_child(killed) == KILLED
    assert in_child(lambda: run_it(spec, folder)) == 0
    assert found_in(folder) == found_in(tmp_path / "whole")


def refused_at(spec: Path, folder: Path, wanted: Any, number: int, error: OSError) -> None:
    """Let the disk refuse one write, see it told, go on when it no longer does, and compare."""

    def refuse() -> None:
        raise OSError(error.errno, error.strerror)

    def refused() -> None:
        files.durable_write = at_write(number, refuse, after=False)
        with pytest.raises((StorageError, RunFolderError), match=error.strerror):
            run_it(spec, folder)

    assert in_child(refused) == 0
    run_it(spec, folder)
    assert found_in(folder) == wanted, f"refused at write {number}"
    shutil.rmtree(folder)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(5, "I/O error")])
def test_a_disk_that_refuses_any_write_is_told_and_gone_on_from(
    tmp_path: Path, error: OSError
) -> None:
    spec = spec_for("darts", tmp_path)
    writes = whole_run(spec, tmp_path / "whole")
    wanted = found_in(tmp_path / "whole")
    # Every second one, and the other half for the other error.
    numbers = range(1 + (error.errno == 5), writes + 1, 2)
    all_well(
        partial(refused_at, spec, tmp_path / f"refused-{number}", wanted, number, error)
        for number in numbers
    )


def test_the_search_may_be_split_anywhere(tmp_path: Path) -> None:
    """Stopped after k trials and gone on with, for every k."""
    spec = spec_for("evolution", tmp_path)
    whole_run(spec, tmp_path / "whole")
    wanted = found_in(tmp_path / "whole")

    def split(k: int) -> None:
        folder = tmp_path / f"split-{k}"
        stop = threading.Event()

        class Stopping(Reporter):
            def trial(self, trial: Trial) -> None:
                if trial.number == k - 1:
                    stop.set()

        experiment = Experiment.load(spec)
        with RunFolder.create_at(folder, experiment, ["test"]) as run_folder:
            if k == 0:
                stop.set()
            with pytest.raises(Interrupted):
                run(experiment, run_folder, Stopping(), stop)
        run_it(spec, folder)
        assert found_in(folder) == wanted, f"split at {k}"

    all_well(partial(split, k) for k in range(TRIALS["evolution"]))


def test_a_folder_whose_run_never_began_says_so(tmp_path: Path) -> None:
    """Killed while the folder was made: nothing is lost, and the next run takes another name."""
    spec = spec_for("evolution", tmp_path)
    experiment = Experiment.load(spec)
    (tmp_path / "runs").mkdir()
    for number in (1, 2, 3, 4):  # spec.toml, environment.json, history.sqlite, identity.json

        def killed(number: int = number) -> None:
            files.durable_write = at_write(number, lambda: os._exit(KILLED), after=number < 4)
            RunFolder.create(tmp_path / "runs", experiment, ["test"])

        assert in_child(killed) == KILLED
    folders = sorted((tmp_path / "runs").iterdir())
    assert [folder.name for folder in folders] == ["tiny-1", "tiny-2", "tiny-3", "tiny-4"]
    for folder in folders:
        with pytest.raises(RunFolderError, match=r"ended before it began; nasengine run .*spec"):
            RunFolder(folder)
    with RunFolder.create(tmp_path / "runs", experiment, ["test"]) as run_folder:
        assert run_folder.path.name == "tiny-5"


def test_a_finished_run_does_nothing_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_for("evolution", tmp_path)
    folder = tmp_path / "whole"
    whole_run(spec, folder)

    def state() -> dict[str, tuple[int, int]]:
        kept = [e for e in files.walk(folder) if e.name not in ("owner.json", "lock")]
        return {e.path: (e.stat().st_mtime_ns, e.stat().st_size) for e in kept if e.is_file()}

    before = state()
    code = ["--code", str(tmp_path / "three.py"), "--code", "nasengine.testing.stubs"]
    assert main(["resume", str(folder), *code]) == 0
    assert "is finished" in capsys.readouterr().out
    assert state() == before

"""Run folders of earlier formats are kept as they were written, and are still read."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import tomli_w
from test_spec import tables

from nasengine.cli import main
from nasengine.errors import RunFolderError
from nasengine.files import write_json
from nasengine.runs.experiment import Experiment
from nasengine.runs.identity import identity
from nasengine.runs.run_folder import RunFolder
from nasengine.runs.storage import Storage
from nasengine.studies.summary import summarise
from nasengine.trial import Status

CODE = ["--code", "nasengine.testing.stubs"]


@pytest.fixture(params=["run_format_1"])
def kept(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root / "tests" / "fixtures" / request.param, tmp_path / "kept"))


def test_a_finished_run_is_read(kept: Path) -> None:
    found = summarise(kept / "finished", {})
    assert (found.seed, found.trials, found.goals) == (3, 3, ("firsts",))
    storage = Storage(kept / "finished" / "history.sqlite", read_only=True)
    assert [trial.status for trial in storage.history()] == [Status.COMPLETE] * 3
    assert set(storage.references()) == {"big"}
    storage.close()
    assert main(["report", str(kept / "finished")]) == 0
    assert (kept / "finished" / "report.html").stat().st_size > 1000


def test_an_interrupted_run_is_read_and_gone_on_with(kept: Path) -> None:
    folder = kept / "interrupted"
    with RunFolder(folder) as run_folder:
        assert len(run_folder.storage.history().complete) == 2
        # Another machine has other versions of packages, which alone would be refused.
        now = identity(Experiment.load(folder / "spec.toml"))
        before = dict(run_folder.identity)
        write_json(folder / "identity.json", {**before, "packages": now["packages"]})
    assert main(["resume", str(folder), *CODE, "-q"]) == 0
    histories = [
        [
            (t.number, t.key, t.architecture, t.status, t.measurements)
            for t in Storage(kept / name / "history.sqlite", read_only=True).history()
        ]
        for name in ("interrupted", "finished")
    ]
    assert histories[0] == histories[1]


def test_other_versions_of_packages_are_named(kept: Path) -> None:
    folder = kept / "interrupted"
    with RunFolder(folder) as run_folder:
        packages = {**run_folder.identity["packages"], "torch": "1.0"}
        write_json(folder / "identity.json", {**run_folder.identity, "packages": packages})
        with pytest.raises(RunFolderError, match=r"packages\.torch: was '1\.0', is "):
            run_folder.check_identity(Experiment.load(folder / "spec.toml"))


# Code files, once kept by name alone.


@pytest.fixture
def own_code(tmp_path: Path) -> Experiment:
    """Two code files of one name."""
    table = tables()
    for kind, name, base in (("p", "space", "TinySpace"), ("q", "firsts", "CountingEstimator")):
        file = tmp_path / kind / "mine.py"
        file.parent.mkdir()
        file.write_text(f"from nasengine.testing.stubs import {base} as Mine\n")
        where = table if name == "space" else table["estimators"]
        where[name] = {"name": f"{kind}/mine.py:Mine"}
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(table))
    return Experiment.load(path)


@pytest.mark.parametrize("changed", ["p", "q"])
def test_of_two_code_files_of_one_name_either_may_have_changed(
    tmp_path: Path, own_code: Experiment, changed: str
) -> None:
    with RunFolder.create_at(tmp_path / "run", own_code, []) as run_folder:
        run_folder.check_identity(own_code)
        file = tmp_path / changed / "mine.py"
        file.write_text(file.read_text() + "# changed\n")
        where = {"p": "space", "q": "estimators.firsts"}[changed]
        with pytest.raises(RunFolderError, match=rf"code\.{where}\.mine\.py: was '"):
            run_folder.check_identity(own_code)


def test_code_files_kept_by_name_alone_are_still_compared(
    tmp_path: Path, own_code: Experiment
) -> None:
    with RunFolder.create_at(tmp_path / "run", own_code, []) as run_folder:
        file = tmp_path / "q" / "mine.py"
        code = {"mine.py": hashlib.sha256(file.read_bytes()).hexdigest()}
        write_json(tmp_path / "run" / "identity.json", {**run_folder.identity, "code": code})
        run_folder.check_identity(own_code)
        file.write_text("changed")
        with pytest.raises(RunFolderError, match=r"code\.mine\.py: was '"):
            run_folder.check_identity(own_code)


# Settings that plugins had not when a run began.


def test_a_run_goes_on_with_the_defaults_of_settings_that_came_since(tmp_path: Path) -> None:
    table = {**tables(), "strategy": {"name": "darts", "cost": {"parameters": {"target": 99}}}}
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(table))
    experiment = Experiment.load(path)
    with RunFolder.create_at(tmp_path / "run", experiment, []) as run_folder:
        kept = dict(run_folder.identity)
        spec = kept["spec"]
        # One of a plugin, of a table of a plugin's, of a new table, of a table among several.
        del spec["space"]["classes"], spec["strategy"]["weights"]["schedule"]
        del spec["strategy"]["alphas"], spec["strategy"]["cost"]["parameters"]["beta"]
        write_json(tmp_path / "run" / "identity.json", {**kept, "spec": spec})
        run_folder.check_identity(experiment)
        for key, value in (("space.classes", 1), ("strategy.weights.schedule", "cosine")):
            given = Experiment.load(path, [f"{key}={value}"])
            with pytest.raises(RunFolderError, match=f"spec.{key}: was not there, is '?{value}'?"):
                run_folder.check_identity(given)

"""Any network of a run, delivered as the best one is: the command, and Python."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from safetensors.torch import load_file
from test_spec import tables

import nasengine
from nasengine.cli import main
from nasengine.errors import DataError, RunFolderError
from nasengine.reporter import Progress, Reporter
from nasengine.testing.stubs import TinySegmentation

CODE = ["--code", "nasengine.testing.stubs"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose trials 0 and 2 are trained, trial 1 broke a limit before."""
    folder = tmp_path_factory.mktemp("exported")
    table: dict[str, Any] = tables()
    table["estimators"]["iou"] = {"name": "trained", "iterations": 1}
    table["objectives"] = {"iou": "max"}
    (folder / "spec.toml").write_text(tomli_w.dumps(table))
    assert main(["run", str(folder / "spec.toml"), "--quiet", "--runs", str(folder)]) == 0
    run = folder / "tiny-1"
    shutil.rmtree(run / "trials" / "trial-1")
    return run


def untrained(run: Path, reason: str, status: str) -> None:
    with sqlite3.connect(run / "history.sqlite") as history:
        history.execute(
            "UPDATE trials SET status = ?, reason = ?, checksum = '' WHERE number = 1",
            (status, reason),
        )
    history.close()


def test_how_far_it_is_is_told(ran: Path, tmp_path: Path) -> None:
    works: list[tuple[str, int]] = []

    class Heard(Reporter):
        @contextmanager
        def progress(self, description: str, total: int, done: int = 0) -> Iterator[Progress]:
            works.append((description, total))
            with super().progress(description, total, done) as shown:
                yield shown

    nasengine.export(ran, tmp_path / "big", reference="big", code=CODE[1:], reporter=Heard())
    assert works == [("delivering big", 3), ("reading the data", 1)]


def test_a_reference_is_delivered_as_the_best_one_is(
    ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "big"
    assert main(["export", str(ran), "--reference", "big", "-o", str(place), *CODE]) == 0
    assert capsys.readouterr().out.strip() == str(place)
    names = {path.name for path in (ran / "best").iterdir()}
    assert {path.name for path in place.iterdir()} == names
    assert {"model.py", "weights.safetensors", "architecture.json"} <= names
    kept = (ran / "trials" / "reference-big" / "weights.safetensors").read_bytes()
    assert (place / "weights.safetensors").read_bytes() == kept
    told = json.loads((place / "metrics.json").read_text())
    beside = json.loads((ran / "best" / "metrics.json").read_text())
    assert told["network"] == "reference big"
    assert told["measurements"] == beside["references"]["big"]["measurements"]
    assert told["usage"] == beside["usage"]


def test_the_best_network_is_exported_to_the_same_bytes(ran: Path, tmp_path: Path) -> None:
    best = json.loads((ran / "best" / "metrics.json").read_text())["searched"]["trial"]
    for number, trial in enumerate((None, best)):
        place = nasengine.export(
            ran, tmp_path / str(number), trial=trial, code=["nasengine.testing.stubs"]
        )
        for name in ("model.py", "weights.safetensors", "architecture.json", "predictions.png"):
            assert (place / name).read_bytes() == (ran / "best" / name).read_bytes()


def test_where_it_goes_by_default(ran: Path) -> None:
    place = nasengine.export(ran, trial=2, code=["nasengine.testing.stubs"])
    assert place == ran / "exported" / "trial-2"
    weights = load_file(ran / "trials" / "trial-2" / "weights.safetensors")
    assert load_file(place / "weights.safetensors").keys() == weights.keys()


def test_a_folder_that_holds_something_is_left_alone(
    ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    command = ["export", str(ran), "--reference", "big", *CODE, "-o"]
    assert main([*command, str(tmp_path)]) == 2
    assert "holds files already; name another folder" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "mine.txt")]) == 2
    assert "is a file; a folder is needed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trial", "7"], "no trial 7; there are 0 to 2"),
        (["--reference", "bgi"], "no reference 'bgi'; did you mean 'big'"),
    ],
)
def test_what_is_not_there_is_told(
    ran: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(ran), *options, *CODE]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        ("infeasible", "parameters 300, at most 200", "(infeasible: parameters 300, at most 200)"),
        ("complete", "as trial 0", "it is the same network as trial 0: export that one"),
    ],
)
def test_a_network_without_weights_is_told_with_what_to_do(
    ran: Path, status: str, reason: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    untrained(ran, reason, status)
    assert main(["export", str(ran), "--trial", "1", *CODE]) == 2
    told = capsys.readouterr().err
    assert "trial 1 has no weights" in told and said in told
    assert not (ran / "exported" / "trial-1").exists()


def test_weights_that_do_not_fit_leave_nothing_behind(ran: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(ran, copied)
    (copied / "trials" / "reference-big" / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunFolderError, match="damaged"):
        nasengine.export(
            copied, tmp_path / "out", reference="big", code=["nasengine.testing.stubs"]
        )
    assert not any((tmp_path / "out").iterdir())


def test_own_code_is_passed_again_and_two_names_are_one_too_many(
    ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(ran)]) == 2
    assert "add to the command: --code nasengine.testing.stubs\n" in capsys.readouterr().err
    with pytest.raises(RunFolderError, match="name one of them"):
        nasengine.export(ran, trial=0, reference="big", code=["nasengine.testing.stubs"])


def test_without_the_data_all_but_the_predictions_is_delivered(
    ran: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def gone(*_: object) -> None:
        raise DataError("/data: no such folder")

    monkeypatch.setattr(TinySegmentation, "load", gone)
    place = tmp_path / "big"
    assert main(["export", str(ran), "--reference", "big", "-o", str(place), *CODE]) == 0
    assert "warning: no predictions.png: /data: no such folder" in capsys.readouterr().err
    assert (place / "model.py").is_file() and not (place / "predictions.png").exists()


def test_other_packages_than_the_runs_are_no_obstacle(ran: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(ran, copied)
    identity = json.loads((copied / "identity.json").read_text())
    identity["packages"]["torch"] = "0.1"
    (copied / "identity.json").write_text(json.dumps(identity))
    assert main(["resume", str(copied), *CODE]) == 2
    assert main(["export", str(copied), "--trial", "0", "-o", str(tmp_path / "o"), *CODE]) == 0
    identity["space"] = "another"
    (copied / "identity.json").write_text(json.dumps(identity))
    assert main(["export", str(copied), "--trial", "0", "-o", str(tmp_path / "p"), *CODE]) == 2

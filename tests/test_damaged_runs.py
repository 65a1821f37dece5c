"""Every JSON file of a run, damaged by type, structure, cuts and bytes: named, or no difference."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from test_input_fuzz import TOKENS, damaged
from test_spec import tables

from nasengine.cli import main
from nasengine.runs.spec import read_toml

ROUNDS = 160 if os.environ.get("NASENGINE_SLOW") else 80
"""Damages of each run's files; every file gets its share."""

CODE = ["--code", "nasengine.testing.stubs"]
VALUES: list[Any] = [
    None, True, -1, 0, 2.5, 10**30, 10**400, "", "x", [], [1], ["x"], {}, {"a": 1}, [[]],
]  # fmt: skip
ENDS = (b"[" * 100_000, b"", b"\xff\xfe\x00", b"null", b"[]", b"{}", b"NaN", b'"\\ud800"')

RUNS: dict[str, dict[str, Any]] = {
    "darts": {
        "strategy": {
            "name": "darts",
            "iterations": 6,
            "batch": 2,
            "arch_every": 2,
            "log_every": 2,
            "cost": {"parameters": 0.3},
        },
        "estimators": {
            "parameters": {},
            "iou": {"name": "trained", "iterations": 2, "batch": 2, "seeds": 2},
        },
        "objectives": {"iou": "max", "parameters": {"at_most": "100 k"}},
        "budget": {"trials": 1},
    },
    "evolution": {
        "strategy": {"name": "evolution", "population": 3},
        "estimators": {"parameters": {}, "iou": {"name": "trained", "iterations": 2, "batch": 2}},
        "objectives": {"iou": "max", "parameters": "min"},
        "budget": {"trials": 3},
    },
}


@pytest.fixture(scope="module", params=RUNS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    table = {**tables(), "device": "cpu", "threads": 1, "references": ["big"]}
    table.update(RUNS[request.param])
    (folder / "spec.toml").write_text(tomli_w.dumps(table))
    assert main(["run", str(folder / "spec.toml"), "--runs", str(folder / "runs"), "-q"]) == 0
    run = folder / "runs" / "tiny-1"
    if request.param == "evolution":  # The engine keeps the tables that a strategy asks for.
        from nasengine.runs.experiment import Experiment

        Experiment.load(run / "spec.toml").search(run).cost_table("parameters")
    return run


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def changed(value: Any, path: tuple[Any, ...], rng: random.Random) -> Any:
    """Put another value at a path, take away what is there, or add to it."""
    if not path:
        return rng.choice(VALUES)
    at = value
    for key in path[:-1]:
        at = at[key]
    kind = rng.randrange(5)
    if kind == 0:
        del at[path[-1]]
    elif kind == 1 and isinstance(at, dict):
        at[rng.choice(["x", "", "another"])] = at.pop(path[-1])
    elif kind == 2 and isinstance(at, list):
        at.append(at[path[-1]])
    else:
        at[path[-1]] = rng.choice(VALUES)
    return value


def mutant(content: bytes, rng: random.Random) -> bytes:
    """Damage a file of JSON, mostly so that it is JSON still."""
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(ENDS)
    if kind < 0.3:
        return damaged(content, rng)
    value = json.loads(content)
    return json.dumps(changed(value, rng.choice(list(places(value))), rng)).encode()


def files_of(run: Path) -> list[Path]:
    found = sorted(path.relative_to(run) for path in run.rglob("*.json"))
    return [path for path in found if path.name != "owner.json"]


def trials_of(run: Path) -> int:
    return int(read_toml(run / "spec.toml")["budget"]["trials"])


def answers(run: Path, tmp_path: Path, more: int, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """Run every command that reads a run; return the status and the words of each."""
    commands = [
        ["report", str(run), "-o", str(tmp_path / "r.html")],
        ["compare", str(run)],
        ["export", str(run), "-o", str(tmp_path / "export"), *CODE],
        ["export", str(run), "--reference", "big", "-o", str(tmp_path / "export"), *CODE],
        ["resume", str(run), *CODE, "-q", "--set", f"budget.trials={more}"],
    ]
    found = []
    for command in commands:
        shutil.rmtree(tmp_path / "export", ignore_errors=True)
        capsys.readouterr()
        found.append((command[0], main(command), capsys.readouterr().err))
    return found


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures and ONNX take most of the time, and read nothing."""
    monkeypatch.setattr("nasengine.delivery.picture.draw", lambda *_, **__: None)
    monkeypatch.setattr("nasengine.delivery.onnx_model.export_onnx", lambda *_, **__: None)
    monkeypatch.setattr("nasengine.delivery.export.export_python", lambda *_, **__: None)


def check(found: list[Any], name: str, allowed: tuple[int, ...] = (0, 2)) -> Counter[int]:
    """Hold every answer to the promise: done, or refused with a line that names the file."""
    for command, status, told in found:
        assert status in allowed, (command, told)
        assert "Traceback" not in told
        if status:
            assert name in told, (command, told)
            assert len(told) < 4000
    return Counter(status for _, status, _ in found)


@pytest.mark.timeout(900)
def test_every_damaged_json_file_is_named_or_makes_no_difference(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, statuses = random.Random(0), Counter[int]()
    names = files_of(finished)
    assert {"identity.json", "environment.json", "objectives.json", "data.json"} <= {
        name.name for name in names
    }
    more = trials_of(finished)
    for number in range(ROUNDS):
        run = tmp_path / f"run-{number}"
        shutil.copytree(finished, run)
        name = names[number % len(names)]
        (run / name).write_bytes(mutant((run / name).read_bytes(), rng))
        # One more trial makes a resume search on, which reads most.
        found = answers(run, tmp_path, more + (number // len(names)) % 2, capsys)
        statuses += check(
            found, run.name if name.name in ("identity.json", "data.json") else name.name
        )
        shutil.rmtree(run)
    assert statuses[2] > ROUNDS / 2


def test_damaged_lines_of_a_log_are_left_out_and_it_is_said(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(1)
    lines = (finished / "log.jsonl").read_bytes().splitlines()
    for number in range(ROUNDS):
        run = tmp_path / f"run-{number}"
        shutil.copytree(finished, run)
        broken = list(lines)
        at = rng.randrange(len(lines))
        broken[at] = mutant(lines[at], rng).replace(b"\n", b" ")
        (run / "log.jsonl").write_bytes(b"\n".join(broken))
        assert main(["report", str(run)]) == 0
        shutil.rmtree(run)
    said = "a line is not as written"
    (finished / "log.jsonl").write_bytes(b"\n".join([*lines, b'{"kind": "warning", "text": 3}']))
    assert main(["report", str(finished)]) == 0
    assert said in (finished / "report.html").read_text()
    (finished / "log.jsonl").write_bytes(b"\n".join([*lines, b'{"kind": "a plugin\'s own"}']))
    assert main(["report", str(finished)]) == 0
    assert said not in (finished / "report.html").read_text()


COLUMNS = ("architecture", "measurements", "key", "status", "reason", "seconds")


@pytest.mark.timeout(900)
def test_a_history_with_damaged_values_is_named(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, statuses = random.Random(2), Counter[int]()
    more = trials_of(finished) + 1
    for number in range(ROUNDS // 4):
        run = tmp_path / f"run-{number}"
        shutil.copytree(finished, run)
        with closing(sqlite3.connect(run / "history.sqlite")) as history, history:
            table = rng.choice(["trials", "trials", "reference_networks", "facts"])
            column = "value" if table == "facts" else rng.choice(COLUMNS)
            (before,) = history.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone()
            is_json = column in ("architecture", "measurements", "value")
            after = mutant(before.encode(), rng).decode("utf-8", "replace") if is_json else None
            if after is None:
                after = rng.choice([b"\xff", 3, "x", *TOKENS[:4]])
            key = {"facts": "name", "trials": "number", "reference_networks": "name"}[table]
            (row,) = history.execute(f"SELECT {key} FROM {table} LIMIT 1").fetchone()
            history.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (after, row))
        found = answers(run, tmp_path, more, capsys)
        told = check(found, "history.sqlite", (0, 2))
        # The export of a reference reads no trial, that of a trial and compare no reference.
        least = {"trials": 4, "reference_networks": 3, "facts": 0}[table]
        assert after == before or told[2] >= least, (table, column, before, after, found)
        statuses += told
        shutil.rmtree(run)
    assert statuses[2] > 0

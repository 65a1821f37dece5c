"""A user's own file in a run: the printed command works, its unit is a unit."""

from __future__ import annotations

import shlex
import threading
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from test_spec import tables

from nasengine.cli import main
from nasengine.errors import Interrupted, SpecError
from nasengine.quantities import parse_quantity
from nasengine.runs import session
from nasengine.runs.experiment import Experiment

OWN = '''
from nasengine import Estimator, Measurement, Metric

class Energy(Estimator):
    """Nanojoules."""
    effort = 0

    def metrics(self, search):
        return (Metric("energy", "nJ", "min"),)

    def measure(self, candidate):
        return {"energy": Measurement(20_800.0)}
'''


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "energy.py").write_text(OWN)
    table: dict[str, Any] = tables()
    table["estimators"]["energy"] = {"name": "energy.py:Energy"}
    table["objectives"]["energy"] = {"at_most": "90000 nJ"}
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(table))
    monkeypatch.chdir(tmp_path)
    return path


def test_the_printed_command_goes_on_with_own_code(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(session, "go_on", interrupted)
        assert main(["run", str(spec), "--quiet"]) == 130
    told = capsys.readouterr().err
    command = shlex.split(told.partition("to go on: ")[2])
    assert command[:3] == ["nasengine", "resume", "runs/tiny-1"]
    assert "energy.py" in command
    assert main([*command[1:], "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "20.80k nJ" in printed and "e+04" not in printed


def test_code_that_is_not_there_is_told(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", str(spec), "--quiet"])
    capsys.readouterr()
    assert main(["resume", "runs/tiny-1", "--code", "nothere.py"]) == 2
    assert "--code nothere.py: no such file" in capsys.readouterr().err


def test_code_of_another_run_is_told_with_what_this_one_has(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", str(spec), "--quiet"])
    capsys.readouterr()
    (spec.parent / "power.py").write_text("raise SystemExit('never imported')")
    code = ["--code", "nasengine.testing.stubs", "--code", "energy.py", "--code", "power.py"]
    assert main(["resume", "runs/tiny-1", *code]) == 2
    told = capsys.readouterr().err
    assert "--code power.py: no code of runs/tiny-1; allowed: energy.py, nasengine.test" in told


def test_what_to_add_to_the_command_is_told(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", str(spec), "--quiet"])
    capsys.readouterr()
    assert main(["resume", "runs/tiny-1"]) == 2
    told = capsys.readouterr().err.strip()
    words = shlex.split(told.partition("if you trust it, add to the command: ")[2])
    assert "energy.py" in words
    (spec.parent / "energy.py").rename(spec.parent / "e.py")
    assert main(["resume", "runs/tiny-1"]) == 2
    assert capsys.readouterr().err.strip() == f"{told}, each file from where it is now"
    assert main(["resume", "runs/tiny-1", *words]) == 2


def test_the_file_that_is_passed_is_taken_before_one_of_its_name(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", str(spec), "--quiet"])
    other = spec.parent / "other"
    other.mkdir()
    (other / "energy.py").write_text("raise SystemExit('the wrong file')")
    code = ["--code", "nasengine.testing.stubs", "--code", "other/energy.py", "--code", "energy.py"]
    assert main(["resume", "runs/tiny-1", *code]) == 0


@pytest.mark.parametrize(
    ("text", "value"), [("90 nJ", 90.0), ("20k nJ", 20e3), ("1.5M nJ", 1.5e6), ("20k", 20e3)]
)
def test_a_limit_may_have_the_metrics_own_unit(text: str, value: float) -> None:
    assert parse_quantity(text, where="at_most", unit="nJ").to("nJ", where="at_most") == value


def test_another_unit_than_the_own_is_refused_with_it(spec: Path) -> None:
    table = Experiment.load(spec, ["objectives.energy.at_most=90 mJ"])
    with pytest.raises(SpecError, match=r"unknown unit 'mJ'; .*llowed: nJ, k, M"):
        table.search(spec.parent, stop=threading.Event())
    with pytest.raises(SpecError, match="unknown unit 'nJ'"):
        parse_quantity("90 nJ", where="at_most", unit="ms")


@pytest.mark.parametrize("ending", ["import sys\nsys.exit()", "raise SystemExit(3)", "1 / 0"])
def test_a_file_that_ends_the_process_is_told_with_its_line(
    ending: str, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (spec.parent / "energy.py").write_text(f"{OWN}\n{ending}\n")
    line = len(OWN.splitlines()) + 1 + len(ending.splitlines())
    assert main(["check", str(spec)]) == 2
    told = capsys.readouterr().err
    assert f"{spec.parent / 'energy.py'}, line {line}: " in told
    assert "SystemExit" in told or "ZeroDivisionError" in told


@pytest.mark.parametrize(
    ("device", "count", "said"),
    [
        ("cuda:9", 2, "device: 'cuda:9' is asked for; on this machine: cpu, cuda:0, cuda:1"),
        ("cuda", 0, "'cuda' is asked for, and torch finds no CUDA; on this machine: cpu"),
        ("mps", 2, "device: auto, cpu, cuda or cuda:N (as in cuda:1) is"),
        ("cuda:" + "9" * 5000, 2, "device: auto, cpu, cuda or cuda:N (as in cuda:1) is"),
    ],
)
def test_a_device_that_is_not_there_is_told_with_those_that_are(
    device: str,
    count: int,
    said: str,
    spec: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert main(["check", str(spec), "--set", f"device={device}"]) == 2
    assert said in capsys.readouterr().err

"""The forms in which one architecture is given to `nasengine measure`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from test_spec import tables

from nasengine.cli import main
from nasengine.errors import ArchitectureError
from nasengine.runs.experiment import Experiment


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(tables()))
    return path


def measured(spec: Path, given: str, capsys: pytest.CaptureFixture[str]) -> Any:
    assert main(["measure", str(spec), "--architecture", given, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_form_is_the_same_architecture(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = Experiment.load(spec).space
    choices = {slot: allowed[-1] for slot, allowed in space.decisions.items()}
    plain = spec.parent / "plain.json"
    plain.write_text(json.dumps(choices))
    printed = ", ".join(f"{slot} {choice}" for slot, choice in choices.items())
    for given in (str(plain), space.format(space.architecture(choices)), printed):
        assert measured(spec, given, capsys)["architecture"] == choices


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("{first}=nothing,{rest}", "'nothing' is no choice"),
        ("{first}=x", "is missing"),
        ("{first}=x,{first}=y,{rest}", "stands twice"),
        ("{first}=x,", "no list of decision=choice"),
        ("nothing=x,{rest}", "unknown decision 'nothing'"),
        ("nothing", "or decision=choice"),
    ],
)
def test_what_is_wrong_is_named(
    spec: Path, capsys: pytest.CaptureFixture[str], change: str, told: str
) -> None:
    space = Experiment.load(spec).space
    (first, _), *others = space.decisions.items()
    rest = ",".join(f"{slot}={allowed[0]}" for slot, allowed in others)
    given = change.format(first=first, rest=rest)
    assert main(["measure", str(spec), "--architecture", given]) == 2
    error = capsys.readouterr().err
    assert "--architecture" in error and told in error


def test_a_plain_object_is_checked(spec: Path) -> None:
    from nasengine.architecture import read_architecture

    path = spec.parent / "plain.json"
    path.write_text('{"first": 3}')
    with pytest.raises(ArchitectureError, match=r"plain\.json: decision .first.: 3 is no choice"):
        read_architecture(path, Experiment.load(spec).space)

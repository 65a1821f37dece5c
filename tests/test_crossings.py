"""Where features meet: workers, relative limits, final estimators, resume, what is delivered."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from test_spec import tables

from nasengine.architecture import Architecture
from nasengine.cli import commands, main
from nasengine.cli.parser import make_parser
from nasengine.errors import Interrupted, SearchFailed
from nasengine.history import History
from nasengine.runs.engine import Engine
from nasengine.runs.experiment import Experiment
from nasengine.runs.goals import not_yet_measured
from nasengine.runs.storage import Storage
from nasengine.search import Search
from nasengine.strategy import Strategy
from nasengine.testing.stubs import TinySegmentation, tiny_search
from nasengine.trial import Status

OWN = '''
import os
from nasengine import Estimator, Measurement, Metric


class Timed(Estimator):
    """Says 1 for a small network and 2 for a reference; neither counted nor in a table."""

    def metrics(self, search):
        return (Metric("timed", "ms", "min"),)

    def measure(self, candidate):
        return {"timed": Measurement(2.0 if "double" in candidate.architecture.values() else 1.0)}


class Dying(Timed):
    """Takes its process down with it."""

    def measure(self, candidate):
        os._exit(3)
'''


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)


def write(**changes: Any) -> str:
    Path("spec.toml").write_text(tomli_w.dumps({**tables(), **changes}))
    return "spec.toml"


TIMED = {
    "estimators": {"timed": {"name": "own.py:Timed"}},
    "execution": {"isolate": True},
}


def test_a_limit_relative_to_what_workers_time_is_met_in_workers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = {"timed": {"goal": "min", "at_most": "60% of big"}}
    assert main(["run", write(**TIMED, objectives=wanted)]) == 0
    reference = next(line for line in capsys.readouterr().out.splitlines() if "big" in line)
    assert "timed 2.00 ms" in reference
    (with_limit,) = json.loads(Path("runs/tiny-1/objectives.json").read_text())
    known = {key: value for key, value in with_limit.items() if value is not None}
    assert known == {"metric": "timed", "goal": "min", "at_most": 1.2}


def test_a_final_estimator_that_dies_takes_nothing_of_the_winner_with_it() -> None:
    spec = write(
        **TIMED,
        objectives={"timed": "min"},
        final={"estimators": {"dying": {"name": "own.py:Dying"}}},
        references=[],
    )
    assert main(["run", spec]) == 0
    result = json.loads(Path("runs/tiny-1/best/metrics.json").read_text())
    assert result["searched"]["measurements"]["timed"]["value"] == 1.0


def test_a_limit_that_is_not_known_yet_is_left_out_and_not_made_up(tmp_path: Path) -> None:
    wanted = {"timed": {"goal": "min", "at_most": "60% of big"}}
    experiment = Experiment.load(Path(write(estimators=TIMED["estimators"], objectives=wanted)))
    search = experiment.search(tmp_path, reference_value=not_yet_measured)
    assert not search.objectives.limits
    assert experiment.search(tmp_path).objectives.limits[0].at_most == 1.2


def test_data_are_loaded_once_for_all_forms_of_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = TinySegmentation.load
    monkeypatch.setattr(
        TinySegmentation, "load", lambda self, seed: [loaded.append(seed), load(self, seed)][1]
    )
    search = tiny_search(folder=tmp_path)
    assert replace(search, estimators={}).splits is search.splits
    other = replace(search, task=TinySegmentation(size=32), folder=tmp_path / "other")
    (tmp_path / "other").mkdir()
    assert other.splits.train.inputs.shape[-1] == 32
    assert len(loaded) == 2


class Fixed(Strategy):
    """Proposes the same again and again."""

    choices: tuple[str, str] = ("conv", "conv")

    def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
        if self.choices[0] == "raise":
            raise ZeroDivisionError("oh")
        return [Architecture(zip(("first", "second"), self.choices, strict=True))]


def engine_for(folder: Path, first: str) -> Engine:
    search = tiny_search(folder=folder, trials=3)
    return Engine(search, Fixed(choices=(first, "conv")), Storage(folder / "history.sqlite"))


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("convv", r"strategy: .*'first'.*'convv'.*did you mean 'conv'"),
        ("raise", r"strategy: ZeroDivisionError: oh \(test_crossings\.py, line \d+\)"),
    ],
)
def test_what_a_strategy_does_wrong_is_said_with_its_place(
    first: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SearchFailed, match=said):
        engine_for(tmp_path, first).run()


def test_an_architecture_that_is_proposed_again_is_not_measured_again(tmp_path: Path) -> None:
    history = engine_for(tmp_path, "conv").run()
    assert [t.status for t in history] == [Status.COMPLETE] * 3
    assert [t.reason for t in history] == ["", "as trial 0", "as trial 0"]
    assert len({t.value("firsts") for t in history}) == 1
    assert not (tmp_path / "trials" / "trial-1").exists()


def test_the_seconds_of_a_search_outlive_its_process(tmp_path: Path) -> None:
    engine = engine_for(tmp_path, "conv")
    storage = Storage(tmp_path / "other.sqlite")
    trial = engine.run()[0]
    storage.begin(replace(trial, status=Status.RUNNING), seconds=5.0)
    assert Storage(tmp_path / "other.sqlite").seconds == 5.0
    storage.finish(trial, seconds=7.0)
    assert Storage(tmp_path / "other.sqlite").seconds == 7.0


def test_nothing_of_an_earlier_winner_stays_beside_a_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = {"name": "trained", "iterations": 2, "batch": 2}
    spec = write(estimators={"iou": trained}, objectives={"iou": "max"}, references=[])
    assert main(["run", spec, "--set", "budget.trials=1"]) == 0
    best = Path("runs/tiny-1/best")
    assert (best / "model.py").is_file()
    monkeypatch.setattr(
        "nasengine.delivery.export.export_python", lambda *_: "no model.py: refused"
    )
    code = ["--code", "nasengine.testing.stubs"]
    assert main(["resume", "runs/tiny-1", *code, "--set", "budget.trials=2"]) == 0
    assert (best / "weights.safetensors").is_file()
    assert not (best / "model.py").exists()


@pytest.mark.parametrize("command", [commands.check, commands.run])
def test_a_signal_ends_what_comes_before_a_run_too(command: Any) -> None:
    stop = threading.Event()
    stop.set()
    name = command.__name__
    with pytest.raises(Interrupted):
        command(make_parser().parse_args([name, write()]), stop)
    assert not list(Path("runs").glob("tiny-*"))

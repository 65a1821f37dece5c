"""The command line as its user meets it: what it prints, what it leaves, its exit status."""

from __future__ import annotations

import json
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from test_spec import tables

import nasengine
from nasengine.cli import main
from nasengine.cli.terminal import TerminalReporter
from nasengine.runs.experiment import Experiment
from nasengine.runs.run import run
from nasengine.runs.run_folder import RunFolder
from nasengine.runs.spec import read_toml

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(tables()))
    return path


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def test_run_leaves_a_folder_that_tells_everything(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(spec)]) == 0
    folder = spec.parent / "runs" / "tiny-1"
    names = {path.name for path in folder.iterdir()}
    assert {"spec.toml", "environment.json", "history.sqlite", "log.jsonl", "best"} <= names
    metrics = json.loads((folder / "best" / "metrics.json").read_text())
    assert set(metrics["references"]) == {"big"}
    assert metrics["ratios"]["big"]["parameters"] < 1
    printed = capsys.readouterr().out
    assert "searched" in printed
    assert (
        "better than big" in printed or "worse than big" in printed or "level with big" in printed
    )
    assert main(["run", str(spec), "--quiet"]) == 0
    assert (spec.parent / "runs" / "tiny-2").is_dir()


def test_the_delivered_architecture_can_be_measured(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", str(spec)])
    best = spec.parent / "runs" / "tiny-1" / "best"
    found = json.loads((best / "metrics.json").read_text())["searched"]["measurements"]
    capsys.readouterr()
    given = str(best / "architecture.json")
    assert main(["measure", str(spec), "--architecture", given, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["measurements"]
    assert measured["parameters"]["value"] == found["parameters"]["value"]
    assert measured["parameters"]["unit"] == "parameters"


def test_the_resolved_spec_runs_again_to_the_same_result(spec: Path) -> None:
    main(["run", str(spec)])
    first = spec.parent / "runs" / "tiny-1"
    assert main(["run", str(first / "spec.toml")]) == 0
    assert trials(first) == trials(spec.parent / "runs" / "tiny-2")


def trials(folder: Path) -> list[Any]:
    connection = sqlite3.connect(folder / "history.sqlite")
    rows = connection.execute(
        "SELECT number, key, architecture, status, measurements, reason FROM trials ORDER BY number"
    ).fetchall()
    connection.close()
    return rows


def test_a_finished_run_resumes_to_nothing_and_more_budget_goes_on(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", str(spec)])
    folder = spec.parent / "runs" / "tiny-1"
    before = trials(folder)
    code = ["--code", "nasengine.testing.stubs"]
    assert main(["resume", str(folder), *code]) == 0
    assert "is finished" in capsys.readouterr().out
    assert trials(folder) == before
    assert main(["resume", str(folder), *code, "--set", "budget.trials=4"]) == 0
    assert "so far: 3 of 4 trials" in capsys.readouterr().out
    assert trials(folder)[:3] == before
    assert len(trials(folder)) == 4


def test_a_run_that_was_stopped_goes_on_to_the_same_history(spec: Path) -> None:
    main(["run", str(spec)])
    whole = trials(spec.parent / "runs" / "tiny-1")
    main(["run", str(spec), "--set", "budget.trials=1"])
    folder = spec.parent / "runs" / "tiny-2"
    moved = spec.parent / "elsewhere"
    shutil.move(folder, moved)
    code = ["--code", "nasengine.testing.stubs"]
    assert main(["resume", str(moved), *code, "--set", "budget.trials=3"]) == 0
    assert trials(moved) == whole


def test_resume_runs_no_code_that_only_the_folder_names(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", str(spec)])
    assert main(["resume", str(spec.parent / "runs" / "tiny-1")]) == 2
    told = capsys.readouterr().err
    assert "--code nasengine.testing.stubs" in told


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (("seed = 3", "seed = 4"), "spec.seed: was 3, is 4"),
        (("width = 4", "width = 5"), "spec.space.width: was 4, is 5"),
        (('name = "random"', 'name = "local_search"'), "spec.strategy"),
    ],
)
def test_resume_with_a_changed_spec_is_refused_with_the_changes(
    spec: Path, capsys: pytest.CaptureFixture[str], edit: tuple[str, str], told: str
) -> None:
    main(["run", str(spec), "--set", "budget.trials=1"])
    path = spec.parent / "runs" / "tiny-1" / "spec.toml"
    text = path.read_text().replace("strata = 10\n", "")
    assert edit[0] in text
    path.write_text(text.replace(*edit))
    code = ["--code", "nasengine.testing.stubs"]
    assert main(["resume", str(path.parent), *code]) == 2
    assert told in capsys.readouterr().err


def test_resume_may_change_the_budget_alone(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", str(spec)])
    assert main(["resume", "runs/tiny-1", "--set", "seed=4"]) == 2
    assert "may change budget.* and execution.* alone" in capsys.readouterr().err


def test_a_changed_package_is_named(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", str(spec), "--set", "budget.trials=1"])
    path = spec.parent / "runs" / "tiny-1" / "identity.json"
    identity = json.loads(path.read_text())
    identity["packages"]["torch"] = "2.4.0"
    path.write_text(json.dumps(identity))
    assert main(["resume", "runs/tiny-1", "--code", "nasengine.testing.stubs"]) == 2
    assert "packages.torch: was '2.4.0', is " in capsys.readouterr().err


def test_a_changed_package_is_accepted_where_the_user_says_so_and_it_is_kept(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", str(spec), "--set", "budget.trials=1"])
    run = spec.parent / "runs" / "tiny-1"
    path = run / "identity.json"
    identity = json.loads(path.read_text())
    kept = json.dumps({**identity, "packages": {**identity["packages"], "torch": "2.4.0"}})
    path.write_text(kept)
    resume = ["resume", "runs/tiny-1", "--code", "nasengine.testing.stubs"]
    resume += ["--set", "budget.trials=2"]
    capsys.readouterr()
    assert main(resume) == 2
    told = "nasengine resume runs/tiny-1 --accept-changes --code nasengine.testing.stubs"
    assert told in capsys.readouterr().err
    assert main([*resume, "--accept-changes", "-q"]) == 0
    told = "accepted, though changed since the run began: packages.torch: was '2.4.0', is "
    assert told in (run / "log.jsonl").read_text()
    assert "packages.torch: was &#x27;2.4.0&#x27;" in (run / "report.html").read_text()
    assert main(resume) == 0, "what was accepted is what the run is of now"


@pytest.mark.parametrize("key", ["seed", "space"])
def test_a_changed_spec_or_space_is_never_accepted(
    key: str, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", str(spec), "--set", "budget.trials=1"])
    path = spec.parent / "runs" / "tiny-1" / "identity.json"
    identity = json.loads(path.read_text())
    if key == "seed":
        identity["spec"]["seed"] = 77
    else:
        identity["space"] = "0" * 64
    path.write_text(json.dumps(identity))
    code = ["--code", "nasengine.testing.stubs", "--accept-changes"]
    capsys.readouterr()
    assert main(["resume", "runs/tiny-1", *code]) == 2
    told = capsys.readouterr().err
    assert "changed since the run began" in told and "--accept-changes" not in told


def test_one_folder_has_one_process(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", str(spec)])
    with RunFolder(spec.parent / "runs" / "tiny-1"):
        assert main(["resume", "runs/tiny-1"]) == 2
    assert "in use by process" in capsys.readouterr().err


def test_in_python_a_run_is_printed_as_a_line_and_told_of_as_here(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = nasengine.run(spec, reporter=TerminalReporter())
    assert repr(outcome) == (
        f"<Outcome in runs/tiny-1: trial {outcome.winner.number} of 3, parameters "
        f"{outcome.winner.value('parameters'):.0f}, firsts "
        f"{outcome.winner.value('firsts'):.3f}; beside big>"
    )
    told = capsys.readouterr().out
    assert all(f"trial {number}  " in told for number in range(3)) and "reference big" in told


@pytest.mark.parametrize("command", ["resume", "report", "export", "compare"])
@pytest.mark.parametrize(
    ("folder", "told"), [("nowhere", "nowhere: no such folder"), (".", ".: not a run's folder")]
)
def test_a_folder_that_is_no_run_is_refused(
    command: str, folder: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, folder]) == 2
    assert told in capsys.readouterr().err


def test_a_run_is_told_where_it_is_looked_for_in_the_wrong_place(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of the folder of all runs, or of an ablation; and where a run is run, not gone on with."""
    assert main(["run", str(spec), "-q"]) == 0
    for command in ("resume", "report", "export", "compare"):
        assert main([command, "runs"]) == 2
        assert "; it holds runs, as runs/tiny-1" in capsys.readouterr().err
    assert main(["run", "runs/tiny-1"]) == 2
    assert "; a run goes on by nasengine resume runs/tiny-1" in capsys.readouterr().err


def test_a_bad_spec_leaves_no_folder_and_no_traceback(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(spec), "--set", "space.widht=3"]) == 2
    told = capsys.readouterr().err
    assert "space.widht: unknown key; did you mean 'width'?" in told
    assert "Traceback" not in told
    assert not (spec.parent / "runs").exists()


def test_check_tells_size_shapes_and_costs(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(spec)]) == 0
    printed = capsys.readouterr().out
    assert "4 architectures" in printed
    assert "3x16x16 to 1x16x16" in printed
    assert "parameters: 57 to 281, half of the networks below" in printed
    assert main(["check", str(spec), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["costs"]["parameters"]["smallest"] < facts["costs"]["parameters"]["largest"]


TRAINING = '''
from nasengine import Estimator, Measurement, Metric
class Trains(Estimator):
    """Stands for one that takes hours."""
    effort = 2
    def metrics(self, search):
        return (Metric("quality", "", "max"),)
    def measure(self, candidate):
        open("measured", "w").close()
        return {"quality": Measurement(1.0)}
'''


def test_check_trains_no_reference_and_shows_its_limit_as_written(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (spec.parent / "own.py").write_text(TRAINING)
    table = tables()
    table["estimators"]["quality"] = {"name": "own.py:Trains"}
    table["objectives"]["quality"] = {"at_least": "90% of big"}
    spec.write_text(tomli_w.dumps(table))
    assert main(["check", str(spec), "--json"]) == 0
    told = {o["metric"]: o for o in json.loads(capsys.readouterr().out)["objectives"]}
    assert told["quality"]["limits"] == "at least 90% of big"
    assert told["parameters"]["limits"] == "at most 20.00M"
    assert not (spec.parent / "measured").exists()


def test_a_final_estimator_can_be_measured_by(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (spec.parent / "own.py").write_text(TRAINING)
    spec.write_text(
        tomli_w.dumps({**tables(), "final": {"estimators": {"late": {"name": "own.py:Trains"}}}})
    )
    words = ["measure", str(spec), "--architecture", "big", "--estimators", "late", "--json"]
    assert main(words) == 0
    assert set(json.loads(capsys.readouterr().out)["measurements"]) == {"late"}


FAILS = """
from nasengine import EstimationFailed, Estimator, Metric
class Fails(Estimator):
    def metrics(self, search):
        return (Metric("late", "s", "min"),)
    def measure(self, candidate):
        raise EstimationFailed("the machine is busy")
"""


def test_measure_tells_what_it_could_measure_where_an_estimator_fails(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (spec.parent / "own.py").write_text(FAILS)
    table = tables()
    table["estimators"]["late"] = {"name": "own.py:Fails"}
    spec.write_text(tomli_w.dumps(table))
    words = ["measure", str(spec), "--architecture", "big", "--estimators", "parameters,late"]
    assert main(words) == 1
    told = capsys.readouterr()
    assert "parameters" in told.out and "big: late: the machine is busy" in told.err
    assert main([*words, "--json"]) == 1
    told = capsys.readouterr()
    facts = json.loads(told.out)
    assert list(facts["measurements"]) == ["parameters"]
    assert facts["failed"] == {"late": "the machine is busy"}


def test_measure_names_what_it_cannot_find(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(spec), "--architecture", "bigg"]) == 2
    assert "did you mean 'big'?" in capsys.readouterr().err
    wanted = ["--architecture", "big", "--estimators", "parametres"]
    assert main(["measure", str(spec), *wanted]) == 2
    assert "did you mean 'parameters'?" in capsys.readouterr().err


def test_list_and_schema_know_every_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert "light_sdi" in listed["spaces"]
    assert listed["spaces"]["light_sdi"]["settings"]["width"]["default"] == "64"
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    names = [
        option["properties"]["name"].get("const") for option in schema["$defs"]["spaces"]["anyOf"]
    ]
    assert set(listed["spaces"]) <= set(names)
    assert main(["list", "space"]) == 2
    assert "did you mean 'spaces'?" in capsys.readouterr().err


def test_list_of_a_name_has_its_settings_nested_ones_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list"]) == 0
    everything = capsys.readouterr().out
    assert "  darts " in everything
    assert "iterations = " not in everything
    assert main(["list", "darts"]) == 0
    told = capsys.readouterr().out
    assert '    weights.optimiser = "sgd"  ' in told
    assert "evolution" not in told
    assert main(["list", "strategies"]) == 0
    assert "    population = " in capsys.readouterr().out
    assert main(["list", "drats"]) == 2
    assert "did you mean 'darts'?" in capsys.readouterr().err


def test_list_says_what_a_setting_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "darts", "zero_cost", "data"]) == 0
    told = capsys.readouterr().out
    lines = {line.partition(" = ")[0].strip(): line for line in told.splitlines()}
    assert lines["relaxation"].endswith('One of "softmax", "none", "gumbel".')
    assert '"naswot"' in lines["proxy"].partition("One of ")[2]
    assert lines["iterations"].endswith(" At least 1.")
    assert lines["weights.momentum"].endswith(" At least 0 and below 1.")
    assert lines["perturbation"].endswith(" 0 to 1.")
    assert "textures" in told and "optuna" not in told
    assert "`" not in told
    assert main(["list", "data", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["data"]["textures"]["settings"]["channels"]["allowed"] == "one of 1, 3"


def test_list_takes_classes_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(
        "from typing import Any, Literal\n"
        "from pydantic import ConfigDict, Field\n"
        "from nasengine import SearchSpace\n"
        "class Mine(SearchSpace):\n"
        "    kind_of: Literal['wide', 'deep'] = 'wide'\n"
        "    def define(self, graph): ...\n"
        "class Odd(Mine):\n"
        "    model_config = ConfigDict(arbitrary_types_allowed=True)\n"
        "    made: type(lambda: 0) = Field(default=len)\n"
        "class Other: ...\n"
    )
    assert main(["list", "mine.py:Mine", "mine.py:Odd"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("spaces\n  mine.py:Mine")
    assert 'kind_of = "wide"  One of "wide", "deep".' in told
    assert "    made = " in told
    assert main(["list", "mine.py:Mien"]) == 2
    assert "mine.py has no 'Mien'; did you mean 'Mine'? Allowed: Mine, Odd" in (
        capsys.readouterr().err
    )
    assert main(["list", "mine.py:Other"]) == 2
    assert "'mine.py:Other' is not a subclass of nasengine.Plugin" in capsys.readouterr().err


def test_every_reference_in_the_schema_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema"])
    text = capsys.readouterr().out
    definitions = json.loads(text)["$defs"]
    used = {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert used <= set(definitions)


def test_a_wrong_command_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serach"])
    assert caught.value.code == 2
    assert "serach" in capsys.readouterr().err


def test_an_interrupted_run_says_how_to_go_on(
    spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(experiment: Experiment, folder: RunFolder, reporter: Any, stop: Any) -> Any:
        stop.set()
        return run(experiment, folder, reporter, stop)

    monkeypatch.setattr("nasengine.runs.run.run", stopped)
    assert main(["run", str(spec)]) == 130
    assert "nasengine resume runs/tiny-1" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(spec.parent)
    assert main(["resume", "runs/tiny-1", "--code", "nasengine.testing.stubs"]) == 0
    assert len(trials(spec.parent / "runs" / "tiny-1")) == 3


@pytest.mark.parametrize(("load", "said"), [(0.4, False), (7.0, True)])
def test_check_says_when_its_times_are_those_of_a_busy_machine(
    load: float, said: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    example = Path(__file__).parents[1] / "examples" / "light_sdi.toml"
    assert main(["check", str(example)]) == 0
    assert ("on this machine under a load of 7.0 on 2 cores" in capsys.readouterr().out) is said


def test_examples_are_listed_and_copied_with_what_belongs_to_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["example"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert listed == sorted([p.stem for p in EXAMPLES.glob("*.toml")] + ["device_table"])
    for name in listed:
        assert main(["example", name, "-o", str(tmp_path / name)]) == 0
        told = shlex.split(capsys.readouterr().out.partition("\n\n")[2])
        spec = told[2]
        assert told[:2] == ["nasengine", "ablate" if name == "ablation" else "run"]
        needs_files = name in ("nas_bench_201", "nas_bench_macro", "own_images")
        assert any(word.endswith("=PATH") for word in told[3:]) is needs_files
        assert read_toml(Path(spec))["name"].replace("-", "_") == name
    own = {path.name for path in (tmp_path / "my_space").iterdir()}
    assert own == {"my_space.toml", "my_space.py"}
    assert (tmp_path / "device_table" / "device_table" / "one_thread.json").is_file()


def test_an_example_overwrites_nothing_and_its_nearest_name_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_space.py").write_text("mine")
    assert main(["example", "my_space", "-o", str(tmp_path)]) == 2
    assert "my_space.py: is there already; name another folder with -o" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["my_space.py"]
    assert main(["example", "my_spac"]) == 2
    assert "no example 'my_spac'; did you mean 'my_space'?" in capsys.readouterr().err


def test_without_a_command_the_commands_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "    resume       go on with an interrupted run" in capsys.readouterr().err


def test_a_key_as_an_option_is_told_how_keys_are_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "spec.toml", "--seed", "3"])
    assert "--seed 3; a key of the spec is set by --set KEY=VALUE" in capsys.readouterr().err


def test_a_word_that_is_no_command_is_told_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rn", "spec.toml"])
    assert ended.value.code == 2
    assert "COMMAND: 'rn': did you mean 'run'? Allowed: ablate, check" in capsys.readouterr().err


def test_the_package_runs_as_its_command_does() -> None:
    command = [sys.executable, "-m", "nasengine"]
    done = subprocess.run(
        [*command, "list", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "nothing" in done.stderr

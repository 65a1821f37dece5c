"""Ablations: every cell a run folder, skipped when complete, compared in one table."""

from __future__ import annotations

import csv
import datetime
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w
from test_spec import tables

from nasengine.cli import main
from nasengine.errors import Interrupted, SpecError, StorageError
from nasengine.reporter import Reporter
from nasengine.runs.experiment import Experiment
from nasengine.runs.run_folder import RunFolder
from nasengine.runs.storage import Storage
from nasengine.statistics import difference
from nasengine.studies import ablation, ablation_run
from nasengine.studies.ablation_run import _time_left, run_ablation
from nasengine.studies.cell_folder import held
from nasengine.studies.cell_spec import load_cell, references_of_limits
from nasengine.studies.grid import Cell, cells, parse_vary
from nasengine.studies.summary import Summary
from nasengine.testing.stubs import Kept

VARY = ["--vary", "strategy.name=local_search", "--vary", "seed=0..2"]


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "240")
    table = tables()
    table["objectives"] = {"parameters": "min"}
    table["budget"] = {"trials": 2}
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def test_one_command_compares_strategies_at_equal_budget(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", str(spec), *VARY, "--quiet"]) == 0
    parent = spec.parent / "runs" / "tiny-ablation"
    folders = {path.name for path in parent.iterdir() if path.is_dir()}
    assert folders == {
        *(f"name={s}_seed={n}" for s in ("local_search", "random") for n in range(3)),
        *(f"references_seed={n}" for n in range(3)),
    }
    runs = list(csv.DictReader((parent / "runs.csv").read_text().splitlines()))
    assert [row["trials"] for row in runs] == ["2"] * 6 + ["0"] * 3
    assert {row["strategy.name"] for row in runs[6:]} == {"big (reference)"}
    rows = list(csv.DictReader((parent / "comparison.csv").read_text().splitlines()))
    for row in rows:
        own = [float(r["parameters"]) for r in runs if r["strategy.name"] == row["strategy.name"]]
        assert float(row["mean"]) == pytest.approx(sum(own) / 3)
        assert row["seeds"] == "3"
    told = (parent / "comparison.md").read_text()
    assert "gain over random" in told
    assert (parent / "comparison.png").stat().st_size > 1000
    assert "local_search" in capsys.readouterr().out


def test_a_cell_is_a_line_and_a_warning_of_all_cells_one(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {**tables(), "objectives": {"parameters": "min"}, "budget": {"trials": 2}}
    spec.write_text(tomli_w.dumps({**table, "strategy": {"name": "evolution", "population": 4}}))
    assert main(["run", str(spec)]) == 0
    assert capsys.readouterr().err.count("this is random search") == 1
    few = ["ablate", str(spec), "--vary", "seed=0..1"]
    assert main(few) == 0
    told = capsys.readouterr()
    assert told.err.count("this is random search") == 1
    lines = told.out.splitlines()
    dropped, *references = lines[:3]
    cell_lines = lines[3:7]
    assert dropped == "strategy is now 'random', which has no population: dropped"
    assert references == [f"references_seed={seed}: big measured" for seed in (0, 1)]
    assert [line.split(":")[0] for line in cell_lines] == [f"cell {n} of 4" for n in (1, 2, 3, 4)]
    assert "best parameters" in cell_lines[0] and "of 2 trials" in cell_lines[0]
    assert "left" in cell_lines[0] and "left" not in cell_lines[3]
    assert not any(line.startswith("trial ") for line in lines)
    log = spec.parent / "runs" / "tiny-ablation" / "name=evolution_seed=1" / "log.jsonl"
    kinds = [json.loads(line)["kind"] for line in log.read_text().splitlines()]
    assert kinds.count("trial") == 2 and "warning" in kinds
    other = log.parent.with_name("name=random_seed=1") / "log.jsonl"
    assert dropped in other.read_text() and dropped not in log.read_text()
    assert main(few) == 0
    assert capsys.readouterr().out.count("complete before") == 4


def test_an_ablations_folder_is_compared_as_all_its_cells(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", str(spec), *VARY, "--quiet"]) == 0
    parent = spec.parent / "runs" / "tiny-ablation"
    assert main(["compare", str(parent), "-o", "out"]) == 0
    rows = list(csv.DictReader((spec.parent / "out" / "runs.csv").read_text().splitlines()))
    assert {row["strategy.name"] for row in rows} == {"local_search", "random"}
    assert len(rows) == 6
    (parent / "ablation.json").write_text('{"cells": [{"folder": "../../../elsewhere"}]}')
    assert ablation.runs_of(parent) == [parent / "elsewhere"], "never out of the ablation"
    (parent / "ablation.json").write_text('{"cells": [{"folder": 3}]}')
    assert main(["compare", str(parent)]) == 2
    assert "ablation.json: damaged: cells" in capsys.readouterr().err


def test_complete_cells_are_skipped_and_a_changed_spec_is_refused(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["ablate", str(spec), *VARY, "--quiet"])
    parent = spec.parent / "runs" / "tiny-ablation"
    before = {p: p.read_bytes() for p in parent.rglob("history.sqlite")}
    assert main(["ablate", str(spec), *VARY, "--quiet"]) == 0
    assert {p: p.read_bytes() for p in parent.rglob("history.sqlite")} == before
    assert main(["ablate", str(spec), *VARY, "--quiet", "--set", "space.width=5"]) == 2
    told = capsys.readouterr().err
    assert "spec.space.width: was 4, is 5" in told and "another folder, by --into" in told


def test_a_grown_budget_goes_on_and_another_one_is_refused(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is compared had the same budget, also where only some cells were run before."""
    few = ["--vary", "strategy.name=local_search", "--vary", "seed=0", "--quiet"]
    assert main(["ablate", str(spec), *few]) == 0
    more = [*VARY, "--quiet", "--set", "budget.trials=4"]
    assert main(["ablate", str(spec), *more]) == 0
    parent = spec.parent / "runs" / "tiny-ablation"
    runs = list(csv.DictReader((parent / "runs.csv").read_text().splitlines()))
    assert [row["trials"] for row in runs[:6]] == ["4"] * 6
    capsys.readouterr()
    assert main(["ablate", str(spec), *few]) == 2
    assert "has had a budget of trials = 4" in capsys.readouterr().err
    timed = ["--set", "budget.trials=5", "--set", "budget.seconds=60"]
    assert main(["ablate", str(spec), *few, *timed]) == 2
    assert "now trials = 5, seconds = 60.0 is asked" in capsys.readouterr().err


def test_each_cell_is_checked_by_its_own_costs(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {**tables(), "objectives": {"parameters": "min"}, "budget": {"trials": 1}}
    target = {"parameters": {"target": 150}}
    table["strategy"] = {"name": "darts", "iterations": 20, "arch_every": 2, "cost": target}
    spec.write_text(tomli_w.dumps(table))
    assert main(["ablate", str(spec), "--vary", "space.width=4,12"]) == 2
    assert "150.0 is below every architecture of the space" in capsys.readouterr().err
    assert not (spec.parent / "runs").exists()


def test_a_mistaken_baseline_is_told_before_anything_runs(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", str(spec), *VARY, "--baseline", "randon"]) == 2
    assert "--baseline: no row 'randon'; did you mean 'random'?" in capsys.readouterr().err
    assert not (spec.parent / "runs").exists()


def test_an_override_of_the_strategy_is_for_the_strategies_that_have_it(spec: Path) -> None:
    table = {**tables(), "strategy": {"name": "evolution"}, "objectives": {"parameters": "min"}}
    spec.write_text(tomli_w.dumps({**table, "budget": {"trials": 2}}))
    assert main(["ablate", str(spec), "--set", "strategy.population=4", "--quiet"]) == 0


def test_an_override_is_for_the_whole_strategies_that_have_it(spec: Path) -> None:
    table = {**tables(), "strategy": {"name": "evolution"}, "references": []}
    spec.write_text(tomli_w.dumps(table))
    whole = [{"name": "evolution"}, {"name": "random"}]
    grid = ablation.Ablation.load(
        spec, ["strategy.population=4"], {"strategy": whole}, spec.parent / "runs"
    )
    evolution, random = (experiment for _, experiment in grid.searches)
    assert evolution.strategy.model_dump()["population"] == 4
    left_out = "--set 'strategy.population=4' is left out: 'random' has no such setting"
    assert random.notes == (left_out,)


@pytest.mark.parametrize("key", ["strategy.name", "strategy"])
def test_an_override_is_for_a_varied_strategy_where_the_specs_own_lacks_it(
    key: str, spec: Path
) -> None:
    table = {**tables(), "strategy": {"name": "random"}, "references": []}
    spec.write_text(tomli_w.dumps(table))
    names = ["evolution", "local_search"]
    varied = names if key == "strategy.name" else [{"name": name} for name in names]
    grid = ablation.Ablation.load(
        spec, ["strategy.population=4"], {key: varied}, spec.parent / "runs"
    )
    settings = [experiment.strategy.model_dump() for _, experiment in grid.searches]
    assert [each.get("population") for each in settings] == [4, None, None]


def test_an_override_that_no_strategy_has_is_refused(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vary = ["--vary", "strategy.name=evolution"]
    assert main(["ablate", str(spec), *vary, "--set", "strategy.populaton=4"]) == 2
    told = capsys.readouterr().err
    assert "--set 'strategy.populaton=4': no strategy of the ablation has it" in told
    assert "did you mean 'population'?" in told


@pytest.mark.parametrize(
    ("given", "varied"),
    [(["estimators.timed.name=flops"], {}), ([], {"estimators.timed.name": ["flops"]})],
)
def test_a_plugin_in_the_place_of_another_has_none_of_its_settings(
    given: list[str], varied: dict[str, list[str]], spec: Path
) -> None:
    table = {**tables(), "references": []}
    table["estimators"]["timed"] = {"name": "latency", "repeats": 3}
    spec.write_text(tomli_w.dumps(table))
    ((_, experiment),) = ablation.Ablation.load(spec, given, varied, spec.parent / "runs").searches
    assert experiment.notes == ("estimators.timed is now 'flops', which has no repeats: dropped",)


def test_each_row_is_held_against_random_search_under_its_own_setting(spec: Path) -> None:
    two = ["--vary", "space.width=4,8", "--vary", "strategy.name=local_search", "--quiet"]
    assert main(["ablate", str(spec), *two]) == 0
    parent = spec.parent / "runs" / "tiny-ablation"
    rows = list(csv.DictReader((parent / "comparison.csv").read_text().splitlines()))
    against = {(row["space.width"], row["strategy.name"]): row["baseline"] for row in rows}
    assert against["4", "local_search"] == "width=4, random"
    assert against["8", "local_search"] == "width=8, random"


def test_no_values_to_vary_by_are_refused() -> None:
    with pytest.raises(SpecError, match=r"ablation.vary.seed: no value"):
        cells(tables(), {"seed": []})
    with pytest.raises(SpecError, match=r"strategy and strategy.name are both varied"):
        cells(tables(), {"strategy": [{"name": "evolution"}], "strategy.name": ["darts"]})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (datetime.date(2020, 1, 1), "strategy.name: the strategy's name is missing"),
        ("\N{GRINNING FACE}", "strategy.name: unknown strategy '\N{GRINNING FACE}'"),
    ],
)
def test_a_value_of_any_type_is_placed_as_it_is(
    value: object, told: str, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vary = {"strategy.name": ["random", value]}
    spec.write_text(tomli_w.dumps({**tables(), "ablation": {"vary": vary}}))
    assert main(["ablate", str(spec), "--quiet"]) == 2
    assert told in capsys.readouterr().err


def test_an_override_holds_for_every_cell_of_the_grid(spec: Path) -> None:
    given = ["strategy.name=local_search", "seed=7", "references=[]"]
    grid = ablation.Ablation.load(spec, given, {"space.width": [4, 8]}, spec.parent / "runs")
    assert [cell.name for cell, _ in grid.searches] == [
        f"width={width}_name={strategy}_seed=7"
        for width in (4, 8)
        for strategy in ("local_search", "random")
    ]
    assert not grid.references
    assert [row.name for row in grid.planned_rows] == [
        f"width={width}, {strategy}" for width in (4, 8) for strategy in ("local_search", "random")
    ]


def test_references_are_measured_alike_whatever_the_search(spec: Path) -> None:
    """So that a strategy that is added to an ablation later finds them measured."""
    searches = (
        (["strategy.name=evolution", "strategy.population=4"], {"budget.trials": [2, 3]}),
        (["objectives={firsts='max'}"], {"strategy": [{"name": "local_search"}]}),
    )
    under = []
    for given, varied in searches:
        grid = ablation.Ablation.load(spec, given, varied, spec.parent / "runs")
        ((cell, experiment),) = grid.references
        under.append((cell.name, experiment.resolved()))
    assert under[0] == under[1]


def test_what_is_varied_is_not_overridden_as_well(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = 'strategy={name = "evolution"}'
    for given, vary in (("seed=7", VARY), ("strategy.name=random", ["--vary", whole])):
        assert main(["ablate", str(spec), *vary, "--set", given]) == 2
        key = given.partition("=")[0]
        assert f"--set {given!r}: {key} is varied" in capsys.readouterr().err


def test_a_setting_of_one_strategy_is_varied_for_that_one_alone(spec: Path) -> None:
    table = {**tables(), "strategy": {"name": "evolution"}}
    grid = cells(table, {"strategy.population": [4, 8]})
    assert [tuple(cell.setting.values()) for cell in grid] == [
        ("4", "evolution"),
        ("", "random"),
        ("8", "evolution"),
    ]
    assert [cell.name for cell in grid] == [
        "population=4_name=evolution_seed=3",
        "name=random_seed=3",
        "population=8_name=evolution_seed=3",
    ]
    spec.write_text(tomli_w.dumps(table))
    assert [load_cell(spec, [], cell).strategy.model_dump().get("population") for cell in grid] == [
        4,
        None,
        8,
    ]


def test_a_part_of_a_setting_is_varied_for_the_strategies_that_have_the_setting() -> None:
    table = {**tables(), "strategy": {"name": "darts"}}
    grid = cells(table, {"strategy.cost.parameters": [0.1, 0.3], "seed": [0, 1]})
    assert [(*cell.setting.values(), cell.seed) for cell in grid] == [
        ("0.1", "darts", 0),
        ("0.1", "darts", 1),
        ("", "random", 0),
        ("", "random", 1),
        ("0.3", "darts", 0),
        ("0.3", "darts", 1),
    ]


def test_rows_of_references_have_the_columns_of_the_others(spec: Path) -> None:
    spec.write_text(tomli_w.dumps({**tables(), "strategy": {"name": "evolution"}}))
    varied = {"strategy.population": [4], "space.width": [4, 8]}
    grid = ablation.Ablation.load(spec, [], varied, spec.parent / "runs")
    names = [row.name for row in grid.planned_rows if tuple(row.setting)[:2] == tuple(varied)]
    assert names[-2:] == ["width=4, big (reference)", "width=8, big (reference)"]
    assert len(names) == len(grid.planned_rows) == 6


def test_a_setting_of_a_strategy_of_ones_own_is_found_beside_the_spec(tmp_path: Path) -> None:
    own = (
        "from nasengine.strategies.random import Random\n\nclass Own(Random):\n    depth: int = 1\n"
    )
    (tmp_path / "own.py").write_text(own)
    table = {**tables(), "strategy": {"name": "own.py:Own"}}
    grid = cells(table, {"strategy.depth": [1, 2]}, tmp_path)
    assert [cell.setting["strategy.depth"] for cell in grid] == ["1", "", "2"]


def test_a_strategy_without_any_setting_is_once_in_the_grid(tmp_path: Path) -> None:
    own = (
        "from nasengine import Strategy\n\nclass Bare(Strategy):\n    def propose(self, history):\n"
    )
    own += "        return []\n"
    (tmp_path / "bare.py").write_text(own)
    varied = {"strategy.name": ["bare.py:Bare", "evolution"], "strategy.population": [4, 8]}
    grid = cells(tables(), varied, tmp_path)
    assert [cell.setting["strategy.population"] for cell in grid] == ["", "4", "8", ""]


@pytest.mark.parametrize(
    ("key", "values", "told"),
    [
        ("space.prefix", ["a", ""], ["a", "''"]),
        ("space.sizes", [{"a": 1}, {"a": 1, "b": 2}], ["a=1", "a=1,b=2"]),
        ("space.sizes", [{}, {"a": 1}], ["{}", "a=1"]),
        (
            "estimators.timed",
            [{"name": "latency", "seconds": 1, "repeats": n} for n in (3, 5)] + [{"name": "flops"}],
            ["latency(repeats=3)", "latency(repeats=5)", "flops"],
        ),
        ("strategy", [{"name": "random"}, {"name": "evolution"}], ["random", "evolution"]),
    ],
)
def test_a_value_is_told_by_what_tells_it_apart(
    key: str, values: list[object], told: list[str]
) -> None:
    assert [cell.setting[key] for cell in cells(tables(), {key: values})] == told


def test_a_mistaken_setting_of_the_strategy_is_refused(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", str(spec), "--vary", "strategy.populaton=4,8"]) == 2
    assert "strategy.populaton: unknown key" in capsys.readouterr().err


def test_references_are_measured_under_each_seed(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", str(spec), *VARY, "--quiet"]) == 0
    parent = spec.parent / "runs" / "tiny-ablation"
    assert main(["compare", str(parent / "references_seed=0")]) == 2
    assert "holds reference networks alone, and no trial" in capsys.readouterr().err
    runs = csv.DictReader((parent / "runs.csv").read_text().splitlines())
    found = [run for run in runs if run["strategy.name"] == "big (reference)"]
    assert [run["seed"] for run in found] == ["0", "1", "2"]
    for run in found:
        told = json.loads((parent / run["folder"] / "identity.json").read_text())
        assert told["spec"]["seed"] == int(run["seed"])


def test_searches_that_want_something_else_share_what_was_measured_of_references(
    spec: Path,
) -> None:
    """And each stands beside them in its own rows; those of another space have others."""
    varied = {
        "objectives.parameters.at_most": "10k,20k",
        "start": '["first=conv,second=conv"],[]',
        "budget.trials": "2,3",
        "space.width": "4,5",
        "seed": "0",
    }
    vary = [f"--vary={key}={values}" for key, values in varied.items()]
    table = {**tables(), "objectives": {"parameters": {"goal": "min"}}, "budget": {"trials": 2}}
    spec.write_text(tomli_w.dumps(table))
    assert main(["ablate", str(spec), *vary, "--quiet"]) == 0
    parent = spec.parent / "runs" / "tiny-ablation"
    folders = {path.name for path in parent.glob("references*")}
    assert folders == {"references_width=4_seed=0", "references_width=5_seed=0"}
    runs = list(csv.DictReader((parent / "runs.csv").read_text().splitlines()))
    found = [run for run in runs if run["strategy.name"] == "big (reference)"]
    assert len(found) == 16
    assert len({(run["space.width"], run["parameters"]) for run in found}) == 2
    shared = json.loads((parent / "references_width=4_seed=0" / "identity.json").read_text())
    assert shared["spec"]["objectives"] == {"parameters": "min"}
    assert "start" not in shared["spec"]


RISING = """
from pathlib import Path

from nasengine import EstimationFailed, Estimator, Measurement, Metric

measured = []

class Rising(Estimator):
    '''Measures of each network more than of the one before, as on a machine that gets warm.'''

    def metrics(self, search):
        return (Metric("q", "", "min"),)

    def measure(self, candidate):
        measured.append(candidate.label)
        if Path("busy").exists() and candidate.label.startswith("reference"):
            raise EstimationFailed("the machine is busy")
        return {"q": Measurement(float(len(measured)))}
"""


def limited_by_a_reference(spec: Path) -> None:
    (spec.parent / "own.py").write_text(RISING)
    table = {**tables(), "objectives": {"q": {"goal": "min", "at_most": "900% of big"}}}
    table["estimators"] = {"q": {"name": "own.py:Rising"}}
    spec.write_text(tomli_w.dumps({**table, "budget": {"trials": 1}}))


def limits_under(seed: int) -> set[float]:
    """Return what the searches of a seed were held to, and so much of the reference."""
    parent = Path("runs/tiny-ablation")
    measured = Storage(parent / f"references_seed={seed}" / "history.sqlite").references()
    cells = [f"name={strategy}_seed={seed}" for strategy in ("local_search", "random")]
    objectives = [json.loads((parent / cell / "objectives.json").read_text()) for cell in cells]
    return {9 * measured["big"].value("q"), *(limited["at_most"] for (limited,) in objectives)}


def test_searches_under_one_seed_are_held_to_one_limit(spec: Path) -> None:
    """A reference that each measured for itself would give each another limit, and cost more."""
    limited_by_a_reference(spec)
    assert main(["ablate", str(spec), *VARY, "--quiet"]) == 0
    assert [limits_under(seed) for seed in range(3)] == [{9.0}, {18.0}, {27.0}]


def test_a_limit_that_could_not_be_measured_is_told_and_measured_by_the_same_command(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limited_by_a_reference(spec)
    ablate = ["ablate", str(spec), "--vary", "strategy.name=local_search", "--quiet"]
    assert main([*ablate, "--vary", "seed=0"]) == 0
    Path("busy").touch()
    assert main([*ablate, "--vary", "seed=1,0"]) == 0
    told = capsys.readouterr().out
    problem = "relative to big, which could not be measured: q: the machine is busy"
    assert f"random, seed 1: not measured in full: {spec}: objectives.q: {problem}" in told
    Path("busy").unlink()
    assert main([*ablate, "--vary", "seed=0..1"]) == 0
    assert [len(limits_under(seed)) for seed in (0, 1)] == [1, 1]


def test_limits_on_what_is_counted_need_no_measured_reference(spec: Path) -> None:
    def needed(**objectives: object) -> set[str]:
        table = {**tables(), "objectives": objectives}
        table["estimators"] = {"parameters": {}, "latency": {}}
        spec.write_text(tomli_w.dumps(table))
        return references_of_limits(Experiment.load(spec))

    counted = {"goal": "min", "at_most": "90% of big"}
    assert needed(parameters=counted) == set()
    assert needed(parameters=counted, latency={"at_least": "50% of big"}) == {"big"}


def test_a_stop_is_heard_by_every_cell_and_the_same_ablation_goes_on(spec: Path) -> None:
    stop = threading.Event()

    class Stopping(Kept):
        def note(self, text: str) -> None:
            super().note(text)
            if text.startswith("cell 1 of 4"):
                stop.set()

    def run(overview: Kept, stop: threading.Event) -> list[Summary]:
        varied = parse_vary(["strategy.name=local_search", "seed=0..1"])
        grid = ablation.Ablation.load(spec, [], varied, Path("here"))
        return run_ablation(grid, lambda _: Reporter(), stop, overview=overview)

    with pytest.raises(Interrupted):
        run(Stopping(), stop)
    assert len(list(Path("here").glob("name=*"))) == 2, "the second had begun"
    told = Kept()
    run(told, threading.Event())
    cells = [text for text in told.notes if text.startswith("cell")]
    assert [text.endswith("complete before") for text in cells] == [True, False, False, False]


def test_a_full_disk_ends_an_ablation(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def full(*given: object) -> None:
        begun.append(given)
        raise StorageError("cannot write: no space left on device")

    monkeypatch.setattr(ablation_run, "run", full)
    assert main(["ablate", str(spec), *VARY, "--quiet"]) == 1
    assert len(begun) == 1


def test_a_search_that_failed_is_told_with_its_reason(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = 'candidate.label.startswith("reference")'
    failing = FAILING.replace(reference, "candidate.search.seed == 1")
    (spec.parent / "own.py").write_text(failing)
    table = {**tables(), "objectives": {"q": "max"}, "budget": {"trials": 1}}
    table["estimators"] = {"q": {"name": "own.py:Unless"}}
    spec.write_text(tomli_w.dumps({**table, "references": []}))
    assert main(["ablate", str(spec), "--vary", "seed=0..2", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "2 of 3" in told and "random, seed 1: not measured in full: no network" in told
    assert "none of 1 trials is complete; 1 x failed: q: no row" in told
    assert "trials not measured in full: random 1 failed of 3" in told
    runs = spec.parent / "runs" / "tiny-ablation" / "runs.csv"
    _, failed, _ = csv.DictReader(runs.read_text().splitlines())
    assert (failed["seed"], failed["trials"], failed["failed"], failed["q"]) == ("1", "1", "1", "")


FAILING = """
from nasengine import EstimationFailed, Estimator, Measurement, Metric

class Unless(Estimator):
    '''Measures all but references.'''

    def metrics(self, search):
        return (Metric("q", "", "max"),)

    def measure(self, candidate):
        if candidate.label.startswith("reference"):
            raise EstimationFailed("no row")
        return {"q": Measurement(1.0)}
"""


def test_a_reference_that_cannot_be_measured_costs_no_table(spec: Path) -> None:
    (spec.parent / "own.py").write_text(FAILING)
    table = {**tables(), "objectives": {"q": "max"}, "budget": {"trials": 1}}
    table["estimators"] = {"q": {"name": "own.py:Unless"}}
    spec.write_text(tomli_w.dumps(table))
    assert main(["ablate", str(spec), "--quiet"]) == 0
    told = (spec.parent / "runs" / "tiny-ablation" / "comparison.md").read_text()
    assert "| big (reference) | 0 of 1 | - |" in told
    assert "big (reference), seed 3: not measured in full: q: no row" in told


def test_random_search_is_always_a_row() -> None:
    grid = cells(tables(), parse_vary(["space.width=4,8", "seed=1"]))
    settings = [tuple(cell.setting.values()) for cell in grid]
    assert settings == [("4", "random"), ("8", "random")]
    other = {**tables(), "strategy": {"name": "evolution"}}
    settings = [tuple(cell.setting.values()) for cell in cells(other, parse_vary(["seed=1"]))]
    assert settings == [("evolution",), ("random",)]


def test_a_whole_strategy_can_be_a_value(spec: Path) -> None:
    table = tables()
    table["budget"] = {"trials": 2}
    table["objectives"] = {"parameters": "min"}
    table["ablation"] = {
        "vary": {"strategy": [{"name": "evolution", "population": 3, "sample": 2}], "seed": [5]}
    }
    spec.write_text(tomli_w.dumps(table))
    assert main(["ablate", str(spec), "--into", "here", "--quiet"]) == 0
    described = json.loads((spec.parent / "here" / "ablation.json").read_text())
    assert [c["setting"]["strategy"] for c in described["cells"]] == [
        "evolution",
        "random",
    ]


def test_a_table_replaces_the_one_at_any_path(spec: Path) -> None:
    table = tables()
    table["estimators"]["timed"] = {"name": "latency", "repeats": 3}
    spec.write_text(tomli_w.dumps(table))
    there, new = "estimators.timed", "final.estimators.size"
    (cell,) = cells(table, {there: [{"name": "latency", "seconds": 0.5}], new: [{"name": "flops"}]})
    found = load_cell(spec, [], cell).resolved()
    assert found["estimators"]["timed"]["seconds"] == 0.5
    assert found["estimators"]["timed"]["repeats"] != 3, "replaced, not merged"
    assert found["final"]["estimators"]["size"]["name"] == "flops"
    (wrong,) = cells(table, {"space.width.deep": [{"name": "x"}]})
    with pytest.raises(SpecError, match=r"ablation.vary.space.width.deep: 'width' is a value"):
        load_cell(spec, [], wrong)


def test_cells_never_share_a_folder() -> None:
    grid = cells(tables(), {"task.name": ["a/b", "a-b", "D", "d", "c"], "seed": [0, 1]})
    assert len({cell.name.lower() for cell in grid}) == len(grid) == 10
    assert not any("/" in cell.name for cell in grid)
    assert [c.name for c in grid if "name=c" in c.name] == [
        f"name=c_name=random_seed={seed}" for seed in (0, 1)
    ]
    again = cells(tables(), {"task.name": ["d", "a/b", "D", "a-b", "c"], "seed": [0, 1]})
    assert {cell.name for cell in again} == {cell.name for cell in grid}


@pytest.mark.parametrize(
    "varied", [{"seed": [0, 0]}, {"space.width": [4, "4"]}, {"space.width": [4, 4]}]
)
def test_a_value_given_twice_is_refused_before_anything_runs(varied: dict[str, list[int]]) -> None:
    with pytest.raises(SpecError, match="is given twice"):
        cells(tables(), varied)


@pytest.mark.parametrize(
    "texts", [["strategy.name"], ["=a"], ["seed="], ["seed=3..1"], ["seed=0", "seed = 1"]]
)
def test_a_vary_that_is_none_is_refused(texts: list[str]) -> None:
    with pytest.raises(SpecError, match=f"--vary '{texts[-1]}'"):
        parse_vary(texts)


def test_values_of_a_vary_are_of_their_own_types() -> None:
    given = ["a=4, x", "b=true,0.5", "c=1..1"]
    assert parse_vary(given) == {"a": [4, "x"], "b": [True, 0.5], "c": [1]}


def test_a_wrong_cell_is_refused_before_anything_runs(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", str(spec), "--vary", "strategy.name=random,evolutoin"]) == 2
    assert "did you mean 'evolution'?" in capsys.readouterr().err
    assert not (spec.parent / "runs").exists()


def test_finished_runs_are_compared_by_what_differs(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        for width in (4, 6):
            assignments = ["--set", f"seed={seed}", "--set", f"space.width={width}"]
            assert main(["run", str(spec), "--quiet", *assignments]) == 0
    capsys.readouterr()
    folders = [f"runs/tiny-{n}" for n in (1, 2, 3, 4)]
    assert main(["compare", *folders, "-o", "out"]) == 0
    table = (spec.parent / "out" / "comparison.md").read_text()
    assert "| width=4 | 2 |" in table
    assert "| width=6 | 2 |" in table
    assert main(["compare", *folders, "--baseline", "5"]) == 2
    assert "--baseline: no row '5'" in capsys.readouterr().err
    assert main(["compare", folders[0], folders[0]]) == 2
    assert "the same setting and seed twice" in capsys.readouterr().err
    assert main(["compare", "nowhere"]) == 2


def test_runs_of_unequal_budget_are_rows_of_their_own(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for budget, seed in ((1, 0), (3, 0), (3, 1)):
        given = ["--set", f"budget.trials={budget}", "--set", f"seed={seed}"]
        assert main(["run", str(spec), "--quiet", *given]) == 0
    capsys.readouterr()
    assert main(["compare", "runs/tiny-1", "runs/tiny-2", "runs/tiny-3"]) == 0
    told = capsys.readouterr().out
    assert "trials=1" in told and "trials=3" in told and "not the same, 1 trial | 3 trials" in told


def test_a_run_that_is_not_finished_is_not_compared(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(spec), "--quiet"]) == 0
    storage = Storage(Path("runs/tiny-1/history.sqlite"))
    storage.set_fact("finished", False)  # As where a resume with more trials is under way.
    storage.close()
    assert main(["compare", "runs/tiny-1"]) == 2
    command = "nasengine resume runs/tiny-1 --code nasengine.testing.stubs"
    assert f"runs/tiny-1: not finished; {command}" in capsys.readouterr().err
    assert main(["compare", "runs/tiny-11"]) == 2
    assert capsys.readouterr().err == "error: runs/tiny-11: no such folder\n"


def test_an_interval_knows_its_pairs() -> None:
    first, second = [1.0, 2.0, 3.0, 4.0], [0.9, 1.95, 2.85, 3.9]
    paired = difference(first, second, paired=True)
    unpaired = difference(first, second, paired=False)
    assert paired.low > 0
    assert unpaired.low < 0 < unpaired.high
    assert paired.value == pytest.approx(unpaired.value)


def test_a_cell_is_expected_to_take_what_its_setting_took() -> None:
    quick, slow, new = (Cell({"strategy.name": name}, 0, {}) for name in ("random", "darts", "nni"))
    took = [(quick, 1.0), (slow, 101.0)]
    assert _time_left(took, [replace(quick, seed=1), replace(slow, seed=1)]) == 102
    assert _time_left(took, [new]) == 51


def test_whatever_stops_a_cell_from_being_held_lets_its_folder_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment.from_table(tables(), tmp_path)
    held(tmp_path / "cell", experiment).close()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "check_identity", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        held(tmp_path / "cell", experiment)
    # While the traceback is kept, so that nothing is let go by being collected.
    RunFolder(tmp_path / "cell").close()
    assert caught.tb

"""latency-table and correlate as their user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tomli_w
from test_spec import tables

from nasengine.architecture import Architecture
from nasengine.cli import main
from nasengine.errors import EstimationFailed, SearchFailed
from nasengine.estimator import Candidate, Estimator
from nasengine.objectives import Objective, Objectives
from nasengine.search import Search
from nasengine.studies import correlation
from nasengine.testing.strategies import BranchedSpace, made_up
from nasengine.testing.stubs import tiny_search
from nasengine.trial import Measurement, Metric


@pytest.fixture(autouse=True)
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(tables()))
    return path


CORRELATE = ["correlate", "spec.toml", "--estimators", "firsts,parameters"]


def test_correlate_keeps_its_values_and_goes_on_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*CORRELATE, "-o", "kept", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["architectures"] == 4 and told["spearman"] < 0
    assert told["spearman_low"] < told["spearman"] < told["spearman_high"]
    assert (tmp_path / "kept" / "scatter.png").is_file()
    path = tmp_path / "kept" / "values.json"
    content = json.loads(path.read_text())
    # A value that is kept is not measured again.
    content["values"][0][1] = [7.0, 9e6]
    path.write_text(json.dumps(content))
    assert main([*CORRELATE, "-o", "kept", "-q"]) == 0
    assert json.loads(path.read_text())["values"][0][1] == [7.0, 9e6]


def test_correlate_refuses_the_values_of_other_estimators(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*CORRELATE, "-o", "kept", "-q"]) == 0
    other = ["correlate", "spec.toml", "--estimators", "flops,parameters", "-o", "kept"]
    assert main(other) == 2
    assert "values of other estimators" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("space.width=8", "another space, graph"),
        ("task.size=32", "another task"),
        ("seed=9", "another seed"),
        ("threads=1", "another threads"),
    ],
)
def test_correlate_refuses_values_measured_under_something_else(
    change: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*CORRELATE, "-o", "kept", "-q", "--samples", "3"]) == 0
    assert main([*CORRELATE, "-o", "kept", "-q", "--set", change]) == 2
    assert told in capsys.readouterr().err
    # How it is searched changes no value.
    assert main([*CORRELATE, "-o", "kept", "-q", "--set", "strategy.name=evolution"]) == 0


@pytest.mark.parametrize("pair", [["x", "y"], [True, 1.0], [1.0], None])
def test_correlate_says_that_its_values_are_damaged(
    pair: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*CORRELATE, "-o", "kept", "-q"]) == 0
    path = tmp_path / "kept" / "values.json"
    content = json.loads(path.read_text())
    content["values"][0][1] = pair
    path.write_text(json.dumps(content))
    assert main([*CORRELATE, "-o", "kept", "-q"]) == 2
    assert "damaged" in capsys.readouterr().err
    path.write_text("[]")
    assert main([*CORRELATE, "-o", "kept", "-q"]) == 2


def test_correlate_takes_all_that_a_small_space_holds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correlation, "DRAWS", 1)  # Chance alone would miss some.
    assert main([*CORRELATE, "--samples", "4", "--json", "--set", "seed=1"]) == 0
    assert json.loads(capsys.readouterr().out)["architectures"] == 4


def test_what_does_not_vary_has_no_rank_and_json_says_null(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text(CONSTANT)
    table = tables()
    table["estimators"]["same"] = {"name": "own.py:Same"}
    spec.write_text(tomli_w.dumps(table))
    asked = ["correlate", "spec.toml", "--estimators", "same,firsts"]
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told["spearman"] is None
    assert main(asked) == 0
    assert "no ranking" in capsys.readouterr().out


def test_correlate_refuses_values_of_other_settings_and_other_code_of_its_estimators(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text(CONSTANT)
    (tmp_path / "mine.py").write_text(
        "from nasengine.strategies.random import Random\n\nclass Mine(Random):\n    pass\n"
    )
    table = tables()
    table["estimators"]["same"] = {"name": "own.py:Same"}
    spec.write_text(tomli_w.dumps(table))
    asked = ["correlate", "spec.toml", "--estimators", "same,firsts", "-o", "kept", "-q"]
    assert main(asked) == 0
    assert main([*asked, "--set", "strategy.name=mine.py:Mine"]) == 0
    for change in ("estimators.same.level=2.0", "estimators.same.name=own.py:Other"):
        assert main([*asked, "--set", change]) == 2
        assert "its values are of another estimators" in capsys.readouterr().err
    (tmp_path / "own.py").write_text(CONSTANT.replace("self.level", "-self.level"))
    assert main(asked) == 2
    assert "its values are of another code" in capsys.readouterr().err


CONSTANT = """
from nasengine import Estimator, Measurement, Metric

class Same(Estimator):
    # Gives every network the same.
    level: float = 1.0

    def metrics(self, search):
        return (Metric("same", "$", "max"),)

    def measure(self, candidate):
        return {"same": Measurement(self.level)}

class Other(Same):
    pass
"""


class Made(Estimator):
    """So many times a made-up value; some networks cannot be measured, or end the process."""

    effort: ClassVar[int] = 0

    times: float = 1.0
    failing: str = ""
    most: int = 99
    taken: list[Any] = []

    def metrics(self, search: Search) -> tuple[Metric, ...]:
        return (Metric("value", "", "max"),)

    def measure(self, candidate: Candidate) -> dict[str, Measurement]:
        if len(self.taken) == self.most:
            raise KeyboardInterrupt
        self.taken.append(candidate.architecture)
        if candidate.architecture["tail"] == self.failing:
            raise EstimationFailed("no memory")
        return {"value": Measurement(self.times * made_up(candidate.architecture, "x"))}


def made_search(seed: int = 0, most: int = 99) -> Search:
    estimators = {
        "cheap": Made(taken=[]),
        "dear": Made(times=2.0, failing="skip", most=most, taken=[]),
        "other": Made(most=0, taken=[]),
    }
    broken = Objectives((Objective("cheap", at_most=0.0),))
    return tiny_search(BranchedSpace(), estimators=estimators, objectives=broken, seed=seed)


def test_so_many_networks_that_compute_different_things_are_measured_by_the_two() -> None:
    search = made_search()
    found = correlation.correlate(search, "cheap", "dear", 20)
    failed = sum(found.failed.values())
    assert found.failed == {"dear: no memory": failed} and failed > 1
    assert len(found.values) + failed == 20
    taken = search.estimators["dear"].taken
    assert len({search.space.key(architecture) for architecture in taken}) == 20
    assert all(dear == 2 * cheap for cheap, dear in found.values.values())
    # Relative to the dear one, by which the cheap one is judged.
    assert found.agreement()["mean_relative_error"] == pytest.approx(0.5)
    assert correlation.correlate(made_search(), "cheap", "dear", 20) == found
    assert correlation.correlate(made_search(seed=1), "cheap", "dear", 20) != found


def test_every_value_is_kept_as_it_comes(tmp_path: Path) -> None:
    path, whole = tmp_path / "values.json", correlation.correlate(made_search(), "cheap", "dear", 9)
    with pytest.raises(KeyboardInterrupt):
        correlation.correlate(made_search(most=1), "cheap", "dear", 9, path)
    assert len(json.loads(path.read_text())["values"]) == 1
    search = made_search()
    assert correlation.correlate(search, "cheap", "dear", 9, path).values == whole.values
    assert len(search.estimators["dear"].taken) == 8


def test_too_few_measured_are_told_with_the_reasons() -> None:
    values = {Architecture({"a": name}): (1.0, 2.0) for name in "bc"}
    found = correlation.Correlation("cheap", "dear", values, {"no memory": 4})
    with pytest.raises(SearchFailed, match=r"2 architectures were measured; .*\n  4 x no memory"):
        found.agreement()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("firsts", "two are needed"),
        ("firsts,parametres", "did you mean 'parameters'?"),
        ("firsts,parameters,flops", "two are needed"),
    ],
)
def test_wrong_estimators_are_named(
    given: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["correlate", "spec.toml", "--estimators", given]) == 2
    assert told in capsys.readouterr().err


def test_few_samples_are_told_with_their_interval(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*CORRELATE, "--samples", "3"]) == 0
    shown = capsys.readouterr()
    assert "n = 3" in shown.out and "interval" not in shown.out
    assert "3 architectures are too few to judge a ranking by" in shown.err
    # All there are: nothing is left to be unsure of.
    assert main([*CORRELATE, "--samples", "9"]) == 0
    assert "too few" not in capsys.readouterr().err
    table = tables()
    table["space"] = {"name": "light_sdi", "width": 2}
    spec.write_text(tomli_w.dumps({**table, "references": []}))
    assert main([*CORRELATE, "--samples", "10"]) == 0
    shown = capsys.readouterr()
    assert "n = 10" in shown.out and "[95% interval -" in shown.out
    assert "too few" not in shown.err


def test_too_few_samples_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CORRELATE, "--samples", "2"]) == 2
    assert "--samples: at least 3" in capsys.readouterr().err


def test_a_table_needs_an_estimator_that_writes_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency-table", "spec.toml", "-o", "table.json"]) == 2
    assert "no estimator that writes a table file" in capsys.readouterr().err


def test_a_table_that_was_written_is_searched_with(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tables()
    table["estimators"]["latency"] = {"repeats": 3}
    # The strategy needs an estimator that the table does not: only measuring asks for none.
    table["strategy"] = {"name": "darts", "cost": {"parameters": 0.3}}
    spec.write_text(tomli_w.dumps(table))
    assert main(["latency-table", "spec.toml", "-o", "table.json", "-q"]) == 0
    assert "table.json" in capsys.readouterr().out
    table["estimators"]["latency"] = {"table": "table.json"}
    table["objectives"] = {"firsts": "min", "latency": {"at_most": "1 ns"}}
    table["strategy"] = {"name": "random"}
    spec.write_text(tomli_w.dumps(table))
    # What a table's file says is known before the search: nothing meets a nanosecond.
    assert main(["run", "spec.toml", "-q"]) == 2
    assert "the space's networks have" in capsys.readouterr().err

"""The spec: every mistake is named by its key and its nearest name, and none is ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from nasengine.errors import InputError, PluginError, SpecError
from nasengine.runs.experiment import Experiment
from nasengine.runs.spec import MAX_BYTES, override, read_toml

STUBS = "nasengine.testing.stubs"


def tables() -> dict[str, Any]:
    return {
        "name": "tiny",
        "seed": 3,
        "space": {"name": f"{STUBS}:TinySpace", "width": 4},
        "task": {"name": f"{STUBS}:TinySegmentation", "size": 16},
        "strategy": {"name": "random"},
        "estimators": {
            "parameters": {},
            "firsts": {"name": f"{STUBS}:CountingEstimator"},
        },
        "objectives": {"firsts": "max", "parameters": {"goal": "min", "at_most": "20M"}},
        "budget": {"trials": 3},
    }


def load(table: dict[str, Any], folder: Path, *assignments: str) -> Experiment:
    path = folder / "spec.toml"
    path.write_text(tomli_w.dumps(table))
    return Experiment.load(path, assignments)


def search_of(table: dict[str, Any], folder: Path) -> Any:
    return load(table, folder).search(folder)


def test_a_sound_spec_gives_its_parts(tmp_path: Path) -> None:
    experiment = load(tables(), tmp_path)
    search = experiment.search(tmp_path)
    assert search.space.size == 4
    assert list(search.estimators) == ["parameters", "firsts"]
    assert [(o.metric, o.goal, o.at_most) for o in search.objectives.items] == [
        ("firsts", "max", None),
        ("parameters", "min", 20e6),
    ]
    assert experiment.references == ("big",)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("budgt", {"trials": 3}, "budgt: unknown key; did you mean 'budget'?"),
        ("space.widht", 8, "space.widht: unknown key; did you mean 'width'?"),
        ("space.width", 0, "space.width: input should be greater than 0; got 0"),
        ("space.width", "8", "space.width: input should be a valid integer; got '8'"),
        ("space.width", True, "space.width: input should be a valid integer; got True"),
        (
            "space.name",
            "light_sid",
            "space.name: unknown space 'light_sid'; did you mean 'light_sdi'?",
        ),
        ("space.name", "no_file.py:Mine", "no such file"),
        ("space.name", f"{STUBS}:TinySpac", "has no 'TinySpac'; did you mean 'TinySpace'?"),
        ("space.name", f"{STUBS}:TinySegmentation", "is not a subclass of nasengine.SearchSpace"),
        ("space.name", "no_such_package:Mine", "cannot be imported"),
        ("strategy.name", 3, "strategy.name: the strategy's name is missing"),
        ("strategy.name", "optun", "did you mean 'optuna'?"),
        ("estimators.parametres", {}, "unknown estimator 'parametres'; did you mean 'parameters'?"),
        ("estimators", {}, "estimators: dictionary should have at least 1 item"),
        ("estimators.Bad Key", {}, "estimators"),
        ("objectives.first", "max", "objectives.first: no such metric; did you mean 'firsts'?"),
        ("objectives.firsts", "maximise", "objectives.firsts"),
        ("objectives.firsts", {"goal": "max", "atmost": 3}, "did you mean 'at_most'?"),
        ("objectives.firsts", {}, "a goal, at_most, at_least or among_best is needed"),
        ("objectives.parameters", {"goal": "min", "at_most": "5 ms"}, "no value in parameters"),
        ("objectives.parameters", {"at_most": "60% of bigg"}, "did you mean 'big'?"),
        ("objectives", {"firsts": {"at_most": 3}}, 'one with a goal ("max" or "min") is needed'),
        ("budget.trials", 0, "budget.trials: input should be greater than or equal to 1"),
        ("budget.seconds", float("nan"), "budget.seconds"),
        ("budget.seconds", "5 MiB", "budget.seconds: '5 MiB' is no value in s"),
        ("budget.seconds", "0 s", "budget.seconds: input should be greater than 0"),
        ("budget", {}, "budget: trials or seconds is needed"),
        ("seed", -1, "seed: input should be greater than or equal to 0"),
        ("seed", 2**63, "seed: input should be less than"),
        ("name", "../x", "name: 1 to 64 letters, digits"),
        ("name", "x" * 300, "name: 1 to 64 letters, digits"),
        ("device", "gpu", "device: auto, cpu, cuda or cuda:N"),
        ("references", ["bigg"], "references: no network 'bigg'; did you mean 'big'?"),
        ("task.classes", 5, "its networks give 1 channels, and the task needs 5"),
        ("task.channels", 1, "has 3 channels in the space, and the task's images have 1"),
    ],
)
def test_a_mistake_is_named_with_its_key(
    tmp_path: Path, path: str, value: Any, message: str
) -> None:
    table = tables()
    place = table
    *parents, last = path.split(".")
    for key in parents:
        place = place[key]
    place[last] = value
    with pytest.raises(InputError) as caught:
        experiment = load(table, tmp_path)
        _ = experiment.references
        experiment.search(tmp_path)
    assert message in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_all_mistakes_are_told_at_once_each_with_the_file(tmp_path: Path) -> None:
    table = tables()
    table["space"]["widht"] = 3
    table["task"]["sise"] = 16
    table["strategy"]["name"] = "randon"
    with pytest.raises(InputError) as caught:
        load(table, tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(str(tmp_path / "spec.toml")) for line in lines)
    for name in ("'width'", "'size'", "'random'"):
        assert f"did you mean {name}" in str(caught.value)


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    table = tables()
    del table["task"]
    with pytest.raises(SpecError, match="task: missing"):
        load(table, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = ", "not TOML"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a = 1\na = 2", "not TOML"),
        (b"x = " + b"[" * 5000, "not TOML"),
        (b"#" * (MAX_BYTES + 1), "larger than"),
    ],
    ids=["cut", "utf16", "twice", "deep", "large"],
)
def test_what_is_no_toml_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "spec.toml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=message) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_bytes(b"\xef\xbb\xbf" + tomli_w.dumps(tables()).encode())
    assert Experiment.load(path).spec.name == "tiny"


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(SpecError, match="cannot be read"):
            Experiment.load(path)


def test_overrides_set_any_key(tmp_path: Path) -> None:
    experiment = load(
        tables(), tmp_path, "seed=9", "space.width=8", "budget.trials=1", "name=other"
    )
    assert experiment.spec.seed == 9
    assert experiment.space.model_dump()["width"] == 8
    assert experiment.spec.name == "other"


@pytest.mark.parametrize("assignment", ["seed", "=3", "a..b=1", "seed.x=3"])
def test_an_override_that_is_none_is_refused(assignment: str) -> None:
    with pytest.raises(SpecError, match=r"--set"):
        override({"seed": 0}, [assignment])


def test_a_goal_may_be_given_a_limit() -> None:
    table = {"objectives": {"iou": "max", "flops": {"at_most": "1M"}}, "seed": 0}
    limits = ["objectives.iou.at_least=0.6", "objectives.flops.goal=min"]
    tables, _ = override(table, limits)
    assert tables["objectives"] == {
        "iou": {"goal": "max", "at_least": 0.6},
        "flops": {"at_most": "1M", "goal": "min"},
    }


def test_swapping_a_final_estimator_keeps_the_new_ones_settings_alone(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        f"from {STUBS} import CountingEstimator\n\n"
        "class Other(CountingEstimator):\n    'Counts.'\n    repeats_more: int = 1\n"
    )
    table = tables()
    table["final"] = {"estimators": {"x": {"name": "latency", "repeats": 3}}}
    where = "final.estimators.x"
    set_ = (f"{where}.name=own.py:Other", f"{where}.repeats_more=2")
    experiment = load(table, tmp_path, *set_)
    found = experiment.resolved()["final"]["estimators"]["x"]
    assert found["repeats_more"] == 2 and "repeats" not in found
    assert experiment.notes == (f"{where} is now 'own.py:Other', which has no repeats: dropped",)


def test_swapping_a_plugin_drops_what_only_the_old_one_had_and_says_so(tmp_path: Path) -> None:
    table = tables()
    table["strategy"] = {"name": "evolution", "population": 7, "sample": 3}
    experiment = load(table, tmp_path, "strategy.name=local_search", "strategy.initial=4")
    assert experiment.strategy.model_dump() == {"initial": 4}
    assert experiment.notes == (
        "strategy is now 'local_search', which has no population, sample: dropped",
    )
    with pytest.raises(SpecError, match="unknown key"):
        load(table, tmp_path, "strategy.name=random", "strategy.population=4")


def test_the_resolved_spec_composes_the_same_experiment(tmp_path: Path) -> None:
    first = load(tables(), tmp_path)
    path = tmp_path / "resolved.toml"
    path.write_text(tomli_w.dumps(first.resolved()))
    second = Experiment.load(path)
    assert second.resolved() == first.resolved()
    assert second.space == first.space
    assert second.strategy == first.strategy


def test_a_plugin_from_a_file_is_found_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from nasengine.testing.stubs import TinySpace\n"
        "class Mine(TinySpace):\n"
        "    'My space.'\n"
        "    depth: int = 1\n"
    )
    table = tables()
    table["space"] = {"name": "mine.py:Mine", "depth": 2}
    experiment = load(table, tmp_path)
    assert type(experiment.space).__name__ == "Mine"
    assert experiment.resolved()["space"]["name"] == f"{tmp_path / 'mine.py'}:Mine"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('no')", r"mine\.py, line 1: ValueError: no"),
        ("x = = 3", r"mine\.py.*SyntaxError"),
        ("from nasengine import SearchSpace as Mine", "is not a subclass"),
        (
            "from nasengine import SearchSpace\nclass Mine(SearchSpace):\n    'No define.'\n",
            "does not define define",
        ),
    ],
)
def test_a_file_that_does_not_work_is_named(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    table = tables()
    table["space"] = {"name": "mine.py:Mine"}
    with pytest.raises(PluginError, match=message):
        load(table, tmp_path)


def test_a_file_that_was_edited_is_read_anew(tmp_path: Path) -> None:
    table = tables()
    table["space"] = {"name": "mine.py:Mine"}
    found = []
    for width in (4, 8, 4):  # Of equal length, within a second: as bytecode is told apart.
        (tmp_path / "mine.py").write_text(
            f"from nasengine.testing.stubs import TinySpace\n"
            f"class Mine(TinySpace):\n    width: int = {width}\n"
        )
        found.append(load(table, tmp_path).space)
    assert [space.model_dump()["width"] for space in found] == [4, 8, 4]
    assert type(found[0]) is type(found[2])


def test_a_relative_limit_is_measured_on_the_reference(tmp_path: Path) -> None:
    table = tables()
    table["objectives"] = {"parameters": {"goal": "min", "at_most": "50% of big"}}
    search = search_of(table, tmp_path)
    big = search.cost_table("parameters").predict(search.space.reference("big"))
    assert search.objectives.items[0].at_most == pytest.approx(big / 2)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("estimators.iou.metric=iuo", "estimators.iou: metric: the task has no 'iuo'"),
        ("task.data.size=37", "sides divisible by 16 fit"),
        ('objectives.parameters={ at_most = "60% of unett" }', "did you mean 'unet'"),
    ],
)
def test_what_does_not_fit_together_is_said_with_the_file(
    assignment: str, said: str, tmp_path: Path
) -> None:
    path = Path(__file__).parents[1] / "examples" / "light_sdi.toml"
    with pytest.raises(InputError) as caught:
        Experiment.load(path, [assignment]).search(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_a_budget_of_time_may_have_a_unit(tmp_path: Path) -> None:
    experiment = load({**tables(), "budget": {"seconds": "2 h"}}, tmp_path)
    assert experiment.search(tmp_path).budget.seconds == 7200
    assert experiment.resolved()["budget"] == {"seconds": 7200}

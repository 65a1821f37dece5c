"""What a first-time user is told: in words, with the way out, and nothing of the inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_spec import load, tables

from nasengine.errors import InputError
from nasengine.runs.goals import nearest_metric
from nasengine.runs.spec import read_toml
from nasengine.trial import Metric

OWN = """
import nasengine
raise SystemExit("this must not run")
class Base(nasengine.SearchSpace): ...
class Chain(Base): ...
class Other: ...
"""


def told(table: dict[str, Any], folder: Path, *assignments: str) -> str:
    with pytest.raises(InputError) as caught:
        experiment = load(table, folder, *assignments)
        _ = experiment.references
        experiment.search(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "objectives.firsts",
            "maximize",
            '"max", "min" or a table such as { at_most = "5 ms" } is needed; got \'maximize\'',
        ),
        ("objectives.firsts", 3, '"max", "min" or a table such as { at_most = "5 ms" }'),
        ("objectives.firsts", {"maximise": True}, "firsts.maximise: unknown key; allowed: among"),
        ("device", "gpu", "device: auto, cpu, cuda or cuda:N (as in cuda:1) is needed; got 'gpu'"),
        ("name", "a b", "'-' and '_', the first a letter or digit, are needed; got 'a b'"),
        ("estimators.Acc", {}, "estimators.Acc: a name of small letters, digits and '_'"),
        ("strategy", "random", "strategy: a table is needed; got 'random'"),
        ("references", "unet", "references: a list is needed, in [ and ]; got 'unet'"),
    ],
)
def test_a_mistake_is_told_once_in_words(
    tmp_path: Path, path: str, value: Any, message: str
) -> None:
    table = tables()
    place = table
    *parents, last = path.split(".")
    for key in parents:
        place = place[key]
    place[last] = value
    text = told(table, tmp_path)
    assert message in text
    assert len(text.splitlines()) == 1
    assert "GoalTable" not in text and "pattern" not in text and "instance" not in text


def test_a_key_below_another_tables_header_is_found(tmp_path: Path) -> None:
    table = tables()
    table["task"]["strategy"] = table.pop("strategy")
    assert "strategy: missing; strategy stands in the table [task]" in told(table, tmp_path)


def test_no_reference_networks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nasengine.testing.stubs import TinySpace

    monkeypatch.setattr(TinySpace, "references", lambda _: {})
    table = {**tables(), "references": ["big"]}
    text = told(table, tmp_path)
    assert text.startswith(f"{tmp_path / 'spec.toml'}: references: no network 'big'; the space has")
    table = tables()
    table["objectives"]["parameters"] = {"goal": "min", "at_most": "70% of unet"}
    assert "the space has no reference networks" in told(table, tmp_path)


def test_a_file_alone_is_told_its_classes_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "chain.py").write_text(OWN)
    table = tables()
    table["space"] = {"name": "chain.py"}
    assert told(table, tmp_path).endswith("as in 'chain.py:Base' or 'chain.py:Chain'")
    table["space"] = {"name": "chains.py"}
    assert "space.name: no such file: " in told(table, tmp_path)


def test_all_overrides_are_told_at_once(tmp_path: Path) -> None:
    text = told(tables(), tmp_path, "budget.trials=abc", "strategy.nme=evolution")
    assert "budget.trials" in text and "strategy.nme: unknown key" in text
    text = told(tables(), tmp_path, "budget", "name.x=1")
    assert "--set 'budget'" in text and "--set 'name.x=1'" in text


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[objectives]\nacc = max\n", 'line 2, column 7); text needs quotes: "max"'),
        ("a = 1\ndata = { name = a/b.py }\n", 'text needs quotes: "a/b.py"'),
        ("[budget]\n[budget]\n", "declare budget twice"),
        ("[a.b]\n[a.b]\n", "declare a.b twice"),
    ],
)
def test_what_is_no_toml_is_told_as_it_is_written(tmp_path: Path, toml: str, message: str) -> None:
    (tmp_path / "spec.toml").write_text(toml)
    with pytest.raises(InputError) as caught:
        read_toml(tmp_path / "spec.toml")
    assert message in str(caught.value)


def test_the_nearest_metric_is_the_one_of_that_name_and_never_of_the_test_data() -> None:
    metrics = {
        "acc": Metric("accuracy", "", "max"),
        "acc.test_accuracy": Metric("test_accuracy", "", "max", test_of="accuracy"),
    }
    assert nearest_metric("accuracy", metrics).startswith("did you mean 'acc'? Allowed: acc, acc.")
    assert "did you mean" not in nearest_metric("test_acuracy", metrics)

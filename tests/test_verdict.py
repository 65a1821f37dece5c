"""What is called won: an interval that excludes 0, or a count; noise is called what it is."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import tomli_w

from nasengine.cli import main
from nasengine.files import parse_json
from nasengine.runs.result import Comparison
from nasengine.runs.verdict import Judged, Standing
from nasengine.statistics import t_interval
from nasengine.trial import Measurement, Metric

METRICS = {name: Metric(name, "", "max") for name in ("acc", "acc.test_accuracy")}
TESTS = {"acc": "acc.test_accuracy"}


def measured(value: float, test: float | None = None, **details: object) -> dict[str, Measurement]:
    found = {"acc": Measurement(value, details)}
    if test is not None:
        found["acc.test_accuracy"] = Measurement(test, {"values": details.get("tests", [test])})
    return found


def said(
    mine: dict[str, Measurement],
    other: dict[str, Measurement],
    trials: tuple[float, ...] = (),
    tests: dict[str, str] = TESTS,
) -> list[str]:
    networks = {"searched": mine, "big": other}
    return Comparison(METRICS, networks, ("acc",), tests=tests, trials=trials).verdict()


FOURTEEN = (0.281, *[0.1 + i / 100 for i in range(13)])


def test_the_best_of_many_on_the_split_that_chose_it_is_ahead_and_no_more() -> None:
    (line,) = said(measured(0.281), measured(0.156), FOURTEEN)
    assert line == (
        "ahead of big: acc 0.281 against 0.156 on the split that chose it: "
        "the best of 14 trials; no test split"
    )
    (line,) = said(measured(0.281), measured(0.156), FOURTEEN, tests={})
    assert "on the measurement that chose it: the best of 14 trials" in line
    assert said(measured(0.1), measured(0.2), (0.1, 0.0))[0].startswith("behind big: acc 0.1")


def test_where_there_is_a_test_split_it_decides() -> None:
    (line,) = said(measured(0.9, test=0.4), measured(0.5, test=0.6), (0.9, 0.1))
    assert line.startswith("behind big: acc.test_accuracy 0.400 against 0.600 on the test split")
    seeds = measured(0.9, test=0.8, tests=[0.80, 0.81, 0.79])
    against = measured(0.9, test=0.5, tests=[0.50, 0.51, 0.49])
    (line,) = said(seeds, against, FOURTEEN)
    assert line.startswith("better than big: acc.test_accuracy 0.800") and "widened" not in line
    # Measured of one of the two alone, it says nothing.
    assert "on the split that chose it" in said(measured(0.9, 0.9), measured(0.5), FOURTEEN)[0]


def answers(right: int, of: int = 32) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


def test_samples_give_an_interval_that_knows_of_how_many_it_is_the_best() -> None:
    mine, other = measured(0.281, per_sample=answers(9)), measured(0.156, per_sample=answers(5))
    # 4 of 32 images: for one network given beforehand the interval excludes 0, only just.
    assert t_interval(answers(9), answers(5), paired=True)[0] > 0
    assert said(mine, other, (0.281,))[0].startswith("better than big")
    line = said(mine, other, FOURTEEN)[0]
    assert line.startswith("level with big") and "noise between 32 samples" in line
    assert "widened for the choice among 14 trials" in line
    large = said(measured(0.9, per_sample=answers(29)), other, (0.9, *FOURTEEN))[0]
    assert large.startswith("better than big") and "over 32 samples, one training each" in large


def test_a_network_that_learned_nothing_is_no_proof_of_the_other() -> None:
    some, none = measured(0.281, per_sample=answers(9)), measured(0.0, per_sample=answers(0))
    (line,) = said(some, none)
    assert line.startswith("better than big") and line.endswith(
        "; big learned nothing: train longer"
    )
    (line,) = said(none, some)
    assert line.startswith("worse than big") and "; the searched network learned nothing" in line
    assert "learned" not in said(some, measured(0.156, per_sample=answers(5)))[0]
    # Nothing is known of its noise: 0 may be as good a value as any.
    assert "learned" not in said(measured(0.2), measured(0.0))[0]


def test_samples_of_the_test_split_give_an_interval_without_the_choice() -> None:
    networks = [measured(0.9, test=test) for test in (0.906, 0.156)]
    for found, right in zip(networks, (29, 5), strict=True):
        details = {"per_sample": answers(right)}
        found["acc.test_accuracy"] = Measurement(right / 32, details)
    (line,) = said(networks[0], networks[1], FOURTEEN)
    assert line.startswith("better than big: acc.test_accuracy 0.906 against 0.156 on the test")
    assert "over 32 samples" in line and "widened" not in line


def test_samples_that_say_the_contrary_of_the_metric_prove_nothing() -> None:
    mine, other = measured(0.1, per_sample=answers(29)), measured(0.2, per_sample=answers(5))
    assert said(mine, other)[0].startswith("level with big")
    gaps = measured(0.9, per_sample=[None, 1.0, None])
    assert said(gaps, measured(0.5, per_sample=[0.0, None, 1.0]))[0].startswith("ahead of big")


@pytest.mark.parametrize("samples", [2, 3, 4, 8, 40])
def test_the_best_of_many_by_chance_alone_seldom_wins(samples: int) -> None:
    """Twenty equal networks on noise: the best of them is called better in few of 200 searches."""
    rng = random.Random(0)

    def coins() -> list[float]:
        return [float(rng.random() < 0.5) for _ in range(samples)]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    won = 0
    for _ in range(200):
        best, other = max((coins() for _ in range(20)), key=mean), coins()
        judged = Judged("acc", split="validation", chosen_among=20)
        pair = [Measurement(mean(v), {"per_sample": v}) for v in (best, other)]
        won += judged.standing("big", 1, *pair, {}).word == "better"
    assert won <= 10


def test_samples_or_seeds_without_a_spread_prove_nothing() -> None:
    sure = measured(1.0, per_sample=[1.0, 1.0, 1.0])
    (line,) = said(sure, measured(0.0, per_sample=[0.0, 0.0, 0.0]))
    assert line.startswith("ahead of big") and "interval" not in line
    alike = measured(0.8, values=[0.8, 0.8])
    assert said(alike, measured(0.5, values=[0.5, 0.5]))[0].startswith("ahead of big")


def test_a_standing_is_the_same_when_it_is_read_again() -> None:
    judged = Judged("acc", split="validation", chosen_among=3, goals=2)
    pair = [Measurement(v, {"values": [v, v + 0.1]}) for v in (0.9, 0.1)]
    standing = judged.standing("big", 1, *pair, {"size": 0.5})
    again = parse_json(json.dumps(standing.as_json()), Standing)
    assert again == standing and standing.interval is not None
    assert again.said("%").endswith("; 0.50x the size")
    with pytest.raises(ValueError, match=r"word: .* got 'superb'"):
        parse_json(json.dumps({**standing.as_json(), "word": "superb"}), Standing)


def test_what_is_counted_is_exact_and_all_equal_is_told() -> None:
    networks = {"searched": {"acc": Measurement(2.0)}, "big": {"acc": Measurement(1.0)}}
    exact = Comparison(METRICS, networks, ("acc",), frozenset({"acc"}), trials=(2.0, 1.0))
    assert exact.verdict() == ["better than big: acc 2.000 against 1.000"]
    lines = said(measured(0.125), measured(0.125), (0.125,) * 4)
    assert lines == [
        "level with big: acc 0.125 against 0.125",
        "all 4 trials are level: acc 0.125 in each; the earliest is taken",
    ]
    assert said(measured(0.2), measured(0.2), (0.2, 0.2, 0.1))[1].startswith("2 of 3 trials share")


@pytest.mark.parametrize("test", [0, 8])
def test_a_run_is_judged_by_its_test_split_where_it_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: int
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"name": "surface_defects", "size": 32, "train": 4, "validation": 8, "test": test}
    spec = {
        "name": "judged",
        "references": ["big"],
        "space": {"name": "nasengine.testing.stubs:TinySpace"},
        "task": {"name": "segmentation", "data": data},
        "strategy": {"name": "random"},
        "estimators": {"iou": {"name": "trained", "iterations": 4, "batch": 2}},
        "objectives": {"iou": "max"},
        "budget": {"trials": 2},
    }
    (tmp_path / "spec.toml").write_text(tomli_w.dumps(spec))
    assert main(["run", "spec.toml", "--quiet"]) == 0
    told = json.loads((tmp_path / "runs" / "judged-1" / "best" / "metrics.json").read_text())
    assert ("iou.test_iou" in told["metrics"]) == bool(test)
    assert (told["verdict"][0]["metric"] == "iou.test_iou") == bool(test)
    page = (tmp_path / "runs" / "judged-1" / "report.html").read_text()
    assert 'class="badge won"' not in page

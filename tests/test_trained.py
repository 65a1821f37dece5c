"""The estimator that trains: figures, seeds, fidelity, early stopping, resume, delivery."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nasengine.architecture import Architecture
from nasengine.early_stopping import EarlyStopping
from nasengine.errors import EstimationFailed, Interrupted, SpecError
from nasengine.estimator import Candidate
from nasengine.estimators.trained import Trained
from nasengine.evaluation import evaluate
from nasengine.graph import SpaceGraph
from nasengine.network import build_network
from nasengine.reporter import Progress, Reporter
from nasengine.runs.execution import Job
from nasengine.runs.goals import objectives_of
from nasengine.runs.measuring import measure
from nasengine.search import Search
from nasengine.task import Samples, Splits
from nasengine.testing.stubs import TinySegmentation, TinySpace, tiny_candidate, tiny_search
from nasengine.trial import Metric

FAST = {"iterations": 6, "batch": 4}


class TestedSegmentation(TinySegmentation):
    """With a test split and a second metric."""

    __test__ = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("iou", "", "max"), Metric("error", "", "min"))

    def load(self, seed: int) -> Splits:
        splits = super().load(seed)
        return replace(splits, test=self._make(seed, "test", 3))

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        found = super().evaluate(outputs, targets)
        return {**found, "error": 1 - found["iou"]}


def search_for(folder: Path, estimator: Trained, **rest: Any) -> Search:
    return tiny_search(
        task=rest.pop("task", TestedSegmentation()),
        estimators={"iou": estimator},
        folder=folder,
        **rest,
    )


def untimed(measurements: Mapping[str, Any]) -> dict[str, Any]:
    return {name: m for name, m in measurements.items() if name != "seconds"}


def test_measures_what_it_declares(tmp_path: Path) -> None:
    estimator = Trained(seeds=2, **FAST)
    search = search_for(tmp_path, estimator)
    candidate = tiny_candidate(search)
    found = estimator.measure(candidate)
    names = ["iou", "error", "loss", "test_iou", "test_error", "test_loss", "seconds"]
    assert [metric.name for metric in estimator.metrics(search)] == names
    assert list(found) == names
    for measurement in found.values():
        values = measurement.details["values"]
        assert len(values) == 2
        assert measurement.value == pytest.approx(statistics.fmean(values))
        assert measurement.details["std"] == pytest.approx(statistics.stdev(values))
    assert len(set(found["loss"].details["values"])) == 2, "the seeds trained the same network"
    for name, split in (("iou", "validation"), ("test_iou", "test")):
        assert len(found[name].details["per_sample"]) == len(search.splits.parts[split])
    assert found["iou"].details["steps"] == [6, 6]


def test_the_weights_delivered_are_the_best_seed_s(tmp_path: Path) -> None:
    estimator = Trained(seeds=3, learning_rate=0.05, iterations=20, batch=4)
    search = search_for(tmp_path, estimator)
    candidate = tiny_candidate(search)
    found = estimator.measure(candidate)
    weights = load_file(candidate.weights_path)
    assert any("running_mean" in name for name in weights)
    network = build_network(search.space.graph, candidate.architecture)
    network.load_state_dict(weights)
    again = evaluate(network, search.splits.validation, search)
    values = found["iou"].details["values"]
    assert again["iou"] == max(values) == values[found["iou"].details["delivered_seed"]]
    assert [path.name for path in candidate.folder.iterdir()] == ["weights.safetensors"]


def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    estimator = Trained(**FAST)
    results = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        search = search_for(tmp_path / name, estimator, seed=seed)
        candidate = tiny_candidate(search)
        found = estimator.measure(candidate)
        results.append((untimed(found), candidate.weights_path.read_bytes()))
    assert results[0] == results[1]
    assert results[0] != results[2]


class StopAt(Reporter):
    """Asks the search to stop at the n-th record of a training."""

    def __init__(self, at: int) -> None:
        self.left, self.search = at, None

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        self.left -= kind == "training"
        if self.left == 0:
            self.search.stop.set()  # type: ignore[attr-defined]


@pytest.mark.parametrize("at", [1, 5, 7, 10])
def test_a_stopped_measurement_resumes_to_the_same_figures(at: int, tmp_path: Path) -> None:
    estimator = Trained(seeds=2, **FAST)
    for name in ("plain", "stopped"):
        (tmp_path / name).mkdir()
    plain = search_for(tmp_path / "plain", estimator)
    wanted = estimator.measure(tiny_candidate(plain))
    reporter = StopAt(at)
    search = replace(search_for(tmp_path / "stopped", estimator), reporter=reporter)
    reporter.search = search  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        estimator.measure(tiny_candidate(search))
    search.stop.clear()
    found = estimator.measure(tiny_candidate(search))
    assert untimed(found) == untimed(wanted)
    # One record a step: 12 in all, and none of them twice.
    assert reporter.left == at - 12


class Titles(Reporter):
    """Keeps what every progress is called."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    @contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Progress]:
        self.titles.append(description)
        with super().progress(description, total, done) as shown:
            yield shown


def test_its_progress_says_which_network_it_trains_by_which_estimator(tmp_path: Path) -> None:
    """Those of the search and those of the end were called alike."""
    titles = Titles()
    search = replace(
        search_for(tmp_path, Trained(**FAST)),
        reporter=titles,
        estimators={"iou": Trained(**FAST), "final": Trained(seeds=2, **FAST)},
    )
    architecture = tiny_candidate(search).architecture
    for label in ("trial-3", "reference-unet"):
        assert measure(search, Job(label, architecture, stop_early=False)).reason == ""
    assert titles.titles.pop(0) == "trial 3, iou: reading the data", "once"
    assert titles.titles == [
        f"{name}, {stage}"
        for name in ("trial 3", "reference unet")
        for stage in ("iou: training", "final: training 1 of 2", "final: training 2 of 2")
    ]


def test_metric_picks_the_primary_and_its_direction(tmp_path: Path) -> None:
    estimator = Trained(metric="error", seeds=2, learning_rate=0.05, iterations=10, batch=4)
    search = search_for(tmp_path, estimator)
    found = estimator.measure(tiny_candidate(search))
    assert estimator.metrics(search)[0] == Metric("error", "", "min")
    values = found["error"].details["values"]
    assert found["error"].details["delivered_seed"] == values.index(min(values))


def test_fidelity_trains_on_less(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(TestedSegmentation):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            seen.append(tuple(outputs.shape))
            assert targets.dtype == torch.int64
            return super().loss(outputs, targets)

    estimator = Trained(resolution=0.5, data_fraction=0.5, **FAST)
    search = search_for(tmp_path, estimator, task=Watching())
    estimator.check(search)
    estimator.measure(tiny_candidate(search))
    # 6 steps, validation, test: all at half the size.
    assert seen == [(4, 1, 8, 8)] * 7 + [(3, 1, 8, 8)]


def test_data_fraction_draws_some_of_the_samples(tmp_path: Path) -> None:
    from nasengine.estimators._training_runs import _fraction

    search = search_for(tmp_path, Trained())
    some = _fraction(search.splits.train, 0.5, 0)
    assert isinstance(some, Samples)
    assert len(some) == 4
    for name, image in zip(some.names, some.inputs, strict=True):
        index = search.splits.train.names.index(name)
        assert torch.equal(image, search.splits.train.inputs[index])
    assert some.names != _fraction(search.splits.train, 0.5, 1).names


def test_early_stopping_ends_a_training(tmp_path: Path) -> None:
    estimator = Trained(iterations=200, batch=4, patience=1, validate_every=2, learning_rate=1e-9)
    search = search_for(tmp_path, estimator)
    found = estimator.measure(tiny_candidate(search))
    assert found["iou"].details["steps"][0] < 200


@pytest.mark.parametrize(("metric", "sign"), [("iou", 1), ("error", -1)])
def test_patience_watches_the_validation_split_by_the_metric_s_direction(
    metric: str, sign: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores: list[float] = []
    watched: list[Samples] = []

    class Watching(EarlyStopping):
        def look(self, network: nn.Module) -> bool:
            scores.append(self.score(network))
            assert scores[-1] == sign * evaluate(network, watched[-1], search)[metric]
            return super().look(network)

    def watching(network: nn.Module, samples: Samples, search: Search) -> dict[str, float]:
        watched.append(samples)
        return evaluate(network, samples, search)

    monkeypatch.setattr("nasengine.estimators._training_runs.EarlyStopping", Watching)
    monkeypatch.setattr("nasengine.estimators._training_runs.evaluate", watching)
    estimator = Trained(metric=metric, patience=9, validate_every=3, **FAST)
    search = search_for(tmp_path, estimator)
    estimator.measure(tiny_candidate(search))
    assert len(scores) == 2
    assert all(samples is search.splits.validation for samples in watched)


def test_every_seed_begins_with_weights_of_its_own(tmp_path: Path) -> None:
    estimator = Trained(seeds=3, iterations=1, batch=4, learning_rate=1e-12)
    losses = estimator.measure(tiny_candidate(search_for(tmp_path, estimator)))["loss"]
    assert max(losses.details["values"]) - min(losses.details["values"]) > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "iuo"}, "no 'iuo'; did you mean 'iou'"),
        ({"validate_every": 3}, "validate_every: only with patience"),
        ({"patience": 1, "iterations": 50}, "validated at its end alone, with validate_every = 50"),
    ],
)
def test_check_refuses(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    estimator = Trained(**settings)
    with pytest.raises(SpecError, match=message):
        estimator.check(search_for(tmp_path, estimator))


def test_without_a_test_split_there_are_no_test_figures(tmp_path: Path) -> None:
    estimator = Trained(**FAST)
    search = search_for(tmp_path, estimator, task=TinySegmentation())
    assert list(estimator.measure(tiny_candidate(search))) == ["iou", "loss", "seconds"]


def test_metrics_are_known_without_the_data(tmp_path: Path) -> None:
    class Unreadable(TinySegmentation):
        def load(self, seed: int) -> Splits:
            raise AssertionError("metrics and check must not read the data")

    estimator = Trained()
    search = search_for(tmp_path, estimator, task=Unreadable())
    estimator.check(search)
    assert "test_iou" in [metric.name for metric in estimator.metrics(search)]


def test_nothing_is_chosen_by_the_test_split(tmp_path: Path) -> None:
    search = search_for(tmp_path, Trained())
    for name, meant in (("iou.test_iou", "iou"), ("iou.test_loss", "iou.loss")):
        with pytest.raises(SpecError, match=rf"objectives\.{name}: .*; take '{meant}'"):
            objectives_of({name: "max"}, search, None)
    assert objectives_of({"iou": "max"}, search, None).goals


def test_check_refuses_a_resolution_that_the_networks_do_not_fit(tmp_path: Path) -> None:
    from nasengine.spaces.light_sdi import LightSDI

    space = LightSDI(width=2)
    task = TinySegmentation(size=32)
    Trained(resolution=0.5).check(search_for(tmp_path, Trained(), space=space, task=task))
    with pytest.raises(SpecError, match=r"resolution: at 0\.3 samples are 10x10"):
        Trained(resolution=0.3).check(search_for(tmp_path, Trained(), space=space, task=task))


def test_a_candidate_that_diverges_fails_with_a_reason(tmp_path: Path) -> None:
    class Diverging(TestedSegmentation):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return super().loss(outputs, targets) * math.nan

    estimator = Trained(**FAST)
    search = search_for(tmp_path, estimator, task=Diverging())
    with pytest.raises(EstimationFailed, match="the loss is nan at step 1"):
        estimator.measure(tiny_candidate(search))


def test_references_with_baseline_blocks_are_trained(tmp_path: Path) -> None:
    estimator = Trained(**FAST)
    search = search_for(tmp_path, estimator, space=TinySpace())
    big: Architecture = search.space.reference("big")
    candidate = Candidate(big, search, "reference-big", {})
    assert 0 <= estimator.measure(candidate)["iou"].value <= 1


def test_narrower_networks_are_measured_and_not_delivered(tmp_path: Path) -> None:
    for name in ("narrow", "half"):
        (tmp_path / name).mkdir()
    estimator = Trained(width_fraction=0.5, **FAST)
    search = search_for(tmp_path / "narrow", estimator)
    estimator.check(search)
    candidate = tiny_candidate(search)
    found = estimator.measure(candidate)
    assert not candidate.weights_path.exists()
    assert "delivered_seed" not in found["iou"].details
    # What a spec with half the width measures, with its own space.
    elsewhere = search_for(tmp_path / "half", Trained(**FAST), space=TinySpace(width=2))
    half = Trained(**FAST).measure(tiny_candidate(elsewhere))
    assert {n: m.value for n, m in untimed(found).items()} == {
        n: m.value for n, m in untimed(half).items()
    }
    # The candidate itself is as wide as before, for every other estimator.
    assert candidate.network().state_dict()["head.weight"].shape[1] == 4
    full = Trained(**FAST)
    assert full.measure(candidate)["loss"].value != found["loss"].value
    assert load_file(candidate.weights_path)["head.weight"].shape[1] == 4


def test_checkpoints_of_two_widths_are_two(tmp_path: Path) -> None:
    from nasengine.estimators._training_runs import _checkpoint

    candidate = tiny_candidate(search_for(tmp_path, Trained(**FAST)))
    paths = {_checkpoint(Trained(width_fraction=w, **FAST), candidate, 0) for w in (0.5, 1.0)}
    assert len(paths) == 2


class Fixed(TinySpace):
    """Its widths are nobody's to change."""

    widths = ()


class Grouped(TinySpace):
    """Its channels come in groups of four."""

    def define(self, graph: SpaceGraph) -> None:
        block = {"grouped": partial(torch.nn.Conv2d, kernel_size=1, groups=4), "plain": _conv}
        x = graph.operation("stem", graph.input(self.channels), _conv, out=self.width)
        graph.output(graph.operation("head", graph.slot("slot", x, block), _conv, out=1))


class Deeper(TinySpace):
    """Its slots depend on its width."""

    def define(self, graph: SpaceGraph) -> None:
        x = graph.operation("stem", graph.input(self.channels), _conv, out=self.width)
        for number in range(self.width):
            x = graph.slot(f"slot_{number}", x, {"conv": _conv, "other": partial(_conv)})
        graph.output(graph.operation("head", x, _conv, out=1))


def _conv(i: int, o: int) -> torch.nn.Module:
    return torch.nn.Conv2d(i, o, 1)


@pytest.mark.parametrize(
    ("space", "fraction", "message"),
    [
        (Fixed(), 0.5, "width_fraction: Fixed names no settings as its `widths`"),
        (TinySpace(), 0.9, "width_fraction: 0.9 of TinySpace's channels is all of them: width = 4"),
        (Grouped(), 0.5, "width_fraction: .*slot"),
        (Deeper(), 0.5, "width_fraction: Deeper has other slots or candidates with width = 2"),
    ],
)
def test_a_width_that_a_space_cannot_have_is_refused(
    tmp_path: Path, space: TinySpace, fraction: float, message: str
) -> None:
    estimator = Trained(width_fraction=fraction, **FAST)
    with pytest.raises(SpecError, match=message):
        estimator.check(search_for(tmp_path, estimator, space=space))

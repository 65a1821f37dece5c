"""The estimate of a check: rough, and of the right size."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nasengine import SearchSpace, SpaceError, SpaceGraph, workload
from nasengine.delivery.writable import not_writable
from nasengine.estimator import Estimator
from nasengine.plugin import load_class
from nasengine.runs.engine import Engine
from nasengine.runs.storage import Storage
from nasengine.strategy import Strategy
from nasengine.testing.stubs import CountingEstimator, TinySpace, TinyWidths, tiny_search
from nasengine.workload import Workload, estimate


def test_what_trains_nothing_takes_nothing(tmp_path: Path) -> None:
    strategy = load_class(Strategy, "random")()
    found = estimate(tiny_search(folder=tmp_path), strategy)
    assert found.seconds(10, 2) == 0
    assert found.bytes == 0


@pytest.mark.parametrize("space", [TinySpace, TinyWidths])
def test_a_search_takes_about_what_was_estimated(space: type[SearchSpace], tmp_path: Path) -> None:
    darts = load_class(Strategy, "darts")(iterations=40, batch=4, arch_every=10)
    trained = load_class(Estimator, "trained")(iterations=60)
    search = tiny_search(space(width=32), folder=tmp_path, estimators={"iou": trained}, trials=1)
    assert darts.workload(search) == Workload(44, 4, whole=True)
    assert trained.workload(search) == Workload(60, 16)
    # What is imported and set up the first time is no training, and not estimated.
    first = replace(search, folder=tmp_path / "first")
    Engine(first, darts, Storage(tmp_path / "first.sqlite")).run()
    expected = estimate(search, darts)
    started = time.perf_counter()
    Engine(search, darts, Storage(tmp_path / "history.sqlite")).run()
    took = time.perf_counter() - started
    # Rough, and on machines that have other work: that it is of the right size is what is tested.
    assert took / 20 < expected.seconds(1, 0) < took * 20
    assert expected.search_seconds > 0
    assert expected.trial_seconds > 0


def test_partial_channels_are_estimated_as_the_smaller_supernet_that_they_are() -> None:
    search = tiny_search(load_class(SearchSpace, "nas_bench_201")(width=8, classes=3))
    make = load_class(Strategy, "darts")
    whole, part = (estimate(search, make(partial_channels=part)) for part in (1, 4))
    assert part.bytes < 0.6 * whole.bytes
    assert part.search_seconds < whole.search_seconds


def test_more_steps_and_samples_take_proportionally_more(tmp_path: Path) -> None:
    make = load_class(Estimator, "trained")
    search = tiny_search(folder=tmp_path, estimators={"iou": make(iterations=10)})
    assert make(iterations=20, seeds=3).workload(search) == Workload(60, 16)
    assert make(iterations=40, resolution=0.5).workload(search) == Workload(10, 16)
    assert CountingEstimator().workload(search) is None


def test_a_batch_twice_as_large_keeps_twice_as_much(tmp_path: Path) -> None:
    random = load_class(Strategy, "random")()
    make = load_class(Estimator, "trained")
    kept = [
        estimate(
            tiny_search(folder=tmp_path, estimators={"iou": make(iterations=4, batch=batch)}),
            random,
        ).bytes
        for batch in (2, 4)
    ]
    assert kept[1] == pytest.approx(2 * kept[0])


class Clock:
    """A clock that only steps move."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(workload, "time", made)
    return made


def test_the_first_step_does_not_count(clock: Clock) -> None:
    taken = []

    def step() -> None:
        clock.now += 0.5 if taken else 7.0
        taken.append(clock.now)

    assert workload._usual(step) == 0.5
    assert len(taken) == 3


def test_what_a_step_takes_besides_its_samples_is_counted_once_a_step(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object) -> None:
        clock.now += 0.05

    monkeypatch.setattr(workload, "_ready", lambda *_: step)
    trained = load_class(Estimator, "trained")(iterations=100, batch=4)
    search = tiny_search(folder=tmp_path, estimators={"iou": trained})
    found = estimate(search, load_class(Strategy, "random")())
    assert found.trial_seconds == pytest.approx(5)


def test_the_budget_of_seconds_and_what_is_trained_at_the_end_count(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object) -> None:
        clock.now += 0.05

    monkeypatch.setattr(workload, "_ready", lambda *_: step)
    make = load_class(Estimator, "trained")
    search = tiny_search(folder=tmp_path, estimators={"iou": make(iterations=100, batch=4)})
    found = estimate(search, load_class(Strategy, "random")(), [make(iterations=400, batch=4)])
    assert found.final_seconds == pytest.approx(20)
    assert found.seconds(6, 1) == pytest.approx(6 * 5 + 5 + 2 * 20)
    assert found.seconds(1000, 1, 30.0) == found.seconds(None, 1, 30.0) == pytest.approx(75)


class Skipped(nn.Conv2d):
    """A convolution that is left out at random in training, or gives two outputs there."""

    def __init__(self, channels: int, *, several: bool = False) -> None:
        super().__init__(channels, channels, 1)
        self.several = several

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x + super().forward(x)
        if self.several:
            return x, x  # type: ignore[return-value]
        return x if torch.rand(1, device=x.device) < 0.5 else x + super().forward(x)


class SkippedSpace(SearchSpace):
    """One slot."""

    several: bool = False
    """Whether networks fail in training."""

    def define(self, graph: SpaceGraph) -> None:
        def head(i: int, o: int) -> nn.Module:
            return nn.Conv2d(i, o, 1)

        def skipped(i: int, _: int) -> nn.Module:
            return Skipped(i, several=self.several)

        x = graph.slot("only", graph.input(3), {"skipped": skipped})
        graph.output(graph.operation("head", x, head, out=1))


def test_what_is_left_out_at_random_in_training_is_estimated(tmp_path: Path) -> None:
    estimators = {"iou": load_class(Estimator, "trained")(iterations=2)}
    random = load_class(Strategy, "random")()
    search = tiny_search(SkippedSpace(), folder=tmp_path, estimators=estimators)
    assert not_writable(search.space.graph) == []
    assert estimate(search, random).trial_seconds > 0
    search = tiny_search(SkippedSpace(several=True), folder=tmp_path, estimators=estimators)
    with pytest.raises(SpaceError, match="the network only=skipped: a step of training fails: "):
        estimate(search, random)

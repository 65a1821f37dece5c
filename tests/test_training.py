"""The training loop: batches, schedule, checkpoints, resume to the bit, faults."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from nasengine import replay
from nasengine.batches import Batches
from nasengine.early_stopping import EarlyStopping
from nasengine.errors import EstimationFailed, Interrupted
from nasengine.evaluation import evaluate, evaluating, predict, score
from nasengine.optimisers import set_rates
from nasengine.passes import Precision
from nasengine.randomness import random_state, set_random_state, torch_seed
from nasengine.recipe import RECIPES, Recipe, RecipeSettings, one_cycle
from nasengine.replay import Graph, Recorder
from nasengine.reporter import Progress, Reporter
from nasengine.search import Search
from nasengine.testing.stubs import TinySegmentation, tiny_search
from nasengine.training import Training, make_optimiser

RECIPE = replace(RECIPES["adamw"], iterations=12, batch=4)
PAPER = replace(RECIPES["paper"], iterations=12, batch=4)


class Crash(Exception):
    pass


class CrashAt(Reporter):
    """Raises when a training comes to a step, or asks it to stop."""

    def __init__(self, step: int, stop: bool = False) -> None:
        self.step, self.stop = step, stop
        self.search: Search | None = None
        self.records: list[dict[str, object]] = []

    def record(self, kind: str, facts: dict[str, object]) -> None:  # type: ignore[override]
        self.records.append({"kind": kind, **facts})

    @contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Progress]:
        reporter, at = self, [done]

        class Counting(Progress):
            def advance(self, steps: int = 1, **facts: float | str) -> None:
                if description != "training":
                    return
                at[0] += steps
                assert "loss" in facts
                if at[0] == reporter.step:
                    if not reporter.stop:
                        raise Crash
                    assert reporter.search is not None
                    reporter.search.stop.set()

        yield Counting()


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    # Dropout draws from the global generator, whose state is to be resumed too.
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Conv2d(4, 1, 1),
    )


def training(search: Search, folder: Path, recipe: Recipe = RECIPE, **rest: object) -> Training:
    folder.mkdir(exist_ok=True)
    return Training(
        network(),
        search.splits.train,
        recipe,
        ("test",),
        folder / "training.safetensors",
        **rest,  # type: ignore[arg-type]
    )


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("recipe", [RECIPE, PAPER], ids=["adamw", "paper"])
@pytest.mark.parametrize("step", [1, 5, 11])
@pytest.mark.parametrize("save_seconds", [0.0, 1e9])
def test_resumes_to_the_bit(recipe: Recipe, step: int, save_seconds: float, tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)
    whole = training(search, tmp_path / "none", recipe)
    whole.run(search)
    crashing = training(search, tmp_path, recipe, save_seconds=save_seconds)
    with pytest.raises(Crash):
        crashing.run(replace(search, reporter=CrashAt(step)))
    resumed = training(search, tmp_path, recipe, save_seconds=save_seconds)
    # Other draws in between must not matter.
    torch.rand(7)
    resumed.run(search)
    assert same(whole.network, resumed.network)
    assert whole.curve == resumed.curve
    assert not same(whole.network, crashing.network)


class Drawing(nn.Module):
    """Draws from every global generator, and counts in a buffer that no state dictionary holds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count = self.count + 1
        drawn = random.random() + np.random.rand() + float(torch.rand(())) + float(self.count)
        return self.conv(x) * (1 + drawn)


def test_what_blocks_draw_and_count_is_resumed_too(tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)

    def made(folder: Path) -> Training:
        job = training(search, folder, save_seconds=0.0)
        torch.manual_seed(0)
        job.network = Drawing()
        return job

    whole, again = made(tmp_path / "none"), made(tmp_path / "again")
    before = random.getstate(), np.random.get_state()[1].tolist()
    whole.run(search)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())
    random.seed(7)
    np.random.seed(7)
    again.run(search)
    assert same(whole.network, again.network)
    with pytest.raises(Crash):
        made(tmp_path).run(replace(search, reporter=CrashAt(5)))
    resumed = made(tmp_path)
    resumed.run(search)
    assert resumed.curve == whole.curve
    assert same(whole.network, resumed.network)


@pytest.mark.parametrize("iterations", [1, 49, 50, 51, 99, 120, 149])
def test_a_curve_has_up_to_fifty_points(iterations: int, tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)
    job = training(search, tmp_path, replace(RECIPE, iterations=iterations))
    job.run(search)
    assert min(iterations, 25) <= len(job.curve) <= 50
    assert job.curve[-1][0] == iterations


def test_a_point_of_the_curve_is_the_mean_since_the_last(tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)
    losses: list[float] = []

    class Listening(Reporter):
        @contextmanager
        def progress(self, description: str, total: int, done: int = 0) -> Iterator[Progress]:
            class Kept(Progress):
                def advance(self, steps: int = 1, **facts: float | str) -> None:
                    losses.append(float(facts["loss"]))

            yield Kept()

    recipe = replace(RECIPE, iterations=60)
    whole = training(search, tmp_path / "whole", recipe)
    whole.run(replace(search, reporter=Listening()))
    pairs = zip(losses[::2], losses[1::2], strict=True)
    assert whole.curve == [(2 * n, (a + b) / 2) for n, (a, b) in enumerate(pairs, start=1)]
    with pytest.raises(Crash):
        training(search, tmp_path, recipe, save_seconds=0.0).run(
            replace(search, reporter=CrashAt(6))
        )
    resumed = training(search, tmp_path, recipe)
    resumed.run(search)
    assert resumed.curve == whole.curve


def test_a_training_that_is_done_is_read_again_without_a_step(tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)
    done = training(search, tmp_path)
    done.run(search, keep=True)

    class Refusing(Reporter):
        def progress(self, description: str, total: int, done: int = 0) -> NoReturn:
            raise AssertionError("nothing is left to do")

    again = training(search, tmp_path)
    again.run(replace(search, reporter=Refusing()), keep=True)
    assert same(done.network, again.network)
    assert again.curve == done.curve


def test_the_loss_of_several_passes_is_their_mean(tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)
    found = []
    for count in (1, 3):

        def passes(
            net: nn.Module, inputs: Tensor, step: int, run: Precision, count: int = count
        ) -> Iterator[Tensor]:
            return (run.run(net, inputs) for _ in range(count))

        job = training(search, tmp_path / str(count), replace(RECIPE, iterations=1), passes=passes)
        job.network = nn.Sequential(nn.Conv2d(3, 1, 1))
        nn.init.constant_(job.network[0].weight, 0.1)
        nn.init.zeros_(job.network[0].bias)
        job.run(search)
        found.append(job.curve[0][1])
    assert found[1] == pytest.approx(found[0])


class Augmenting(TinySegmentation):
    """Scales its samples at random."""

    def augment(
        self, inputs: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the samples, brighter or darker."""
        return inputs * torch.rand(len(inputs), 1, 1, 1, generator=generator), targets


def test_what_augmentation_draws_is_gone_on_with(tmp_path: Path) -> None:
    plain = tiny_search(folder=tmp_path)
    search = replace(plain, task=Augmenting())
    whole = training(search, tmp_path / "whole")
    whole.run(search)
    with pytest.raises(Crash):
        training(search, tmp_path, save_seconds=0.0).run(replace(search, reporter=CrashAt(5)))
    resumed = training(search, tmp_path)
    resumed.run(search)
    assert same(whole.network, resumed.network)
    without = training(plain, tmp_path / "without")
    without.run(plain)
    assert not same(whole.network, without.network), "what is trained on is augmented"


class Resizing(TinySegmentation):
    """Every third batch is smaller."""

    _batches: int = 0

    def augment(
        self, inputs: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        self._batches += 1
        size = inputs.shape[-1] // (2 if self._batches % 3 == 0 else 1)
        return inputs[..., :size, :size], targets[..., :size, :size]


class Recording(Recorder):
    """Does as a GPU does: a replay writes where it was recorded, and assigns nothing."""

    def __init__(self, *rest: Any) -> None:
        super().__init__(*rest)
        self.stream = "pretended"  # type: ignore[assignment]
        self.network = self.watched[0]

    def record(self, step: Callable[..., Any], inputs: Any) -> Graph[Any]:
        own = tree_map(torch.clone, inputs)
        outputs = step(*own)

        def launch() -> None:
            assigned = [(p, p.grad) for p in self.network.parameters()]
            for written, value in zip(tree_leaves(outputs), tree_leaves(step(*own)), strict=True):
                written.copy_(value)
            for parameter, gradient in assigned:
                parameter.grad = gradient

        return Graph(launch, own, outputs)


def test_batches_of_two_sizes_train_alike_recorded_and_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> nn.Module:
        torch.manual_seed(0)
        search = replace(tiny_search(folder=tmp_path), task=Resizing())
        made = replace(training(search, tmp_path), network=nn.Conv2d(3, 1, 3, padding=1))
        made.run(search)
        return made.network

    plain = trained()
    monkeypatch.setattr(replay, "_on", lambda _: nullcontext())
    monkeypatch.setattr(replay, "_telling_of_waits", nullcontext)
    monkeypatch.setattr("nasengine.training.Recorder", Recording)
    assert same(plain, trained())


@pytest.mark.parametrize("recipe", [RECIPE, PAPER], ids=["adamw", "paper"])
def test_rates_are_set_in_every_group(recipe: Recipe) -> None:
    optimiser = make_optimiser(nn.Conv2d(3, 1, 1), recipe)
    optimiser.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    set_rates(optimiser, 0.5, 0.25)
    for group in optimiser.param_groups:
        assert group["lr"] == 0.5
        assert group["betas"] == (0.25, 0.999) if recipe is RECIPE else group["momentum"] == 0.25


def test_a_rise_starts_the_patience_anew() -> None:
    scores = iter([1.0, 0.0, 2.0, 0.0, 2.0])
    stopping = EarlyStopping(lambda _: next(scores), every=1, patience=2)
    assert [stopping.look(nn.Linear(1, 1)) for _ in range(5)] == [False] * 4 + [True]
    assert stopping.best == 2.0


def test_a_network_without_parameters_is_named(tmp_path: Path) -> None:
    with pytest.raises(EstimationFailed, match="the network has no parameters"):
        make_optimiser(nn.ReLU(), RECIPE)


@pytest.mark.parametrize(("every", "looks"), [(5, [5, 10, 12]), (6, [6, 12]), (20, [12])])
def test_the_last_step_is_looked_at_too(every: int, looks: list[int], tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)
    job, looked = training(search, tmp_path), []

    def score(_: nn.Module) -> float:
        looked.append(job.step)
        return job.step

    job.stopping = EarlyStopping(score, every, patience=1)
    job.run(search)
    assert looked == looks


def test_no_gpu_is_touched_by_seeding_or_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object) -> None:
        raise AssertionError("a context would be opened on every GPU")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("get_rng_state", "get_rng_state_all", "set_rng_state", "set_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, touched)
    with torch_seed(0, "any"):
        set_random_state(random_state("cpu"), "cpu", pytest.fail)


def test_a_gpus_state_is_kept_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"cuda:0": torch.zeros(2), "cuda:1": torch.ones(2)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", states.__getitem__)
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: states.update({device: state})
    )
    kept = random_state("cuda:1")
    set_random_state(kept, "cuda:0", pytest.fail)
    assert torch.equal(states["cuda:0"], torch.ones(2))


@pytest.mark.parametrize(("before", "after"), [("cuda:0", "cpu"), ("cpu", "cuda:0")])
def test_another_kind_of_device_is_warned_of(
    before: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda _: torch.zeros(2))
    monkeypatch.setattr(torch.cuda, "set_rng_state", pytest.fail)
    warnings: list[str] = []
    kept = random_state(before)
    expected = torch.rand(3)
    set_random_state(kept, after, warnings.append)
    assert len(warnings) == 1
    assert torch.equal(torch.rand(3), expected)


def test_saves_before_it_stops(tmp_path: Path) -> None:
    reporter = CrashAt(5, stop=True)
    search = tiny_search(folder=tmp_path)
    search = replace(search, reporter=reporter)
    reporter.search = search
    with pytest.raises(Interrupted):
        training(search, tmp_path).run(search)
    search.stop.clear()
    resumed = training(search, tmp_path)
    resumed.run(search)
    whole = training(search, tmp_path / "none")
    reporter.step = -1
    whole.run(search)
    assert same(whole.network, resumed.network)
    # 5 steps before the stop and 7 after: nothing was done twice.
    steps = [r for r in reporter.records if r["kind"] == "training"]
    assert [r["step"] for r in steps][:12] == list(range(1, 13))


def test_a_kept_training_is_not_done_again(tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)
    first = training(search, tmp_path)
    first.run(search, keep=True)
    again = training(search, tmp_path)
    again.run(replace(search, reporter=CrashAt(1)))
    assert same(first.network, again.network)
    assert again.step == RECIPE.iterations
    assert again.seconds == first.seconds > 0


def test_draws_leave_the_global_generator_alone(tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)
    job = training(search, tmp_path)
    before = torch.get_rng_state()
    job.run(search)
    assert torch.equal(before, torch.get_rng_state())


def test_learns(tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)
    job = training(search, tmp_path, replace(RECIPE, iterations=60, learning_rate=0.05))
    before = evaluate(job.network, search.splits.validation, search)
    job.run(search)
    after = evaluate(job.network, search.splits.validation, search)
    assert after["loss"] < before["loss"] / 2
    assert after["iou"] > 0.8
    assert job.curve[0][1] > 2 * job.curve[-1][1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_fails_with_its_step(value: float, tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)

    def passes(network: nn.Module, inputs: Tensor, step: int, run: Precision) -> list[Tensor]:
        outputs = job.network(inputs)
        return [outputs * value if step == 3 else outputs]

    job = training(search, tmp_path, passes=passes)
    with pytest.raises(EstimationFailed, match=r"the loss is (nan|inf) at step 4"):
        job.run(search)


def test_gradients_of_passes_are_summed(tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)
    recipe = replace(PAPER, iterations=1)
    job = training(search, tmp_path, recipe)
    job.network[3].p = 0.0
    twice = training(search, tmp_path / "twice", replace(recipe, learning_rate=1.5e-4))
    twice.network[3].p = 0.0
    twice.passes = lambda network, inputs, step, run: (run.run(network, inputs) for _ in range(2))
    job.run(search)
    twice.run(search)
    # Weight decay is the same in both, so a plain sum shows to first order.
    for a, b in zip(job.network.parameters(), twice.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_early_stopping_keeps_the_best_weights_and_resumes(tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)
    scores = {2: 0.1, 4: 0.5, 6: 0.4, 8: 0.3, 10: 0.9}

    def job(folder: Path) -> Training:
        made = training(search, folder, save_seconds=0.0)
        made.stopping = EarlyStopping(lambda _: scores[made.step], every=2, patience=2)
        return made

    plain = training(search, tmp_path / "plain", replace(RECIPE, iterations=12))
    states: dict[int, dict[str, Tensor]] = {}
    plain.stopping = EarlyStopping(
        lambda net: (
            states.update({plain.step: {n: t.clone() for n, t in net.state_dict().items()}}) or 0.0
        ),
        every=2,
        patience=9,
    )
    plain.run(search)
    whole = job(tmp_path / "whole")
    whole.run(search)
    assert whole.step == 8
    assert all(torch.equal(whole.network.state_dict()[n], t) for n, t in states[4].items())
    broken = job(tmp_path)
    with pytest.raises(Crash):
        broken.run(replace(search, reporter=CrashAt(7)))
    resumed = job(tmp_path)
    resumed.run(search)
    assert resumed.step == 8
    assert same(whole.network, resumed.network)


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_batches_are_full_fair_and_resumable(count: int, batch: int, done: int) -> None:
    def make() -> Batches:
        return Batches(count, batch, torch.Generator().manual_seed(3))

    whole = make()
    drawn = [whole.draw() for _ in range(done + count)]
    assert all(len(indices) == batch for indices in drawn)
    flat = torch.cat(drawn).tolist()
    for start in range(0, len(flat) - count + 1, count):
        assert sorted(flat[start : start + count]) == list(range(count))
    part = make()
    for _ in range(done):
        part.draw()
    resumed = make()
    resumed.load_state_dict(part.state_dict())
    assert all(torch.equal(resumed.draw(), indices) for indices in drawn[done:])


@given(st.integers(10, 400))
@settings(max_examples=20, deadline=None)
def test_one_cycle_is_torch_s(total: int) -> None:
    optimiser = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1e-3, total_steps=total, pct_start=0.2, div_factor=10, final_div_factor=100
    )
    for step in range(total):
        group = optimiser.param_groups[0]
        rate, momentum = one_cycle(step, total, 1e-3)
        assert rate == pytest.approx(group["lr"], abs=1e-9)
        assert momentum == pytest.approx(group["betas"][0], abs=1e-9)
        optimiser.step()
        if step + 1 < total:
            schedule.step()


@given(st.integers(1, 9))
def test_short_schedules_stay_in_range(total: int) -> None:
    for step in range(total):
        rate, momentum = one_cycle(step, total, 1.0)
        assert 1e-3 <= rate <= 1.0
        assert 0.85 <= momentum <= 0.95


def test_recipes_are_the_ones_calibrated() -> None:
    paper = make_optimiser(network(), RECIPES["paper"]).param_groups[0]
    assert (paper["lr"], paper["momentum"], paper["weight_decay"]) == (3e-4, 0.9, 1e-4)
    assert RECIPES["paper"].rates(599) == (3e-4, 0.9)
    changed = RecipeSettings(recipe="paper", iterations=7, batch=3, weight_decay=0.0).resolved()
    assert changed == Recipe("sgd", 3e-4, 0.0, 3, 7, one_cycle=False)


def test_predict_is_the_network_in_evaluation_mode(tmp_path: Path) -> None:
    search = tiny_search(folder=tmp_path)
    net = network().train()
    net[1].eval()
    inputs = search.splits.train.inputs
    outputs = predict(net, inputs, "cpu", batch=3)
    assert [module.training for module in net] == [True, False, True, True, True]
    with evaluating(net):
        torch.testing.assert_close(outputs, net(inputs))
    assert not outputs.is_inference()
    assert predict(net.double(), inputs.double(), "cpu").dtype is torch.float32


def test_outputs_that_are_not_finite_are_no_score(tmp_path: Path) -> None:
    task = tiny_search(folder=tmp_path).task
    targets = torch.zeros(2, 4, 4, dtype=torch.int64)
    outputs = torch.zeros(2, 1, 4, 4)
    assert score(outputs, targets, task)["loss"] > 0
    outputs[1, 0, 0, 0] = math.nan
    with pytest.raises(EstimationFailed, match="NaN or infinity on held-out samples"):
        score(outputs, targets, task)

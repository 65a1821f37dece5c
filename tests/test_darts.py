"""The gradient search as a strategy: what it finds, logs, proposes and refuses."""

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from nasengine.errors import SearchFailed, SpecError
from nasengine.history import History
from nasengine.search import Budget
from nasengine.space import SearchSpace
from nasengine.strategies.alphas import derive
from nasengine.strategies.architecture_loss import ArchitectureLoss
from nasengine.strategies.darts import Darts
from nasengine.strategies.draws import make_draws, shares
from nasengine.strategies.gradient_search import GradientSearch
from nasengine.strategies.search_steps import SearchSteps
from nasengine.supernet import Mixture
from nasengine.task import Samples
from nasengine.testing.stubs import Kept, TinySegmentation, TinySpace, tiny_search
from nasengine.trial import Trial

parameters = pytest.importorskip("nasengine.estimators.parameters")


def make_search(space=None, task=None, **more):
    space = space or TinySpace()
    estimators = {"parameters": parameters.Parameters()}
    search = tiny_search(space, task=task, estimators=estimators)
    return replace(search, reporter=Kept(), **more)


def strategy(**settings):
    return Darts.model_validate({"iterations": 20, "arch_every": 2} | settings)


class Neighbours(TinySegmentation):
    """A pixel is foreground where the pixel two to its left is bright: nothing local tells."""

    def _make(self, seed, split, count):
        noise = torch.rand(count, *self.input_shape, generator=torch.Generator().manual_seed(seed))
        targets = (noise.mean(1).roll(2, dims=2) > 0.5).long()
        return Samples(noise, targets, tuple(f"{split}-{i}" for i in range(count)))


class Wasteful(nn.Conv2d):
    """A 5x5 convolution with weights that do nothing."""

    def __init__(self, channels_in, channels_out):
        super().__init__(channels_in, channels_out, 5, padding=2)
        self.dead = nn.Parameter(torch.zeros(3 * self.weight.numel()))


class Reaches(SearchSpace):
    """Only `five` and its dearer twin `wasteful` see two pixels to the side."""

    def define(self, graph):
        def block(convolution):
            return lambda i, o: nn.Sequential(convolution(i, o), nn.BatchNorm2d(o), nn.ReLU())

        choices = {
            "one": block(lambda i, o: nn.Conv2d(i, o, 1)),
            "three": block(lambda i, o: nn.Conv2d(i, o, 3, padding=1)),
            "wasteful": block(Wasteful),
            "five": block(lambda i, o: nn.Conv2d(i, o, 5, padding=2)),
        }
        x = graph.slot("only", graph.input(3), choices, out=6)
        graph.output(graph.operation("head", x, lambda i, o: nn.Conv2d(i, o, 1), out=1))


PLANTED = {
    "iterations": 60,
    "arch_every": 2,
    "weights": {"optimiser": "adam", "learning_rate": 0.02},
    "alphas": {"optimiser": "adam", "learning_rate": 0.1},
}


def find(search, **settings):
    (found,) = Darts.model_validate(PLANTED | settings).propose(History(), 1, search)
    return found["only"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"order": 2, "weights": {"learning_rate": 0.2}},
        {"relaxation": "none"},
        {"relaxation": "gumbel", "temperature": 2.0, "final_temperature": 0.5},
        {"paths": 2, "iterations": 100},
        {"perturbation": 0.1},
        {"alpha_share": 0},
        {"reading": "straight_through"},
    ],
    ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()) or "default",
)
def test_finds_the_cheaper_of_the_candidates_that_can(settings):
    search = make_search(Reaches(), Neighbours(samples=32))
    assert find(search, cost={"parameters": 0.1}, **settings) == "five"


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
def test_one_sampled_path_finds_a_candidate_that_can(relaxation):
    search = make_search(Reaches(), Neighbours(samples=32))
    found = find(search, relaxation=relaxation, paths=1, iterations=100)
    assert found in {"five", "wasteful"}


def test_a_larger_beta_gives_cheaper_networks():
    found = []
    for beta in (0.0, 0.9):
        search = make_search(Reaches(), Neighbours(samples=32))
        choice = find(search, cost={"parameters": beta})
        found.append(search.cost_table("parameters").costs["only"][choice])
    assert found[1] < found[0]


def test_logs_what_explains_the_search():
    search = make_search()
    strategy(cost={"parameters": 0.3}, log_every=5).propose(History(), 1, search)
    (told,) = search.reporter.of("darts_choices")
    assert told["choices"] == {n: list(c) for n, c in search.space.decisions.items()}
    records = search.reporter.of("darts")
    assert [record["iteration"] for record in records] == [5, 10, 15, 20]
    last = records[-1]
    assert {"task_loss", "alpha_loss", "alphas", "margins", "entropy", "derived"} <= set(last)
    assert list(last["alphas"]) == list(last["margins"]) == ["first", "second"]
    cost = last["costs"]["parameters"]
    assert cost["derived"] == search.cost_table("parameters").predict(last["derived"])
    assert {"expected", "loss", "as_printed", "unit"} <= set(cost)
    assert all(math.isfinite(record["task_loss"]) for record in records)
    (derived,) = search.reporter.of("darts_derived")
    assert derived["predicted"]["parameters"] == cost["derived"]


def test_initial_alphas_are_equal_and_weights_are_of_the_seed():
    settings = strategy(iterations=2, arch_every=2)
    made = []
    for seed in (0, 0, 1):
        search = GradientSearch(settings, make_search(seed=seed))
        search._prepare()
        assert all(not alpha.any() for alpha in search.steps.alphas.values())
        made.append(torch.cat([w.flatten() for w in search.steps.supernet.parameters()]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_proposes_what_is_not_in_the_history_then_nothing():
    search = make_search()
    darts = strategy(top_k=4)
    history = History()
    first = darts.propose(history, 2, search)
    assert len(first) == 2
    for architecture in first:
        history.record(Trial(len(history), architecture, search.space.key(architecture)))
    second = darts.propose(history, 9, search)
    assert len({*first, *second}) == 4
    for architecture in second:
        history.record(Trial(len(history), architecture, search.space.key(architecture)))
    assert darts.propose(history, 1, search) == []
    alphas = GradientSearch(darts, search).run().alphas
    assert first[0] == derive(alphas, search.space.decisions)
    assert list(search.checkpoints.iterdir()) == [search.checkpoints / "darts.json"]


def test_the_same_seed_gives_the_same_search():
    found = [GradientSearch(strategy(), make_search(seed=s)).run().alphas for s in (3, 3, 4)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not all(torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_weights_and_alphas_are_trained_on_their_own_shares():
    for_weights, for_alphas = shares(10, strategy(alpha_share=0.4), 0)
    assert (len(for_weights), len(for_alphas)) == (6, 4)
    assert sorted([*for_weights.tolist(), *for_alphas.tolist()]) == list(range(10))
    same = shares(10, strategy(alpha_share=0), 0)
    assert torch.equal(*same)
    assert sorted(same[0].tolist()) == list(range(10))


class Marked(TinySegmentation):
    """Every sample is its number; augmentation adds less than 1 to it."""

    def _make(self, seed, split, count):
        numbers = torch.arange(float(count))[:, None, None, None].expand(-1, *self.input_shape)
        targets = torch.zeros(count, self.size, self.size, dtype=torch.int64)
        return Samples(numbers.clone(), targets, tuple(f"{split}-{i}" for i in range(count)))

    def augment(self, inputs, targets, generator):
        return inputs + torch.rand(len(inputs), 1, 1, 1, generator=generator), targets


def drawn(share):
    """Return the numbers of what three iterations draw, and what augmentation added."""
    found = torch.cat([share.draw(iteration)[0][:, 0, 0, 0] for iteration in range(3)])
    return found.floor().long().tolist(), found.frac().tolist()


def test_batches_are_of_each_share_and_augmented_by_iteration_and_step():
    search = make_search(task=Marked(samples=24))
    settings = strategy(batch=4, alpha_share=0.5)
    of_weights, of_alphas = (drawn(share) for share in make_draws(settings, search))
    parts = [part.tolist() for part in shares(24, settings, search.seed)]
    assert [sorted(found[0]) for found in (of_weights, of_alphas)] == list(map(sorted, parts))
    assert len({*of_weights[1], *of_alphas[1]}) == 24
    assert [drawn(share) for share in make_draws(settings, search)] == [of_weights, of_alphas]
    seeded = [drawn(share) for share in make_draws(settings, replace(search, seed=1))]
    assert seeded[0][0] != of_weights[0] and seeded[0][1] != of_weights[1]
    # On the same samples, weights and alphas are still trained in an order of their own.
    both = [drawn(share)[0] for share in make_draws(strategy(batch=4, alpha_share=0), search)]
    assert both[0] != both[1]


def test_a_batch_beyond_the_data_is_refused():
    with pytest.raises(SpecError, match=r"strategy.batch: 5 is more than the 4 samples"):
        strategy(batch=5).propose(History(), 1, make_search())


def test_alphas_take_a_step_in_every_so_manieth_iteration():
    search = GradientSearch(strategy(iterations=10, arch_every=3), make_search())
    search.run()
    assert len(search.trajectory) == 1 + 3


class Broken(TinySegmentation):
    """Its loss is NaN."""

    def loss(self, outputs, targets):
        return super().loss(outputs, targets) * math.nan


def test_a_loss_that_is_not_finite_ends_the_search_by_name():
    search = make_search(task=Broken())
    with pytest.raises(SearchFailed, match=r"task's loss is nan at iteration 1 of 20"):
        strategy().propose(History(), 1, search)


def test_an_exploding_search_names_the_iteration_and_keeps_the_checkpoint():
    search = make_search()
    settings = strategy(weights={"learning_rate": 1e30, "momentum": 0}, save_seconds=0)
    with pytest.raises(SearchFailed, match=r"is (nan|inf) at iteration \d+ of 20 \(learning rate"):
        settings.propose(History(), 1, search)
    assert (search.checkpoints / "darts.safetensors").exists()


def test_warns_of_collapse_and_of_noise():
    search = make_search()
    settings = {"cost": {"parameters": 0.95}, "alphas": {"learning_rate": 10.0}}
    strategy(**settings).propose(History(), 1, search)
    assert any("collapse: 2 of 2 decisions" in text for text in search.reporter.warnings)
    for tolerance, told in ((0.1, False), (1.0, True)):
        search = make_search()
        settings["cost"] = {"parameters": {"target": 100, "tolerance": tolerance}}
        strategy(**settings).propose(History(), 1, search)
        assert any("collapse:" in text for text in search.reporter.warnings) is told
    search = make_search()
    strategy(iterations=2).propose(History(), 1, search)
    assert any("within noise: at 2 of 2" in text for text in search.reporter.warnings)


def test_ends_early_when_collapsed_or_stable():
    search = make_search()
    settings = {"cost": {"parameters": 0.95}, "alphas": {"learning_rate": 10.0}}
    result = GradientSearch(strategy(stop_when_collapsed=2, **settings), search).run()
    assert result.iterations < 20
    assert "cheapest" in result.reason
    search = make_search()
    result = GradientSearch(strategy(stop_when_stable=3, **settings), search).run()
    assert result.iterations < 20
    assert "no arg-max changed in 3 steps" in result.reason
    assert any("ended after" in text for text in search.reporter.notes)


def test_an_early_end_that_could_never_come_is_refused():
    strategy(stop_when_stable=10, stop_when_collapsed=2).check(make_search())
    with pytest.raises(SpecError, match=r"stop_when_collapsed: the space has 2 decisions"):
        strategy(stop_when_collapsed=3).check(make_search())
    with pytest.raises(ValidationError, match="there are 10 steps of the alphas"):
        strategy(stop_when_stable=11)


def test_ends_when_the_budget_of_seconds_is_spent():
    search = make_search(budget=Budget(seconds=1e-6))
    result = GradientSearch(strategy(), search).run()
    assert result.iterations == 1
    assert "budget" in result.reason


def test_second_order_takes_the_step_that_sgd_takes():
    search = GradientSearch(strategy(order=2, weights={"learning_rate": 0.1}), make_search())
    search._prepare()
    steps = search.steps
    batch = search._weight_batches.draw(0)
    steps.step_weights(batch, 0)
    before = [w.detach().clone() for w in steps._weights.values()]
    steps.step_weights(batch, 1)
    # Biases before a batch norm have none: see nasengine.passes.conv_bias.
    gradients = [
        torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in steps._weights.values()
    ]
    after = [w.detach().clone() for w in steps._weights.values()]
    again = GradientSearch(strategy(order=2, weights={"learning_rate": 0.1}), make_search())
    again._prepare()
    again.steps.step_weights(again._weight_batches.draw(0), 0)
    changes = again.steps._virtual_step(gradients)
    for start, change, end in zip(before, changes, after, strict=True):
        torch.testing.assert_close(start + change, end)


def test_second_order_differentiates_the_loss_on_one_share_through_a_step_on_the_other():
    """DARTS, equation 6, by autograd through the step, in place of the finite difference."""
    rate, decay = 0.5, 0.01
    settings = {"order": 2, "weights": {"learning_rate": rate, "weight_decay": decay}}
    search = GradientSearch(strategy(**settings, cost={"parameters": 0.3}), make_search())
    search._prepare()
    steps = search.steps
    steps.supernet.double()
    training, validation = (
        (batch[0].double(), batch[1])
        for batch in (search._weight_batches.draw(0), search._alpha_batches.draw(0))
    )
    for alpha in steps.alphas.values():
        alpha.data = torch.linspace(-1, 1, len(alpha)).double()
    given = steps._given(0, "alphas")
    weights = [w.detach().clone().requires_grad_() for w in steps._weights.values()]
    loss = steps._task_loss(training, steps._mixtures(given), weights)
    gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    moved = [
        w - rate * ((0 if g is None else g) + decay * w)
        for w, g in zip(weights, gradients, strict=True)
    ]
    total = steps._total_loss(validation, given, moved)
    exact = torch.autograd.grad(total, list(steps.alphas.values()))
    assert steps.step_alphas(validation, training, 0) == pytest.approx(total.item())
    for alpha, gradient in zip(steps.alphas.values(), exact, strict=True):
        torch.testing.assert_close(alpha.grad, gradient, rtol=1e-2, atol=1e-5)


def test_what_changes_with_the_iterations_goes_from_its_start_to_its_end():
    settings = {"temperature": 2.0, "final_temperature": 0.5, "perturbation": 0.2}
    search = GradientSearch(strategy(iterations=11, **settings), make_search())
    search._prepare()
    steps = search.steps
    assert [steps.temperature(t) for t in (0, 5, 10)] == [2.0, 1.25, 0.5]
    for iteration, most in ((0, 0.2 / 11), (10, 0.2)):
        moved = []
        for seed in range(30):
            steps.search = replace(search.search, seed=seed)
            moved += steps._given(iteration, "weights").shifts.values()
        assert 0.8 * most < float(torch.cat(moved).abs().max()) <= most
    # The alphas' own step is not perturbed: SmoothDARTS, Algorithm 1.
    assert not steps._given(10, "alphas").shifts
    cosine = strategy(weights={"learning_rate": 0.4, "schedule": "cosine"}).weights
    assert [cosine.rate(t, 12) for t in (0, 4, 6, 12)] == pytest.approx([0.4, 0.3, 0.2, 0.0])
    assert strategy(weights={"learning_rate": 0.4}).weights.rate(11, 12) == 0.4


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, 110), ({"order": 2}, 140), ({"paths": 1}, 110), ({"paths": 2}, 120)],
)
def test_a_search_is_as_much_work_as_its_passes(settings, steps):
    search = make_search()
    found = strategy(iterations=100, arch_every=10, **settings).workload(search)
    assert (found.steps, found.whole) == (steps, "paths" not in settings)


def test_sampled_paths_run_only_what_was_sampled():
    search = GradientSearch(strategy(relaxation="gumbel", paths=1), make_search())
    search._prepare()
    ran = []
    for name, module in search.steps.supernet.named_modules():
        if name.count(".") == 3 and ".candidates." in name:
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    search.steps.step_weights(search._weight_batches.draw(0), 0)
    assert len(ran) == 2


def test_the_summary_says_what_it_is():
    assert "DARTS" in Darts.summary()


def test_searches_cells_whose_choices_may_cost_nothing():
    spaces = pytest.importorskip("nasengine.spaces.nas_bench_201")
    space = spaces.NASBench201(width=2, cells_per_stage=1)
    search = make_search(space)
    (found,) = strategy(iterations=4, cost={"parameters": 0.3}).propose(History(), 1, search)
    assert list(found) == list(space.decisions)
    (record,) = search.reporter.of("darts")[-1:]
    assert math.isfinite(record["costs"]["parameters"]["loss"])


class Bodies(SearchSpace):
    """Two slots that keep their input's shape, and a first layer that does not."""

    first_too: bool = False

    def define(self, graph):
        choices = {
            "one": lambda i, o: nn.Sequential(nn.Conv2d(i, o, 1), nn.BatchNorm2d(o), nn.ReLU()),
            "five": lambda i, o: nn.Sequential(nn.Conv2d(i, o, 5, padding=2), nn.BatchNorm2d(o)),
        }
        x = graph.input(3)
        if self.first_too:
            x = graph.slot("first", x, choices, out=8)
        else:
            x = graph.operation("stem", x, lambda i, o: nn.Conv2d(i, o, 1), out=8)
        x = graph.slot("body", x, choices, out=8)
        x = graph.slot("tail", x, choices, out=8)
        graph.output(graph.operation("head", x, lambda i, o: nn.Conv2d(i, o, 1), out=1))


def test_partial_channels_run_a_part_through_the_candidates_and_derive_whole_ones():
    search = make_search(Bodies(), task=Neighbours())
    loss = ArchitectureLoss((), "expected", "cpu")
    steps = SearchSteps(strategy(partial_channels=4), search, loss)
    body = steps.supernet.network.get_submodule("body")
    assert next(body.candidates["five"].parameters()).shape == (2, 2, 5, 5)
    weights = Mixture(torch.tensor([0.0, 1.0]))
    x = torch.rand(1, 8, 6, 6)
    out = body(x, mixture=weights)
    # Groups of channels are interleaved: the two that went through stand first and fifth.
    passed = [c for c in range(8) if any(torch.equal(out[0, c], x[0, k]) for k in range(2, 8))]
    assert passed == [1, 2, 3, 5, 6, 7]
    (found,) = strategy(partial_channels=4).propose(History(), 1, search)
    assert search.space.architecture(found) == found


def test_partial_channels_need_slots_that_keep_their_shape():
    said = r"partial_channels: 4 needs .* slot 'first' makes 8x16x16 of 3x16x16"
    with pytest.raises(SpecError, match=said):
        strategy(partial_channels=4).check(make_search(Bodies(first_too=True)))
    with pytest.raises(SpecError, match="partial_channels: 3 needs"):
        strategy(partial_channels=3).check(make_search(Bodies()))
    strategy(partial_channels=8).check(make_search(Bodies()))


def test_a_checkpoint_of_a_gpu_is_gone_on_from_as_this_device_needs_it():
    settings = strategy(weights={"optimiser": "adamw"})
    first, second = (GradientSearch(settings, make_search()) for _ in range(2))
    first._prepare()
    first._advance()
    state = first.steps.state_dict()
    for group in state["weight_optimiser"]["param_groups"]:
        group["capturable"] = True
        group["lr"] = torch.tensor(group["lr"])
    second._prepare()
    second.steps.load_state_dict(state)
    for search in (first, second):
        search.steps.step_weights(search._weight_batches.draw(1), 1)
    optimiser = second.steps._weight_optimiser
    assert not any(group["capturable"] for group in optimiser.param_groups)
    assert not any(isinstance(group["lr"], torch.Tensor) for group in optimiser.param_groups)

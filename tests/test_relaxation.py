"""Relaxations, what the alphas say, and the second-order gradient."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasengine.strategies.alphas import derive, entropies, log_probabilities, margins, unsure
from nasengine.strategies.relaxation import Relaxation, shifted, shifts
from nasengine.strategies.second_order import unrolled_gradient

rows = st.lists(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=6), min_size=1, max_size=4
)
kinds = st.sampled_from(
    [("softmax", 0), ("softmax", 1), ("softmax", 2), ("gumbel", 0), ("gumbel", 1)]
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(rows, kinds, st.floats(0.1, 10), st.integers(0, 2**31))
def test_mixtures_are_distributions_over_what_runs(values, kind, temperature, seed):
    relaxation = Relaxation(*kind)
    alphas = {f"d{i}": torch.tensor(row) for i, row in enumerate(values)}
    noise = relaxation.noise(alphas, generator(seed))
    for for_weights in (False, True):
        mixtures = relaxation.mixtures(alphas, noise, temperature, for_weights=for_weights)
        for name, (weights, active, _) in mixtures.items():
            assert weights.shape == alphas[name].shape
            assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
            if relaxation.paths:
                wanted = 1 if for_weights else min(relaxation.paths, len(weights))
                assert len(active) == len(set(active)) == wanted
                assert int(weights.argmax()) in active
                assert float(weights.max()) == pytest.approx(1, abs=1e-5)
            else:
                assert active is None


def test_without_relaxation_the_alphas_are_the_weights():
    relaxation = Relaxation("none")
    alphas = {"a": relaxation.initial(4)}
    assert alphas["a"].tolist() == [0.25] * 4
    mixture = relaxation.mixtures(alphas, relaxation.noise(alphas, generator()), 1.0)["a"]
    assert torch.equal(mixture.weights, alphas["a"])


@pytest.mark.parametrize("kind", [("softmax", 1), ("gumbel", 1), ("softmax", 2)])
def test_the_path_of_the_weights_is_drawn_from_the_softmax(kind):
    alphas = {"a": torch.tensor([0.0, 1.0, -1.0])}
    relaxation, drawn, draws = Relaxation(*kind), [0, 0, 0], 3000
    source = generator(1)
    for _ in range(draws):
        noise = relaxation.noise(alphas, source)
        mixtures = relaxation.mixtures(alphas, noise, 0.5, for_weights=True)
        drawn[mixtures["a"].active[0]] += 1
    # As costs are expected; the temperature sharpens the softmax, and no arg-max of Gumbel's.
    told = relaxation.probabilities(alphas, 0.5)["a"].tolist()
    for count, p in zip(drawn, told, strict=True):
        assert abs(count / draws - p) < 4 * math.sqrt(p * (1 - p) / draws)


def test_gumbel_weights_are_a_sample_that_temperature_sharpens():
    """SNAS, equation 4: the largest is drawn from the softmax; no draw is the mean of them."""
    alphas = {"a": torch.tensor([0.0, 1.0, -1.0])}
    relaxation, drawn, source = Relaxation("gumbel"), [0, 0, 0], generator(2)
    for _ in range(3000):
        noise = relaxation.noise(alphas, source)
        soft, sharp = (relaxation.mixtures(alphas, noise, t)["a"].weights for t in (1.0, 0.2))
        drawn[int(soft.argmax())] += 1
        assert int(sharp.argmax()) == int(soft.argmax()) and sharp.max() >= soft.max()
    for count, p in zip(drawn, torch.softmax(alphas["a"], 0).tolist(), strict=True):
        assert abs(count / 3000 - p) < 4 * math.sqrt(p * (1 - p) / 3000)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_of_two_paths_the_gate_is_drawn_between_the_two(temperature):
    """ProxylessNAS, section 3.2.2: by their probabilities, renormalised; its gradient is theirs."""
    alphas = {"a": torch.tensor([1.0, 0.0])}
    relaxation, source = Relaxation("softmax", 2), generator(3)
    noises = [relaxation.noise(alphas, source) for _ in range(3000)]
    mixtures = [relaxation.mixtures(alphas, noise, temperature)["a"] for noise in noises]
    assert {mixture.active for mixture in mixtures} == {(0, 1), (1, 0)}
    p = 1 / (1 + math.exp(-1 / temperature))
    first = sum(int(mixture.weights.argmax()) == 0 for mixture in mixtures) / 3000
    assert abs(first - p) < 4 * math.sqrt(p * (1 - p) / 3000)
    alpha = alphas["a"].clone().requires_grad_()
    relaxation.mixtures({"a": alpha}, noises[0], temperature)["a"].weights[0].backward()
    assert alpha.grad.tolist() == pytest.approx(
        [p * (1 - p) / temperature, -p * (1 - p) / temperature]
    )


def test_hard_gumbel_has_the_gradient_of_the_soft_one():
    found = []
    for paths in (0, 1):
        alpha = torch.tensor([0.3, -0.2, 0.1], requires_grad=True)
        relaxation = Relaxation("gumbel", paths)
        noise = relaxation.noise({"a": alpha}, generator(3))
        weights = relaxation.mixtures({"a": alpha}, noise, 0.7)["a"].weights
        (weights * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
        found.append(alpha.grad)
    torch.testing.assert_close(found[0], found[1])
    assert found[0].abs().sum() > 0


def test_two_paths_move_only_the_sampled_pair():
    alpha = torch.tensor([0.3, -0.2, 0.1, 0.0], requires_grad=True)
    relaxation = Relaxation("softmax", 2)
    mixture = relaxation.mixtures({"a": alpha}, relaxation.noise({"a": alpha}, generator()), 1.0)
    weights, active, _ = mixture["a"]
    (weights * torch.tensor([1.0, 2.0, 4.0, 8.0])).sum().backward()
    assert {i for i, g in enumerate(alpha.grad.tolist()) if g} == set(active)
    assert float(alpha.grad.sum()) == pytest.approx(0, abs=1e-6)


def test_perturbation_is_bounded():
    alphas = {"a": torch.zeros(5)}
    relaxation = Relaxation()
    plain = relaxation.mixtures(alphas, relaxation.noise(alphas, generator()), 1.0)
    moved = shifted(plain, shifts(alphas, 0.1, generator()))["a"].weights - plain["a"].weights
    assert -0.1 <= float(moved.min()) < -0.01 < 0.01 < float(moved.max()) <= 0.1


@given(rows)
def test_margins_and_entropies_are_shares(values):
    alphas = {f"d{i}": torch.tensor(row) for i, row in enumerate(values)}
    decisions = {name: [f"c{i}" for i in range(len(row))] for name, row in alphas.items()}
    assert all(0 <= margin <= 1 for margin in margins(alphas).values())
    assert all(-1e-9 <= entropy <= 1 + 1e-9 for entropy in entropies(alphas).values())
    chosen = derive(alphas, decisions)
    for name, row in log_probabilities(alphas).items():
        assert row[decisions[name].index(chosen[name])] == max(row)


def test_a_margin_is_between_the_best_two():
    alphas = {"a": torch.tensor([0.2, 0.5, 0.3]).log(), "only": torch.zeros(1)}
    assert margins(alphas) == pytest.approx({"a": 0.2, "only": 1.0})


def test_each_decision_is_judged_by_its_own_alphas():
    steady = torch.arange(9)[:, None] * torch.tensor([[0.1, 0.0]])
    level = torch.tensor([[0.0, 0.0], [0.1, 0.1]]).repeat(5, 1)[:9]
    decisions = {"a": ("x", "y"), "b": ("x", "y")}
    assert unsure(torch.cat([steady, level], 1), decisions) == ["b"]
    assert unsure(torch.cat([level, steady], 1), decisions) == ["a"]


def test_a_steady_lead_is_sure_and_a_wandering_one_is_not():
    decisions = {"a": ("x", "y", "z"), "only": ("x",)}
    flagged = {"steady": 0, "wandering": 0}
    for seed in range(100):
        steps = torch.randn(60, 4, generator=generator(seed)) * torch.tensor([1.0, 1.0, 1.0, 0.0])
        wandering = torch.cat([torch.zeros(1, 4), steps.cumsum(0) * 0.1])
        steady = wandering + torch.arange(61)[:, None] * torch.tensor([[0.1, 0.0, 0.0, 0.0]])
        flagged["wandering"] += unsure(wandering, decisions) == ["a"]
        flagged["steady"] += unsure(steady, decisions) == ["a"]
    assert flagged["wandering"] >= 95
    assert flagged["steady"] <= 5
    assert unsure(torch.zeros(1, 4), decisions) == ["a"]


def quadratic(seed=0):
    """Return losses of a tiny problem with curvature in weights and alphas."""
    source = generator(seed)
    a, b = (torch.randn(6, 3, generator=source, dtype=torch.float64) for _ in range(2))
    y = torch.randn(6, generator=source, dtype=torch.float64)

    def loss(data, weights, alpha):
        mixed = data * torch.softmax(alpha, 0)
        return (torch.tanh(mixed @ weights[0]) - y).square().mean() + 0.1 * weights[
            1
        ].square().sum()

    weights = [torch.randn(3, generator=source, dtype=torch.float64), torch.ones(2).double()]
    alpha = torch.randn(3, generator=source, dtype=torch.float64).requires_grad_()
    return a, b, loss, weights, alpha


@pytest.mark.parametrize("seed", range(3))
def test_second_order_gradient_is_the_exact_hypergradient(seed):
    train, validation, loss, weights, alpha = quadratic(seed)
    rate, decay = 0.3, 0.05
    tracked = [w.clone().requires_grad_() for w in weights]
    gradients = torch.autograd.grad(loss(train, tracked, alpha), tracked, create_graph=True)
    moved = [w - rate * (g + decay * w) for w, g in zip(tracked, gradients, strict=True)]
    (exact,) = torch.autograd.grad(loss(validation, moved, alpha), alpha)
    before = [w.clone() for w in weights]
    value, (found,) = unrolled_gradient(
        lambda w: loss(validation, w, alpha),
        lambda w: loss(train, w, alpha),
        weights,
        [alpha],
        lambda g: [-rate * (d + decay * w) for d, w in zip(g, weights, strict=True)],
        rate,
    )
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-6)
    assert float(value) == pytest.approx(loss(validation, moved, alpha).item())
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    (first,) = torch.autograd.grad(loss(validation, weights, alpha), alpha)
    assert (first - exact).norm() > 10 * (found - exact).norm()


def test_second_order_without_influence_of_the_weights():
    alpha = torch.ones(2, requires_grad=True)
    _, (gradient,) = unrolled_gradient(
        lambda _: alpha.sum(), lambda w: w[0].sum(), [torch.ones(3)], [alpha], lambda g: g, 0.1
    )
    assert gradient.tolist() == [1, 1]

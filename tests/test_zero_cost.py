"""The zero-cost proxies: cases worked out by hand, and the estimator around them."""

from __future__ import annotations

import copy
import math
import statistics

import pytest
import torch
from torch import nn

from nasengine.architecture import Architecture
from nasengine.errors import EstimationFailed, SpecError
from nasengine.estimators import zero_cost_proxies
from nasengine.estimators.zero_cost import ZeroCost
from nasengine.estimators.zero_cost_proxies import (
    PROXIES,
    Probe,
    grad_norm,
    jacob_cov,
    naswot,
    snip,
    synflow,
    zen,
)
from nasengine.graph import SpaceGraph
from nasengine.space import SearchSpace
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.testing.stubs import tiny_candidate, tiny_search


def probe(inputs):
    inputs = torch.as_tensor(inputs, dtype=torch.float32)
    return Probe(inputs, lambda outputs: outputs.sum(), torch.Generator().manual_seed(0))


def linear(*weights):
    layers = []
    for weight in weights:
        layer = nn.Linear(len(weight[0]), len(weight), bias=False)
        layer.weight.data = torch.tensor(weight)
        layers.append(layer)
    return nn.Sequential(*layers)


class Square(nn.Module):
    def forward(self, x):
        return x * x


def test_grad_norm_sums_the_layers():
    # d(sum)/d(w1) = w2 x = 2 (3, 4), of norm 10; d(sum)/d(w2) = w1 x = 11.
    assert grad_norm(linear([[1.0, 2.0]], [[2.0]]), probe([[3.0, 4.0]])) == pytest.approx(21)


def test_snip_weighs_gradients_by_their_weights():
    # |1 x 6| + |-2 x 8| + |2 x (3 - 8)|
    assert snip(linear([[1.0, -2.0]], [[2.0]]), probe([[3.0, 4.0]])) == pytest.approx(32)


def test_synflow_takes_absolute_weights_ones_and_no_batch_norm():
    # R = |3| (|1| + |-2|) = 9, and each layer's share of it is R.
    network = linear([[1.0, -2.0]], [[-3.0]])
    assert synflow(network, probe([[30.0, -40.0], [1.0, 1.0]])) == pytest.approx(18)
    normed = nn.Sequential(linear([[1.0, -2.0]]), nn.BatchNorm1d(1), linear([[-3.0]]))
    assert synflow(normed, probe([[30.0, -40.0]])) == pytest.approx(18)


@pytest.mark.parametrize(
    "norm",
    [
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
        nn.LayerNorm([4, 6, 6]),
        nn.RMSNorm([6]),
        nn.BatchNorm2d(4, track_running_stats=False),
    ],
    ids=lambda norm: type(norm).__name__,
)
@pytest.mark.parametrize("proxy", [synflow, zen])
def test_what_any_norm_takes_away_a_proxy_does_not_lose(proxy, norm):
    class Normed(nn.Module):
        """A large scale before a norm, or before nothing."""

        def __init__(self, scale, *norms):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
            self.norms, self.scale = nn.Sequential(*copy.deepcopy(norms)), scale

        def forward(self, x):
            return self.norms(self.conv(x) * self.scale)

    def score(scale, *norms):
        torch.manual_seed(0)
        return proxy(Normed(scale, *norms), probe(torch.zeros(8, 3, 6, 6)))

    if proxy is synflow:
        assert score(1.0, norm) == score(1.0) > 0
    else:
        assert score(100.0, norm) == pytest.approx(score(1.0, norm) + math.log(100), abs=0.01)


def test_a_norm_that_is_a_function_is_left_out_of_synflow_too():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = linear([[1.0, -2.0], [1.0, 2.0]])

        def forward(self, x):
            return nn.functional.layer_norm(input=self.first(x), normalized_shape=[2])

    assert synflow(Normed(), probe([[30.0, -40.0]])) == pytest.approx(6)


@pytest.mark.parametrize(("further", "count"), [({}, 2), ({"kdim": 6, "vdim": 6}, 4)])
def test_attention_s_projections_are_weights(further, count):
    attention = nn.MultiheadAttention(4, 2, **further)
    weights = zero_cost_proxies._weights(nn.Sequential(attention))
    assert len(weights) == count
    assert {id(w) for w in weights} == {id(p) for p in attention.parameters() if p.ndim == 2}


@pytest.mark.parametrize("proxy", ["grad_norm", "snip", "synflow"])
def test_a_network_without_weights_has_no_score(proxy):
    with pytest.raises(ValueError, match="no convolution and no linear layer"):
        PROXIES[proxy](nn.Sequential(nn.ReLU()), probe(torch.rand(2, 3, 4, 4)))


def test_synflow_of_a_deep_network_stays_finite():
    deep = linear(*[[[30.0] * 8] * 8] * 60)
    assert math.isfinite(synflow(deep, probe(torch.zeros(1, 8))))


@pytest.mark.parametrize(
    "relu",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.LeakyReLU(inplace=True),
        nn.PReLU(init=-0.5),
        nn.GELU(),
        nn.SiLU(),
        nn.ELU(inplace=True),
        nn.SELU(),
        nn.CELU(),
        nn.Mish(),
        nn.Hardswish(),
        nn.Softplus(),
        nn.RReLU(),
    ],
    ids=str,
)
def test_naswot_counts_units_alike(relu):
    inputs = [[1.0, 1.0, -1.0], [1.0, -1.0, -1.0], [-1.0, -1.0, -1.0]]
    kernel = torch.tensor([[3.0, 2, 1], [2, 3, 2], [1, 2, 3]])
    assert naswot(nn.Sequential(relu), probe(inputs)) == pytest.approx(kernel.logdet().item())


def test_naswot_without_a_relu():
    with pytest.raises(ValueError, match="no ReLU"):
        naswot(nn.Sequential(nn.Sigmoid()), probe([[1.0]]))


def test_jacob_cov_prefers_jacobians_that_differ():
    k = 1e-5
    # The gradient of sum x^2 is 2x: rows without correlation have eigenvalues 1, 1.
    apart = jacob_cov(Square(), probe([[1.0, -1, 1, -1], [1, 1, -1, -1]]))
    assert apart == pytest.approx(-2 * (math.log(1 + k) + 1 / (1 + k)), rel=1e-6)
    # Equal rows have eigenvalues 2, 0.
    alike = jacob_cov(Square(), probe([[1.0, -1, 1, -1], [1, -1, 1, -1]]))
    expected = -(math.log(2 + k) + 1 / (2 + k) + math.log(k) + 1 / k)
    assert alike == pytest.approx(expected, rel=1e-3)


def test_jacobians_that_do_not_vary_have_no_score():
    with pytest.raises(ValueError, match="gradient is the same everywhere"):
        jacob_cov(nn.Conv2d(1, 1, 1), probe(torch.rand(4, 1, 5, 5)))


def test_zen_is_the_distance_that_a_small_step_makes():
    # The identity moves by 0.01 e; the norm of a Gaussian vector of n numbers is about sqrt(n).
    found = zen(nn.Identity(), probe(torch.zeros(64, 4, 16, 16)))
    assert found == pytest.approx(math.log(0.01 * math.sqrt(4 * 256)), abs=0.01)


def test_zen_gives_back_what_batch_norms_take():
    # Scaling before a batch norm changes nothing after it: the deviation is added instead.
    class Times(nn.Module):
        def forward(self, x):
            return 1000 * x

    inputs = torch.zeros(64, 4, 16, 16)
    plain = zen(nn.Identity(), probe(inputs))
    normed = zen(nn.Sequential(Times(), nn.BatchNorm2d(4)), probe(inputs))
    assert normed == pytest.approx(plain + math.log(1000), abs=0.01)


def test_zen_of_a_classifier_is_taken_before_the_pooling():
    inputs = torch.zeros(64, 4, 16, 16)
    pooled = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert zen(pooled, probe(inputs)) == pytest.approx(zen(nn.Identity(), probe(inputs)), abs=0.01)


def test_zen_is_taken_at_the_last_features():
    class Times(nn.Module):
        def forward(self, x):
            return 1000 * x

    inputs = torch.zeros(64, 4, 16, 16)
    deep = nn.Sequential(nn.Identity(), Times(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plain = zen(nn.Identity(), probe(inputs))
    assert zen(deep, probe(inputs)) == pytest.approx(plain + math.log(1000), abs=0.01)


def test_nothing_is_dropped_out_of_synflow():
    weights = [[1.0, -2.0]], [[2.0]]
    dropping = nn.Sequential(nn.Dropout(0.9), *linear(*weights))
    inputs = [[3.0, 4.0]]
    assert synflow(dropping, probe(inputs)) == synflow(linear(*weights), probe(inputs))


@pytest.mark.parametrize("proxy", PROXIES)
def test_every_proxy_measures_a_space_and_repeats_itself(proxy, tmp_path):
    search = tiny_search(estimators={}, folder=tmp_path)
    estimator = ZeroCost(proxy=proxy, batch=4)
    values = [
        estimator.measure(tiny_candidate(search, label=label))[proxy].value
        for label in ("trial-0", "trial-0", "trial-1")
    ]
    assert values[0] == values[1] and math.isfinite(values[0])
    if proxy != "naswot":  # of few units, which may be alike
        assert values[0] != values[2]


@pytest.mark.parametrize("proxy", ["synflow", "naswot"])
def test_richer_cells_score_higher_than_empty_ones(proxy, tmp_path):
    space = NASBench201(width=4, cells_per_stage=1)
    search = tiny_search(space, estimators={}, folder=tmp_path)
    edges = list(space.decisions)
    score = {}
    for choice in ("nor_conv_3x3", "skip_connect"):
        names = [c for c in space.decisions[edges[0]] if choice.endswith(c) or c == choice]
        architecture = Architecture(dict.fromkeys(edges, names[0]))
        candidate = tiny_candidate(search, architecture)
        score[choice] = ZeroCost(proxy=proxy, batch=8).measure(candidate)[proxy].value
    assert score["nor_conv_3x3"] > score["skip_connect"]


class Bare(SearchSpace):
    """No ReLU anywhere."""

    def define(self, graph: SpaceGraph) -> None:
        graph.output(graph.slot("only", graph.input(3), {"conv": _conv}, out=1))


def _conv(i, o):
    return nn.Conv2d(i, o, 1)


def test_a_proxy_that_does_not_suit_fails_with_the_reason(tmp_path):
    search = tiny_search(Bare(), estimators={}, folder=tmp_path)
    with pytest.raises(EstimationFailed, match="naswot: the network has no ReLU"):
        ZeroCost(proxy="naswot").measure(tiny_candidate(search))


def test_a_score_that_is_not_finite_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(zero_cost_proxies, "PROXIES", {"snip": lambda network, probe: math.nan})
    search = tiny_search(estimators={}, folder=tmp_path)
    with pytest.raises(EstimationFailed, match="snip: the score is nan"):
        ZeroCost(proxy="snip").measure(tiny_candidate(search))


def test_every_candidate_is_probed_with_the_same_samples_drawn_from_all(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        zero_cost_proxies, "PROXIES", {"snip": lambda _, probe: seen.append(probe.inputs) or 1.0}
    )
    for seed in range(3):
        search = tiny_search(estimators={}, folder=tmp_path, seed=seed)
        for choice in ("pointwise", "conv"):
            architecture = Architecture({"first": choice, "second": "conv"})
            ZeroCost(proxy="snip", batch=4).measure(tiny_candidate(search, architecture))
        assert torch.equal(seen[-2], seen[-1])
        every = search.splits.train.inputs
        where = [[torch.equal(one, other) for other in every].index(True) for one in seen[-1]]
        assert len(set(where)) == 4
        if where != [0, 1, 2, 3]:
            return
        (tmp_path / "data.json").unlink()
    pytest.fail("always the first samples, which may be of one class")


def test_several_seeds_are_averaged_and_their_spread_is_kept(tmp_path):
    search = tiny_search(estimators={}, folder=tmp_path)
    candidate = tiny_candidate(search)
    alone = ZeroCost(proxy="synflow").measure(candidate)["synflow"]
    found = ZeroCost(proxy="synflow", seeds=3).measure(candidate)["synflow"]
    values = found.details["values"]
    assert alone.details == {"values": [alone.value]}
    assert len(set(values)) == 3 and values[0] == alone.value
    assert found.value == pytest.approx(statistics.fmean(values))
    assert found.details["std"] == pytest.approx(statistics.stdev(values))


def test_a_batch_that_synflow_does_not_look_at_is_refused(tmp_path):
    search = tiny_search(estimators={}, folder=tmp_path)
    with pytest.raises(SpecError, match="batch: synflow looks at no samples"):
        ZeroCost(proxy="synflow", batch=8).check(search)
    ZeroCost(proxy="synflow", batch=32).check(search)
    ZeroCost(proxy="naswot", batch=8).check(search)

"""The supernet: mixtures of candidates, and the networks inside it."""

import pytest
import torch
from torch import nn

from nasengine.architecture import Architecture
from nasengine.network import build_network
from nasengine.space import SearchSpace
from nasengine.supernet import MixedOperation, Mixture, Supernet
from nasengine.testing.stubs import TinySpace


class Counting(nn.Module):
    """Multiplies, and counts how often it ran."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.factor


class Repeated(SearchSpace):
    """Two slots that share their choice, and one of its own."""

    def define(self, graph):
        choices = {
            "conv": lambda i, o: nn.Conv2d(i, o, 1),
            "relu": lambda i, o: nn.Sequential(nn.Conv2d(i, o, 1), nn.ReLU()),
        }
        x = graph.input(3)
        x = graph.slot("first", x, choices, out=4, shares="cell")
        x = graph.slot("second", x, choices, out=4, shares="cell")
        graph.output(graph.slot("last", x, choices, out=1))


def one_hot(decisions, architecture):
    return {
        name: Mixture(torch.tensor([float(choice == architecture[name]) for choice in choices]))
        for name, choices in decisions.items()
    }


def test_mixes_by_weight():
    mixed = MixedOperation({"a": Counting(1.0), "b": Counting(10.0)})
    x = torch.ones(1, 1, 2, 2)
    assert torch.equal(mixed(x, mixture=Mixture(torch.tensor([0.5, 0.25]))), x * 3.0)


def test_runs_active_candidates_only():
    a, b = Counting(1.0), Counting(10.0)
    x = torch.ones(1, 1, 2, 2)
    out = MixedOperation({"a": a, "b": b})(x, mixture=Mixture(torch.tensor([0.5, 2.0]), (1,)))
    assert torch.equal(out, x * 20.0)
    assert (a.calls, b.calls) == (0, 1)


@pytest.mark.parametrize("space", [TinySpace(), Repeated()], ids=["tiny", "shared"])
def test_one_hot_mixture_is_the_network(space):
    torch.manual_seed(0)
    supernet = Supernet(space.graph).eval()
    x = torch.randn(2, 3, 8, 8)
    names = {name: choices[-1] for name, choices in space.decisions.items()}
    architecture = Architecture(names)
    network = build_network(space.graph, architecture).eval()
    weights = {}
    for name in network.state_dict():
        slot, _, rest = name.partition(".")
        node = space.graph[slot]
        inner = f"candidates.{architecture[node.decision]}." if node.kind == "slot" else ""
        weights[name] = supernet.network.state_dict()[f"{slot}.{inner}{rest}"]
    network.load_state_dict(weights)
    torch.testing.assert_close(supernet(x, one_hot(space.decisions, architecture)), network(x))


def test_slots_of_one_decision_share_the_mixture_not_the_weights():
    supernet = Supernet(Repeated().graph)
    assert list(supernet.decisions) == ["cell", "last"]
    first = supernet.network.get_submodule("first.candidates.conv").weight
    second = supernet.network.get_submodule("second.candidates.conv").weight
    assert first.shape != second.shape


def test_gradient_reaches_weights_of_mixture_and_candidates():
    space = TinySpace()
    supernet = Supernet(space.graph)
    alphas = {name: torch.zeros(2, requires_grad=True) for name in space.decisions}
    mixtures = {name: Mixture(torch.softmax(alpha, 0)) for name, alpha in alphas.items()}
    supernet(torch.randn(2, 3, 8, 8), mixtures).square().mean().backward()
    assert all(alpha.grad.abs().sum() > 0 for alpha in alphas.values())
    assert all(weight.grad is not None for weight in supernet.parameters())


@pytest.mark.parametrize("order", [("identity", "conv"), ("conv", "identity")])
def test_the_type_of_a_sum_is_the_wider_one_in_any_order(order):
    modules = {"identity": nn.Identity(), "conv": nn.Conv2d(3, 3, 1)}
    mixed = MixedOperation({name: modules[name] for name in order})
    with torch.autocast("cpu", torch.bfloat16):
        found = mixed(torch.randn(1, 3, 4, 4), mixture=Mixture(torch.ones(2)))
    assert found.dtype is torch.float32

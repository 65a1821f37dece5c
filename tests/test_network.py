"""The network that an architecture stands for."""

import pytest
import torch
from torch import nn

from nasengine.network import build_network
from nasengine.randomness import torch_seed
from nasengine.space import SearchSpace
from nasengine.spaces.light_sdi import LightSDI

SPACE = LightSDI(width=2)


def built(seed, name="unet"):
    with torch_seed(seed, "weights"):
        return build_network(SPACE.graph, SPACE.reference(name))


def test_submodules_bear_the_names_of_the_nodes():
    network = built(0, "cut_u")
    names = {name for name, _ in network.named_children()}
    merges = {"input", "output", *(f"merge_{step}" for step in range(1, 5))}
    assert names == set(SPACE.graph.order) - merges


def test_one_seed_gives_the_same_weights_and_another_others():
    first, second, third = (built(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], third["head.weight"])


def test_weights_are_read_back_into_a_new_network():
    x = torch.randn(2, 3, 16, 16)
    one, other = built(0).eval(), built(1).eval()
    assert not torch.equal(one(x), other(x))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))


def test_an_operation_may_read_several_nodes():
    class Difference(nn.Module):
        def forward(self, a, b):
            return a - b

    class Subtracting(SearchSpace):
        """Two slots and their difference."""

        def define(self, graph):
            x = graph.input(2)
            first = graph.slot("first", x, {"conv": lambda i, o: nn.Conv2d(i, o, 1)})
            graph.output(graph.operation("difference", [first, x], lambda *_: Difference()))

    space = Subtracting()
    network = build_network(space.graph, {"first": "conv"})
    x = torch.randn(2, 2, 3, 3)
    torch.testing.assert_close(network(x), network.get_submodule("first")(x) - x)


def test_an_architecture_of_another_space_is_no_network():
    with pytest.raises(KeyError):
        build_network(SPACE.graph, {"first": "conv"})

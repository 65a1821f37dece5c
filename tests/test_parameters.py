"""The parameters estimator: every trainable parameter exactly once."""

from __future__ import annotations

import pytest
from torch import nn

from nasengine import moves
from nasengine.architecture import Architecture
from nasengine.estimators.parameters import Parameters, count_parameters
from nasengine.graph import SpaceGraph
from nasengine.space import SearchSpace
from nasengine.spaces.light_sdi import LightSDI
from nasengine.testing.stubs import TinySpace, tiny_candidate, tiny_search


class Tied(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(width, width, 1)
        self.second = nn.Conv2d(width, width, 1)
        self.second.weight = self.first.weight
        self.frozen = nn.Parameter(self.first.bias.detach().clone(), requires_grad=False)

    def forward(self, x):
        return self.second(self.first(x)) + self.frozen.view(1, -1, 1, 1)


class TiedSpace(SearchSpace):
    """A slot whose block shares a weight with itself and has a frozen one."""

    def define(self, graph: SpaceGraph) -> None:
        x = graph.slot("only", graph.input(3), {"tied": lambda i, o: Tied(i), "none": _identity})
        graph.output(x)


def _identity(i, o):
    return nn.Identity()


def measured(search, architecture):
    return Parameters().measure(tiny_candidate(search, architecture))["parameters"].value


def test_shared_parameters_count_once_and_frozen_ones_not():
    assert count_parameters(Tied(4)) == 4 * 4 + 4 + 4
    search = tiny_search(TiedSpace(), estimators={})
    assert measured(search, Architecture({"only": "tied"})) == 3 * 3 + 3 + 3
    assert Parameters().table(search).costs == {"only": {"tied": 15.0, "none": 0.0}}


@pytest.mark.parametrize("space", [TinySpace(), LightSDI(width=2)], ids=["tiny", "light_sdi"])
def test_the_table_predicts_exactly(space):
    search = tiny_search(space, estimators={})
    table = Parameters().table(search)
    for index in range(5):
        architecture = moves.sample(space.decisions, search.stream("test", index))
        built = count_parameters(tiny_candidate(search, architecture).network())
        assert table.predict(architecture) == measured(search, architecture) == built
    for name in space.references():
        reference = space.reference(name)
        assert table.predict(reference) == measured(search, reference)


def test_the_table_holds_choices_and_baselines_and_the_fixed_part():
    table = Parameters().table(tiny_search(TinySpace(width=4), estimators={}))
    assert table.unit == "parameters"
    assert table.fixed == 4 + 1  # the 1x1 convolution to one channel
    assert table.costs["second"] == {
        "pointwise": 4 * 4 + 4 + 8,
        "conv": 4 * 4 * 9 + 4 + 8,
        "double": 2 * (4 * 4 * 9 + 4 + 8),
    }

"""Every installed space, and the example's, keeps its contract; one without a row here fails."""

from pathlib import Path

import pytest
from torch import nn

from nasengine.graph import SpaceGraph
from nasengine.plugin import installed, load_class
from nasengine.space import SearchSpace
from nasengine.spaces.light_sdi import LightSDI
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.spaces.nas_bench_macro import NASBenchMacro
from nasengine.testing.spaces import SearchSpaceContract

EXAMPLE = Path(__file__).parent.parent / "examples" / "my_space.py"

ROWS = {
    "light_sdi": (LightSDI(width=2), (3, 16, 16)),
    "nas_bench_201": (NASBench201(width=2, cells_per_stage=1), (3, 8, 8)),
    "nas_bench_macro": (NASBenchMacro(width=2, features=8), (3, 16, 16)),
}


def test_every_installed_space_has_a_row():
    assert set(installed("space")) == set(ROWS), "add a row for the new space"


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_of_the_class_that_is_installed(name):
    assert type(ROWS[name][0]) is load_class(SearchSpace, name)


@pytest.mark.parametrize("name", ROWS)
class TestInstalledSpace(SearchSpaceContract):
    @pytest.fixture
    def space(self, name):
        return ROWS[name][0]

    @pytest.fixture
    def input_shape(self, name):
        return ROWS[name][1]


class TestExample(SearchSpaceContract):
    @pytest.fixture
    def space(self):
        return load_class(SearchSpace, f"{EXAMPLE}:MySpace")(width=2)

    @pytest.fixture
    def input_shape(self):
        return 3, 8, 8


def block(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


class ConstantChannels(SearchSpace):
    """A block behind channels of one value: its ReLU would stand at exactly zero."""

    def define(self, graph: SpaceGraph) -> None:
        x = graph.operation("dead", graph.input(3), lambda i, o: nn.Threshold(1e9, 0.1))
        graph.output(graph.slot("only", x, {"block": block, "conv": head}, out=8))


def head(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 1)


class TestConstantChannels(SearchSpaceContract):
    @pytest.fixture
    def space(self):
        return ConstantChannels()

    @pytest.fixture
    def input_shape(self):
        return 3, 7, 7

"""Every installed space, and the example's, keeps its contract; one without a row here fails."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nasengine import moves
from nasengine.certificate import Part
from nasengine.errors import SpaceError
from nasengine.graph import SpaceGraph
from nasengine.network import build_network
from nasengine.operations import Zero
from nasengine.plugin import installed, load_class
from nasengine.space import SearchSpace
from nasengine.spaces.light_sdi import LightSDI
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.spaces.nas_bench_macro import NASBenchMacro
from nasengine.testing.spaces import SearchSpaceContract, at_widths

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


class TestSearchedWidths(SearchSpaceContract):
    @pytest.fixture
    def space(self):
        return LightSDI(width=4, searched_widths=("50%", "100%"))

    @pytest.fixture
    def input_shape(self):
        return 3, 16, 16


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


class WidthsBesideCuts(SearchSpace):
    """Two widths in every kind of node: shared, doubled, kept, cut, passed on, summed, joined."""

    widths = ("width",)

    width: int = 8
    """Channels of the stem, at the widest."""

    def define(self, graph: SpaceGraph) -> None:
        one = graph.width("one", {"half": self.width // 2, "full": self.width})
        two = graph.width("two", {f"{count}x": count * self.width for count in (1, 2, 3)})
        kept = {"conv": head, "none": Zero, "same": nn.Identity}
        x = graph.slot("stem", graph.input(3), {"block": block, "conv": head}, out=one)
        y = graph.slot("wide", x, {"block": block, "grouped": grouped}, out=2 * one)
        y = graph.operation("pool", y, lambda i, o: nn.AvgPool2d(3, 1, 1))
        y = graph.add("sum", [graph.slot(f"edge_{i}", y, kept) for i in (1, 2)])
        z = graph.slot("branch", x, {"block": block, "grouped": grouped}, out=two)
        joined = graph.concat("joined", [y, z, x])
        joined = graph.slot("after", joined, {"block": block, "same": nn.Identity})
        graph.output(graph.operation("head", joined, head, out=2))


def grouped(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, groups=2)


class TestWidthsBesideCuts(SearchSpaceContract):
    @pytest.fixture
    def space(self):
        return WidthsBesideCuts()

    @pytest.fixture
    def input_shape(self):
        return 3, 7, 7


class UnfitTogether(SearchSpace):
    """A layer that is unfit where both of its widths are narrow, which neither tells alone."""

    def define(self, graph: SpaceGraph) -> None:
        one, two = (graph.width(name, (2, 4)) for name in ("one", "two"))
        x = graph.operation("stem", graph.input(3), head, out=one)
        x = graph.operation("body", x, lambda i, o: head(i, 3 if i == o == 2 else o), out=two)
        graph.output(graph.operation("head", x, head, out=1))


def test_the_suite_finds_what_only_narrow_widths_together_make_unfit():
    with pytest.raises(SpaceError, match="operation 'body': gives 3x7x7"):
        SearchSpaceContract().test_shapes_are_inferred(UnfitTogether(), (3, 7, 7))


def test_the_suite_finds_networks_that_are_not_as_wide_as_decided(monkeypatch):
    space = WidthsBesideCuts()
    monkeypatch.setattr(
        "nasengine.network.build_network",
        lambda graph, architecture: build_network(graph, at_widths(space, architecture, -1)),
    )
    samples = [next(moves.enumerate_all(space.decisions))]
    with pytest.raises(AssertionError, match="stem"):
        SearchSpaceContract().test_networks_have_the_channels_that_are_decided(
            space, samples, torch.randn(2, 3, 7, 7)
        )


def test_the_suite_finds_keys_that_are_blind_to_widths(monkeypatch):
    filling = Part.filling
    monkeypatch.setattr(Part, "filling", lambda part, c: filling(replace(part, channels=()), c))
    space = WidthsBesideCuts()
    samples = [next(moves.enumerate_all(space.decisions))]
    with pytest.raises(AssertionError, match="one"):
        SearchSpaceContract().test_a_width_tells_networks_apart_by_their_channels(space, samples)

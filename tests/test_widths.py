"""Channels that are searched: in graphs, shapes, networks and canonical keys."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_canonical import FACTORIES, FUSIONS, matching, reduced, some
from torch import nn
from torch.fx.passes.shape_prop import ShapeProp

from nasengine import moves
from nasengine.canonical import meanings
from nasengine.certificate import Plan
from nasengine.errors import SpaceError
from nasengine.graph import SpaceGraph
from nasengine.network import build_network
from nasengine.operations import Zero
from nasengine.shapes import infer_shapes
from nasengine.space import SearchSpace
from nasengine.testing.stubs import TinyGate, TinyWidths
from nasengine.widths import Width

ONE = (1, 2, 2)
"""An input's shape."""


def conv(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 1)


def skip(_in, _out):
    return nn.Identity()


def wired(define):
    graph = SpaceGraph()
    define(graph)
    graph.finish()
    return graph


def between(define):
    """A graph from one channel to one: `define` adds what stands between."""

    def whole(graph):
        x = define(graph, graph.input(1))
        graph.output(graph.operation("head", x, conv, out=1))

    return wired(whole)


MISTAKES = {
    "no identifier": (lambda g, _: g.width("a b", (1, 2)), "width 'a b': a name must be a Python"),
    "no name": (lambda g, _: g.width((1, 2), "a"), "width (1, 2): a name must be a Python"),
    "a number": (lambda g, _: g.width("w", 8), "several numbers of channels, such as (8, 16)"),
    "none": (lambda g, _: g.width("w", ()), "numbers of channels increase, from 1 on; got none"),
    "falling": (lambda g, _: g.width("w", (16, 8)), "increase, from 1 on; got 16, 8"),
    "twice": (lambda g, _: g.width("w", (8, 8)), "increase, from 1 on; got 8, 8"),
    "from zero": (lambda g, _: g.width("w", (0, 8)), "increase, from 1 on; got 0, 8"),
    "a share": (lambda g, _: g.width("w", (0.5, 1)), "channels are whole numbers; got 0.5, 1"),
    "a float": (lambda g, _: g.width("w", (8.0, 16)), "channels are whole numbers; got 8.0, 16"),
    "a bool": (lambda g, _: g.width("w", (True, 16)), "channels are whole numbers; got True, 16"),
    "a text": (lambda g, _: g.width("w", "8"), "channels are whole numbers; got 8"),
    "a choice with an @": (lambda g, _: g.width("w", {"a@b": 8}), "text without an @; got str"),
    "a choice that is no text": (lambda g, _: g.width("w", {8: 8}), "text without an @; got int 8"),
    "defined twice": (
        lambda g, x: (g.width("w", (1, 2)), g.width("w", (1, 2))),
        "width 'w' is defined twice",
    ),
    "used nowhere": (lambda g, x: g.width("w", (1, 2)) and x, "width 'w' is no node's"),
    "another graph's": (
        lambda g, x: g.operation("o", x, conv, out=SpaceGraph().width("w", (1, 2))),
        "node 'o': the width 'w' is not what this graph's graph.width returned",
    ),
    "another graph's of one name": (
        lambda g, x: (
            g.width("w", (2, 4)),
            g.operation("o", x, conv, out=SpaceGraph().width("w", (2, 3))),
        ),
        "node 'o': the width 'w' is not what this graph's graph.width returned",
    ),
    "half": (lambda g, x: 0.5 * g.width("w", (2, 4)), "width 'w' is multiplied by whole numbers"),
    "of nothing": (lambda g, x: 0 * g.width("w", (2, 4)), "from 1 on; got int 0"),
    "a slot's name": (
        lambda g, x: g.slot("w", x, {"a": conv}, out=g.width("w", (1, 2))),
        "slot 'w': 'w' is the name of a width",
    ),
    "a shared decision's name": (
        lambda g, x: g.slot("s", x, {"a": conv}, out=g.width("w", (1, 2)), shares="w"),
        "slot 's': 'w' is the name of a width",
    ),
    "the name of a slot that shares": (
        lambda g, x: g.slot("w", x, {"a": conv}, out=g.width("w", (1, 2)), shares="cell"),
        "slot 'w': 'w' is the name of a width",
    ),
    "unequal sums": (
        lambda g, x: g.add(
            "sum", [g.operation(n, x, conv, out=g.width(f"w_{n}", (1, 2))) for n in "ab"]
        ),
        "add 'sum' sums unequal channels: a has 1|2 (by w_a), b has 1|2 (by w_b)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told(mistake):
    wire, told = MISTAKES[mistake]

    def define(graph, x):
        last = wire(graph, x)
        return last[-1] if isinstance(last, tuple) else last

    with pytest.raises(SpaceError) as caught:
        between(define)
    assert told in str(caught.value)


def test_an_input_is_not_searched():
    with pytest.raises(SpaceError, match="an input's channels are the task's"):
        wired(lambda g: g.input(g.width("w", (1, 3))))


def test_the_output_is_not_searched():
    def define(graph):
        graph.output(graph.operation("o", graph.input(1), conv, out=graph.width("w", (1, 3))))

    with pytest.raises(
        SpaceError, match=r"output 'output' has 1\|3 \(by w\) channels, and a network's own are"
    ):
        wired(define)


@pytest.mark.parametrize("half", [lambda width: width // 2, lambda width: width + 1])
def test_what_is_computed_with_a_width_is_told_of(half):
    class Halved(SearchSpace):
        def define(self, graph):
            graph.operation("o", graph.input(1), conv, out=half(graph.width("w", (2, 4))))

    with pytest.raises(SpaceError, match="a width is multiplied by whole numbers alone"):
        _ = Halved().graph


def test_one_width_and_numbers_of_numpy_are_widths():
    graph = between(lambda g, x: g.operation("o", x, conv, out=2 * g.width("w", [np.int64(3)])))
    assert graph.decisions == {"w": ("3",)}
    assert graph.channels["o"] == (1, 6)
    assert graph.widths == {"w": Width("w", (("3", 3),))}


def test_an_operation_may_have_the_name_of_its_width():
    graph = between(lambda g, x: g.operation("stem", x, conv, out=g.width("stem", (2, 4))))
    assert graph.channels_of("head", {"stem": "2"}) == (2, 1)


def shapes_of(define):
    return infer_shapes(between(define), ONE)


@pytest.mark.parametrize("factory", [skip, Zero, lambda _in, _out: Zero()])
def test_what_keeps_its_channels_is_refused_where_widths_differ(factory):
    def define(graph, x):
        x = graph.operation("stem", x, conv, out=graph.width("one", (2, 4)))
        choices = {"conv": conv, "odd": factory}
        return graph.slot("slot", x, choices, out=graph.width("other", (2, 4)))

    with pytest.raises(
        SpaceError, match=r"^slot 'slot', candidate 'odd': .*; where one is 4 and other is 2$"
    ):
        shapes_of(define)


def keeping(graph, x):
    """A slot that keeps its searched channels."""
    x = graph.operation("stem", x, conv, out=graph.width("width", (2, 4)))
    return graph.slot("slot", x, {"conv": conv, "skip": skip, "none": Zero})


def test_what_keeps_its_channels_stands_where_widths_are_the_same():
    assert shapes_of(keeping).out["slot"] == (4, 2, 2)


def test_widths_that_fit_one_by_one_and_not_together_are_refused():
    def grouped(channels_in, channels_out):
        return nn.Conv2d(channels_in, channels_out, 1, groups=channels_in)

    def define(graph, x):
        x = graph.operation("stem", x, conv, out=graph.width("one", (8, 12)))
        return graph.operation("deep", x, grouped, out=graph.width("other", (12, 24)))

    with pytest.raises(SpaceError, match="operation 'deep': its factory raised for 8 channels in"):
        shapes_of(define)


def test_a_width_that_changes_more_than_channels_is_refused():
    def strided(channels_in, channels_out):
        return nn.Conv2d(channels_in, channels_out, 1, stride=4 // channels_out)

    with pytest.raises(SpaceError, match="gives 4x2x2 at the widest and 2x1x1 where w is 2"):
        shapes_of(lambda g, x: g.operation("o", x, strided, out=g.width("w", (2, 4))))


def test_what_is_read_at_a_narrower_width_lies_as_it_will():
    class Folded(nn.Module):
        def forward(self, x):
            return x.view(-1, *x.shape[2:]).view(x.shape)

    def define(graph, x):
        x = graph.operation("stem", x, conv, out=graph.width("w", (2, 4)))
        return graph.operation("folded", x, lambda _in, _out: Folded())

    assert shapes_of(define).out["folded"] == (4, 2, 2)


def test_what_is_an_identity_at_some_widths_alone_counts_as_a_module():
    def fitted(channels_in, channels_out):
        return nn.Identity() if channels_in == channels_out else conv(channels_in, channels_out)

    def define(graph, x):
        x = graph.operation("stem", x, conv, out=graph.width("one", (8, 12, 16)))
        return graph.slot("slot", x, {"fitted": fitted}, out=graph.width("other", (12, 20)))

    graph = between(define)
    assert meanings(graph)["slot", "fitted"] == "module"
    keys = {Plan(graph).key(a) for a in moves.enumerate_all(graph.decisions)}
    assert len(keys) == 6


class Wide(SearchSpace):
    """A space given as rows: (kind, numbers of earlier nodes, choices, width, factor)."""

    rows: tuple
    shares: tuple = ()

    def define(self, graph):
        widths = [graph.width("one", (1, 2)), graph.width("other", (2, 3, 4))]
        start = graph.input(1)
        nodes = [graph.operation(f"in_{n}", start, conv, out=w) for n, w in enumerate(widths)]
        for number, (kind, sources, choices, width, factor) in enumerate(self.rows):
            read = [nodes[source] for source in sources]
            out = None if width is None else factor * widths[width]
            if kind in ("slot", "fusion"):
                found = {name: FACTORIES[name] for name in choices}
                share = f"{self.shares[number]}_{'_'.join(choices)}" if self.shares else None
                node = graph.slot(f"slot_{number}", read, found, out=out, shares=share)
            elif kind == "operation":
                node = graph.operation(f"op_{number}", read[0], conv, out=out)
            elif kind == "concat":
                node = graph.concat(f"concat_{number}", read)
            else:
                # What is summed has the channels of the first width.
                terms = [
                    graph.operation(f"fit_{number}_{n}", x, conv, out=widths[0])
                    for n, x in enumerate(read)
                ]
                node = graph.add(f"add_{number}", terms)
            nodes.append(node)
        read = {source for _, sources, *_ in self.rows for source in sources}
        ends = [node for n, node in enumerate(nodes) if n not in read]
        end = graph.concat("ends", ends) if len(ends) > 1 else ends[0]
        graph.output(graph.operation("head", end, conv, out=1))


@st.composite
def wide_spaces(draw):
    rows = []
    for number in range(draw(st.integers(2, 6))):
        kind = draw(st.sampled_from(["slot"] * 4 + ["fusion", "add", "add", "concat", "operation"]))
        several = kind in ("add", "concat", "fusion")
        sources = st.integers(max(0, number - 2), number + 1)
        read = draw(st.lists(sources, min_size=2 if several else 1, max_size=2 if several else 1))
        width = draw(st.sampled_from([None, 0, 1])) if kind in ("slot", "operation") else 0
        keeps = ("conv", "skip", "none") if width is None else ("conv", "tanh")
        choices = FUSIONS[0] if kind == "fusion" else keeps
        rows.append((kind, tuple(read), choices, width, draw(st.sampled_from([1, 2]))))
    return Wide(rows=tuple(rows))


@settings(max_examples=40)
@given(wide_spaces())
def test_every_network_runs_and_has_the_channels_that_are_said(space):
    infer_shapes(space.graph, ONE)
    for architecture in some(space, 12):
        network = build_network(space.graph, architecture)
        ShapeProp(network).propagate(torch.randn(2, *ONE))
        gives = {node.name: node.meta["tensor_meta"].shape[1] for node in network.graph.nodes}
        for node in network.graph.nodes:
            if node.op == "call_module":
                channels = space.graph.channels_of(node.target, architecture)
                read = (gives[source.name] for source in node.all_input_nodes)
                assert channels[-1] == gives[node.name]
                assert set(channels[:-1]) == set(read)


@settings(max_examples=40)
@given(wide_spaces())
def test_two_keys_are_equal_exactly_when_the_networks_are(space):
    found = [(space.key(a), reduced(space, a)) for a in some(space)]
    for (key, graph), (other_key, other) in itertools.combinations(found, 2):
        assert (key == other_key) == (matching(graph, other) is not None)


@settings(max_examples=25)
@given(wide_spaces(), st.lists(st.integers(0, 1), min_size=6, max_size=6))
def test_shared_decisions_and_widths_never_merge_what_differs(space, groups):
    shared = Wide(rows=space.rows, shares=tuple(f"group_{group}" for group in groups))
    found = [(shared.key(a), reduced(shared, a)) for a in some(shared)]
    for (key, graph), (other_key, other) in itertools.combinations(found, 2):
        if key == other_key:
            assert matching(graph, other) is not None


def test_repeated_cells_of_one_width_are_keyed_once_and_never_as_another():
    def define(graph, x):
        width = graph.width("width", (2, 4))
        x = graph.operation("stem", x, conv, out=width)
        for number in range(3):
            y = graph.slot(f"cell_{number}", x, {"conv": conv, "skip": skip}, shares="edge")
            x = graph.add(f"sum_{number}", [x, y])
        return x

    plan = Plan(between(define))
    # The stem, the cell, the head, the output.
    assert len({id(region) for region, *_ in plan._steps}) == 4
    decisions = {"width": ("2", "4"), "edge": ("conv", "skip")}
    assert len({plan.key(a) for a in moves.enumerate_all(decisions)}) == 4


def test_a_reference_has_its_blocks_at_its_widths():
    space = TinyWidths()
    network = build_network(space.graph, space.reference("big"))
    narrow = build_network(
        space.graph, {**space.reference("big"), "outer": "narrow", "inner": "narrow"}
    )
    assert network.first[0][0].weight.shape[:2] == (8, 8)
    assert narrow.first[0][0].weight.shape[:2] == (4, 4)
    assert narrow(torch.randn(2, 3, 8, 8)).shape == (2, 1, 8, 8)


def test_a_width_counts_where_it_is_alive_and_nowhere_else():
    space = TinyGate()
    keys = {}
    for architecture in moves.enumerate_all(space.decisions):
        keys.setdefault(space.key(architecture), []).append(architecture)
    alone = [found for found in keys.values() if len(found) == 1]
    same = [found for found in keys.values() if len(found) > 1]
    assert len(alone) == 24 and all(a["gate"] == "skip" for (a,) in alone)
    assert len(same) == 4
    for found in same:
        assert {a["gate"] for a in found} == {"none"}
        assert len({a["inner"] for a in found}) == 3
        assert len({(a["width"], a["first"]) for a in found}) == 1


def test_equal_branches_may_be_swapped_whether_their_channels_are_searched_or_not():
    """Two branches from one to two channels, of which one is fixed."""
    choices = {"conv": conv, "tanh": FACTORIES["tanh"]}

    def define(graph, x):
        ends = []
        for name, out in (("left", 2), ("right", graph.width("width", (1, 2)))):
            y = graph.slot(f"{name}_1", x, choices, out=out)
            ends.append(graph.slot(f"{name}_2", y, choices, out=3))
        return graph.add("sum", ends)

    graph = between(define)
    plan = Plan(graph)
    one = {"left_1": "conv", "left_2": "tanh", "right_1": "tanh", "right_2": "tanh"}
    other = {**one, "left_1": "tanh", "right_1": "conv"}
    assert plan.key({**one, "width": "2"}) == plan.key({**other, "width": "2"})
    assert plan.key({**one, "width": "1"}) != plan.key({**other, "width": "1"})


def test_a_node_of_too_many_combinations_of_widths_is_refused():
    def define(graph, x):
        parts = [
            graph.operation(f"part{n}", x, conv, out=graph.width(f"w{n}", range(1, 5)))
            for n in range(7)
        ]
        return graph.concat("all_of_them", parts)

    with pytest.raises(SpaceError, match=r"depends on 16,384 combinations of widths .w0, w1,"):
        between(define)

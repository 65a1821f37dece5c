"""Canonical keys against graph isomorphism written out, and against what networks compute."""

import itertools

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasengine import moves
from nasengine.canonical import meanings, simplify, uncut
from nasengine.certificate import plan_of
from nasengine.graph import SpaceGraph
from nasengine.network import build_network
from nasengine.operations import Zero
from nasengine.randomness import stream
from nasengine.space import SearchSpace
from nasengine.spaces.light_sdi import LightSDI
from nasengine.spaces.nas_bench_201 import NASBench201

CHANNELS = 2


def conv(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 1)


def scaled(channels_in, channels_out):
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1), nn.Tanh())


def identity(_in, _out):
    return nn.Identity()


def zero(_in, _out):
    return Zero()


class Blend(nn.Module):
    """Reads several, in an order that counts; with `of`, only so many of them."""

    def __init__(self, *channels, of=None):
        super().__init__()
        *into, out = channels
        self.convs = nn.ModuleList(conv(count, out) for count in into[:of])
        self.norm = nn.BatchNorm2d(out)

    def forward(self, *inputs):
        read = inputs[: len(self.convs)]
        found = [
            conv(x) * (1 + n) for n, (conv, x) in enumerate(zip(self.convs, read, strict=True))
        ]
        return self.norm(sum(found[1:], found[0]))


def first(*channels):
    return Blend(*channels, of=1)


FACTORIES = {"conv": conv, "tanh": scaled, "skip": identity, "none": zero}
FACTORIES |= {"blend": Blend, "first": first}
CHOICES = (
    ("conv", "skip", "none"),
    ("conv", "none"),
    ("conv", "tanh"),
    ("skip", "tanh"),
    ("skip", "none"),
)
FUSIONS = (("blend", "first"), ("blend",))


class Wired(SearchSpace):
    """A space given as rows: (kind, numbers of earlier nodes, choices)."""

    rows: tuple
    shares: tuple = ()

    def define(self, graph):
        nodes = [graph.input(CHANNELS)]
        for number, (kind, sources, choices) in enumerate(self.rows):
            read = [nodes[source] for source in sources]
            if kind in ("slot", "fusion"):
                found = {name: FACTORIES[name] for name in choices}
                share = f"{self.shares[number]}_{kind}" if self.shares else None
                node = graph.slot(f"slot_{number}", read, found, shares=share)
            elif kind == "operation":
                node = graph.operation(f"op_{number}", read[0], conv)
            elif kind == "concat":
                wide = graph.concat(f"concat_{number}", read)
                node = graph.operation(f"narrow_{number}", wide, conv, out=CHANNELS)
            else:
                node = graph.add(f"add_{number}", read)
            nodes.append(node)
        # All ends are summed, so that every node reaches the output.
        read = {source for _, sources, _ in self.rows for source in sources}
        ends = [nodes[n] for n in range(1, len(nodes)) if n not in read]
        graph.output(graph.add("sum", ends) if len(ends) > 1 else ends[0])


@st.composite
def spaces(draw):
    rows = []
    for number in range(draw(st.integers(3, 9))):
        kinds = ["slot"] * 5 + ["fusion"] * 2 + ["add"] * 3 + ["concat", "operation"]
        kind = draw(st.sampled_from(kinds))
        several = kind in ("add", "concat", "fusion")
        sources = st.integers(max(0, number - 3), number)
        read = draw(st.lists(sources, min_size=2 if several else 1, max_size=3 if several else 1))
        choices = draw(st.sampled_from(FUSIONS if kind == "fusion" else CHOICES))
        rows.append((kind, tuple(read), tuple(choices)))
    return Wired(rows=tuple(rows))


def reduced(space, architecture):
    """The simplified graph in plain steps: no identities, no sums of one, no sums within sums."""
    graph, reads = space.graph, dict(simplify(space.graph, architecture))
    meaning = meanings(graph)

    def choice(name):
        return architecture[graph[name].decision]

    def passes(name):
        node = graph[name]
        if node.kind == "slot":
            return meaning[name, choice(name)] == "identity"
        return node.kind == "add" and len(reads[name]) == 1

    def resolve(name):
        return resolve(reads[name][0]) if passes(name) else name

    kept = {n: [resolve(s) for s in sources] for n, sources in reads.items() if not passes(n)}
    while True:
        count = {n: sum(row.count(n) for row in kept.values()) for n in kept}
        inner = next(
            (
                (n, reader)
                for n in kept
                if graph[n].kind == "add" and count[n] == 1
                for reader, row in kept.items()
                if n in row and graph[reader].kind == "add"
            ),
            None,
        )
        if inner is None:
            break
        terms = kept.pop(inner[0])
        kept[inner[1]] = [t for s in kept[inner[1]] for t in (terms if s == inner[0] else [s])]
    found = nx.DiGraph()
    for name, row in kept.items():
        node = graph[name]
        channels = graph.channels_of(name, architecture)
        label = {"add": "+", "concat": "&"}.get(node.kind, (name, channels))
        if node.kind == "slot":
            label = (FACTORIES[choice(name)], channels)
        found.add_node(name, label=label)
        for source in row:
            places = [i for i, s in enumerate(row) if s == source]
            found.add_edge(source, name, places=len(places) if node.kind == "add" else places)
    return found


def matching(one, other):
    """Return which node of one graph is which of the other, or None."""
    matcher = nx.isomorphism.DiGraphMatcher(
        one,
        other,
        node_match=lambda a, b: a["label"] == b["label"],
        edge_match=lambda a, b: a["places"] == b["places"],
    )
    return matcher.mapping if matcher.is_isomorphic() else None


def some(space, count=30):
    """Some architectures, drawn from the space."""
    rng = stream(0, "some")
    return list({moves.sample(space.decisions, rng): None for _ in range(count)})


@settings(max_examples=60)
@given(spaces())
def test_two_keys_are_equal_exactly_when_the_networks_are(space):
    found = [(space.key(a), reduced(space, a)) for a in some(space)]
    for (key, graph), (other_key, other) in itertools.combinations(found, 2):
        assert (key == other_key) == (matching(graph, other) is not None)


@settings(max_examples=25)
@given(spaces())
def test_networks_of_one_key_compute_the_same_with_the_same_weights(space):
    x = torch.randn(2, CHANNELS, 3, 3).double()
    first = {}
    for architecture in some(space, 12):
        network = build_network(space.graph, architecture).double()
        key, graph = space.key(architecture), reduced(space, architecture)
        if key not in first:
            first[key] = network, graph
            continue
        there, other = first[key]
        for name, twin in matching(graph, other).items():
            if hasattr(network, name) and isinstance(getattr(network, name), nn.Module):
                getattr(network, name).load_state_dict(getattr(there, twin).state_dict())
        torch.testing.assert_close(network(x), there(x))


@settings(max_examples=25)
@given(spaces(), st.lists(st.integers(0, 1), min_size=9, max_size=9))
def test_shared_decisions_never_merge_what_differs(space, groups):
    """Where slots share a choice a key may miss a symmetry; it never invents one."""
    choices = {"fusion": ("blend", "first")}
    rows = [
        (kind, read, choices.get(kind, ("conv", "skip", "none"))) for kind, read, _ in space.rows
    ]
    shared = Wired(rows=tuple(rows), shares=tuple(f"group_{group}" for group in groups))
    found = [(shared.key(a), reduced(shared, a)) for a in some(shared)]
    for (key, graph), (other_key, other) in itertools.combinations(found, 2):
        if key == other_key:
            assert matching(graph, other) is not None


def chain(length, choices, repeats=1):
    rows = tuple(("slot", (number,), choices) for number in range(length * repeats))
    shares = tuple(f"layer_{number % length}" for number in range(length * repeats))
    return Wired(rows=rows, shares=shares)


def test_a_repeated_cell_is_not_mistaken_for_another_order():
    """A A B: twice what A does and once what B does, which is not the other way round."""
    space = Wired(
        rows=tuple(("slot", (number,), ("conv", "skip")) for number in range(3)),
        shares=("a", "a", "b"),
    )
    keys = {space.key(architecture) for architecture in moves.enumerate_all(space.decisions)}
    assert len(keys) == 4


def test_choices_that_cut_no_connection_are_told_for_every_decision():
    graph = SpaceGraph()
    width = graph.width("width", (2, 4))
    x = graph.operation("stem", graph.input(3), conv, out=width)
    gate = graph.slot("gate", x, {"none": zero, "conv": conv, "skip": identity})
    cut = graph.slot("cut", x, {"none": zero, "nothing": zero})
    once = graph.slot("once", x, {"a": conv, "b": conv}, shares="both")
    again = graph.slot("again", x, {"a": zero, "b": conv}, shares="both")
    total = graph.add("total", [gate, cut, once, again])
    graph.output(graph.operation("head", total, conv, out=1))
    graph.finish()
    assert uncut(graph) == {
        "width": ("2", "4"),
        "gate": ("conv", "skip"),
        "cut": ("none", "nothing"),
        "both": ("b",),
    }


def test_an_identity_may_stand_anywhere_in_a_chain():
    space = chain(4, ("conv", "tanh", "skip"))
    keys = {space.key(architecture) for architecture in moves.enumerate_all(space.decisions)}
    assert len(keys) == sum(2**length for length in range(5))


def test_equal_branches_may_be_swapped():
    choices = ("conv", "tanh")
    space = Wired(rows=(("slot", (0,), choices), ("slot", (0,), choices)))
    keys = [space.key(architecture) for architecture in moves.enumerate_all(space.decisions)]
    assert len(set(keys)) == 3
    assert keys[1] == keys[2]


def test_one_branch_read_twice_is_not_two_branches():
    """x + a + a of one convolution, against x + a + b of two."""
    rows = (
        ("slot", (0,), ("conv",)),
        ("slot", (1,), ("skip", "none")),
        ("slot", (1,), ("skip",)),
        ("slot", (0,), ("conv", "none")),
        ("slot", (0,), ("skip",)),
    )
    space = Wired(rows=rows)
    both = {"slot_0": "conv", "slot_2": "skip", "slot_4": "skip"}
    one = {**both, "slot_1": "skip", "slot_3": "none"}
    two = {**both, "slot_1": "none", "slot_3": "conv"}
    assert space.key(space.architecture(one)) != space.key(space.architecture(two))


def test_what_looks_alike_from_below_is_told_apart():
    """Six convolutions summed in pairs: around one ring of six, or around two rings of three."""

    def ring(pairs):
        rows = [("slot", (0,), ("conv",))] * 6
        rows += [("add", (a + 1, b + 1), ()) for a, b in pairs]
        return Wired(rows=(*rows, *(("slot", (n,), ("tanh",)) for n in range(7, 13))))

    def key(pairs):
        space = ring(pairs)
        return space.key(next(moves.enumerate_all(space.decisions)))

    six = [(n, (n + 1) % 6) for n in range(6)]
    turned = [((2 * n) % 6, (2 * n + 1) % 6) for n in range(3)] + [(1, 2), (3, 4), (5, 0)]
    threes = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)]
    assert key(six) == key(turned)
    assert key(six) != key(threes)


def test_a_sum_within_a_sum_is_one_sum():
    """Two cells of NAS-Bench-201 that differ in where a term is added."""
    space = NASBench201(width=2, cells_per_stage=1)
    cell = "|nor_conv_3x3~0|+|{}~0|nor_conv_1x1~1|+|{}~0|nor_conv_1x1~1|skip_connect~2|"
    keys = {
        space.key(space.parse(cell.format(a, b)))
        for a, b in [("avg_pool_3x3", "skip_connect"), ("skip_connect", "avg_pool_3x3")]
    }
    assert len(keys) == 1


def test_nothing_of_a_unet_is_merged():
    space = LightSDI(width=2)
    one = space.reference("neu_inclusion")
    near = list(moves.neighbours(one, space.decisions))
    assert len({space.key(a) for a in [one, *near, space.reference("unet")]}) == len(near) + 2


def test_dead_branches_do_not_count():
    space = NASBench201(width=2, cells_per_stage=2)
    dead = "|{}~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    keys = {space.key(space.parse(dead.format(name))) for name in space.decisions["edge_0_1"]}
    assert len(keys) == 1


def test_the_regions_of_a_cell_are_keyed_once():
    plan = plan_of(NASBench201().graph)
    assert len({id(region) for region, *_ in plan._steps}) == 3


@pytest.mark.parametrize("space", [LightSDI(), NASBench201()])
def test_a_key_needs_a_bounded_number_of_steps(space, monkeypatch):
    """New architectures of a repeated cell are certified once, not once a place."""
    from nasengine import certificate

    calls = []
    reduce_parts = certificate.reduce_parts
    monkeypatch.setattr(
        certificate, "reduce_parts", lambda *given: calls.append(1) or reduce_parts(*given)
    )
    plan = certificate.Plan(space.graph)
    for architecture in list(moves.neighbours(some_one(space), space.decisions)):
        before = len(calls)
        plan.key(architecture)
        plan.key(architecture)
        assert len(calls) - before <= 5


def some_one(space):
    return space.architecture({name: choices[-1] for name, choices in space.decisions.items()})


def test_the_order_of_a_concatenation_counts():
    choices = ("conv", "tanh")
    space = Wired(rows=(("slot", (0,), choices), ("slot", (0,), choices), ("concat", (1, 2), ())))
    keys = {space.key(architecture) for architecture in moves.enumerate_all(space.decisions)}
    assert len(keys) == 4


def test_the_order_of_what_a_slot_reads_counts():
    choices = ("conv", "tanh")
    rows = (("slot", (0,), choices), ("slot", (0,), choices), ("fusion", (1, 2), ("blend",)))
    space = Wired(rows=rows)
    keys = {space.key(architecture) for architecture in moves.enumerate_all(space.decisions)}
    assert len(keys) == 4


def test_a_slot_of_several_reads_the_zeros_of_a_cut_connection():
    """As a concatenation does: what they are made of is built, and counts."""
    rows = (("slot", (0,), ("conv", "none")), ("fusion", (1, 0), ("blend", "first")))
    space = Wired(rows=rows)
    for architecture in moves.enumerate_all(space.decisions):
        network = build_network(space.graph, architecture)
        assert [name for name, _ in network.named_children()] == ["slot_0", "slot_1"]
    keys = {space.key(architecture) for architecture in moves.enumerate_all(space.decisions)}
    assert len(keys) == 4

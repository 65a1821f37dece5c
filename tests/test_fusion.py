"""Slots that read several nodes, from their checks to what is delivered."""

import copy
import re

import pytest
import torch
from hypothesis import given, settings
from test_canonical import CHANNELS, some, spaces
from torch import nn
from torch.nn import functional as F

from nasengine.delivery.picture_layout import panels
from nasengine.delivery.source import Source, rebuilt
from nasengine.delivery.writable import not_writable
from nasengine.errors import SpaceError, SpecError
from nasengine.estimator import Estimator
from nasengine.estimators.flops import Flops
from nasengine.estimators.latency import Latency
from nasengine.estimators.parameters import Parameters
from nasengine.estimators.zero_cost_proxies import PROXIES
from nasengine.graph import SpaceGraph
from nasengine.history import History
from nasengine.moves import enumerate_all
from nasengine.network import build_network
from nasengine.operations import Zero
from nasengine.passes import PASSES, Precision, prepare, recompute_slots
from nasengine.plugin import build
from nasengine.space import SearchSpace
from nasengine.strategies.darts import Darts
from nasengine.supernet import MixedOperation, Mixture, Supernet
from nasengine.testing.spaces import SearchSpaceContract, copy_weights, one_hot
from nasengine.testing.stubs import tiny_candidate, tiny_search


class Sum(nn.Module):
    """Each at the size of the second and with the channels out, added, normalised."""

    def __init__(self, *channels):
        super().__init__()
        *into, out = channels
        self.to_out = nn.ModuleList(nn.Conv2d(count, out, 1) for count in into)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, *inputs):
        size = inputs[1].shape[2:]
        found = [F.interpolate(conv(x), size) for conv, x in zip(self.to_out, inputs, strict=True)]
        return self.norm(sum(found[1:], found[0]))


class Concat(nn.Module):
    """Concatenated at the size of the second, and convolved."""

    def __init__(self, deep, skip, out):
        super().__init__()
        self.conv = nn.Conv2d(deep + skip, out, 3, padding=1)
        self.norm = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()

    def forward(self, deep, skip):
        x = torch.cat([F.interpolate(deep, skip.shape[2:]), skip], 1)
        return self.relu(self.norm(self.conv(x)))


class Gate(nn.Module):
    """The second, weighted by what the first says of each place."""

    def __init__(self, deep, skip, out):
        super().__init__()
        self.gate = nn.Conv2d(deep, 1, 1)
        self.end = nn.Conv2d(skip, out, 1)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, deep, skip):
        weights = F.interpolate(self.gate(deep).sigmoid(), skip.shape[2:])
        return self.norm(self.end(skip * weights))


class DeepOnly(nn.Module):
    """The first alone."""

    def __init__(self, deep, skip, out):
        super().__init__()
        self.up = nn.ConvTranspose2d(deep, out, 2, stride=2)

    def forward(self, deep, skip):
        return self.up(deep)


def conv(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def pointwise(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 1)


def pool(_in, _out):
    return nn.MaxPool2d(2)


FUSIONS = {"sum": Sum, "concat": Concat, "gate": Gate, "deep": DeepOnly}


class Fused(SearchSpace):
    """A decoder whose fusions are searched, with skips that may be cut."""

    widths = ("width",)

    width: int = 4
    """Channels of the first level."""

    def define(self, graph):
        high = graph.slot(
            "stem", graph.input(3), {"conv": conv, "point": pointwise}, out=self.width
        )
        low = graph.operation("pool_1", high, pool)
        low = graph.slot("middle", low, {"conv": conv, "point": pointwise}, out=2 * self.width)
        lowest = graph.operation("pool_2", low, pool)
        side = graph.slot("side", low, {"skip": nn.Identity, "none": Zero})
        x = graph.slot("fuse_2", [lowest, side], FUSIONS, out=3 * self.width, shares="fuse")
        x = graph.slot("fuse_1", [x, high], FUSIONS, out=self.width, shares="fuse")
        last = {"sum": Sum, "pair": Pair}
        graph.output(graph.slot("last", [high, x, "input"], last, out=2, baselines={"big": Big}))

    def references(self):
        return {"big": {"stem": "conv", "middle": "conv", "side": "skip", "fuse": "sum"} | BIG}


BIG = {"last": "big"}


class Pair(Sum):
    """Of three the first two."""

    def __init__(self, first, second, _third, out):
        super().__init__(first, second, out)

    def forward(self, first, second, _third):
        return super().forward(first, second)


class Big(nn.Module):
    """All three, concatenated, in two convolutions."""

    def __init__(self, *channels):
        super().__init__()
        self.body = nn.Sequential(conv(sum(channels[:-1]), 8), nn.Conv2d(8, channels[-1], 1))

    def forward(self, *inputs):
        return self.body(torch.cat(inputs, 1))


class TestFused(SearchSpaceContract):
    @pytest.fixture
    def space(self):
        return Fused(width=2)

    @pytest.fixture
    def input_shape(self):
        return 3, 8, 8


def search_of(**estimators):
    return tiny_search(Fused(), estimators=estimators)


def fused(candidates, *, name="fuse", out=4):
    """A space of one slot that reads 8 channels at half the size, and 5."""

    class Space(SearchSpace):
        """Two nodes, fused."""

        def define(self, graph):
            x = graph.operation("skip", graph.input(3), pointwise, out=5)
            deep = graph.operation("deep", graph.operation("pool", x, pool), pointwise, out=8)
            graph.output(graph.slot(name, [deep, x], candidates, out=out))

    return Space()


def test_a_factory_is_called_with_the_channels_of_each_node_then_those_out():
    seen = []

    def spied(*channels):
        seen.append(channels)
        return Sum(*channels)

    space = fused({"spied": spied})
    assert space.graph.channels["fuse"] == (8, 5, 4)
    assert space.shapes((3, 8, 8)).into["fuse"] == ((8, 4, 4), (5, 8, 8))
    build_network(space.graph, {"fuse": "spied"})
    assert set(seen) == {(8, 5, 4)}
    assert fused({"sum": Sum}, out=None).graph.channels["fuse"] == (8, 5, 8)


def test_an_operation_of_several_nodes_is_made_as_a_candidate_is():
    graph = SpaceGraph()
    x = graph.input(3)
    deep = graph.operation("deep", graph.operation("pool", x, pool), pointwise, out=8)
    graph.output(graph.operation("fuse", [deep, x], Concat, out=4))
    graph.finish()
    assert build_network(graph, {})(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 8, 8)


class Unsized(Concat):
    """Needs both at one size."""

    def forward(self, deep, skip):
        return self.conv(torch.cat([deep, skip], 1))


class Halved(Concat):
    """At the size of the first."""

    def forward(self, deep, skip):
        return self.conv(torch.cat([deep, F.interpolate(skip, deep.shape[2:])], 1))


class Overwriting(Concat):
    """Spoils the second for others."""

    def forward(self, deep, skip):
        return super().forward(deep, skip.relu_())


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (
            {"conv": conv},
            "'conv': its factory raised for 8 and 5 channels in and 4 out: TypeError: conv() takes "
            "2 positional arguments but 3 were given; where several nodes are read, a factory is "
            "called with the channels of each, then those out",
        ),
        ({"conv": lambda *_: nn.Conv2d(8, 4, 1)}, "does not take inputs of 8x4x4, 5x8x8: TypeErr"),
        ({"cat": Unsized}, "'cat': does not take inputs of 8x4x4, 5x8x8: RuntimeError: Sizes"),
        ({"none": Zero}, "'none': Zero takes one tensor, and 2 nodes are read; a module of yours"),
        ({"none": lambda *_: Zero()}, "'none': Zero takes one tensor, and 2 nodes are read"),
        ({"skip": nn.Identity}, "'skip': Identity takes one tensor, and 2 nodes are read"),
        ({"sum": Sum, "halved": Halved}, "shapes differ: sum gives 4x8x8, halved gives 4x4x4"),
        ({"over": Overwriting}, "'over': overwrites its input, which others read"),
        ({"late": lambda d, s, o: Sum(d, s, o + 1)}, "gives 5x8x8 from 8x4x4, 5x8x8, and 4 channe"),
    ],
)
def test_what_does_not_fit_is_refused_with_all_shapes(choices, said):
    with pytest.raises(SpaceError, match="slot 'fuse'.*" + re.escape(said)):
        fused(choices).shapes((3, 8, 8))


def test_an_operation_of_several_nodes_is_no_identity():
    graph = SpaceGraph()
    x = graph.input(3)
    graph.output(graph.operation("both", [x, graph.add("sum", [x])], nn.Identity))
    graph.finish()
    with pytest.raises(SpaceError, match="operation 'both': Identity takes one tensor"):
        build_network(graph, {})


def test_a_size_that_fits_is_named():
    class Doubled(Concat):
        """Brings the first to twice its size, whatever the second has."""

        def forward(self, deep, skip):
            return self.conv(torch.cat([F.interpolate(deep, scale_factor=2), skip], 1))

    with pytest.raises(SpaceError, match=r"slot 'fuse'.*8x3x3, 5x7x7.*such as 3x8x8"):
        fused({"doubled": Doubled}).shapes((3, 7, 7))


def test_a_mixture_runs_what_is_active_on_all_inputs():
    inputs = torch.randn(2, 8, 4, 4), torch.randn(2, 5, 8, 8)
    mixed = MixedOperation({name: make(8, 5, 4) for name, make in FUSIONS.items()}).eval()
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1])
    parts = [
        w * module(*inputs) for w, module in zip(weights, mixed.candidates.values(), strict=True)
    ]
    torch.testing.assert_close(mixed(*inputs, mixture=Mixture(weights)), sum(parts))
    torch.testing.assert_close(mixed(*inputs, mixture=Mixture(weights, (2,))), parts[2])


def loss_and_gradients(supernet, x, weights):
    given = x.clone().requires_grad_()
    alphas = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    mixtures = {n: Mixture(torch.softmax(alpha, 0), positive=True) for n, alpha in alphas.items()}
    output = Precision("fp32", "cpu").run(supernet, given, mixtures)
    output.square().mean().backward()
    return [output.detach(), given.grad, *(alpha.grad for alpha in alphas.values())]


@settings(max_examples=25)
@given(spaces())
def test_every_space_mixes_what_it_builds_prepared_and_recomputed_too(space):
    plain = Supernet(space.graph).double()
    x = torch.randn(3, CHANNELS, 3, 3).double()
    for architecture in some(space, 4):
        network = build_network(space.graph, architecture).double().eval()
        copy_weights(plain, network, architecture)
        torch.testing.assert_close(plain.eval()(x, one_hot(space, architecture)), network(x))
    weights = {name: torch.randn(len(c)).double() for name, c in space.decisions.items()}
    passed = prepare(copy.deepcopy(plain.train()))
    again = copy.deepcopy(passed)
    assert recompute_slots(again) == len(space.graph.slots)
    expected = loss_and_gradients(plain, x, weights)
    for other in (passed, again):
        torch.testing.assert_close(loss_and_gradients(other, x, weights), expected)


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_changes_nothing(name):
    plain = Supernet(Fused().graph).double()
    passed = copy.deepcopy(plain)
    applied = {"conv_bias": 6, "inplace_relu": 4, "fold_weights": 6, "skip_zeros": 1}
    assert PASSES[name](passed) >= applied.get(name, 0)
    x = torch.randn(2, 3, 8, 8).double()
    weights = {name: torch.randn(len(c)).double() for name, c in plain.decisions.items()}
    found = [loss_and_gradients(supernet, x, weights) for supernet in (plain, passed)]
    torch.testing.assert_close(found[1], found[0])


@settings(max_examples=25)
@given(spaces())
def test_every_space_costs_what_its_tables_say(space):
    for estimator in (Parameters(), Flops()):
        search = tiny_search(space, estimators={"cost": estimator})
        table = estimator.table(search)
        for architecture in some(space, 6):
            (found,) = estimator.measure(tiny_candidate(search, architecture)).values()
            assert table.predict(architecture) == found.value


def test_the_order_of_what_is_read_makes_another_network():
    class Either(SearchSpace):
        """Two branches, and their sum the one way or, in another place, the other."""

        def define(self, graph):
            x = graph.input(3)
            a, b = (graph.slot(n, x, {"conv": conv, "point": pointwise}, out=4) for n in "ab")
            graph.output(graph.slot("fuse", [a, b], {"concat": Concat}, out=1))

    space = Either()
    keys = {space.key(architecture) for architecture in enumerate_all(space.decisions)}
    assert len(keys) == 4


def test_what_a_cut_input_would_have_been_is_zeros():
    space = Fused().architecture
    cut = space({"stem": "conv", "middle": "conv", "side": "none", "fuse": "concat", "last": "sum"})
    network = build_network(Fused().graph, cut).eval()
    seen = []
    network.get_submodule("fuse_2").register_forward_pre_hook(lambda _, given: seen.append(given))
    network(torch.randn(2, 3, 8, 8))
    (low, side), *_ = seen
    assert low.abs().sum() > 0 and side.shape == (2, 8, 4, 4) and not side.any()


@pytest.mark.parametrize("kind", [Parameters, Flops])
def test_tables_predict_every_network(kind):
    estimator = kind()
    search = search_of(cost=estimator)
    table = estimator.table(search)
    every = [*enumerate_all(search.space.decisions), search.space.reference("big")]
    assert len(every) == 65
    for architecture in every:
        (found,) = estimator.measure(tiny_candidate(search, architecture)).values()
        assert table.predict(architecture) == found.value
    rows = [table.costs[slot] for slot in ("fuse_2", "fuse_1")]
    assert all(len(set(row.values())) == 4 for row in rows)


@pytest.mark.parametrize(
    ("engine", "fold"), [("eager", False), ("eager", True), ("onnxruntime", False)]
)
def test_candidates_are_timed_with_all_that_they_read(engine, fold, tmp_path):
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    latency = Latency(repeats=2, engine=engine, fold_batch_norm=fold, seconds=0.01)
    choices = {"sum": Sum, "deep": DeepOnly}
    search = tiny_search(fused(choices), estimators={"latency": latency}, folder=tmp_path)
    table = latency.table(search)
    assert set(table.costs["fuse"]) == set(choices)
    assert sum(table.costs["fuse"].values()) > 0


@pytest.mark.parametrize(
    "settings_of_it",
    [
        {"name": "memory"},
        {"name": "trained", "iterations": 2, "batch": 2},
        {"name": "one_shot", "iterations": 2, "batch": 2, "recalibration": 1},
        *({"name": "zero_cost", "proxy": proxy} for proxy in PROXIES),
    ],
    ids=lambda given: given.get("proxy", given["name"]),
)
def test_every_estimator_measures_fusions(settings_of_it):
    estimator = build(Estimator, settings_of_it, where="estimator")
    search = search_of(it=estimator)
    estimator.check(search)
    for fuse in ("gate", "deep"):
        whole = {"stem": "conv", "middle": "conv", "side": "skip", "fuse": fuse, "last": "sum"}
        found = estimator.measure(tiny_candidate(search, search.space.architecture(whole)))
        assert found and set(found) <= {metric.name for metric in estimator.metrics(search)}


def test_partial_channels_are_of_slots_that_read_one_node():
    said = r"partial_channels: 2 needs slots that read one node .* of 4x16x16 and 4x16x16"

    class Alike(SearchSpace):
        """A sum of the same shapes."""

        def define(self, graph):
            x = graph.operation("stem", graph.input(3), pointwise, out=4)
            y = graph.slot("one", x, {"conv": conv})
            y = graph.slot("both", [x, y], {"sum": Sum})
            graph.output(graph.operation("head", y, pointwise, out=1))

    with pytest.raises(SpecError, match=said):
        Darts(partial_channels=2).check(tiny_search(Alike()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"paths": 1},
        {"paths": 2},
        {"order": 2, "weights": {"optimiser": "sgd"}},
        {"memory": "1 MB"},
    ],
    ids=str,
)
def test_darts_searches_fusions(changes):
    search = search_of(parameters=Parameters())
    few = {"iterations": 4, "arch_every": 2, "batch": 2, "cost": {"parameters": {"beta": 0.1}}}
    strategy = Darts.model_validate(few | changes)
    strategy.check(search)
    (found,) = strategy.propose(History(), 1, search)
    assert set(found) == set(search.space.decisions)


def test_what_is_delivered_computes_the_same():
    space = Fused()
    assert not_writable(space.graph) == []
    x = torch.randn(2, 3, 8, 8)
    for fuse in FUSIONS:
        choices = {"stem": "conv", "middle": "point", "side": "skip", "fuse": fuse, "last": "sum"}
        network = build_network(space.graph, space.architecture(choices)).eval()
        torch.testing.assert_close(rebuilt(network, Source.of(network))(x), network(x))


def test_a_block_of_several_that_cannot_be_written_is_told():
    class Foreign(Concat):
        """Calls what is not torch's."""

        def forward(self, deep, skip):
            return super().forward(deep, skip) if deep.sum() > 0 else self.conv(skip)

    space = fused({"concat": Concat, "foreign": Foreign})
    (line,) = not_writable(space.graph)
    assert "the candidate 'foreign' in fuse" in line


def test_the_picture_has_a_wire_from_each_that_is_read():
    (panel,) = panels(Fused().graph)
    assert panel.boxes["fuse_2"].reads == ("pool_2", "side")
    assert panel.boxes["last"].reads == ("stem", "fuse_1", "input")

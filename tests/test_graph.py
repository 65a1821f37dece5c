"""What is refused before anything runs, with the names in the message."""

import itertools
import json
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nasengine.architecture import Architecture, read_architecture, write_architecture
from nasengine.canonical import meanings
from nasengine.delivery.writable import not_writable
from nasengine.errors import ArchitectureError, SpaceError
from nasengine.estimators.flops import Flops
from nasengine.estimators.parameters import Parameters
from nasengine.graph import SpaceGraph
from nasengine.network import build_network
from nasengine.shapes import infer_shapes
from nasengine.space import SearchSpace
from nasengine.spaces.light_sdi import LightSDI
from nasengine.testing.stubs import tiny_search


def conv(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def unpadded(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 3)


def raising(channels_in, channels_out):
    raise ZeroDivisionError("no groups")


def no_module(channels_in, channels_out):
    return "conv"


def narrow(channels_in, channels_out):
    return nn.Conv2d(channels_in, 1, 1)


def cycle(graph):
    graph.input(3)
    graph.add("a", ["input", "b"])
    graph.slot("b", "a", {"conv": conv})
    graph.output("b")


def dead_end(graph):
    x = graph.input(3)
    graph.slot("lost", x, {"conv": conv})
    graph.output(graph.slot("kept", x, {"conv": conv}))


def duplicate(graph):
    x = graph.input(3)
    graph.slot("block", x, {"conv": conv})
    graph.slot("block", x, {"conv": conv})


def no_candidates(graph):
    graph.output(graph.slot("empty", graph.input(3), {}))


def unknown_source(graph):
    graph.input(3)
    graph.output(graph.slot("block", "inputt", {"conv": conv}))


def unequal_channels(graph):
    x = graph.input(3)
    wide = graph.slot("wide", x, {"conv": conv}, out=8)
    graph.output(graph.add("merge", [x, wide]))


def other_choices(graph):
    x = graph.slot("one", graph.input(3), {"conv": conv}, shares="both")
    graph.output(graph.slot("two", x, {"wide": conv}, shares="both"))


def two_outputs(graph):
    x = graph.input(3)
    graph.output(x, "first")
    graph.output(x, "second")


def no_identifier(graph):
    graph.slot("block-1", graph.input(3), {"conv": conv})


def baseline_twice(graph):
    x = graph.input(3)
    graph.output(graph.slot("block", x, {"conv": conv}, baselines={"conv": conv}))


def late(graph):
    blocks = {f"k{k}": lambda i, o: nn.Conv2d(i, o, k, padding=k // 2) for k in (1, 3)}  # noqa: B023
    graph.slot("block", graph.input(3), blocks)


LATE = {}
for KERNEL in (1, 3):
    LATE[f"k{KERNEL}"] = lambda i, o: nn.Conv2d(i, o, KERNEL, padding=KERNEL // 2)  # noqa: B023


def late_in_a_module(graph):
    graph.slot("block", graph.input(3), LATE)


WIRINGS = [
    (cycle, "the graph has a cycle: ", ["a -> b", "b -> a"]),
    (dead_end, "node 'lost' (slot) reaches no output", []),
    (duplicate, "node 'block' is defined twice", []),
    (no_candidates, "slot 'empty' has no candidates", []),
    (
        unknown_source,
        "node 'block' reads 'inputt', which does not exist; did you mean 'input'?",
        [],
    ),
    (unequal_channels, "add 'merge' sums unequal channels: input has 3, wide has 8", []),
    (other_choices, "slots 'one' and 'two' share the decision 'both'", ["conv; wide"]),
    (two_outputs, "a space has one output, this one has 2: ", ["one by graph.concat"]),
    (
        lambda graph: graph.slot("block", graph.input(3), {"conv": conv}),
        "a space has one output, this one has 0; graph.output(...) wires it",
        [],
    ),
    (late, "slot 'block': the candidates 'k1' and 'k3' are the same function, which reads k", []),
    (
        late_in_a_module,
        "the candidates 'k1' and 'k3' are the same function, which reads KERNEL",
        [],
    ),
    (no_identifier, "node 'block-1': a name must be a Python identifier", []),
    (baseline_twice, "slot 'block': ['conv'] both candidate and baseline", []),
]


@pytest.mark.parametrize(
    ("define", "said", "one_of"), WIRINGS, ids=lambda v: getattr(v, "__name__", "")
)
def test_a_wrong_wiring_is_refused(define, said, one_of):
    graph = SpaceGraph()
    with pytest.raises(SpaceError) as caught:
        define(graph)
        graph.finish()
    assert said in str(caught.value)
    assert not one_of or any(text in str(caught.value) for text in one_of)


def slot_of(candidates, merge=False):
    graph = SpaceGraph()
    x = graph.input(3)
    found = graph.slot("block", x, candidates, out=8)
    if merge:
        found = graph.concat("merge", [found, x])
    graph.output(found)
    graph.finish()
    return graph


def counted():
    """Return a factory whose kernel grows from call to call."""
    sizes = itertools.count(1, 2)

    def make(channels_in, channels_out):
        size = next(sizes)
        return nn.Conv2d(channels_in, channels_out, size, padding=size // 2)

    return make


def of_shared(layer):
    return lambda channels_in, channels_out: nn.Sequential(layer, nn.ReLU())


class Asking(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) if x.mean() > 0 else x


SHAPES = [
    (
        slot_of({"conv": conv, "unpadded": unpadded}),
        "slot 'block': the candidates' output shapes differ: "
        "conv gives 8x6x6, unpadded gives 8x4x4",
    ),
    (
        slot_of({"unpadded": unpadded}, merge=True),
        "concat 'merge' merges unequal shapes: block has 8x4x4, input has 3x6x6",
    ),
    (
        slot_of({"conv": conv, "raising": raising}),
        "slot 'block', candidate 'raising': its factory raised for 3 channels in and 8 out: "
        "ZeroDivisionError: no groups",
    ),
    (
        slot_of({"text": no_module}),
        "slot 'block', candidate 'text': its factory returned str, not an nn.Module",
    ),
    (
        slot_of({"narrow": narrow}),
        "slot 'block', candidate 'narrow': gives 1x6x6 from 3x6x6, and 8 channels out are declared",
    ),
    (
        slot_of({"linear": lambda i, o: nn.Linear(5, o)}),
        "slot 'block', candidate 'linear': does not take an input of 3x6x6: RuntimeError",
    ),
    (
        slot_of({"wide": lambda i, o: nn.Conv2d(5, o, 1)}),
        "slot 'block', candidate 'wide': does not take an input of 3x6x6: RuntimeError: Given "
        "groups=1, weight of size [8, 5, 1, 1], expected input[2, 3, 6, 6] to have 5 channels",
    ),
    (
        slot_of({"asking": lambda i, o: Asking(i, o, 1)}),
        "slot 'block', candidate 'asking': does not take an input of 3x6x6: RuntimeError: "
        "Tensor.item() cannot be called on meta tensors; shapes are inferred without contents",
    ),
    (
        slot_of({"shared": of_shared(nn.Conv2d(3, 8, 1))}),
        "slot 'block', candidate 'shared': the modules that its factory makes share 0.weight, "
        "0.bias, and so would all that they fill",
    ),
    (
        slot_of({"complex": lambda i, o: nn.Conv2d(i, o, 1, dtype=torch.complex64)}),
        "slot 'block', candidate 'complex': has complex weights",
    ),
    (
        slot_of({"none": nn.Identity}),
        "slot 'block', candidate 'none': gives 3x6x6 from 3x6x6, and 8 channels out are declared; "
        "nn.Identity is for slots that keep their channels",
    ),
    (
        slot_of({"lazy": lambda i, o: nn.LazyConv2d(o, 1)}),
        "slot 'block', candidate 'lazy': makes a lazy module",
    ),
    (
        slot_of({"counted": counted()}),
        "slot 'block', candidate 'counted': its factory makes another module in every call: "
        "Conv2d(3, 8, kernel_size=(1, 1), stride=(1, 1)), then Conv2d(3, 8, kernel_size=(3, 3)",
    ),
]


@pytest.mark.parametrize(("graph", "said"), SHAPES, ids=range(len(SHAPES)))
def test_wrong_shapes_are_refused(graph, said):
    with pytest.raises(SpaceError) as caught:
        infer_shapes(graph, (3, 6, 6))
    assert str(caught.value).startswith(said)


class Fixed(nn.Module):
    """Computes numbers in its constructor, and holds a filter that numpy made."""

    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.drop = nn.Dropout(torch.linspace(0, 0.2, 3).tolist()[1])
        self.register_buffer("kernel", torch.from_numpy(np.full((1, 1, 3, 3), 1 / 9, np.float32)))
        self.conv = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x):
        blurred = functional.conv2d(x.mean(1, keepdim=True), self.kernel, padding=1)
        return self.conv(self.drop(x + blurred))


def test_a_constructor_may_compute_with_values():
    before = torch.get_rng_state()
    search = tiny_search(space_of({"fixed": Fixed}), estimators={})
    assert not_writable(search.space.graph) == []
    assert torch.equal(torch.get_rng_state(), before)
    assert Parameters().table(search).costs["a"]["fixed"] == 12
    assert Flops().table(search).costs["a"]["fixed"] > 0


@pytest.mark.parametrize(
    "use", [meanings, lambda graph: build_network(graph, {"block": "raising"})]
)
def test_a_factory_that_raises_is_named_wherever_it_is_called(use):
    with pytest.raises(SpaceError, match="slot 'block', candidate 'raising': its factory raised"):
        use(slot_of({"raising": raising}))


SPACE = LightSDI(width=2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder_6": "cutconnect"}, "unknown decision 'encoder_6'; did you mean 'encoder_"),
        ({"encoder_1": None}, "decision 'encoder_1' is missing"),
        ({"encoder_1": "cut"}, "decision 'encoder_1': 'cut' is no choice"),
        ({"encoder_1": "double_conv"}, "decision 'encoder_1': 'double_conv' is no choice"),
        ({"encoder_1": 3}, "decision 'encoder_1': 3 is no choice"),
    ],
)
def test_a_wrong_architecture_is_refused(changes, said):
    choices = {**SPACE.reference("cut_u"), **changes}
    with pytest.raises(ArchitectureError) as caught:
        SPACE.architecture({name: choice for name, choice in choices.items() if choice is not None})
    assert said in str(caught.value)


def test_an_architecture_is_read_back(tmp_path):
    path = tmp_path / "architecture.json"
    for name in SPACE.references():
        write_architecture(path, SPACE.reference(name), SPACE)
        assert read_architecture(path, SPACE) == SPACE.reference(name)


CHOICES = dict(SPACE.reference("cut_u"))
GOOD = {"format": 1, "space": "LightSDI", "choices": CHOICES}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "a JSON object is needed"),
        ('{"format": 1, "format": 1}', "'format' stands twice"),
        (json.dumps({**GOOD, "format": 2}), "format 2"),
        (
            json.dumps({**GOOD, "space": "NASBench201"}),
            "of the space 'NASBench201', not of LightSDI",
        ),
        (json.dumps({**GOOD, "chioces": {}}), "unknown key 'chioces'; did you mean 'choices'?"),
        (json.dumps({**GOOD, "choices": [1]}), "choices"),
        (json.dumps({**GOOD, "choices": {**CHOICES, "encoder_1": ["cutconnect"]}}), "is no choice"),
        (json.dumps({**GOOD, "choices": {}}), "decision 'decoder_4' is missing"),
        (" " * 20_000_000, "larger than"),
    ],
    ids=range(11),
)
def test_a_wrong_file_is_refused_by_name(tmp_path, text, said):
    path = tmp_path / "architecture.json"
    path.write_text(text)
    with pytest.raises(ArchitectureError) as caught:
        read_architecture(path, SPACE)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ArchitectureError, match=r"architecture\.json"):
        read_architecture(tmp_path / "architecture.json", SPACE)


def test_dead_branches_are_not_built():
    from nasengine.spaces.nas_bench_201 import NASBench201

    space = NASBench201(width=2, cells_per_stage=1)
    text = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    network = build_network(space.graph, Architecture(space.parse(text)))
    assert not [name for name, _ in network.named_children() if "edge_0_1" in name]
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


@dataclass
class Convolution:
    """A factory with a setting, which is not frozen and so has no hash."""

    size: int

    def __call__(self, channels_in, channels_out):
        return nn.Conv2d(channels_in, channels_out, self.size, padding=self.size // 2)


@dataclass(frozen=True)
class FrozenConvolution:
    """The same, frozen: equal where its setting is."""

    size: int

    def __call__(self, channels_in, channels_out):
        return Convolution(self.size)(channels_in, channels_out)


@pytest.mark.parametrize(
    ("add", "where"),
    [
        (lambda g, f: g.slot("a", g.input(3), {"x": conv, "y": f}), "slot 'a', candidate 'y'"),
        (
            lambda g, f: g.slot("a", g.input(3), {"x": conv}, baselines={"z": f}),
            "slot 'a', candidate 'z'",
        ),
        (lambda g, f: g.operation("head", g.input(3), f), "operation 'head'"),
    ],
)
def test_a_factory_that_cannot_be_told_from_another_is_refused(add, where):
    with pytest.raises(SpaceError, match=re.escape(where) + ".*frozen=True"):
        add(SpaceGraph(), Convolution(3))
    add(SpaceGraph(), FrozenConvolution(3))


TAKEN = ["class", "lambda", "None", "True", "forward", "train", "training", "graph", "code"]
TAKEN += ["type", "half", "to", "eval", "parameters", "recompile", "call_super_init"]


def space_of(choices, name="a", into=3):
    class Space(SearchSpace):
        """One slot."""

        def define(self, graph):
            graph.output(graph.slot(name, graph.input(into), choices))

    return Space()


def one_by_one(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 1)


@pytest.mark.parametrize("name", TAKEN)
def test_nodes_are_not_named_as_torch_names_something_else(name):
    with pytest.raises(SpaceError, match=rf"{name!r}"):
        space_of({"conv": one_by_one}, name).shapes((3, 8, 8))


@pytest.mark.parametrize("name", ["conv.5", "", "keys", "pop", "type", "train", "forward"])
def test_candidates_have_names_that_modules_can_have(name):
    with pytest.raises(SpaceError, match=rf"slot 'a', candidate {name!r}"):
        space_of({name: one_by_one}).shapes((3, 8, 8))


def test_a_candidate_leaves_its_input_to_its_siblings():
    def overwriting(channels_in, channels_out):
        return nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(channels_in, channels_out, 1))

    with pytest.raises(SpaceError, match="slot 'a', candidate 'over': overwrites its input"):
        space_of({"over": overwriting, "conv": one_by_one}).shapes((3, 8, 8))


@pytest.mark.parametrize("readers", [1, 2])
def test_an_operation_may_overwrite_what_it_alone_reads(readers):
    class Rectified(SearchSpace):
        """A slot and a ReLU in place."""

        def define(self, graph):
            x = graph.slot("a", graph.input(3), {"conv": one_by_one})
            y = graph.operation("relu", x, lambda i, o: nn.ReLU(inplace=True))
            graph.output(y if readers == 1 else graph.add("sum", [x, y]))

    if readers == 1:
        Rectified().shapes((3, 8, 8))
    else:
        with pytest.raises(SpaceError, match="operation 'relu': overwrites its input"):
            Rectified().shapes((3, 8, 8))


def test_a_factory_makes_a_new_module_in_every_call():
    shared = nn.Conv2d(3, 3, 1)
    with pytest.raises(SpaceError, match="candidate 'conv': its factory returned one Conv2d twice"):
        space_of({"conv": lambda i, o: shared}).shapes((3, 8, 8))


def test_the_default_strings_are_read_back():
    space = space_of({"conv": one_by_one, "other": nn.Identity})
    architecture = space.architecture({"a": "other"})
    assert space.parse(space.format(architecture)) == architecture
    with pytest.raises(ArchitectureError, match="no architecture strings of its own"):
        space.parse("unett")


def test_candidates_of_one_function_that_reads_nothing_are_taken():
    def make():
        return lambda i, o: nn.Conv2d(i, o, 1)

    graph = SpaceGraph()
    graph.output(graph.slot("block", graph.input(3), {"one": make(), "two": make()}, out=4))
    graph.finish()

"""Searched channels in the supernet: masks, the networks inside it, and what makes it fast."""

import copy
from contextlib import nullcontext
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from test_canonical import some
from test_replay import Pretended
from test_widths import ONE, between, conv, wide_spaces
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nasengine import replay
from nasengine.canonical import simplify
from nasengine.masks import AtWidths
from nasengine.moves import enumerate_all, sample
from nasengine.network import build_network
from nasengine.passes import PASSES, Precision, prepare, recompute_slots
from nasengine.passes.memory import step_memory
from nasengine.passes.self_check import disagreements
from nasengine.randomness import stream
from nasengine.space import SearchSpace
from nasengine.spaces.light_sdi import LightSDI
from nasengine.strategies.relaxation import Relaxation
from nasengine.supernet import Mixture, Narrowed, Supernet, build_path
from nasengine.testing.stubs import TinyGate, TinyWidths
from nasengine.widths import Width, joined

A, B = Width("a", (("1", 1), ("2", 2), ("4", 4))), Width("b", (("1", 1), ("3", 3)))


def one_hot(decisions, architecture):
    return {
        name: Mixture(torch.tensor([float(choice == architecture[name]) for choice in choices]))
        for name, choices in decisions.items()
    }


def places(channels, architecture):
    """Where a network's channels lie among the widest."""
    found, start = [], 0
    for part in channels:
        is_width = isinstance(part, Width)
        found += range(start, start + (part.of(architecture) if is_width else part))
        start += part.widest if is_width else part
    return torch.tensor(found)


def inherit(network, supernet, graph, architecture):
    """Give a network the slices of the supernet's tensors that are its channels."""
    for name, tensor in network.state_dict().items():
        node, _, rest = name.partition(".")
        slot = graph[node]
        inner = f"candidates.{architecture[slot.decision]}." if slot.kind == "slot" else ""
        whole = supernet.network.state_dict()[f"{node}.{inner}{rest}"]
        *into, out = (places(c, architecture) for c in graph.called_with(node))
        if whole.ndim:
            whole = whole[out]
        if whole.ndim > 1:
            number = rest.removeprefix("convs.").partition(".")[0]
            whole = whole[:, into[int(number) if rest.startswith("convs.") else 0]]
        tensor.copy_(whole)


def agree(space, architecture, supernet, x):
    network = build_network(space.graph, architecture).to(x.dtype).train(supernet.training)
    with torch.no_grad():
        inherit(network, supernet, space.graph, architecture)
        return network(x), supernet(x, one_hot(space.decisions, architecture))


@settings(max_examples=25)
@given(wide_spaces())
def test_one_width_alone_is_the_network_of_that_width(space):
    supernet = Supernet(space.graph).double()
    x = torch.randn(3, *ONE).double()
    for architecture in some(space, 6):
        torch.testing.assert_close(*agree(space, architecture, supernet.eval(), x))
        torch.testing.assert_close(*agree(space, architecture, supernet.train(), x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("space", [TinyWidths(), TinyGate()], ids=["sum", "gate"])
def test_one_width_alone_is_the_network_also_behind_batch_norms(space, training):
    torch.manual_seed(0)
    supernet = Supernet(space.graph).double().train(training)
    x = torch.randn(2, 3, 8, 8).double()
    for architecture in enumerate_all(space.decisions):
        torch.testing.assert_close(*agree(space, architecture, supernet, x))


def norm(channels):
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


class Deep(nn.Module):
    """Channels of its input and of its output inside, joined with its input before its last."""

    def __init__(self, channels_in, channels_out):
        super().__init__()
        depthwise = nn.Conv2d(channels_in, channels_in, 3, padding=1, groups=channels_in)
        self.first = nn.Sequential(depthwise, nn.BatchNorm2d(channels_in))
        self.second = nn.Sequential(conv(channels_in, channels_out), norm(channels_out))
        self.fixed = nn.Sequential(conv(channels_out, 3), norm(3))
        self.last = conv(channels_in + channels_out + 3, channels_out)
        self.end = nn.BatchNorm2d(channels_out)

    def forward(self, x):
        hidden = self.second(self.first(x))
        return self.end(self.last(torch.cat((hidden, x, self.fixed(hidden)), 1)))


def preactivated(channels_in, channels_out):
    return nn.Sequential(norm(channels_in), conv(channels_in, channels_out))


class Blocks(SearchSpace):
    """Blocks with searched channels inside, that read a concatenation."""

    def define(self, graph):
        one, other = graph.width("one", (2, 4)), graph.width("other", (1, 2, 3))
        x = graph.operation("stem", graph.input(3), preactivated, out=one)
        y = graph.slot("first", x, {"deep": Deep, "pre": preactivated}, out=other)
        x = graph.concat("both", [x, y])
        x = graph.slot("second", x, {"deep": Deep, "pre": preactivated}, out=2 * one)
        x = graph.slot("third", x, {"deep": Deep, "skip": lambda *_: nn.Identity()})
        graph.output(graph.operation("head", x, conv, out=1))


def test_norms_inside_blocks_are_told_by_their_channels():
    space = Blocks()
    one, other = space.graph.widths.values()
    supernet = Supernet(space.graph)
    assert supernet.network.first.hidden == {
        "deep": {"first.1": (one,), "second.1.0": (other,)},
        "pre": {"0.0": (one,)},
    }
    assert supernet.network.second.hidden == {
        "deep": {"first.1": (one, other), "second.1.0": (2 * one,)},
        "pre": {"0.0": (one, other)},
    }
    assert supernet.network.third.hidden["skip"] == {}
    assert not Supernet(TinyWidths().graph).network.first.hidden


def axes(part, into, out, inside):
    """Where the channels of each axis of a tensor of these blocks lie; None where they are all."""
    if part.startswith(("first", "0.")):
        return (into,)
    if part.startswith("fixed"):
        return (None, out) if part.startswith("fixed.0") else (None,)
    return (out, inside) if part.startswith("last") else (out, into)


@pytest.mark.parametrize("prepared", [False, True])
def test_one_width_alone_is_the_network_inside_blocks_too(prepared):
    """In training: statistics of a batch take out what is constant over it."""
    space, x = Blocks(), torch.randn(2, 3, 8, 8).double()
    graph = space.graph
    torch.manual_seed(0)
    supernet = Supernet(graph).double().train()
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    plain = copy.deepcopy(supernet)
    if prepared:
        prepare(supernet)
    for architecture in enumerate_all(space.decisions):
        network = build_network(graph, architecture).double().train()
        for name, tensor in network.state_dict().items():
            node, _, rest = name.partition(".")
            slot = graph[node]
            inner = f"candidates.{architecture[slot.decision]}." if slot.kind == "slot" else ""
            whole = plain.network.state_dict()[f"{node}.{inner}{rest}"]
            into, out = (places(c, architecture) for c in graph.called_with(node))
            first, second = graph.channels[node]
            inside = torch.cat([out, into + second, torch.arange(3) + first + second])
            for axis, lies in zip(range(whole.ndim), axes(rest, into, out, inside), strict=False):
                whole = whole if lies is None else whole.index_select(axis, lies)
            tensor.copy_(whole)
        found = supernet(x, one_hot(space.decisions, architecture))
        torch.testing.assert_close(found, network(x), msg=str(architecture))


LIGHT: dict[str, dict[str, tuple[str, ...]]] = {
    "single_conv": {"0": ("out", "in"), "1": ("out",)},
    "single_dilation_conv": {"0": ("out", "in"), "1": ("out",)},
    "double_dw_conv": {"0": ("in",), "1": ("in",), "2": ("out", "in"), "": ("out",)},
    "double_dw_d_conv": {"0": ("in",), "1": ("out", "in"), "5": ("out", "out"), "": ("out",)},
    "cutconnect": {"block.0": ("out", "in"), "fuse.0": ("out", "both"), "": ("out",)},
    "head": {"": ("out", "in")},
}
"""The channels of each axis of the blocks' tensors, by the beginning of their names."""


def test_one_width_alone_is_the_network_of_light_sdi():
    space = LightSDI(width=4, searched_widths=("50%", "100%"))
    graph, x, rng = space.graph, torch.randn(2, 3, 32, 32).double(), stream(0, "light")
    torch.manual_seed(0)
    supernet = Supernet(graph).double().train()
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    state = supernet.network.state_dict()
    for architecture in (sample(space.decisions, rng) for _ in range(6)):
        network = build_network(graph, architecture).double().train()
        for name, tensor in network.state_dict().items():
            node, _, rest = name.partition(".")
            block = architecture.get(node, node)
            whole = state[f"{node}.candidates.{block}.{rest}" if block != node else name]
            into, out = (places(c, architecture) for c in graph.called_with(node))
            lie = {"in": into, "out": out, "both": torch.cat([out, into + graph.channels[node][1]])}
            parts = next(axes for part, axes in LIGHT[block].items() if rest.startswith(part))
            for axis, part in zip(range(whole.ndim), parts, strict=False):
                whole = whole.index_select(axis, lie[part])
            tensor.copy_(whole)
        torch.testing.assert_close(supernet(x, one_hot(space.decisions, architecture)), network(x))


@settings(max_examples=15)
@given(wide_spaces())
def test_a_path_is_what_the_supernet_runs(space):
    supernet = Supernet(space.graph).eval()
    x = torch.randn(2, *ONE)
    for architecture in some(space, 4):
        path = build_path(space.graph, architecture).eval()
        state = path.state_dict()
        for name in state:
            node, _, rest = name.partition(".")
            slot = space.graph[node]
            inner = f"candidates.{architecture[slot.decision]}." if slot.kind == "slot" else ""
            state[name] = supernet.network.state_dict()[f"{node}.{inner}{rest}"]
        path.load_state_dict(state)
        mixtures = one_hot(space.decisions, architecture)
        active = {n: m._replace(active=(int(m.weights.argmax()),)) for n, m in mixtures.items()}
        with torch.no_grad():
            torch.testing.assert_close(path(x), supernet(x, active))
            torch.testing.assert_close(path(x), supernet(x, mixtures))


def test_a_path_of_fixed_channels_is_the_network():
    graph = between(lambda g, x: g.slot("slot", x, {"conv": conv}, out=3))
    network, path = (build(graph, {"slot": "conv"}) for build in (build_network, build_path))
    assert network.state_dict().keys() == path.state_dict().keys()
    assert [*dict(network.named_modules())] == [*dict(path.named_modules())]


def test_masks_follow_the_parts_of_a_concatenation():
    narrowed = Narrowed(joined([(A,), (2,), (B,), (A,)]))
    assert narrowed.decisions == ("a", "b")
    weights = {"a": torch.tensor([0.5, 0.25, 0.25]), "b": torch.tensor([0.75, 0.25])}
    found = narrowed(torch.ones(1, 13, 1), *(Mixture(weights[name]) for name in "ab"))
    a, b = [1.0, 0.5, 0.25, 0.25], [1.0, 0.25, 0.25]
    assert found.flatten().tolist() == [*a, 1.0, 1.0, *b, *a]


@pytest.mark.parametrize(("one", "other"), [*product(range(3), range(2))])
def test_what_no_active_width_reaches_is_zero(one, other):
    narrowed = Narrowed((A, 2, B))
    mixtures = Mixture(torch.eye(3)[one], (one,)), Mixture(torch.eye(2)[other], (other,))
    x = torch.randn(2, 9, 3, 3)
    chosen = {"a": A.choices[one], "b": B.choices[other]}
    assert torch.equal(narrowed(x, *mixtures), AtWidths((A, 2, B), chosen)(x))


def test_a_mask_of_some_widths_leaves_the_others():
    found = AtWidths((A, B), {"b": "1"})(torch.ones(1, 7))
    assert found.tolist() == [[1, 1, 1, 1, 1, 0, 0]]


def test_an_operation_without_weights_passes_masked_channels_on_and_masks_those_it_makes():
    class Some(nn.Module):
        """As many of its channels as are asked for, again and again."""

        def __init__(self, channels_in, channels_out):
            super().__init__()
            self.times = channels_out

        def forward(self, x):
            return x.repeat(1, self.times, 1, 1)[:, : self.times]

    def define(graph, x):
        x = graph.operation("made", x, Some, out=graph.width("w", (1, 2)))
        return graph.operation("kept", x, lambda _in, _out: nn.AvgPool2d(1))

    masks = [n for n, m in Supernet(between(define)).network.named_children()]
    assert masks == ["made", "made_narrowed", "kept", "head"]


def test_a_name_that_a_node_has_is_no_mask():
    def define(graph, x):
        width = graph.width("w", (1, 2))
        for name in ("a_narrowed", "a", "a_narrowed_"):
            x = graph.operation(name, x, conv, out=width)
        return x

    supernet = Supernet(between(define))
    masks = [n for n, m in supernet.network.named_children() if isinstance(m, Narrowed)]
    assert masks == ["a_narrowed_narrowed", "a_narrowed__", "a_narrowed__narrowed"]


@pytest.mark.parametrize("space", [TinyWidths(), TinyGate()], ids=["sum", "gate"])
def test_gradients_reach_the_mixtures_of_widths(space):
    alphas = {n: torch.zeros(len(c), requires_grad=True) for n, c in space.decisions.items()}
    mixtures = {name: Mixture(torch.softmax(alpha, 0)) for name, alpha in alphas.items()}
    Supernet(space.graph)(torch.randn(2, 3, 8, 8), mixtures).square().mean().backward()
    assert all(alpha.grad.abs().sum() > 0 for alpha in alphas.values())


@pytest.mark.parametrize("kind", ["softmax", "gumbel"])
def test_widths_that_are_not_drawn_have_gradients_too(kind):
    """One path: which channels would help is asked of those that are zero as well."""
    relaxation = Relaxation(kind, paths=1)
    alphas = {"a": torch.zeros(3, requires_grad=True)}
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    for seed in range(6):
        noise = relaxation.noise(alphas, torch.Generator().manual_seed(seed))
        mixture = relaxation.mixtures(alphas, noise, 1.0)["a"]
        (drawn,) = mixture.active
        found = Narrowed((A,))(x, mixture)
        torch.testing.assert_close(found, AtWidths((A,), {"a": A.choices[drawn]})(x))
        (gradient,) = torch.autograd.grad(found.sum(), mixture.weights)
        assert gradient.tolist() == [1.0, 3.0, 10.0]


def soft(decisions):
    generator = torch.Generator().manual_seed(0)
    drawn = {n: torch.randn(len(c), generator=generator) for n, c in decisions.items()}
    return {n: Mixture(torch.softmax(d, 0), positive=True) for n, d in drawn.items()}


SPACES = {"sum": TinyWidths(), "gate": TinyGate(), "blocks": Blocks()}


@pytest.mark.parametrize("without", [(), *((name,) for name in PASSES), tuple(PASSES)])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_every_pass_leaves_what_is_computed(space, without):
    torch.manual_seed(0)
    plain = Supernet(space.graph).train()
    fast = prepare(copy.deepcopy(plain), without=without)
    x, results = torch.randn(2, 3, 8, 8), []
    for supernet in (plain, fast):
        mixtures = soft(space.decisions)
        mixtures = {n: m._replace(weights=m.weights.requires_grad_()) for n, m in mixtures.items()}
        loss = supernet(x, mixtures).square().mean()
        results.append((loss, *torch.autograd.grad(loss, [m.weights for m in mixtures.values()])))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_recomputed_slots_have_the_same_gradients(space):
    torch.manual_seed(0)
    plain = Supernet(space.graph).train()
    again = copy.deepcopy(plain)
    assert recompute_slots(again) == len(space.graph.slots)
    x, results = torch.randn(2, 3, 8, 8), []
    for supernet in (plain, again):
        supernet(x, soft(space.decisions)).square().mean().backward()
        results.append([p.grad for p in supernet.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_bfloat16_agrees_with_float32():
    space, x = TinyWidths(), torch.randn(2, 3, 8, 8)

    def loss(module, precision):
        return precision.run(module, x, soft(space.decisions)).square().mean()

    torch.manual_seed(0)
    plain = Supernet(space.graph).train()
    fast = prepare(copy.deepcopy(plain))
    assert disagreements(plain, fast, Precision("bf16", "cpu"), loss) == {}


def test_the_memory_of_masks_is_counted():
    space, shape = TinyWidths(width=8), (2, 3, 32, 32)

    memory = step_memory(
        lambda: Supernet(space.graph), shape, Precision("fp32", "cpu"), optimiser_states=1
    )
    # stem, first and second are each kept once more, for the gradients of the masks.
    assert memory.fixed > 3 * (2 * 16 * 32 * 32 * 4)
    assert set(memory.slots) == {"first", "second"}


def test_dead_branches_are_no_part_of_a_path():
    space = TinyGate()
    architecture = {n: choices[-1] for n, choices in space.decisions.items()}
    path = build_path(space.graph, architecture)
    assert "inside" not in simplify(space.graph, architecture)
    assert not any("inside" in name for name, _ in path.named_children())


class Places(TorchDispatchMode):
    """Keeps on which devices tensors are made."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        leaves = tree_leaves(given)
        self.found |= {t.device.type for t in leaves if isinstance(t, torch.Tensor)}
        return given


def test_masks_are_made_where_they_are_needed():
    """Nothing is copied there from the processor, which a GPU would wait for."""
    x, weights = torch.empty(1, 9, 2, 2, device="meta"), torch.empty(3, device="meta")
    with Places() as places:
        Narrowed((A, 2, B))(x, Mixture(weights), Mixture(weights[:2]))
    assert places.found <= {"meta"}


def test_a_gpu_replays_masks(monkeypatch):
    monkeypatch.setattr(replay, "_on", lambda _: nullcontext())
    monkeypatch.setattr(replay, "_telling_of_waits", nullcontext)
    space, told = TinyWidths(), []
    supernet = prepare(Supernet(space.graph)).eval()
    recorder = Pretended([supernet], told.append)

    def step(x, mixtures):
        return [supernet(x, mixtures)]

    for number in range(5):
        x = torch.randn(2, 3, 8, 8)
        drawn = {n: torch.softmax(torch.randn(len(c)), 0) for n, c in space.decisions.items()}
        mixtures = {name: Mixture(weights) for name, weights in drawn.items()}
        (found,) = recorder.run(step, x, mixtures)
        assert torch.equal(found, supernet(x, mixtures)), number
    assert recorder.recorded == 1 and not told


def first_slices(path, network):
    """Give a network the first slices of a path's tensors."""
    state = path.state_dict()
    for name, tensor in network.state_dict().items():
        whole = state[name]
        tensor.copy_(whole[tuple(slice(size) for size in tensor.shape)] if tensor.ndim else whole)


class Half(nn.Module):
    def forward(self, x):
        return x[:, : x.shape[1] // 2]


def expanded(channels_in, channels_out):
    """An inverted bottleneck: four times the channels that are read inside."""
    hidden = 4 * channels_in
    return nn.Sequential(
        nn.Conv2d(channels_in, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, channels_out, 1, bias=False),
        nn.BatchNorm2d(channels_out),
    )


def halved(graph, x):
    width = graph.width("w", (4, 8))
    x = graph.operation("made", x, conv, out=2 * width)
    return graph.operation("first_half", x, lambda *_: Half(), out=width)


def flattened(graph, x):
    x = graph.operation("made", x, conv, out=(width := graph.width("w", (4, 8))))
    x = graph.operation("pool", x, lambda *_: nn.AdaptiveAvgPool2d(2))
    x = graph.operation("flat", x, lambda *_: nn.Flatten(), out=4 * width)
    x = graph.operation("linear", x, nn.Linear, out=2)
    return graph.operation("image", x, lambda *_: nn.Unflatten(1, (2, 1, 1)))


def bottleneck(graph, x):
    width = graph.width("w", (4, 8))
    x = graph.operation("made", x, conv, out=width)
    return graph.slot("block", x, {"expanded": expanded}, out=width)


@pytest.mark.parametrize("define", [halved, flattened, bottleneck])
def test_a_path_at_a_width_is_its_network(define):
    graph = between(define)
    chosen = {name: choices[0] for name, choices in graph.decisions.items()}
    path, network = build_path(graph, chosen), build_network(graph, chosen)
    first_slices(path, network)
    x = torch.randn(2, *ONE)
    torch.testing.assert_close(path(x), network(x))


@pytest.mark.parametrize(
    "normed",
    [lambda _, out: nn.InstanceNorm2d(out), lambda _, out: nn.BatchNorm2d(out, affine=False)],
)
def test_a_width_is_told_behind_norms_without_weights(normed):
    def define(graph, x):
        x = graph.operation("made", x, conv, out=graph.width("w", (4, 8)))
        return graph.operation("norm", x, normed)

    supernet = Supernet(between(define))
    nn.init.ones_(supernet.network.made.weight)
    weights = torch.tensor([0.5, 0.5], requires_grad=True)
    supernet(torch.randn(4, 1, 8, 8), {"w": Mixture(weights)}).square().mean().backward()
    assert weights.grad.abs().max() > 0.01

"""Shapes of every node and candidate, inferred on the meta device: no memory, no arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from nasengine.errors import SpaceError
from nasengine.factories import Factory
from nasengine.graph import Node, SpaceGraph
from nasengine.meta_shapes import MetaShapes, made_cheaply
from nasengine.operations import meaning_of
from nasengine.randomness import kept_generators

Shape = tuple[int, ...]
"""A sample's shape, without the batch: (C, H, W) or (C,)."""

_BATCH = 2
_CALLED_WITH = (
    "; where several nodes are read, a factory is called with the channels of each, then those out"
)


@dataclass(frozen=True)
class Shapes:
    """Shape into and out of every node, for one input size.

    Parameters
    ----------
    into
        Node to the shapes of the tensors that it reads, in order.
    out
        Node to the shape that it gives.
    """

    into: Mapping[str, tuple[Shape, ...]]
    out: Mapping[str, Shape]


def infer_shapes(graph: SpaceGraph, input_shape: Shape) -> Shapes:
    """Run every operation and every candidate once on the meta device.

    Parameters
    ----------
    graph
        A finished graph.
    input_shape
        (C, H, W) of one sample.

    Raises
    ------
    SpaceError
        Naming the node, the slot and the candidate: a factory that raises, a module that does not
        take its input, candidates whose output shapes differ, a merge of unequal shapes, an input
        with other channels than the space's.
    """
    _check_names(graph)
    try:
        return _infer(graph, tuple(input_shape))
    except _ShapesUnfit as error:
        raise SpaceError(f"{error}{_sizes_that_fit(graph, tuple(input_shape))}") from None


def _check_names(graph: SpaceGraph) -> None:
    """Refuse names that torch has for something else in the networks.

    Raises
    ------
    SpaceError
        Naming the node, or the slot and the candidate.
    """
    nodes, candidates = dir(fx.GraphModule(nn.Module(), fx.Graph())), dir(nn.ModuleDict())
    for node in graph.nodes:
        if node.kind in ("operation", "slot") and node.name in nodes:
            raise SpaceError(
                f"{node.kind} {node.name!r}: a network has an attribute of that name; "
                f"such as {node.name + '_1'!r} is free"
            )
        for name in node.candidates:
            if not name or "." in name or name in candidates:
                raise SpaceError(
                    f"slot {node.name!r}, candidate {name!r}: torch has no modules of that name: "
                    f"it must not be empty, have a dot, or be an attribute of nn.ModuleDict"
                )


class _ShapesUnfit(SpaceError):
    """Several inputs that do not go together; another input size may help."""


def _sizes_that_fit(graph: SpaceGraph, shape: Shape) -> str:
    """Say which larger input would do: halving and doubling needs sizes that divide."""
    for divisor in (2, 4, 8, 16, 32, 64):
        larger = (shape[0], *(-(-side // divisor) * divisor for side in shape[1:]))
        if larger == shape:
            continue
        try:
            _infer(graph, larger)
        except SpaceError:
            continue
        return (
            f"; the input is {_text(shape)}, and sides divisible by {divisor} fit, "
            f"such as {_text(larger)}"
        )
    return ""


def _infer(graph: SpaceGraph, input_shape: Shape) -> Shapes:
    values: dict[str, Tensor] = {}
    seen: dict[object, Tensor] = {}
    with MetaShapes():
        for node in graph.nodes:
            inputs = [values[source] for source in node.inputs]
            values[node.name] = _value(graph, node, inputs, input_shape, seen)
    out = {name: tuple(value.shape[1:]) for name, value in values.items()}
    into = {node.name: tuple(out[source] for source in node.inputs) for node in graph.nodes}
    return Shapes(into, out)


def _value(
    graph: SpaceGraph,
    node: Node,
    inputs: Sequence[Tensor],
    shape: Shape,
    seen: dict[object, Tensor],
) -> Tensor:
    if node.kind == "input":
        channels = graph.channels[node.name]
        if shape[0] != channels[-1]:
            raise SpaceError(
                f"input {node.name!r} has {channels[-1]} channels in the space, "
                f"and the task's images have {shape[0]}; set space.channels (or its like) to "
                f"{shape[0]}"
            )
        return torch.empty((_BATCH, *shape), device="meta")
    if node.kind == "output":
        return inputs[0]
    if node.kind in ("add", "concat"):
        return _merged(node, inputs)
    value: Tensor | None = None
    for widths in graph.variants(node.name):
        found = _at_widths(graph, node, widths, inputs, seen)
        if value is not None and found.shape[2:] != value.shape[2:]:
            raise SpaceError(
                f"{node.kind} {node.name!r}: gives {_text(value.shape[1:])} at the widest and "
                f"{_text(found.shape[1:])} where {_told(widths)}; channels alone may differ"
            )
        value = found if value is None else value
    assert value is not None
    return value


def _at_widths(
    graph: SpaceGraph,
    node: Node,
    widths: Mapping[str, str],
    inputs: Sequence[Tensor],
    seen: dict[object, Tensor],
) -> Tensor:
    channels = graph.channels_of(node.name, widths)
    read = [
        x if x.shape[1] == count else x.new_empty((_BATCH, count, *x.shape[2:]))
        for x, count in zip(inputs, channels, strict=False)
    ]
    try:
        return _output(graph, node, channels, read, seen)
    except SpaceError as error:
        if not widths:
            raise
        raise type(error)(f"{error}; where {_told(widths)}") from error


def _told(widths: Mapping[str, str]) -> str:
    """Say which widths are chosen."""
    return " and ".join(f"{decision} is {choice}" for decision, choice in widths.items())


def _output(
    graph: SpaceGraph,
    node: Node,
    channels: tuple[int, ...],
    inputs: Sequence[Tensor],
    seen: dict[object, Tensor],
) -> Tensor:
    """Return what an operation gives, or every candidate of a slot."""
    if node.kind == "operation":
        assert node.factory is not None
        where = f"operation {node.name!r}"
        alone = all(graph.dag.out_degree(source) == 1 for source in node.inputs)
        return _applied(where, node.factory, channels, inputs, seen, alone=alone)
    every = {**node.candidates, **node.baselines}
    outputs = {
        name: _applied(f"slot {node.name!r}, candidate {name!r}", factory, channels, inputs, seen)
        for name, factory in every.items()
    }
    if len({tuple(value.shape) for value in outputs.values()}) > 1:
        listed = ", ".join(f"{name} gives {_text(v.shape[1:])}" for name, v in outputs.items())
        raise SpaceError(f"slot {node.name!r}: the candidates' output shapes differ: {listed}")
    return next(iter(outputs.values()))


def _merged(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    try:
        if node.kind == "concat":
            return torch.cat(list(inputs), dim=1)
        if len({tuple(value.shape) for value in inputs}) > 1:
            raise RuntimeError("a sum needs equal shapes")
        return inputs[0]
    except (RuntimeError, IndexError):
        listed = ", ".join(
            f"{source} has {_text(value.shape[1:])}"
            for source, value in zip(node.inputs, inputs, strict=True)
        )
        raise _ShapesUnfit(f"{node.kind} {node.name!r} merges unequal shapes: {listed}") from None


def _applied(
    where: str,
    factory: Factory,
    channels: tuple[int, ...],
    inputs: Sequence[Tensor],
    seen: dict[object, Tensor],
    *,
    alone: bool = False,
) -> Tensor:
    """Apply a fresh module to meta tensors; repeated cells are computed once.

    One that is not `alone` must leave its inputs as they are, for others read them.
    """
    shapes = tuple(tuple(value.shape) for value in inputs)
    what = (factory, channels, shapes, alone)
    if what in seen:
        return seen[what]
    into = ", ".join(_text(value.shape[1:]) for value in inputs)

    def make() -> nn.Module:
        return make_module(where, factory, *channels)

    module, other = made_cheaply(make), made_cheaply(make)
    _check_new(where, module, other)
    module = module.to("meta")
    versions = [value._version for value in inputs]
    try:
        with torch.no_grad():
            value = module.eval()(*inputs)
    except Exception as error:
        reason = _reason(make, inputs, error)
        if len(inputs) > 1:
            raise _ShapesUnfit(f"{where}: does not take inputs of {into}: {reason}") from error
        raise SpaceError(f"{where}: does not take an input of {into}: {reason}") from error
    if not isinstance(value, Tensor):
        raise SpaceError(f"{where}: returns {type(value).__name__}, and a Tensor is needed")
    if not alone and [value._version for value in inputs] != versions:
        raise SpaceError(
            f"{where}: overwrites its input, which others read; "
            f"work on a copy, such as nn.ReLU() in place of nn.ReLU(inplace=True)"
        )
    if value.ndim < 2 or value.shape[0] != _BATCH or value.shape[1] != channels[-1]:
        kept = "; nn.Identity is for slots that keep their channels" * (
            meaning_of(module) == "identity"
        )
        raise SpaceError(
            f"{where}: gives {_text(value.shape[1:])} from {into}, "
            f"and {channels[-1]} channels out are declared{kept}"
        )
    seen[what] = value
    return value


def _check_new(where: str, module: nn.Module, other: nn.Module) -> None:
    """Refuse a factory whose modules share weights, or are not alike."""
    if any(is_lazy(weight) for weight in module.parameters()):
        raise SpaceError(
            f"{where}: makes a lazy module, and its channels are needed before it runs; "
            f"a factory is given them, as in nn.Conv2d(channels_in, channels_out, 1)"
        )
    if any(weight.is_complex() for weight in module.parameters()):
        raise SpaceError(
            f"{where}: has complex weights, and optimisers here take real ones: keep them as "
            f"(..., 2), and call torch.view_as_complex in forward"
        )
    if module is other:
        raise SpaceError(
            f"{where}: its factory returned one {type(module).__name__} twice, whose weights all "
            f"that it fills would share; make a new one in every call"
        )
    own = {id(weight) for weight in module.parameters()}
    shared = [name for name, weight in other.named_parameters() if id(weight) in own]
    if shared:
        raise SpaceError(
            f"{where}: the modules that its factory makes share {', '.join(shared)}, and so would "
            f"all that they fill; make every layer anew in every call"
        )
    for one, another in zip_longest(_makeup(module), _makeup(other)):
        if one != another:
            raise SpaceError(
                f"{where}: its factory makes another module in every call: {one}, then {another}; "
                f"what it draws at random or counts must be a setting"
            )


def _makeup(module: nn.Module) -> Iterator[str]:
    """Say what a module is made of: its layers, and the shapes of what they hold."""
    for name, part in module.named_modules():
        told = part.extra_repr() if type(part).__module__.startswith("torch.nn.") else ""
        yield f"{name} {type(part).__name__}({told})".strip()
    for name, tensor in module.state_dict().items():
        yield f"{name} of {_text(tensor.shape)}"


def _reason(make: Callable[[], nn.Module], inputs: Sequence[Tensor], error: Exception) -> str:
    """Say why a module does not take its inputs: best as torch says it of real ones."""
    with kept_generators(), torch.no_grad():
        try:
            make().eval()(*(torch.zeros(value.shape) for value in inputs))
        except Exception as real:  # noqa: BLE001 anyone's code
            return f"{type(real).__name__}: {real}"
    return (
        f"{type(error).__name__}: {error}; shapes are inferred without contents: it must not ask "
        f"for a tensor's values (.item(), an if), and make tensors where its input is "
        f"(device=x.device)"
    )


def make_module(where: str, factory: Factory, *channels: int) -> nn.Module:
    """Call a factory with the channels of each input, then those out.

    Raises
    ------
    SpaceError
        If it raises, or returns something that is no module, or one that takes one tensor where
        several are read.
    """
    *into, out = channels
    try:
        module = factory(*channels)
    except SpaceError as error:
        raise SpaceError(f"{where}: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        several = len(into) > 1 and isinstance(error, TypeError)
        raise SpaceError(
            f"{where}: its factory raised for {' and '.join(map(str, into))} channels in and {out} "
            f"out: {reason}{_CALLED_WITH * several}"
        ) from error
    if not isinstance(module, nn.Module):
        raise SpaceError(f"{where}: its factory returned {type(module).__name__}, not an nn.Module")
    if len(into) > 1 and meaning_of(module) != "module":
        raise SpaceError(
            f"{where}: {type(module).__name__} takes one tensor, and {len(into)} nodes are read; "
            f"a module of yours takes {len(into)}, and may return the one that is to pass"
        )
    return module


def _text(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape) or "scalars"

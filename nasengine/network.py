"""From a graph to torch: the network that an architecture stands for, as an `fx.GraphModule`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from pathlib import Path

import torch
from torch import fx, nn

from nasengine.canonical import simplify
from nasengine.errors import RunFolderError
from nasengine.graph import Node, SpaceGraph
from nasengine.randomness import torch_seed
from nasengine.shapes import make_module
from nasengine.widths import searched

Fill = Callable[[fx.Graph, Node, tuple[fx.Node, ...], Mapping[str, fx.Node]], fx.Node]
"""Puts what fills a slot into an fx graph, given what the slot reads and the further inputs."""

Narrow = Callable[[Node], tuple[nn.Module, Sequence[str]] | None]
"""Makes what a node's searched channels go through, if anything: a module, and the names of the
further inputs that it reads after them."""


def build_network(graph: SpaceGraph, architecture: Mapping[str, str]) -> fx.GraphModule:
    """Build the network of an architecture, freshly initialised from torch's global generator.

    Branches that reach the output only through a cut connection are left out.

    Parameters
    ----------
    graph
        A finished graph.
    architecture
        A choice (or a baseline) for every decision.

    Returns
    -------
    A module from (N, C, H, W) to the output's shape; its submodules bear the nodes' names.

    Raises
    ------
    SpaceError
        If a factory raises.
    """
    modules: dict[str, nn.Module] = {}
    return assemble(graph, architecture, choosing(graph, architecture, modules), modules, "Network")


def trained_network(
    graph: SpaceGraph, architecture: Mapping[str, str], weights: Path
) -> fx.GraphModule:
    """Build a network with its weights from a file (safetensors), on the CPU, to be evaluated.

    Raises
    ------
    RunFolderError
        If the file is damaged, or of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with torch_seed(0, "trained"):  # What is drawn is overwritten.
        network = build_network(graph, architecture)
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise RunFolderError(f"{weights}: damaged: {error!s:.200}") from error
    network.eval()
    return network


def choosing(
    graph: SpaceGraph, architecture: Mapping[str, str], modules: dict[str, nn.Module]
) -> Fill:
    """Return what puts an architecture's choice into every slot.

    Parameters
    ----------
    graph, architecture
        As of `build_network`.
    modules
        Where the modules are collected by name.
    """

    def fill(
        built: fx.Graph, slot: Node, inputs: tuple[fx.Node, ...], _: Mapping[str, fx.Node]
    ) -> fx.Node:
        choice = architecture[slot.decision]
        factory = (slot.candidates if choice in slot.candidates else slot.baselines)[choice]
        where = f"slot {slot.name!r}, candidate {choice!r}"
        modules[slot.name] = make_module(
            where, factory, *graph.channels_of(slot.name, architecture)
        )
        return built.call_module(slot.name, inputs)

    return fill


def calling(module: nn.Module, inputs: int) -> fx.GraphModule:
    """Return a network that is one module, called with so many tensors.

    What takes any number of tensors is traced by their number here.
    """
    built = fx.Graph()
    read = tuple(built.placeholder(f"x{index}") for index in range(inputs))
    built.output(built.call_module("called", read))
    return fx.GraphModule({"called": module}, built)


def assemble(
    graph: SpaceGraph,
    architecture: Mapping[str, str] | None,
    fill: Fill,
    modules: dict[str, nn.Module],
    class_name: str,
    further_inputs: Sequence[str] = (),
    narrow: Narrow | None = None,
) -> fx.GraphModule:
    """Assemble an `fx.GraphModule` from a space's graph; `fill` says what stands in a slot.

    Parameters
    ----------
    graph
        A finished graph.
    architecture
        Whose network it is, without what cut connections leave without use and at its widths; None
        for the whole graph at the widest.
    fill
        Called for every slot.
    modules
        Where the modules are collected by name; `fill` adds its own.
    class_name
        The class name of the result.
    further_inputs
        Names of placeholders that follow the input.
    narrow
        Called for every operation and slot whose channels out are searched.
    """
    reads = {node.name: node.inputs for node in graph.nodes}
    channels: Callable[[str], tuple[int, ...]] = graph.channels.__getitem__
    if architecture is not None:
        reads = simplify(graph, architecture)
        channels = partial(graph.channels_of, choices=architecture)
    built = fx.Graph()
    values: dict[str, fx.Node] = {}
    further: dict[str, fx.Node] = {}
    for node_name, sources in reads.items():
        node = graph[node_name]
        inputs = tuple(values[source] for source in sources)
        if node.kind == "input":
            values[node_name] = built.placeholder(node_name)
            further.update({name: built.placeholder(name) for name in further_inputs})
        elif node.kind == "operation":
            assert node.factory is not None
            where = f"operation {node_name!r}"
            modules[node_name] = make_module(where, node.factory, *channels(node_name))
            values[node_name] = built.call_module(node_name, inputs)
        elif node.kind == "slot":
            values[node_name] = fill(built, node, inputs, further)
        elif node.kind == "concat":
            values[node_name] = built.call_function(torch.cat, (list(inputs), 1))
        elif node.kind == "add":
            values[node_name] = reduce(
                lambda a, b: built.call_function(operator.add, (a, b)), inputs
            )
        else:
            built.output(inputs[0])
        is_module = node.kind in ("operation", "slot")
        if narrow is not None and is_module and any(searched(graph.out[node_name])):
            after = narrow(node)
            if after is not None:
                name = _free(f"{node_name}_narrowed", graph)
                modules[name], read = after
                given = (values[node_name], *(further[name] for name in read))
                values[node_name] = built.call_module(name, given)
    built.lint()
    return fx.GraphModule(modules, built, class_name=class_name)


def _free(name: str, graph: SpaceGraph) -> str:
    """Return a name that no node has."""
    while name in graph.dag:
        name += "_"
    return name

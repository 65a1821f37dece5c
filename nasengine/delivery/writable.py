"""What of a space could not be delivered as plain PyTorch, told before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import nn

from nasengine.delivery.source import Source, rebuilt
from nasengine.errors import ExportFailed
from nasengine.factories import Factory
from nasengine.graph import SpaceGraph
from nasengine.meta_shapes import made_on_meta, on_meta
from nasengine.network import calling
from nasengine.shapes import make_module


def not_writable(graph: SpaceGraph) -> list[str]:
    """Return what ``model.py`` could not hold, and why: a line for each block.

    Parameters
    ----------
    graph
        A finished graph, whose shapes were inferred: its factories are known to work.
    """
    found: dict[tuple[str, str], list[str]] = {}
    reasons: dict[tuple[Factory, int], str] = {}
    for node, what, factory, inputs in _blocks(graph):
        key = (factory, inputs)
        if key not in reasons:
            module = made_on_meta(partial(make_module, node, factory, *graph.channels[node]))
            reasons[key] = _why_not(module.eval(), inputs)  # As it is delivered.
        if reasons[key]:
            found.setdefault((what, reasons[key]), []).append(node)
    return [
        f"no model.py for a network with {what} in {', '.join(nodes)}: {reason}"
        for (what, reason), nodes in found.items()
    ]


def _blocks(graph: SpaceGraph) -> Iterator[tuple[str, str, Factory, int]]:
    """Yield node, what stands there, its factory, and how many tensors it reads."""
    for node in graph.nodes:
        if node.factory is not None:
            yield node.name, "the operation", node.factory, len(node.inputs)
        for name, factory in node.candidates.items():
            yield node.name, f"the candidate {name!r}", factory, len(node.inputs)


def _why_not(module: nn.Module, inputs: int) -> str:
    """Return why a network that holds a module cannot be written; empty where it can be."""
    try:
        network = calling(module, inputs)
        with on_meta():
            rebuilt(network, Source.of(network))
    except ExportFailed as error:
        return str(error)
    return ""

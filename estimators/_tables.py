"""Cost tables by counting: every candidate at its slot's real shape, on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, fx, nn

from nasengine.architecture import Architecture
from nasengine.canonical import meanings
from nasengine.errors import SpecError
from nasengine.estimator import CostTable
from nasengine.meta_shapes import made_on_meta
from nasengine.network import build_network
from nasengine.operations import Zero
from nasengine.shapes import Shape, make_module

if TYPE_CHECKING:
    from nasengine.factories import Factory
    from nasengine.graph import Node, SpaceGraph
    from nasengine.search import Search
    from nasengine.space import SearchSpace

Count = Callable[..., int]
"""Counts something of a module on the meta device, given it and the shape (C, H, W) of a sample,
or of each of several that it is called with."""


def meta_network(search: Search, architecture: Mapping[str, str]) -> fx.GraphModule:
    """Build a network without weights: in milliseconds, at any width."""
    return made_on_meta(partial(build_network, search.space.graph, architecture)).eval()


def counted_table(search: Search, unit: str, count: Count) -> CostTable:
    """Count every candidate in every slot, and what is left of a whole network.

    A connection that is cut costs nothing: `simplify` takes it out. Candidates of one factory at
    the same shapes are counted once.
    """
    costs = {slot.name: dict[str, float]() for slot in search.space.graph.slots}
    seen: dict[tuple[Factory, tuple[int, ...], tuple[Shape, ...]], int] = {}
    for slot, name, factory in fillings(search.space):
        what = (factory, search.space.graph.channels[slot.name], search.shapes.into[slot.name])
        if what not in seen:
            seen[what] = _counted(search, slot, name, factory, count)
        costs[slot.name][name] = float(seen[what])
    decisions = {slot.name: slot.decision for slot in search.space.graph.slots}
    whole = connected(search.space)
    total = count(meta_network(search, whole), search.task.input_shape)
    bare = CostTable(
        unit, 0.0, costs, decisions, **_cuttable(search, count), graph=search.space.graph
    )
    return replace(bare, fixed=total - bare.predict(whole))


def _cuttable(search: Search, count: Count) -> dict[str, dict[str, float]]:
    """Count what is not searched, and that a cut connection may take out all the same."""
    graph, shapes = search.space.graph, search.shapes
    meaning = meanings(graph)
    if "zero" not in meaning.values():
        return {}
    found: dict[str, dict[str, float]] = {"operations": {}, "sums": {}, "zeros": {}}
    always = _always_used(graph)
    for node in graph.nodes:
        if node.kind == "add":
            found["sums"][node.name] = float(count(_Sum(), shapes.out[node.name]))
        elif node.kind == "operation" and node.name not in always:
            assert node.factory is not None
            module = _on_meta(graph, node, node.factory, f"operation {node.name!r}")
            found["operations"][node.name] = float(count(module, *shapes.into[node.name]))
        elif node.kind == "slot" and "zero" in (meaning[node.name, c] for c in node.candidates):
            found["zeros"][node.name] = float(count(Zero(), *shapes.into[node.name]))
    return found


def _always_used(graph: SpaceGraph) -> set[str]:
    """Return the nodes through which every path passes: no cut takes them out."""
    import networkx as nx

    start, end = graph.nodes[0].name, graph.nodes[-1].name
    above = nx.immediate_dominators(graph.dag, start)
    found = {end}
    while end != start:
        end = above[end]
        found.add(end)
    return found


class _Sum(nn.Module):
    """One addition."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x


def fillings(space: SearchSpace) -> list[tuple[Node, str, Factory]]:
    """Return (slot, name, factory) of all that may stand in a slot, choices first."""
    return [
        (slot, name, factory)
        for slot in space.graph.slots
        for name, factory in {**slot.candidates, **slot.baselines}.items()
    ]


def connected(space: SearchSpace) -> Architecture:
    """Return an architecture that cuts no connection it need not cut."""
    meaning = meanings(space.graph)
    chosen: dict[str, str] = {}
    for slot in space.graph.slots:
        whole = [name for name in slot.candidates if meaning[slot.name, name] != "zero"]
        chosen.setdefault(slot.decision, (whole or list(slot.candidates))[0])
    return Architecture(chosen)


def is_cut(space: SearchSpace, slot: Node, name: str) -> bool:
    """Say whether a candidate cuts its connection."""
    return meanings(space.graph)[slot.name, name] == "zero"


def _counted(search: Search, slot: Node, name: str, factory: Factory, count: Count) -> int:
    if is_cut(search.space, slot, name):
        return 0
    where = f"slot {slot.name!r}, candidate {name!r}"
    module = _on_meta(search.space.graph, slot, factory, where)
    try:
        return count(module, *search.shapes.into[slot.name])
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


def _on_meta(graph: SpaceGraph, node: Node, factory: Factory, where: str) -> nn.Module:
    return made_on_meta(partial(make_module, where, factory, *graph.channels[node.name])).eval()

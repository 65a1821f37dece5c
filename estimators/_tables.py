"""Cost tables by counting: every candidate at its slot's real shape, on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from torch import fx

from nasengine.architecture import Architecture
from nasengine.canonical import meanings, uncut
from nasengine.errors import SpecError
from nasengine.estimator import CostTable
from nasengine.meta_shapes import made_on_meta
from nasengine.network import build_network
from nasengine.operations import Zero
from nasengine.shapes import make_module

from ._blocks import Block, Same, Sum, blocks

if TYPE_CHECKING:
    from nasengine.graph import SpaceGraph
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

    A connection that is cut costs nothing: `simplify` takes it out. Where channels are searched,
    operations and sums are counted too, and all at every width. Modules of one factory at the same
    shapes are counted once.
    """
    graph, counter = search.space.graph, _Counter(search, count)
    costs: dict[str, dict[str, float]] = {}
    for block in blocks(graph):
        name, key = block.cell
        costs.setdefault(name, {})[key] = counter.of(block)
    decisions = {slot.name: slot.decision for slot in graph.slots}
    costs = {name: row for name, row in costs.items() if name in decisions or any(row.values())}
    whole = connected(search.space)
    total = count(meta_network(search, whole), search.task.input_shape)
    bare = CostTable(
        unit,
        0.0,
        costs,
        decisions,
        **_cuttable(search, counter),
        widths={name: graph.widths_of(name) for name in costs if graph.widths_of(name)},
        graph=graph,
    )
    return replace(bare, fixed=total - bare.predict(whole))


@dataclass
class _Counter:
    """Counts blocks, those that are the same once.

    Parameters
    ----------
    search
        Space and shapes.
    count
        What is counted.
    """

    search: Search
    count: Count
    seen: dict[Same, float] = field(default_factory=dict)

    def of(self, block: Block) -> float:
        """Count a block; nothing where it cuts its connection."""
        if block.is_cut(self.search.space):
            return 0.0
        same = factory, channels, shapes = block.same(self.search)
        if same not in self.seen:
            make = partial(make_module, block.where, factory, *channels)
            try:
                self.seen[same] = float(self.count(made_on_meta(make).eval(), *shapes))
            except SpecError as error:
                raise SpecError(f"{block.where}: {error}") from error
        return self.seen[same]


def _cuttable(search: Search, counter: _Counter) -> dict[str, dict[str, float]]:
    """Count what is not searched, and that a cut connection may take out all the same.

    What depends on widths has rows of its own.
    """
    graph, meaning, out = search.space.graph, meanings(search.space.graph), search.shapes.out
    found: dict[str, dict[str, float]] = {"operations": {}, "sums": {}, "zeros": {}}
    if "zero" not in meaning.values():
        return found
    always = _always_used(graph)
    for node in graph.nodes:
        name, is_fixed = node.name, not graph.widths_of(node.name)
        if node.kind == "slot" and "zero" in (meaning[name, c] for c in node.candidates):
            found["zeros"][name] = float(counter.count(Zero(), out[name]))
        elif node.kind == "add" and is_fixed:
            found["sums"][name] = float(counter.count(Sum(), out[name], out[name]))
        elif node.factory is not None and is_fixed and name not in always:
            found["operations"][name] = counter.of(Block(node, "", node.factory, {}))
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


def connected(space: SearchSpace) -> Architecture:
    """Return an architecture that cuts no connection it need not cut, at the widest."""
    widths = space.graph.widths
    return Architecture(
        {name: choices[-(name in widths)] for name, choices in uncut(space.graph).items()}
    )

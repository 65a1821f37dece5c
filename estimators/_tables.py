"""Cost tables by counting: every candidate at its slot's real shape, on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from torch import Tensor, fx, nn

from nasengine.architecture import Architecture
from nasengine.canonical import meanings
from nasengine.errors import SpecError
from nasengine.estimator import CostTable, row_key
from nasengine.meta_shapes import made_on_meta
from nasengine.network import build_network
from nasengine.operations import Zero
from nasengine.shapes import make_module

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

    A connection that is cut costs nothing: `simplify` takes it out. Where channels are searched,
    operations and sums are counted too, and all at every width. Modules of one factory at the same
    shapes are counted once.
    """
    graph = search.space.graph
    counter = _Counter(search, count)
    costs = {slot.name: counter.slot(slot) for slot in graph.slots}
    for node in graph.nodes:
        if graph.widths_of(node.name) and node.kind in ("operation", "add"):
            row = counter.operation(node) if node.kind == "operation" else counter.sums(node)
            if any(row.values()):
                costs[node.name] = row
    whole = connected(search.space)
    total = count(meta_network(search, whole), search.task.input_shape)
    bare = CostTable(
        unit,
        0.0,
        costs,
        {slot.name: slot.decision for slot in graph.slots},
        **_cuttable(search, counter),
        widths={name: graph.widths_of(name) for name in costs if graph.widths_of(name)},
        graph=graph,
    )
    return replace(bare, fixed=total - bare.predict(whole))


def each_width(graph: SpaceGraph, name: str) -> Iterator[dict[str, str]]:
    """Yield every choice of the widths on which a node depends; one without any where none is."""
    widths = graph.widths_of(name)
    for choices in product(*(graph.decisions[width] for width in widths)):
        yield dict(zip(widths, choices, strict=True))


@dataclass
class _Counter:
    """Counts what stands at a node, at each of its widths: rows of a cost table.

    Parameters
    ----------
    search
        Space and shapes.
    count
        What is counted.
    """

    search: Search
    count: Count
    seen: dict[object, float] = field(default_factory=dict)

    @property
    def graph(self) -> SpaceGraph:
        """The space's graph."""
        return self.search.space.graph

    def slot(self, slot: Node) -> dict[str, float]:
        """Count all that may stand in a slot: its choices, then its baselines."""
        row = {}
        for name, factory in {**slot.candidates, **slot.baselines}.items():
            cut, where = is_cut(self.search.space, slot, name), f"candidate {name!r}"
            for widths in each_width(self.graph, slot.name):
                key = row_key((name, *widths.values()))
                row[key] = 0.0 if cut else self._counted(slot, factory, widths, where)
        return row

    def operation(self, node: Node) -> dict[str, float]:
        """Count a fixed operation."""
        assert node.factory is not None
        return {
            row_key(widths.values()): self._counted(node, node.factory, widths)
            for widths in each_width(self.graph, node.name)
        }

    def sums(self, node: Node) -> dict[str, float]:
        """Count the additions of a sum."""
        additions = len(node.inputs) - 1
        return {
            row_key(widths.values()): additions * self.one(_Sum, node, widths)
            for widths in each_width(self.graph, node.name)
        }

    def one(self, factory: Callable[[], nn.Module], node: Node, widths: Mapping[str, str]) -> float:
        """Count a module that gives what it reads: a node's output."""
        (_, out), size = self._channels(node, widths)[-2:], self.search.shapes.out[node.name][1:]
        return float(self.count(factory(), (out, *size)))

    def _channels(self, node: Node, widths: Mapping[str, str]) -> tuple[int, ...]:
        return self.graph.channels_of(node.name, widths)

    def _counted(
        self, node: Node, factory: Factory, widths: Mapping[str, str], candidate: str = ""
    ) -> float:
        channels = self._channels(node, widths)
        shapes = tuple(
            (count, *shape[1:])
            for count, shape in zip(channels, self.search.shapes.into[node.name], strict=False)
        )
        what = (factory, channels, shapes)
        if what not in self.seen:
            where = ", ".join(filter(None, (f"{node.kind} {node.name!r}", candidate)))
            module = made_on_meta(partial(make_module, where, factory, *channels)).eval()
            try:
                self.seen[what] = float(self.count(module, *shapes))
            except SpecError as error:
                raise SpecError(f"{where}: {error}") from error
        return self.seen[what]


def _cuttable(search: Search, counter: _Counter) -> dict[str, dict[str, float]]:
    """Count what is not searched, and that a cut connection may take out all the same.

    What depends on widths has rows of its own.
    """
    graph, meaning = search.space.graph, meanings(search.space.graph)
    found: dict[str, dict[str, float]] = {"operations": {}, "sums": {}, "zeros": {}}
    if "zero" not in meaning.values():
        return found
    always = _always_used(graph)
    for node in graph.nodes:
        name, (*_, widths) = node.name, each_width(graph, node.name)
        if node.kind == "slot" and "zero" in (meaning[name, c] for c in node.candidates):
            found["zeros"][name] = counter.one(Zero, node, widths)
        elif node.kind == "add" and not widths:
            found["sums"][name] = counter.one(_Sum, node, widths)
        elif node.kind == "operation" and not widths and name not in always:
            (found["operations"][name],) = counter.operation(node).values()
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


def connected(space: SearchSpace) -> Architecture:
    """Return an architecture that cuts no connection it need not cut, at the widest."""
    meaning = meanings(space.graph)
    chosen = {name: width.choices[-1] for name, width in space.graph.widths.items()}
    for slot in space.graph.slots:
        whole = [name for name in slot.candidates if meaning[slot.name, name] != "zero"]
        chosen.setdefault(slot.decision, (whole or list(slot.candidates))[0])
    return Architecture(chosen)


def is_cut(space: SearchSpace, slot: Node, name: str) -> bool:
    """Say whether a candidate cuts its connection."""
    return meanings(space.graph)[slot.name, name] == "zero"

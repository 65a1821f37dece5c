"""What a cost table has entries for: what may stand at a node, at each width."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nasengine.canonical import meanings
from nasengine.estimator import row_key
from nasengine.shapes import Shape
from nasengine.widths import chosen

if TYPE_CHECKING:
    from nasengine.factories import Factory
    from nasengine.graph import Node, SpaceGraph
    from nasengine.search import Search
    from nasengine.space import SearchSpace

Cell = tuple[str, str]
"""A node and its `row_key`: the candidate that stands in a slot, then widths."""

Same = tuple["Factory", tuple[int, ...], tuple[Shape, ...]]
"""Blocks with the same factory, channels and shapes take the same time, and cost the same."""


class Sum(nn.Module):
    """What a sum computes."""

    def forward(self, *inputs: Tensor) -> Tensor:
        total: Tensor = reduce(operator.add, inputs)
        return total


class _Concatenation(nn.Module):
    """What a concatenation computes."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, 1)


_MERGES: Mapping[str, Factory] = {
    "add": lambda *_: Sum(),
    "concat": lambda *_: _Concatenation(),
}


@dataclass(frozen=True)
class Block:
    """What a network may have at a node, at one choice of the widths that the node depends on.

    Parameters
    ----------
    node
        Where it stands.
    candidate
        Its name; empty where nothing but the widths is searched.
    factory
        What makes it.
    widths
        Decision to choice.
    """

    node: Node
    candidate: str
    factory: Factory
    widths: Mapping[str, str]

    @property
    def cell(self) -> Cell:
        """Its place in a table."""
        own = (self.candidate,) if self.candidate else ()
        return self.node.name, row_key((*own, *self.widths.values()))

    @property
    def where(self) -> str:
        """What to call it in an error."""
        found = f"{self.node.kind} {self.node.name!r}"
        return f"{found}, candidate {self.candidate!r}" if self.candidate else found

    def is_cut(self, space: SearchSpace) -> bool:
        """Say whether it cuts its connection, and costs nothing."""
        meant = meanings(space.graph)
        return bool(self.candidate) and meant[self.node.name, self.candidate] == "zero"

    def same(self, search: Search) -> Same:
        """Return what tells how long it takes, and what it costs."""
        graph, name = search.space.graph, self.node.name
        read = [chosen(graph.out[source], self.widths) for source in self.node.inputs]
        if self.node.kind == "concat":
            # A copy takes the same whichever part is the wide one.
            total, parts = sum(read), len(read)
            read = [total // parts + (number < total % parts) for number in range(parts)]
        sizes = [shape[1:] for shape in search.shapes.into[name]]
        shapes = tuple((count, *size) for count, size in zip(read, sizes, strict=True))
        return self.factory, graph.channels_of(name, self.widths), shapes


def blocks(graph: SpaceGraph) -> Iterator[Block]:
    """Yield all that may stand in a slot, and the rest of what depends on a searched width."""
    for node in graph.slots:
        for name, factory in {**node.candidates, **node.baselines}.items():
            for widths in each_width(graph, node.name):
                yield Block(node, name, factory, widths)
    for node in graph.nodes:
        fixed = node.factory or _MERGES.get(node.kind)
        if fixed is not None and graph.widths_of(node.name):
            for widths in each_width(graph, node.name):
                yield Block(node, "", fixed, widths)


def each_width(graph: SpaceGraph, name: str) -> Iterator[dict[str, str]]:
    """Yield every choice of the widths on which a node depends; one without any where none is."""
    widths = graph.widths_of(name)
    for choices in product(*(graph.decisions[width] for width in widths)):
        yield dict(zip(widths, choices, strict=True))

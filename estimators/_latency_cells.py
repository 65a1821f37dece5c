"""What is timed for a table of latencies: blocks, empty calls, and whole networks."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nasengine import moves
from nasengine.canonical import uncut
from nasengine.estimator import row_key
from nasengine.network import build_network
from nasengine.randomness import torch_seed
from nasengine.shapes import Shape, make_module
from nasengine.widths import chosen

from ._engines import Setup, inputs_of, measuring, prepared
from ._tables import each_width, is_cut
from .latency_table import PROBES, Cell, LatencyTable

if TYPE_CHECKING:
    from nasengine.architecture import Architecture
    from nasengine.factories import Factory
    from nasengine.graph import Node, SpaceGraph
    from nasengine.search import Search
    from nasengine.space import SearchSpace

Same = tuple["Factory", tuple[int, ...], tuple[Shape, ...]]
"""Cells with the same factory, channels and shapes take the same time."""


class _Call(nn.Module):
    """What a call costs that computes nothing."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0]


class _Sum(nn.Module):
    """What a sum computes."""

    def forward(self, *inputs: Tensor) -> Tensor:
        total: Tensor = reduce(operator.add, inputs)
        return total


class _Concatenation(nn.Module):
    """What a concatenation computes."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, 1)


_MERGES: Mapping[str, Factory] = {
    "add": lambda *_: _Sum(),
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
        """Where its readings are kept."""
        own = (self.candidate,) if self.candidate else ()
        return self.node.name, row_key((*own, *self.widths.values()))

    @property
    def where(self) -> str:
        """What to call it in an error."""
        found = f"{self.node.kind} {self.node.name!r}"
        return f"{found}, candidate {self.candidate!r}" if self.candidate else found

    def is_cut(self, space: SearchSpace) -> bool:
        """Say whether it cuts its connection, and takes no time."""
        return bool(self.candidate) and is_cut(space, self.node, self.candidate)

    def same(self, search: Search) -> Same:
        """Return what tells how long it takes."""
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


@dataclass
class Work:
    """What is to be timed, and where the readings go.

    Parameters
    ----------
    search
        The space, the task's shape, the device.
    table
        Filled as readings come.
    cells
        What takes the same time, with its blocks.
    """

    search: Search
    table: LatencyTable
    cells: dict[Same, list[Block]]

    @property
    def done(self) -> int:
        """Rounds that are complete."""
        cells = [len(self.table.cells[first.cell]) for first, *_ in self.cells.values()]
        return min([*cells, *(len(taken) for _, taken in self.table.probes)])

    def prepare(self, setup: Setup) -> dict[Hashable, Callable[[], object]]:
        """Build every module and make it a call."""
        modules: dict[Hashable, tuple[nn.Module, tuple[Shape, ...], Hashable]] = {}
        seed = self.search.seed
        for same, (block, *_) in self.cells.items():
            factory, channels, shapes = same
            with torch_seed(seed, "latency", *block.cell):
                module = make_module(block.where, factory, *channels)
            # What all leave as it is, is one: at every width there is much of it. A fixed operation
            # may overwrite what it reads, and so may a network.
            modules[same] = (module, shapes, same if block.node.kind == "operation" else shapes)
            modules["call", shapes] = (_Call(), shapes, shapes)
        for number, (architecture, _) in enumerate(self.table.probes):
            network = probe_network(self.search, number, architecture)
            whole = (self.search.task.input_shape,)
            modules["probe", number] = (network, whole, ("probe", number))
        runs: dict[Hashable, Callable[[], object]] = {}
        inputs: dict[Hashable, list[Tensor]] = {}
        reporter = self.search.reporter
        # Of its own: an engine that compiles takes longer for this than for all that is timed.
        with (
            measuring(self.search, setup),
            reporter.progress("preparing the latency table", len(modules)) as progress,
        ):
            for key, (module, shapes, read) in modules.items():
                self.search.pause_point()
                if read not in inputs:
                    inputs[read] = inputs_of(setup, *shapes)
                runs[key] = prepared(module, setup, inputs[read])
                progress.advance()
        return runs

    def record(self, taken: Mapping[Hashable, list[float]]) -> None:
        """Keep one round's readings; blocks without the cost of the call itself."""
        for same, alike in self.cells.items():
            call = median(taken["call", same[-1]])
            for block in alike:
                self.table.cells[block.cell] += [reading - call for reading in taken[same]]
        for number, (_, readings) in enumerate(self.table.probes):
            readings.extend(taken["probe", number])


def work(search: Search, table: LatencyTable) -> Work:
    """List what is to be timed for a table, which may hold readings already."""
    graph, cells = search.space.graph, dict[Same, list[Block]]()
    every = list(blocks(graph))
    # What else is kept is of blocks that the space had once.
    table.cells = {block.cell: table.cells.get(block.cell, []) for block in every}
    table.decisions = {slot.name: slot.decision for slot in graph.slots}
    table.widths = {name: w for name, _ in table.cells if (w := graph.widths_of(name))}
    for block in every:
        if not block.is_cut(search.space):
            cells.setdefault(block.same(search), []).append(block)
    if not table.probes:
        table.probes = [(architecture, []) for architecture in probes(search)]
    found = Work(search, table, cells)
    _align(found)
    return found


def _align(found: Work) -> None:
    """Forget the readings of a round that was not finished."""
    done = found.done
    for alike in found.cells.values():
        for block in alike:
            del found.table.cells[block.cell][done:]
    for _, readings in found.table.probes:
        del readings[done:]


def probes(search: Search) -> list[Architecture]:
    """Draw the whole networks that are timed; none with a connection that is cut."""
    rng = search.stream("latency", "probes")
    return [moves.sample(uncut(search.space.graph), rng) for _ in range(PROBES)]


def probe_network(search: Search, number: int, architecture: Architecture) -> nn.Module:
    """Build the network of one probe, as a table and the yardstick time it."""
    with torch_seed(search.seed, "latency", "probe", number):
        return build_network(search.space.graph, architecture)

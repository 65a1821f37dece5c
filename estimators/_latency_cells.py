"""What is timed for a table of latencies: blocks, empty calls, and whole networks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nasengine import moves
from nasengine.canonical import uncut
from nasengine.network import build_network
from nasengine.randomness import torch_seed
from nasengine.shapes import Shape, make_module

from ._blocks import Block, Same, blocks
from ._engines import Setup, inputs_of, measuring, prepared
from .latency_table import PROBES, LatencyTable

if TYPE_CHECKING:
    from nasengine.architecture import Architecture
    from nasengine.search import Search


class _Call(nn.Module):
    """What a call costs that computes nothing."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0]


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

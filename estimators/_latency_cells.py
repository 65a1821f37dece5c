"""What is timed for a table of latencies: candidates, empty calls, and whole networks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nasengine import moves
from nasengine.canonical import meanings
from nasengine.network import build_network
from nasengine.randomness import torch_seed
from nasengine.shapes import Shape, make_module

from ._engines import Setup, measuring, prepare
from ._tables import fillings, is_cut
from .latency_table import PROBES, Cell, LatencyTable

if TYPE_CHECKING:
    from nasengine.architecture import Architecture
    from nasengine.factories import Factory
    from nasengine.search import Search

Same = tuple["Factory", tuple[int, ...], tuple[Shape, ...]]
"""Cells with the same factory, channels and shapes take the same time."""


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
        What takes the same time, with its cells.
    """

    search: Search
    table: LatencyTable
    cells: dict[Same, list[Cell]]

    @property
    def done(self) -> int:
        """Rounds that are complete."""
        cells = [len(self.table.cells[first]) for first, *_ in self.cells.values()]
        return min([*cells, *(len(taken) for _, taken in self.table.probes)])

    def prepare(self, setup: Setup) -> dict[Hashable, Callable[[], object]]:
        """Build every module and make it a call."""
        modules: dict[Hashable, tuple[nn.Module, tuple[Shape, ...]]] = {}
        seed = self.search.seed
        for same, ((slot, name), *_) in self.cells.items():
            factory, channels, shapes = same
            where = f"slot {slot!r}, candidate {name!r}"
            with torch_seed(seed, "latency", slot, name):
                modules[same] = (make_module(where, factory, *channels), shapes)
            modules["call", shapes] = (_Call(), shapes)
        for number, (architecture, _) in enumerate(self.table.probes):
            network = probe_network(self.search, number, architecture)
            modules["probe", number] = (network, (self.search.task.input_shape,))
        runs: dict[Hashable, Callable[[], object]] = {}
        reporter = self.search.reporter
        # Of its own: an engine that compiles takes longer for this than for all that is timed.
        with (
            measuring(self.search, setup),
            reporter.progress("preparing the latency table", len(modules)) as progress,
        ):
            for key, (module, shapes) in modules.items():
                self.search.pause_point()
                runs[key] = prepare(module, setup, *shapes)
                progress.advance()
        return runs

    def record(self, taken: Mapping[Hashable, list[float]]) -> None:
        """Keep one round's readings; candidates without the cost of the call itself."""
        for same, cells in self.cells.items():
            call = median(taken["call", same[-1]])
            for cell in cells:
                self.table.cells[cell] += [reading - call for reading in taken[same]]
        for number, (_, readings) in enumerate(self.table.probes):
            readings.extend(taken["probe", number])


def work(search: Search, table: LatencyTable) -> Work:
    """List what is to be timed for a table, which may hold readings already."""
    cells: dict[Same, list[Cell]] = {}
    for slot, name, factory in fillings(search.space):
        table.cells.setdefault((slot.name, name), [])
        if not is_cut(search.space, slot, name):
            same = (
                factory,
                search.space.graph.channels[slot.name],
                search.shapes.into[slot.name],
            )
            cells.setdefault(same, []).append((slot.name, name))
    if not table.probes:
        table.probes = [(architecture, []) for architecture in probes(search)]
    found = Work(search, table, cells)
    _align(found)
    return found


def _align(found: Work) -> None:
    """Forget the readings of a round that was not finished."""
    done = found.done
    for same_cells in found.cells.values():
        for cell in same_cells:
            del found.table.cells[cell][done:]
    for _, readings in found.table.probes:
        del readings[done:]


def probes(search: Search) -> list[Architecture]:
    """Draw the whole networks that are timed; none with a connection that is cut."""
    meaning = meanings(search.space.graph)
    slot_of = {slot.decision: slot.name for slot in search.space.graph.slots}
    whole = {
        decision: tuple(c for c in choices if meaning[slot_of[decision], c] != "zero") or choices
        for decision, choices in search.space.decisions.items()
    }
    rng = search.stream("latency", "probes")
    return [moves.sample(whole, rng) for _ in range(PROBES)]


def probe_network(search: Search, number: int, architecture: Architecture) -> nn.Module:
    """Build the network of one probe, as a table and the yardstick time it."""
    with torch_seed(search.seed, "latency", "probe", number):
        return build_network(search.space.graph, architecture)

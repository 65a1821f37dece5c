"""A device's table of latencies: measured there, alone and resumable, and used anywhere.

The time of each candidate in each slot at its real shape, less the cost of the call itself, and of
whole networks, from which comes the time of all that is not searched. As in ProxylessNAS (Cai et
al. 2019, section 3.2) and FBNet (Wu et al. 2019, section 3.2), the sum predicts a network's time.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from nasengine.architecture import Architecture, check_architecture
from nasengine.errors import DataError, EstimationFailed, SpecError, did_you_mean
from nasengine.estimator import CostTable
from nasengine.files import make_folder, parse_json, write_json

if TYPE_CHECKING:
    from nasengine.graph import Node
    from nasengine.search import Search
    from nasengine.space import SearchSpace

    from ._engines import Setup

FORMAT = "nasengine latency table 1"
PROBES = 5
_SAVE_EVERY = 5

Cell = tuple[str, str]
"""A slot and what stands in it."""


@dataclass
class LatencyTable:
    """The readings of one device, in milliseconds.

    Parameters
    ----------
    facts
        How they were measured: device, engine, threads, batch, input, versions.
    cells
        (slot, candidate) to its readings, without the cost of the call; a connection that is cut
        has none, and costs nothing.
    probes
        Whole networks with their readings.
    decisions
        Slot to the decision that fills it.
    """

    facts: dict[str, Any]
    cells: dict[Cell, list[float]] = field(default_factory=dict)
    probes: list[tuple[Architecture, list[float]]] = field(default_factory=list)
    decisions: dict[str, str] = field(default_factory=dict)

    def cost(self, cell: Cell) -> float:
        """Return the milliseconds of a candidate in a slot."""
        readings = self.cells[cell]
        return max(0.0, median(readings)) if readings else 0.0

    @property
    def yardstick(self) -> list[float]:
        """The readings of the first probe, which is timed in turn with what a run measures."""
        return self.probes[0][1]

    def cost_table(self, space: SearchSpace) -> CostTable:
        """Return the costs; the fixed part is what whole networks took beyond their slots."""
        costs: dict[str, dict[str, float]] = {slot: {} for slot in self.decisions}
        for slot, name in self.cells:
            costs[slot][name] = self.cost((slot, name))
        bare = CostTable("ms", 0.0, costs, self.decisions)
        beyond = [
            median(readings) - predict(bare, space, architecture)
            for architecture, readings in self.probes
        ]
        return CostTable("ms", max(0.0, median(beyond)), costs, self.decisions)

    def unsteady(self, max_spread: float) -> dict[Cell, float]:
        """Return the cells whose readings spread too much for their weight in a network."""
        from ._timing import Reading

        whole = median([median(taken) for _, taken in self.probes])
        found: dict[Cell, float] = {}
        for cell, taken in self.cells.items():
            reading = Reading(tuple(taken)) if len(taken) > 1 else None
            # What takes a thousandth of a network may spread as it likes.
            if reading and reading.median > whole / 1000 and reading.spread > max_spread:
                found[cell] = reading.spread
        return found

    def to_json(self, space: SearchSpace) -> dict[str, Any]:
        """Return the table as JSON values: what it costs, and every reading."""
        readings: dict[str, dict[str, list[float]]] = {slot: {} for slot in self.decisions}
        for (slot, name), taken in self.cells.items():
            readings[slot][name] = [round(value, 6) for value in taken]
        probes = [
            {"architecture": dict(architecture), "readings": [round(v, 6) for v in taken]}
            for architecture, taken in self.probes
        ]
        table = self.cost_table(space).to_json() if all(t for _, t in self.probes) else {}
        return {
            "format": FORMAT,
            **self.facts,
            **table,
            "decisions": self.decisions,
            "readings": readings,
            "probes": probes,
        }


def predict(table: CostTable, space: SearchSpace, architecture: Mapping[str, str]) -> float:
    """Return the cost of a network, without the slots that reach no output in it.

    Raises
    ------
    EstimationFailed
        If the table lacks a candidate, such as a reference network's block.
    """
    for name, row in table.costs.items():
        choice = architecture[table.decisions[name]]
        if choice not in row:
            raise EstimationFailed(
                f"the latency table has no candidate {choice!r} in slot {name!r}; "
                f"{did_you_mean(choice, row)}"
            )
    return replace(table, graph=space.graph).predict(architecture)


def write_latency_table(search: Search, setup: Setup, repeats: int, path: Path) -> LatencyTable:
    """Measure a device's table into a JSON file; what the file already holds is kept.

    Raises
    ------
    DataError
        If the file holds another table: of another device, space or setting.
    StorageError
        If the disk refuses.
    """
    kept = read_latency_table(path) if path.is_file() else None
    make_folder(path.parent)
    return measure_latency_table(
        search,
        setup,
        repeats,
        kept=kept,
        keep=lambda table: write_json(path, table.to_json(search.space)),
        where=str(path),
    )


def measure_latency_table(
    search: Search,
    setup: Setup,
    repeats: int,
    *,
    kept: LatencyTable | None = None,
    keep: Callable[[LatencyTable], None] = lambda _: None,
    where: str = "latency table",
) -> LatencyTable:
    """Time every candidate in every slot and some whole networks, in turn.

    Parameters
    ----------
    search
        The space, the task's shape, the device.
    setup
        How networks are run.
    repeats
        Timed runs of each.
    kept
        What was measured earlier, to go on from.
    keep
        Called every few rounds with the table so far.
    where
        What to call the earlier table in an error.
    """
    from . import _engines, _latency_cells, _timing

    facts = describe(search, setup)
    table = _resumed(facts, kept, where)
    table.decisions = {slot.name: slot.decision for slot in search.space.graph.slots}
    work = _latency_cells.work(search, table)
    total = repeats - work.done
    if total <= 0:
        return table
    runs = work.prepare(setup)
    with (
        _engines.measuring(search, setup),
        search.reporter.progress("latency table", repeats, work.done) as progress,
    ):
        now = _timing.clock(search.device)
        for number, taken in enumerate(_timing.rounds(runs, now, [1] * total), start=1):
            work.record(taken)
            progress.advance()
            if number % _SAVE_EVERY == 0 or number == total or search.stop.is_set():
                keep(table)
                search.pause_point()
    return table


def _resumed(facts: dict[str, Any], kept: LatencyTable | None, where: str) -> LatencyTable:
    if kept is None:
        return LatencyTable(facts)
    for name, value in facts.items():
        if kept.facts.get(name) != value:
            raise DataError(
                f"{where}: holds a table with {name} = {kept.facts.get(name)!r}, and this one has "
                f"{value!r}; name another file"
            )
    return kept


def describe(search: Search, setup: Setup) -> dict[str, Any]:
    """Say how a table is measured: what must agree for two to be of one kind."""
    import torch

    from ._engines import device_name
    from ._heap import heap

    return {
        "device": device_name(setup.device),
        "kind": setup.device.partition(":")[0],
        "engine": setup.engine,
        "threads": setup.threads,
        "batch": setup.batch,
        "fold_batch_norm": setup.fold_batch_norm,
        "channels_last": setup.channels_last,
        "heap": heap(),
        "input": list(search.task.input_shape),
        "space": {"name": type(search.space).__name__, **search.space.model_dump(mode="json")},
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }


def read_latency_table(path: Path) -> LatencyTable:
    """Read a table that `write_latency_table` wrote.

    Raises
    ------
    DataError
        If it is not there, or is none, naming the file and what is wrong.
    """
    try:
        return _parsed(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path}: is damaged: {error}") from error


@dataclass(frozen=True)
class _Format:
    format: str


@dataclass(frozen=True)
class _Probe:
    architecture: dict[str, str]
    readings: list[float]


@dataclass(frozen=True)
class _Readings(_Format):
    """What of a table's file is read again; its costs follow from that."""

    decisions: dict[str, str]
    readings: dict[str, dict[str, list[float]]]
    probes: list[_Probe]


def _parsed(content: bytes, path: Path) -> LatencyTable:
    if parse_json(content, _Format).format != FORMAT:
        raise DataError(f"{path}: is no {FORMAT!r}")
    found = parse_json(content, _Readings)
    if found.readings.keys() != found.decisions.keys():
        raise ValueError("readings and decisions name different slots")
    parts = ("format", "unit", "fixed", "costs", "decisions", "readings", "probes")
    return LatencyTable(
        facts={k: v for k, v in parse_json(content, dict[str, Any]).items() if k not in parts},
        cells={(slot, name): r for slot, row in found.readings.items() for name, r in row.items()},
        probes=[(Architecture(probe.architecture), probe.readings) for probe in found.probes],
        decisions=found.decisions,
    )


def check_latency_table(table: LatencyTable, search: Search, where: str) -> CostTable:
    """Check a table against a space and a task, and return its costs.

    Raises
    ------
    SpecError
        Naming the slots and choices that one has and the other has not, settings of the space
        (its width, say) that differ, or the input size.
    """
    slots = {slot.name: slot for slot in search.space.graph.slots}
    problems = [
        f"the space has no slot {name!r}; {did_you_mean(name, slots)}"
        for name in table.decisions
        if name not in slots
    ]
    for slot in slots.values():
        problems += _lacking(table, search.space, slot)
    problems += _other_settings(table, search.space)
    shape = list(search.task.input_shape)
    if table.facts.get("input") != shape:
        problems.append(f"it is for inputs of {table.facts.get('input')}, the task gives {shape}")
    if not table.probes or not all(taken for _, taken in table.probes):
        problems.append("its whole networks were not measured: it is unfinished")
    if problems:
        raise SpecError(f"{where}: " + "; ".join(problems))
    for architecture, _ in table.probes:
        check_architecture(architecture, search.space.fillings, where=f"{where}: probe")
    return table.cost_table(search.space)


def _other_settings(table: LatencyTable, space: SearchSpace) -> list[str]:
    """Say which settings of the space differ: wider blocks of the same names take longer."""
    own, told = space.model_dump(mode="json"), table.facts.get("space")
    return [
        f"it is for {name} = {value!r}, the space has {own[name]!r}"
        for name, value in (told.items() if isinstance(told, dict) else ())
        if name in own and own[name] != value
    ]


def _lacking(table: LatencyTable, space: SearchSpace, slot: Node) -> list[str]:
    from ._tables import is_cut

    if slot.name not in table.decisions:
        return [f"slot {slot.name!r} is missing; {did_you_mean(slot.name, table.decisions)}"]
    measured = [name for (cell, name), _ in table.cells.items() if cell == slot.name]
    return [
        f"slot {slot.name!r} lacks {name!r}; {did_you_mean(name, measured)}"
        for name in slot.candidates
        if not table.cells.get((slot.name, name)) and not is_cut(space, slot, name)
    ]

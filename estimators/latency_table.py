"""A device's table of latencies: measured there, alone and resumable, and used anywhere.

The time of each candidate in each slot at its real shape, less the cost of the call itself, and of
whole networks, from which comes the time of all that is not searched. As in ProxylessNAS (Cai et
al. 2019, section 3.2) and FBNet (Wu et al. 2019, section 3.2), the sum predicts a network's time.
Where channels are searched, candidates, operations, sums and concatenations are timed at each of
the widths on which they depend.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from nasengine.architecture import Architecture, check_architecture
from nasengine.errors import DataError, EstimationFailed, SpecError, did_you_mean
from nasengine.estimator import CostTable
from nasengine.files import make_folder, parse_json, write_json

if TYPE_CHECKING:
    from nasengine.search import Search
    from nasengine.space import SearchSpace

    from ._blocks import Block, Cell
    from ._engines import Setup

FORMAT = "nasengine latency table 1"
PROBES = 5
_SAVE_EVERY = 5


@dataclass
class LatencyTable:
    """The readings of one device, in milliseconds.

    Parameters
    ----------
    facts
        How they were measured: device, engine, threads, batch, input, versions.
    cells
        (node, row key) to its readings, without the cost of the call; a connection that is cut
        has none, and costs nothing.
    probes
        Whole networks with their readings.
    decisions
        Slot to the decision that fills it.
    widths
        Node to the widths (decisions) on which its time depends; none where channels are fixed.
    """

    facts: dict[str, Any]
    cells: dict[Cell, list[float]] = field(default_factory=dict)
    probes: list[tuple[Architecture, list[float]]] = field(default_factory=list)
    decisions: dict[str, str] = field(default_factory=dict)
    widths: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def nodes(self) -> list[str]:
        """What has readings: the slots, and all else whose time depends on widths."""
        return list(dict.fromkeys([*self.decisions, *self.widths]))

    def cost(self, cell: Cell) -> float:
        """Return the milliseconds of what stands at a node."""
        readings = self.cells[cell]
        return max(0.0, median(readings)) if readings else 0.0

    @property
    def yardstick(self) -> list[float]:
        """The readings of the first probe, which is timed in turn with what a run measures."""
        return self.probes[0][1]

    def cost_table(self, space: SearchSpace) -> CostTable:
        """Return the costs; the fixed part is what whole networks took beyond their slots."""
        costs: dict[str, dict[str, float]] = {node: {} for node in self.nodes}
        for node, key in self.cells:
            costs[node][key] = self.cost((node, key))
        bare = CostTable("ms", 0.0, costs, self.decisions, widths=self.widths)
        beyond = [
            median(readings) - predict(bare, space, architecture)
            for architecture, readings in self.probes
        ]
        return replace(bare, fixed=max(0.0, median(beyond)))

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
        readings: dict[str, dict[str, list[float]]] = {node: {} for node in self.nodes}
        for (node, key), taken in self.cells.items():
            readings[node][key] = [round(value, 6) for value in taken]
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
            **({"widths": {n: list(w) for n, w in self.widths.items()}} if self.widths else {}),
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
        key = table.key(name, architecture)
        if key not in row:
            raise EstimationFailed(
                f"the latency table has no candidate {key!r} in slot {name!r}; "
                f"{did_you_mean(key, row)}"
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
    """Time every candidate in every slot, at every width, and some whole networks, in turn.

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
    table = _resumed(facts, kept, search.space, where)
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


def _resumed(
    facts: dict[str, Any], kept: LatencyTable | None, space: SearchSpace, where: str
) -> LatencyTable:
    if kept is None:
        return LatencyTable(facts)
    for name, value in facts.items():
        if kept.facts.get(name) != value:
            raise DataError(
                f"{where}: holds a table with {name} = {kept.facts.get(name)!r}, and this one has "
                f"{value!r}; name another file"
            )
    _check_probes(kept, space, where)
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
        "precision": setup.precision,
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
    widths: dict[str, tuple[str, ...]] = field(default_factory=dict)


def _parsed(content: bytes, path: Path) -> LatencyTable:
    if parse_json(content, _Format).format != FORMAT:
        raise DataError(f"{path}: is no {FORMAT!r}")
    found = parse_json(content, _Readings)
    if found.readings.keys() != {*found.decisions, *found.widths}:
        raise ValueError("readings and decisions name different slots")
    parts = ("format", "unit", "fixed", "costs", "decisions", "widths", "readings", "probes")
    told = parse_json(content, dict[str, Any])
    return LatencyTable(
        # Tables from before there was another precision do not tell theirs.
        facts={"precision": "fp32"} | {k: v for k, v in told.items() if k not in parts},
        cells={(node, key): r for node, row in found.readings.items() for key, r in row.items()},
        probes=[(Architecture(probe.architecture), probe.readings) for probe in found.probes],
        decisions=found.decisions,
        widths=found.widths,
    )


def check_latency_table(table: LatencyTable, search: Search, where: str) -> CostTable:
    """Check a table against a space and a task, and return its costs.

    Raises
    ------
    SpecError
        Naming the slots, choices and widths that one has and the other has not, settings of the
        space (its width, say) that differ, or the input size.
    """
    # Of other settings, what is missing is no news.
    problems = _other_settings(table, search.space) or [*_missing(table, search.space)]
    shape = list(search.task.input_shape)
    if table.facts.get("input") != shape:
        problems.append(f"it is for inputs of {table.facts.get('input')}, the task gives {shape}")
    if not table.probes or not all(taken for _, taken in table.probes):
        problems.append("its whole networks were not measured: it is unfinished")
    if problems:
        raise SpecError(f"{where}: " + "; ".join(problems))
    _check_probes(table, search.space, where)
    return table.cost_table(search.space)


def _check_probes(table: LatencyTable, space: SearchSpace, where: str) -> None:
    for architecture, _ in table.probes:
        check_architecture(architecture, space.fillings, where=f"{where}: probe")


def _other_settings(table: LatencyTable, space: SearchSpace) -> list[str]:
    """Say which settings of the space differ: wider blocks of the same names take longer."""
    own, told = space.model_dump(mode="json"), table.facts.get("space")
    return [
        f"it is for {name} = {value!r}, the space has {own[name]!r}"
        for name, value in (told.items() if isinstance(told, dict) else ())
        if name in own and own[name] != value
    ]


def _missing(table: LatencyTable, space: SearchSpace) -> Iterator[str]:
    """Say which slots, blocks and widths the space and the table do not have alike."""
    from ._blocks import blocks

    every = groupby(blocks(space.graph), lambda block: block.node)
    nodes = {node.name: list(found) for node, found in every}
    for name in table.nodes:
        if name not in nodes:
            slot = "slot " * (name in table.decisions)
            yield f"the space has no {slot}{name!r}; {did_you_mean(name, nodes)}"
    for name, found in nodes.items():
        node, own, told = found[0].node, space.graph.widths_of(name), table.widths.get(name, ())
        if name not in table.nodes:
            yield f"{node.kind} {name!r} is missing; {did_you_mean(name, table.nodes)}"
        elif own != told:
            yield (
                f"{node.kind} {name!r} depends on {_listed(own)} in the space, "
                f"and on {_listed(told)} here"
            )
        else:
            yield from _lacking(table, space, found)


def _listed(widths: Sequence[str]) -> str:
    return f"the widths {', '.join(widths)}" if widths else "no widths"


def _lacking(table: LatencyTable, space: SearchSpace, found: Sequence[Block]) -> Iterator[str]:
    """Say what a node's row lacks: of each candidate, at which widths."""
    node = found[0].node
    lacking = [
        block
        for block in found
        if block.candidate not in node.baselines
        and not table.cells.get(block.cell)
        and not block.is_cut(space)
    ]
    measured = [key for name, key in table.cells if name == node.name]
    for candidate, blocks in groupby(lacking, lambda block: block.candidate):
        first, *others = blocks
        at = ", ".join(f"{width} = {choice}" for width, choice in first.widths.items())
        parts = [repr(candidate)] * bool(candidate) + [f"at {at}"] * bool(at)
        said = f"{node.kind} {node.name!r} lacks {' '.join(parts)}"
        if others:
            yield f"{said} (and at {len(others)} other widths)"
        else:
            yield said if at else f"{said}; {did_you_mean(candidate, measured)}"

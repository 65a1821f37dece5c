"""Does a gradient search meet its targets? Light SDI, ten targets on parameters, ten on latency.

    python benchmarks/target_meeting.py [--targets 10] [--width 8] [--iterations 40]

Every target has a search of its own, on images, from nothing; targets are spread evenly over the
range of the space. The latency table is measured once. In the end every derived network is timed
end to end, all in turn, and beside it the cells of the table once more ("table then"): where the
two tables differ, the machine was not the same at both times, and no prediction can be right.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from nasengine.architecture import Architecture
from nasengine.estimator import CostTable
from nasengine.estimators import _engines, _latency_cells, _timing
from nasengine.estimators._tables import meta_network
from nasengine.estimators.latency_table import LatencyTable, describe
from nasengine.estimators.parameters import count_parameters
from nasengine.history import History
from nasengine.network import build_network
from nasengine.quantities import format_quantity
from nasengine.runs.experiment import Experiment
from nasengine.search import Search
from nasengine.statistics import agreement


@dataclass(frozen=True)
class Met:
    """A target, what was derived for it, what the search's table says of that, and is the case."""

    target: float
    architecture: Architecture
    predicted: float
    measured: float = 0.0
    predicted_then: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=40)
    given = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    print(
        f"Light SDI, width {given.width}, {given.size}x{given.size}, {given.iterations} iterations"
    )
    print(f"torch {torch.__version__}, python {platform.python_version()}, 1 thread")
    with tempfile.TemporaryDirectory() as folder:
        for key in ("parameters", "latency"):
            root = Path(folder, key)
            table = experiment(given, key, None).search(root).cost_table(key)
            found = [search_for(given, key, table, root, t) for t in targets(table, given)]
            again = experiment(given, key, None).search(root / "again")
            show(
                key,
                table.unit,
                counted(again, found)
                if key == "parameters"
                else timed(again, found, given.repeats),
            )
    print(f"{time.process_time() - started:.0f} s of CPU time")


def experiment(given: argparse.Namespace, key: str, target: float | None) -> Experiment:
    cost = {} if target is None else {key: {"target": target}}
    table = {
        "name": "targets",
        "device": "cpu",
        "threads": 1,
        "space": {"name": "light_sdi", "width": given.width},
        "task": {
            "name": "segmentation",
            "data": {
                "name": "surface_defects",
                "size": given.size,
                "train": 60,
                "validation": 10,
            },
        },
        "strategy": {
            "name": "darts",
            "iterations": given.iterations,
            "arch_every": 2,
            "cost": cost,
        },
        "estimators": {key: {"threads": 1} if key == "latency" else {}},
        "objectives": {key: "min"},
        "budget": {"trials": 1},
    }
    return Experiment.from_table(table, Path())


def targets(table: CostTable, given: argparse.Namespace) -> list[float]:
    choices = (
        "single_conv",
        "single_dilation_conv",
        "double_dw_conv",
        "double_dw_d_conv",
        "cutconnect",
    )
    rows = [[row[choice] for choice in choices] for row in table.per_decision().values()]
    low, high = (table.fixed + sum(pick(row) for row in rows) for pick in (min, max))
    print(
        f"\nthe space ranges from {format_quantity(low, table.unit)} "
        f"to {format_quantity(high, table.unit)}"
    )
    return [low + (high - low) * (i + 0.5) / given.targets for i in range(given.targets)]


def search_for(
    given: argparse.Namespace, key: str, table: CostTable, root: Path, target: float
) -> Met:
    folder = root / f"{target:.6g}"
    (folder / "tables").mkdir(parents=True)
    (folder / "tables" / f"{key}.json").write_text(json.dumps(table.to_json()))
    made = experiment(given, key, target)
    (architecture,) = made.strategy.propose(History(), 1, made.search(folder))
    return Met(target, architecture, table.predict(architecture))


def counted(search: Search, found: list[Met]) -> list[Met]:
    counts = [count_parameters(meta_network(search, met.architecture)) for met in found]
    return [
        Met(met.target, met.architecture, met.predicted, float(count), met.predicted)
        for met, count in zip(found, counts, strict=True)
    ]


def timed(search: Search, found: list[Met], repeats: int) -> list[Met]:
    """Time the networks and the table's cells in turn."""
    space = search.space
    setup = search.estimators["latency"].setup(search)  # type: ignore[attr-defined]
    table = LatencyTable(describe(search, setup))
    table.decisions = {slot.name: slot.decision for slot in space.graph.slots}
    work = _latency_cells.work(search, table)
    runs = work.prepare(setup)
    readings: list[list[float]] = [[] for _ in found]
    with _engines.measuring(setup):
        for number, met in enumerate(found):
            network = build_network(space.graph, met.architecture)
            runs["network", number] = _engines.prepare(network, search.task.input_shape, setup)
        for taken in _timing.rounds(runs, _timing.clock("cpu"), [1] * repeats):
            work.record(taken)
            for number, kept in enumerate(readings):
                kept.extend(taken["network", number])
    then = table.cost_table(space)
    return [
        Met(
            met.target,
            met.architecture,
            met.predicted,
            median(kept),
            then.predict(met.architecture),
        )
        for met, kept in zip(found, readings, strict=True)
    ]


def show(key: str, unit: str, found: list[Met]) -> None:
    print(
        f"{key:11}{'target':>12}{'predicted':>12}{'of target':>12}{'measured':>12}"
        f"{'of predicted':>14}{'table then':>12}"
    )
    for met in found:
        cells = [format_quantity(v, unit) for v in (met.target, met.predicted)]
        print(
            f"{'':11}{cells[0]:>12}{cells[1]:>12}{met.predicted / met.target:>12.1%}"
            f"{format_quantity(met.measured, unit):>12}{met.measured / met.predicted:>14.1%}"
            f"{format_quantity(met.predicted_then, unit):>12}"
        )
    within = sum(met.predicted <= met.target for met in found)
    near = sum(0.9 * met.target <= met.predicted <= met.target for met in found)
    kept = sum(met.measured <= met.target for met in found)
    print(
        f"{key}: within the target {within} of {len(found)}, within 10% of it {near}; "
        f"as measured afterwards within the target {kept}"
    )
    for name, guesses in (
        ("the search's table", [met.predicted for met in found]),
        ("the table then", [met.predicted_then for met in found]),
    ):
        quality = agreement(guesses, [met.measured for met in found])
        print(
            f"  {name} against measured: Spearman {quality['spearman']:.3f}, "
            f"mean absolute error {quality['mean_absolute_error']:.1%}"
        )


if __name__ == "__main__":
    main()

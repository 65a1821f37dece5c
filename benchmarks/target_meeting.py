"""Does a gradient search meet its targets? Light SDI, ten targets on parameters, ten on latency.

    python benchmarks/target_meeting.py [--targets 10] [--width 8] [--iterations 40]
        [--engine eager] [--only latency] [--folder kept] [--seconds 170]

Every target has a search of its own, on images, from nothing; targets are spread evenly over the
range of the space. The latency table is measured once. "measured" is what the run of that search
tells its user: the estimator's own reading of what was derived, taken when the search has ended,
at the pace that the machine had when the table was made (see `nasengine.estimators._yardstick`).
In the end all derived networks are timed once more in turn, with the whole networks of the table:
how much slower or faster these are than in the table is the drift of the machine since, which
"less drift" takes out, independently of the yardstick.

With a folder it goes on from what is there, and with a limit of seconds it ends early, to be called
again.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from nasengine.architecture import Architecture
from nasengine.estimator import CostTable
from nasengine.estimators import _engines, _timing, _yardstick
from nasengine.estimators.latency_table import LatencyTable, read_latency_table
from nasengine.files import write_json
from nasengine.history import History
from nasengine.network import build_network
from nasengine.quantities import format_quantity
from nasengine.runs.execution import Job
from nasengine.runs.experiment import Experiment
from nasengine.runs.measuring import measure
from nasengine.search import Search
from nasengine.statistics import agreement

Met = dict[str, Any]
"""A target, what was derived for it, what the search's table says of that, what was measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--engine", default="eager", choices=("eager", "compile", "onnxruntime"))
    parser.add_argument("--only", choices=("parameters", "latency"))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            meet(given, Path(folder))
    else:
        meet(given, given.folder)


def meet(given: argparse.Namespace, folder: Path) -> None:
    end = time.monotonic() + given.seconds
    lines = [
        f"Light SDI, width {given.width}, {given.size}x{given.size}, {given.iterations} iterations",
        f"torch {torch.__version__}, python {platform.python_version()}, 1 thread",
    ]
    for key in ("parameters", "latency") if given.only is None else (given.only,):
        root = folder / key
        root.mkdir(parents=True, exist_ok=True)
        search = experiment(given, key, None).search(root)
        table, timed = tables(search, key, given.repeats, root)
        found: list[Met] = []
        for number, target in enumerate(targets(search, table, given.targets)):
            kept = root / f"target-{number}.json"
            if not kept.is_file() and time.monotonic() > end:
                print(f"{key}: {number} targets are done; call again for the rest")
                return
            found.append(met(given, key, (table, timed), kept, target))
        drift = again(search, found, timed, given.repeats) if timed is not None else 1.0
        low, high = (format_quantity(v, table.unit) for v in space_range(search, table))
        lines += [
            "",
            f"the space ranges from {low} to {high}",
            *told(key, table.unit, found, drift),
        ]
    print("\n".join(lines))


def experiment(given: argparse.Namespace, key: str, target: float | None) -> Experiment:
    cost = {} if target is None else {key: {"target": target}}
    data = {"name": "surface_defects", "size": given.size, "train": 60, "validation": 10}
    table = {
        "name": "targets",
        "device": "cpu",
        "threads": 1,
        "space": {"name": "light_sdi", "width": given.width},
        "task": {"name": "segmentation", "data": data},
        "strategy": {
            "name": "darts",
            "iterations": given.iterations,
            "arch_every": 2,
            "cost": cost,
        },
        "estimators": {
            key: {"threads": 1, "engine": given.engine} if key == "latency" else {},
        },
        "objectives": {key: "min"},
        "budget": {"trials": 1},
    }
    return Experiment.from_table(table, Path())


def tables(
    search: Search, key: str, repeats: int, root: Path
) -> tuple[CostTable, LatencyTable | None]:
    """Return the cost table and, of latency, the readings that it is made of."""
    if key == "parameters":
        return search.cost_table(key), None
    path = root / "table.json"
    estimator = search.estimators[key].model_copy(update={"repeats": repeats})
    estimator.write_table(search, path)
    timed = read_latency_table(path)
    return timed.cost_table(search.space), timed


def space_range(search: Search, table: CostTable) -> tuple[float, float]:
    rows = table.terms()
    kept = [[rows[name,][c] for c in choices] for name, choices in search.space.decisions.items()]
    low, high = (table.fixed + sum(pick(row) for row in kept) for pick in (min, max))
    return low, high


def targets(search: Search, table: CostTable, count: int) -> list[float]:
    low, high = space_range(search, table)
    return [low + (high - low) * (i + 0.5) / count for i in range(count)]


def met(
    given: argparse.Namespace,
    key: str,
    tables: tuple[CostTable, LatencyTable | None],
    kept: Path,
    target: float,
) -> Met:
    """Search for one target and measure what was derived, as a run does."""
    table, timed = tables
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    folder = kept.with_suffix("")
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    write_json(folder / "tables" / f"{key}.json", table.to_json())
    made = experiment(given, key, target)
    search = made.search(folder)
    if timed is not None:  # As in a run that measures its own table.
        setup = search.estimators[key].setup(search)  # type: ignore[attr-defined]
        _yardstick.keep_pace(search, setup, median(timed.yardstick))
    (architecture,) = made.strategy.propose(History(), 1, search)
    for _ in range(5):  # A reading that cannot be trusted is refused; a busy machine has many.
        measured = measure(search, Job("trial-0", architecture))
        if key in measured.measurements:
            break
    readings = folder / "checkpoints" / "derived_measured.json"
    found = {
        "target": target,
        "architecture": dict(architecture),
        "predicted": table.predict(architecture),
        "measured": measured.measurements[key].value,
        "measured_in_search": len(json.loads(readings.read_text())) if readings.is_file() else 0,
    }
    write_json(kept, found)
    return found


def again(search: Search, found: list[Met], table: LatencyTable, repeats: int) -> float:
    """Time the networks and the table's whole networks in turn; return the machine's drift."""
    setup = search.estimators["latency"].setup(search)  # type: ignore[attr-defined]
    networks = {("network", n): Architecture(met["architecture"]) for n, met in enumerate(found)}
    networks |= {("probe", n): architecture for n, (architecture, _) in enumerate(table.probes)}
    readings: dict[tuple[str, int], list[float]] = {key: [] for key in networks}
    with _engines.measuring(search, setup):
        runs = {
            key: _engines.prepare(
                build_network(search.space.graph, architecture), setup, search.task.input_shape
            )
            for key, architecture in networks.items()
        }
        for taken in _timing.rounds(runs, _timing.clock("cpu"), [1] * max(150, repeats)):
            for key, values in taken.items():
                readings[key].extend(values)
    for number, met in enumerate(found):
        met["afterwards"] = median(readings["network", number])
    return median(
        median(readings["probe", number]) / median(before)
        for number, (_, before) in enumerate(table.probes)
    )


def told(key: str, unit: str, found: list[Met], drift: float) -> list[str]:
    """Return the table of what was met, and its sums."""
    lines = [
        f"{key:11}{'target':>12}{'predicted':>12}{'measured':>12}{'of target':>11}"
        f"{'nets timed':>12}{'afterwards':>12}{'less drift':>12}"
    ]
    for met in found:
        after = met.get("afterwards", met["measured"])
        cells = [format_quantity(v, unit) for v in (met["target"], met["predicted"])]
        lines.append(
            f"{'':11}{cells[0]:>12}{cells[1]:>12}{format_quantity(met['measured'], unit):>12}"
            f"{met['measured'] / met['target']:>11.1%}{met['measured_in_search']:>12}"
            f"{format_quantity(after, unit):>12}{after / drift / met['target']:>12.1%}"
        )
    shares = {
        "as predicted": [met["predicted"] / met["target"] for met in found],
        "as measured": [met["measured"] / met["target"] for met in found],
        "afterwards": [m.get("afterwards", m["measured"]) / m["target"] for m in found],
    }
    shares["afterwards, less drift"] = [share / drift for share in shares["afterwards"]]
    for name, values in shares.items():
        within = sum(share <= 1 for share in values)
        near = sum(0.9 <= share <= 1 for share in values)
        lines.append(f"{key}, {name}: within the target {within} of {len(found)}, near it {near}")
    measured = [met.get("afterwards", met["measured"]) for met in found]
    quality = agreement([met["predicted"] * drift for met in found], measured)
    lines.append(
        f"  drift of the machine {drift - 1:+.1%}; the table, drifted, against afterwards: "
        f"Spearman {quality['spearman']:.3f}, relative error {quality['mean_relative_error']:.1%}"
    )
    return lines


if __name__ == "__main__":
    main()

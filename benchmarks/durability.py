"""What durability costs: a real run with its writes synchronised and without, and a long resume.

Run: ``python benchmarks/durability.py``; the result is kept in benchmarks/results/durability.txt.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tomli_w

from nasengine import files
from nasengine.architecture import Architecture
from nasengine.runs.experiment import Experiment
from nasengine.runs.run import run
from nasengine.runs.run_folder import RunFolder
from nasengine.runs.storage import Storage
from nasengine.trial import Measurement, Status, Trial

RESULT = Path(__file__).parent / "results" / "durability.txt"
STUBS = "nasengine.testing.stubs"
REPEATS = 3
STEPS = 300
SPEC = {
    "name": "durability",
    "device": "cpu",
    "threads": 1,
    "references": [],
    "space": {"name": f"{STUBS}:TinySpace", "width": 16},
    "task": {"name": f"{STUBS}:TinySegmentation", "size": 32, "samples": 32},
    "strategy": {"name": "random"},
    "estimators": {"iou": {"name": "trained", "iterations": STEPS, "batch": 8}},
    "objectives": {"iou": "max"},
    "budget": {"trials": 4},
}


class Clock:
    """Seconds spent inside the durable writes of one run."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.writes = 0

    @contextmanager
    def seam(self, _: Path) -> Iterator[None]:
        """Stand for `nasengine.files.durable_write`."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started
        self.writes += 1


def timed(folder: Path) -> tuple[float, Clock]:
    """Return the wall time of a run, and what its durable writes took of it."""
    experiment = Experiment.load(folder / "spec.toml")
    clock = Clock()
    started = time.perf_counter()
    with (
        patch.object(files, "durable_write", clock.seam),
        RunFolder.create(folder / "runs", experiment, []) as run_folder,
    ):
        run(experiment, run_folder)
    return time.perf_counter() - started, clock


def cost(folder: Path) -> list[str]:
    (folder / "spec.toml").write_text(tomli_w.dumps(SPEC))
    timed(folder)
    durable, loose, shares, clock = [], [], [], Clock()
    for _ in range(REPEATS):
        seconds, clock = timed(folder)
        durable.append(seconds)
        shares.append(clock.seconds / seconds)
        with patch.object(os, "fsync", lambda _: None):
            loose.append(timed(folder)[0])
    return [
        f"a run of 4 trials of {STEPS} steps, {clock.writes} durable writes, median of {REPEATS}:",
        f"  wall time {statistics.median(durable):.2f} s; without fsync of files "
        f"{statistics.median(loose):.2f} s",
        f"  inside durable writes: {100 * statistics.median(shares):.2f}% (allowed: 2%), "
        f"{1000 * clock.seconds / clock.writes:.1f} ms each",
    ]


def in_one_transaction(storage: Storage, _: str, *statements: tuple[str, list[Any]]) -> None:
    """Stand for `Storage._write`, inside a transaction that is begun already."""
    for statement, values in statements:
        storage._connection.execute(statement, values)


def long_resume(folder: Path) -> list[str]:
    """Time from opening a run of 10,000 trials to its history in memory."""
    table = {**SPEC, "estimators": {"iou": {"name": f"{STUBS}:CountingEstimator"}}}
    table["objectives"] = {"iou": "min"}
    (folder / "spec.toml").write_text(tomli_w.dumps(table))
    experiment = Experiment.load(folder / "spec.toml")
    architecture = Architecture({"first": "conv", "second": "conv"})
    with RunFolder.create(folder / "runs", experiment, []) as run_folder:
        storage = run_folder.storage
        storage._connection.execute("BEGIN")
        with patch.object(Storage, "_write", in_one_transaction):
            for number in range(10_000):
                found = {"iou": Measurement(float(number), {"values": [0.5] * 3})}
                storage.finish(Trial(number, architecture, f"k{number}", Status.COMPLETE, found))
        storage._connection.execute("COMMIT")
        path = run_folder.path
    started = time.perf_counter()
    with RunFolder(path) as run_folder:
        run_folder.check_identity(experiment)
        assert len(run_folder.storage.history()) == 10_000
    return [f"resume of 10,000 trials: {time.perf_counter() - started:.2f} s (allowed: 2 s)"]


def main() -> None:
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        lines = [*cost(Path(first)), *long_resume(Path(second))]
    load = os.getloadavg()[0]
    lines.append(f"2 shared cores of a CPU, one thread, other work beside it (load {load:.1f})")
    RESULT.write_text("\n".join(lines) + "\n")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()

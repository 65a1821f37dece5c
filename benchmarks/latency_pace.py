"""How far apart are the latency estimator's readings of one network, minutes apart? Light SDI.

    python benchmarks/latency_pace.py [--rounds 12] [--pause 5] [--engine eager onnxruntime]

Three networks are measured again and again, as trials of one run. "as timed" is the median of the
raw readings, "as told" what the estimator reports: at the pace that the machine had when the run
began, by a network that is timed in turn with every other. Run it beside other work too.

Writes ``results/latency_pace.txt``.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch

from nasengine.architecture import Architecture
from nasengine.estimator import Candidate
from nasengine.moves import sample
from nasengine.runs.experiment import Experiment
from nasengine.search import Search

RESULTS = Path(__file__).parent / "results"


def make_search(engine: str, folder: Path) -> Search:
    data = {"name": "surface_defects", "size": 48, "train": 4, "validation": 2}
    table: dict[str, Any] = {
        "name": "pace",
        "device": "cpu",
        "threads": 1,
        "space": {"name": "light_sdi", "width": 16},
        "task": {"name": "segmentation", "data": data},
        "strategy": {"name": "random"},
        "estimators": {"latency": {"threads": 1, "engine": engine}},
        "objectives": {"latency": "min"},
        "budget": {"trials": 1},
    }
    return Experiment.from_table(table, Path()).search(folder)


def read(search: Search, architecture: Architecture) -> tuple[float, float]:
    """Return what a network took as timed and as told, in ms."""
    candidate = Candidate(architecture, search, "trial-0", {})
    found = search.estimators["latency"].measure(candidate)["latency"]
    return median(found.details["samples"]), found.value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--pause", type=float, default=5.0)
    parser.add_argument("--engine", nargs="+", default=["eager", "onnxruntime"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [f"python benchmarks/latency_pace.py --rounds {given.rounds} --pause {given.pause:g}"]
    lines += [
        f"Light SDI, width 16, 48x48; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    ]
    for engine in given.engine:
        with tempfile.TemporaryDirectory() as folder:
            search = make_search(engine, Path(folder))
            rng = search.stream("pace")
            networks = [sample(search.space.decisions, rng) for _ in range(3)]
            taken: list[list[tuple[float, float]]] = [[] for _ in networks]
            for _ in range(given.rounds):
                for readings, architecture in zip(taken, networks, strict=True):
                    readings.append(read(search, architecture))
                time.sleep(given.pause)
        for number, readings in enumerate(taken):
            for name, values in zip(
                ("as timed", "as told"), zip(*readings, strict=True), strict=True
            ):
                lines.append(
                    f"  {engine:12} network {number} {name:9} mean {mean(values):6.2f} ms, "
                    f"standard deviation {stdev(values) / mean(values):6.1%}, "
                    f"largest / least {max(values) / min(values):5.2f}"
                )
    print("\n".join(lines))
    (RESULTS / "latency_pace.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

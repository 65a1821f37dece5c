"""How good what a gradient search derives is, beside networks drawn at random.

On one defect of real steel, at an eighth of the paper's width: networks drawn at random, fixed
ones, and what `darts` derives from several seeds, by its own optimisers (the paper's SGD) and by
AdamW; without a limit, and within a quarter of UNet's parameters, of which the random ones have 85%
to 100%. All are trained alike from three initial weights, and judged by the same held-out images,
which no search sees.

    python benchmarks/search_quality.py --data PATH_TO_NEU_SEG [--defect scratches] [--seeds 4]

What is finished is a line of ``results/search_quality.jsonl`` and not done again; the table is
``results/search_quality.txt``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

RESULTS = Path(__file__).parent / "results"
SMALL = 0.25
"""What the limited networks may have of UNet's parameters."""
ADAM = {
    "arch_every": 2,
    "weights": {"optimiser": "adamw", "learning_rate": 0.001, "schedule": "cosine"},
    "alphas": {"optimiser": "adam", "learning_rate": 0.02},
}
SEARCHES = {
    "darts, 150 iterations": {"iterations": 150, "arch_every": 5},
    "darts, 400 iterations": {"iterations": 400},
    "by AdamW, 150 iterations": {"iterations": 150, **ADAM},
    "by AdamW, 400 iterations": {"iterations": 400, **ADAM},
}
REFERENCES = ("unet", "single_u", "cut_u")

Row = dict[str, Any]
"""What names a network, what it is, what it reaches, and how long its search took."""


def rows_to_make(given: argparse.Namespace) -> Iterator[Row]:
    """Yield what there is to do, seed by seed."""
    for name in REFERENCES:
        yield {"kind": name, "limited": False, "seed": 0}
    for seed in range(max(given.random, given.seeds)):
        searches = SEARCHES if seed < given.seeds else ()
        for kind in ("random", *searches) if seed < given.random else searches:
            for limited in (True, False):
                yield {"kind": kind, "limited": limited, "seed": seed}


def make(row: Row, given: argparse.Namespace) -> Row:
    """Find the row's network, train it, judge it."""
    import torch

    from nasengine.estimator import Candidate
    from nasengine.estimators.parameters import Parameters
    from nasengine.estimators.trained import Trained
    from nasengine.network import build_network
    from nasengine.objectives import Objectives
    from nasengine.search import Search
    from nasengine.spaces.light_sdi import LightSDI
    from nasengine.tasks.neu_seg import NeuSeg
    from nasengine.tasks.segmentation import Segmentation

    torch.set_num_threads(1)
    data = NeuSeg(root=given.data, defect=given.defect, size=given.size, split_seed=0)
    judge = Trained(iterations=given.training, batch=8, seeds=3)
    with tempfile.TemporaryDirectory() as folder:
        search = Search(
            LightSDI(width=given.width),
            Segmentation(data=data),
            {"iou": judge, "parameters": Parameters()},
            Objectives(()),
            row["seed"],
            "cpu",
            Path(folder),
        )

        def weights(architecture: Any) -> int:
            network = build_network(search.space.graph, architecture)
            return sum(parameter.numel() for parameter in network.parameters())

        limit = SMALL * weights(search.space.reference("unet")) if row["limited"] else None
        started = time.process_time()
        architecture = find(row, search, limit, weights)
        seconds = time.process_time() - started
        found = judge.measure(Candidate(architecture, search, "judged", {}))["iou"]
        return row | {
            "architecture": list(architecture.values()),
            "parameters": weights(architecture),
            "iou": found.value,
            "each": found.details["values"],
            "search_cpu_seconds": round(seconds, 1),
        }


def find(row: Row, search: Any, limit: float | None, weights: Any) -> Any:
    """Return the architecture of a row."""
    from nasengine.history import History
    from nasengine.strategies.darts import Darts

    if row["kind"] in REFERENCES:
        return search.space.reference(row["kind"])
    if row["kind"] in SEARCHES:
        cost = {} if limit is None else {"parameters": {"target": limit}}
        (found,) = Darts(**SEARCHES[row["kind"]], cost=cost).propose(History(), 1, search)
        return found
    generator = random.Random(f"{row['seed']}, limited: {row['limited']}")
    while True:
        drawn = search.space.architecture(
            {name: generator.choice(choices) for name, choices in search.space.decisions.items()}
        )
        if limit is None or 0.85 * limit <= weights(drawn) <= limit:
            return drawn


def table(rows: Sequence[Row], given: argparse.Namespace) -> str:
    """Write means and spreads, and how many random networks a search's mean is above."""
    import torch

    lines = [
        f"NEU_Seg {given.defect}, {given.size}x{given.size}, Light SDI width {given.width}, every "
        f"network trained 3 times for {given.training} steps; IoU in percent",
        f"torch {torch.__version__}, Python {platform.python_version()}, one thread",
        f"python benchmarks/search_quality.py --data NEU_SEG --defect {given.defect} "
        f"--seeds {given.seeds} --random {given.random}",
        "",
        f"{'':28}{'networks':>9}{'IoU':>7}{'+-':>6}{'least':>7}{'most':>7}{'parameters':>12}"
        f"{'above random':>14}{'search, CPU-s':>15}",
    ]
    for limited in (False, True):
        lines.append(
            "without a limit" if not limited else f"at most {SMALL:.0%} of UNet's parameters"
        )
        here = [row for row in rows if row["limited"] is limited]
        drawn = [row["iou"] for row in here if row["kind"] == "random"]
        for kind in dict.fromkeys(row["kind"] for row in here):
            same = [row for row in here if row["kind"] == kind]
            ious = [100 * row["iou"] for row in same]
            above = sum(100 * iou < statistics.fmean(ious) for iou in drawn)
            searched = kind in SEARCHES
            lines.append(
                f"  {kind:26}{len(same):9}{statistics.fmean(ious):7.1f}"
                f"{f'{statistics.stdev(ious):.1f}' if len(ious) > 1 else '':>6}"
                f"{min(ious):7.1f}{max(ious):7.1f}"
                f"{statistics.fmean(row['parameters'] for row in same):12,.0f}"
                f"{f'{above} of {len(drawn)}' if searched else '':>14}"
                + (
                    f"{statistics.fmean(row['search_cpu_seconds'] for row in same):15.0f}"
                    * searched
                )
            )
    return "\n".join(line.rstrip() for line in lines) + "\n"


def main() -> None:
    """Do what is not done, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of NEU_Seg")
    parser.add_argument("--defect", default="scratches")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--random", type=int, default=8)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--training", type=int, default=400)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    kept = RESULTS / "search_quality.jsonl"
    setting = {"defect": given.defect, "width": given.width, "size": given.size}
    setting["training"] = given.training
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.is_file() else []
    rows = [row for line in lines if setting.items() <= (row := json.loads(line)).items()]
    done = {(row["kind"], row["limited"], row["seed"]) for row in rows}
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(make, row | setting, given)
            for row in rows_to_make(given)
            if tuple(row.values()) not in done
        ]
        for job in as_completed(jobs):
            row = job.result()
            rows.append(row)
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row["kind"], row["limited"], row["seed"], f"{row['iou']:.4f}", flush=True)
    rows.sort(key=lambda row: [*REFERENCES, "random", *SEARCHES].index(row["kind"]))
    text = table(rows, given)
    print(text)
    (RESULTS / "search_quality.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

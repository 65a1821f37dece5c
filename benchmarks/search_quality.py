"""How good what a gradient search derives is, beside networks drawn at random.

On one defect of real steel, at an eighth of the paper's width: networks drawn at random, fixed
ones, and what `darts` derives from several seeds, by its own optimisers (the paper's SGD) and by
AdamW, of blocks alone and with the channels of every level searched too; without a limit, within a
quarter of UNet's parameters, and within those of a UNet of a quarter of its channels, which only
searched channels reach. Random networks have 85% to 100% of a limit; the UNets with fewer channels
beside them have just as many parameters. All are trained alike from three initial weights, and
judged by the same held-out images, which no search sees.

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
QUARTER, TINY = 0.25, 0.0635
"""Limits: shares of UNet's parameters, that a UNet of half and of a quarter of its channels has."""
ADAM = {
    "arch_every": 2,
    "weights": {"optimiser": "adamw", "learning_rate": 0.001, "schedule": "cosine"},
    "alphas": {"optimiser": "adam", "learning_rate": 0.02},
}
SEARCHES: dict[str, dict[str, Any]] = {
    "darts, 150 iterations": {"iterations": 150, "arch_every": 5},
    "darts, 400 iterations": {"iterations": 400},
    "by AdamW, 150 iterations": {"iterations": 150, **ADAM},
    "by AdamW, 400 iterations": {"iterations": 400, **ADAM},
}
REFERENCES = ("unet", "single_u", "cut_u")
NARROWER = {QUARTER: 2, TINY: 4}
"""What the UNet that is as small as a limit has its channels divided by."""
WIDTHS = ("25%", "50%", "75%", "100%")
"""What each level has of its channels, where these are searched."""
TOO = "and widths, "
"""Begins the name of what searches, or draws, channels too."""

Row = dict[str, Any]
"""What names a network, what it is, what it reaches, and how long its search took."""


def rows_to_make(given: argparse.Namespace) -> Iterator[Row]:
    """Yield what there is to do, seed by seed."""
    for name in REFERENCES:
        yield {"kind": name, "limit": None, "seed": 0}
    for limit in NARROWER:
        yield {"kind": "unet, narrower", "limit": limit, "seed": 0}
    for seed in range(max(given.random, given.seeds)):
        for limit in (QUARTER, None, TINY):
            for kind in _kinds(limit):
                if seed < (given.random if kind.endswith("random") else given.seeds):
                    yield {"kind": kind, "limit": limit, "seed": seed}


def _kinds(limit: float | None) -> Iterator[str]:
    """Yield what is drawn and searched under a limit."""
    if limit != TINY:
        yield from ("random", *SEARCHES)
    if limit is not None:
        yield from (TOO + kind for kind in ("random", *SEARCHES) if "150" not in kind)


def make(row: Row, given: argparse.Namespace) -> Row:
    """Find the row's network, train it, judge it."""
    import torch

    from nasengine.estimator import Candidate
    from nasengine.estimators.parameters import Parameters
    from nasengine.estimators.trained import Trained
    from nasengine.objectives import Objectives
    from nasengine.search import Search
    from nasengine.spaces.light_sdi import LightSDI
    from nasengine.tasks.neu_seg import NeuSeg
    from nasengine.tasks.segmentation import Segmentation

    torch.set_num_threads(1)
    data = NeuSeg(root=given.data, defect=given.defect, size=given.size, split_seed=0)
    judge = Trained(iterations=given.training, batch=8, seeds=3)
    space = LightSDI(width=given.width)
    limit = row["limit"] and row["limit"] * weights(space, space.reference("unet"))
    if row["kind"] == "unet, narrower":
        space = LightSDI(width=given.width // NARROWER[row["limit"]])
    elif row["kind"].startswith(TOO):
        space = LightSDI(width=given.width, searched_widths=WIDTHS)
    with tempfile.TemporaryDirectory() as folder:
        search = Search(
            space,
            Segmentation(data=data),
            {"iou": judge, "parameters": Parameters()},
            Objectives(()),
            row["seed"],
            "cpu",
            Path(folder),
        )
        started = time.process_time()
        architecture = find(row, search, limit)
        seconds = time.process_time() - started
        found = judge.measure(Candidate(architecture, search, "judged", {}))["iou"]
        return row | {
            "architecture": list(architecture.values()),
            "parameters": weights(space, architecture),
            "iou": found.value,
            "each": found.details["values"],
            "search_cpu_seconds": round(seconds, 1),
        }


def weights(space: Any, architecture: Any) -> int:
    """Count the parameters of a network."""
    from nasengine.network import build_network

    network = build_network(space.graph, architecture)
    return sum(parameter.numel() for parameter in network.parameters())


def find(row: Row, search: Any, limit: float | None) -> Any:
    """Return the architecture of a row."""
    from nasengine.history import History
    from nasengine.strategies.darts import Darts

    kind = row["kind"].removeprefix(TOO)
    if kind.partition(",")[0] in REFERENCES:
        return search.space.reference(kind.partition(",")[0])
    if kind in SEARCHES:
        cost = {} if limit is None else {"parameters": {"target": limit}}
        (found,) = Darts(**SEARCHES[kind], cost=cost).propose(History(), 1, search)
        return found
    generator = random.Random(f"{row['seed']}, limited: {limit is not None}")
    while True:
        drawn = search.space.architecture(
            {name: generator.choice(choices) for name, choices in search.space.decisions.items()}
        )
        if limit is None or 0.85 * limit <= weights(search.space, drawn) <= limit:
            return drawn


def table(rows: Sequence[Row], given: argparse.Namespace) -> str:
    """Write means and spreads, and how many random networks a search's mean is above."""
    import torch

    lines = [
        f"NEU_Seg {given.defect}, {given.size}x{given.size}, Light SDI width {given.width}, every "
        f"network trained 3 times for {given.training} steps; IoU in percent; at 0: trainings that "
        "learned nothing",
        f"torch {torch.__version__}, Python {platform.python_version()}, one thread",
        f"python benchmarks/search_quality.py --data NEU_SEG --defect {given.defect} "
        f"--seeds {given.seeds} --random {given.random}",
        "",
        f"{'':36}{'networks':>9}{'IoU':>7}{'+-':>6}{'least':>7}{'most':>7}{'at 0':>6}"
        f"{'parameters':>12}{'above random':>14}{'search, CPU-s':>15}",
    ]
    for limit in (None, QUARTER, TINY):
        lines.append(
            "without a limit" if limit is None else f"at most {limit:.3g} of UNet's parameters"
        )
        here = [row for row in rows if row["limit"] == limit]
        for kind in dict.fromkeys(row["kind"] for row in here):
            same = [row for row in here if row["kind"] == kind]
            ious = [100 * row["iou"] for row in same]
            lines.append(
                f"  {kind:34}{len(same):9}{statistics.fmean(ious):7.1f}"
                f"{f'{statistics.stdev(ious):.1f}' if len(ious) > 1 else '':>6}"
                f"{min(ious):7.1f}{max(ious):7.1f}"
                f"{sum(iou < 0.01 for row in same for iou in row['each']) or '':>6}"
                f"{statistics.fmean(row['parameters'] for row in same):12,.0f}"
            )
            if kind.removeprefix(TOO) in SEARCHES:
                like = f"{TOO if kind.startswith(TOO) else ''}random"
                drawn = [100 * row["iou"] for row in here if row["kind"] == like]
                above = sum(iou < statistics.fmean(ious) for iou in drawn)
                seconds = statistics.fmean(row["search_cpu_seconds"] for row in same)
                lines[-1] += f"{f'{above} of {len(drawn)}' if drawn else '':>14}{seconds:15.0f}"
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
    done = {(row["kind"], row["limit"], row["seed"]) for row in rows}
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
            print(row["kind"], row["limit"], row["seed"], f"{row['iou']:.4f}", flush=True)
    order = [*REFERENCES, "unet, narrower", "random", *SEARCHES]
    rows.sort(
        key=lambda row: (row["kind"].startswith(TOO), order.index(row["kind"].removeprefix(TOO)))
    )
    text = table(rows, given)
    print(text)
    (RESULTS / "search_quality.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""How good is what a strategy has found after so many trials? On tables, so without training.

    python benchmarks/sample_efficiency.py --data FOLDER [--seeds 50]

FOLDER (or NASENGINE_DATA) holds ``tables/nas_bench_201.parquet``, its latency table and
``tables/nas_bench_macro.parquet``. Results go to ``benchmarks/results/sample_efficiency*``: one
line a run in the CSV (runs that are there are not repeated), the table, and the plot.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import defaultdict
from dataclasses import replace
from datetime import date
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

from nasengine.history import History
from nasengine.objectives import Objective, Objectives, hypervolume, non_dominated
from nasengine.plugin import build, load_class
from nasengine.space import SearchSpace
from nasengine.strategy import Strategy
from nasengine.testing.stubs import tiny_search
from nasengine.trial import Measurement, Status, Trial

RESULTS = Path(__file__).parent / "results"
MARKS = (50, 100, 200, 500)
ONE = ("cifar10", "cifar100", "macro")
TWO = ("cifar10 x flops", "cifar10 x pixel3", "macro x flops")

STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"name": "random"},
    "evolution": {"name": "evolution", "population": 50},
    "evolution, population 20": {"name": "evolution", "population": 20},
    "local_search": {"name": "local_search"},
    "predictor (default)": {"name": "predictor"},
    "optuna tpe_multivariate": {"name": "optuna"},
}
ONE_GOAL = {**STRATEGIES, "optuna gp": {"name": "optuna", "sampler": "gp"}}
SEVERAL = {**STRATEGIES, "optuna nsga2": {"name": "optuna", "sampler": "nsga2"}}
ALL = {**ONE_GOAL, **SEVERAL}
SLOW = {"optuna tpe_multivariate": 200, "optuna gp": 100}
"""Strategies that are followed for so many trials only."""


@cache
def problem(name: str, data: str) -> tuple[SearchSpace, dict[str, tuple[float, ...]], Any]:
    """Return the space, the losses by architecture string, and the test accuracy (or None)."""
    import pandas as pd

    tables = Path(data) / "tables"
    if name.startswith("macro"):
        table, key = pd.read_parquet(tables / "nas_bench_macro.parquet"), "arch"
        columns = {"macro": ["mean_acc"], "macro x flops": ["mean_acc", "flops"]}[name]
        space, test = "nas_bench_macro", None
    else:
        table, key = pd.read_parquet(tables / "nas_bench_201.parquet"), "arch_str"
        latency = pd.read_parquet(tables / "nas_bench_201_latency.parquet")
        table = table.merge(latency.drop(columns="arch_index"), on=key)
        data_set, _, cost = name.partition(" x ")
        columns = [f"{data_set}_val12"]
        columns += {"": [], "flops": [f"{data_set}_flops"], "pixel3": ["lat_ms_pixel3"]}[cost]
        space, test = (
            "nas_bench_201",
            dict(zip(table[key], table[f"{data_set}_test200"], strict=True)),
        )
    losses = table[columns].to_numpy(dtype=float).copy()
    losses[:, 0] *= -1
    return (
        load_class(SearchSpace, space)(),
        dict(zip(table[key], map(tuple, losses.tolist()), strict=True)),
        test,
    )


def run(job: tuple[str, str, int, str]) -> list[list[Any]]:
    """Run one search; return a row a mark: table, strategy, seed, trials, what was found."""
    name, label, seed, data = job
    space, losses, test = problem(name, data)
    table = np.array(list(losses.values()))
    goals = tuple(Objective(f"loss{index}", "min") for index in range(table.shape[1]))
    search = replace(search_around(space), objectives=Objectives(goals), seed=seed)
    strategy = build(Strategy, ALL[label], where="strategy")
    history, texts = History(), []
    limit = SLOW.get(label, MARKS[-1])
    best = (table.min(),) if len(goals) == 1 else None
    while len(history) < limit and (not texts or losses[texts[-1]] != best):
        # One goal: at the table's best there is nothing more to find.
        proposed = strategy.propose(history, 1, search)
        if not proposed:
            break
        texts.append(space.format(proposed[0]))
        values = losses[texts[-1]]
        measured = {g.metric: Measurement(v) for g, v in zip(goals, values, strict=True)}
        key = space.key(proposed[0])
        history.record(Trial(len(history), proposed[0], key, Status.COMPLETE, measured))
    found = np.array([losses[text] for text in texts])
    rows: list[list[Any]] = []
    for mark in [mark for mark in MARKS if mark <= limit]:
        score = regret(table, found[:mark]) if len(goals) == 1 else fronts(table, found[:mark])
        chosen = texts[int(found[:mark, 0].argmin())]
        rows.append([name, label, seed, mark, *score, test[chosen] if test else ""])
    return rows


@cache
def search_around(space: SearchSpace) -> Any:
    """Return a search; its task is not used."""
    return tiny_search(space, objectives=Objectives((Objective("loss0", "min"),)))


def regret(table: np.ndarray, found: np.ndarray) -> tuple[float, str]:
    """Return how far the best found is behind the table's best, in the objective's unit."""
    return float(found.min() - table.min()), ""


def fronts(table: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Return the share of the true front's hypervolume, and of its points.

    Both goals are scaled by the table's range; the reference point is 1.1.
    """
    low, span = table.min(axis=0), np.ptp(table, axis=0)
    true = non_dominated(table.tolist())
    volumes = []
    for points in (table[true], found):
        scaled = ((points - low) / span).tolist()
        volumes.append(hypervolume([scaled[i] for i in non_dominated(scaled)], (1.1, 1.1)))
    recovered = {tuple(p) for p in table[true]} & {tuple(p) for p in found}
    return volumes[1] / volumes[0], len(recovered) / len({tuple(p) for p in table[true]})


def ceiling(name: str, data: str, draws: int = 50) -> str:
    """Say what measuring everything once would find, of each key one architecture at random.

    Architectures that compute the same have values of their own in a table: latencies as they were
    measured, accuracies of trainings of their own. No strategy asks for two of them.
    """
    space, losses, _ = problem(name, data)
    table = np.array(list(losses.values()))
    keys: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(losses):
        keys[space.key(space.architecture(space.parse(text)))].append(index)
    rng = np.random.default_rng(0)
    found = [
        fronts(table, table[[rng.choice(alike) for alike in keys.values()]]) for _ in range(draws)
    ]
    volume, recovered = np.mean(found, axis=0)
    return f"  {f'all {len(keys)} keys, once each':26s} {volume:.4f} [{recovered:.0%}]"


def table_of(rows: list[list[str]], data: str) -> str:
    """Write the mean and its standard error, a line a strategy and a column a mark."""
    cells: dict[tuple[str, str, int], list[list[float]]] = defaultdict(list)
    for name, label, _, mark, *scores in rows:
        cells[name, label, int(mark)].append([float(s) if s else np.nan for s in scores])
    lines = [f"python benchmarks/sample_efficiency.py --data FOLDER, {date.today()}", ""]
    for name in (*ONE, *TWO):
        what = "regret in the objective" if name in ONE else "hypervolume ratio [front recovered]"
        lines += [f"{name}: {what}, mean (standard error) after {MARKS} trials"]
        for label in ALL:
            texts = []
            for mark in MARKS:
                scores = np.array(cells.get((name, label, mark), []))
                if not scores.size:
                    texts.append("-")
                    continue
                error = scores[:, 0].std(ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else 0
                texts.append(f"{scores[:, 0].mean():.4f} ({error:.4f})")
                if name in TWO:
                    texts[-1] += f" [{scores[:, 1].mean():.0%}]"
                elif not np.isnan(scores[:, 2]).any():
                    texts[-1] += f" test200 {scores[:, 2].mean():.2f}"
            seeds = max((len(cells.get((name, label, mark), [])) for mark in MARKS), default=0)
            if seeds:
                lines.append(f"  {label:26s} {' | '.join(texts)} | {seeds} seeds")
        lines += [ceiling(name, data)] if name in TWO else []
        lines.append("")
    return "\n".join(lines)


def plot(rows: list[list[str]], path: Path) -> None:
    """Draw regret (log scale), or what is left of the hypervolume, over trials."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(13, 7))
    for axis, name in zip(axes.flat, (*ONE, *TWO), strict=True):
        for label in ALL:
            curve = []
            for mark in MARKS:
                found = [float(r[4]) for r in rows if r[:2] == [name, label] and int(r[3]) == mark]
                if found:
                    mean = float(np.mean(found))
                    curve.append((mark, max(mean if name in ONE else 1 - mean, 1e-4)))
            if curve:
                axis.plot(*zip(*curve, strict=True), marker="o", label=label)
        axis.set(title=name, yscale="log", xscale="log", xlabel="trials")
        axis.set_ylabel("regret" if name in ONE else "1 - hypervolume ratio")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default=os.environ.get("NASENGINE_DATA"))
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--seeds-two", type=int, default=50, help="with two objectives")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    if not arguments.data:
        sys.exit("--data or NASENGINE_DATA: the folder that holds tables/")
    store = RESULTS / "sample_efficiency.csv"
    rows = list(csv.reader(store.open())) if store.exists() else []
    done = {(name, label, int(seed)) for name, label, seed, *_ in rows}
    jobs = [
        (name, label, seed, arguments.data)
        for seed in range(max(arguments.seeds, arguments.seeds_two))
        for name in (*ONE, *TWO)
        for label in (SEVERAL if name in TWO else ONE_GOAL)
        if seed < (arguments.seeds_two if name in TWO else arguments.seeds)
        and (name, label, seed) not in done
    ]
    with Pool(arguments.processes) as pool, store.open("a", newline="") as stream:
        writer = csv.writer(stream)
        for found in pool.imap_unordered(run, jobs):
            writer.writerows(found)
            stream.flush()
    rows = sorted(csv.reader(store.open()), key=lambda row: (row[0], row[1], int(row[2])))
    text = table_of(rows, arguments.data)
    (RESULTS / "sample_efficiency.txt").write_text(text)
    plot(rows, RESULTS / "sample_efficiency.png")
    print(text)


if __name__ == "__main__":
    main()

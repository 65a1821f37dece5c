"""What does a screen spare? On NAS-Bench-201, by the epochs that a search trains: no training.

A trial is trained for 200 epochs, or screened: for 12 first, and for 200 if it is among the best
share of the trials so far. Shown is how far the best network that was trained in full is behind
the table's best, in points of validation accuracy after 200 epochs.

    python benchmarks/screening.py --data FOLDER [--seeds 24]

FOLDER (or NASENGINE_DATA) holds ``tables/nas_bench_201.parquet``. Writes
``results/screening.txt``.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from datetime import date
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

from nasengine.history import History
from nasengine.objectives import Objective, Objectives
from nasengine.plugin import build, load_class
from nasengine.runs.execution import Job, Measured
from nasengine.runs.going_on import held_against
from nasengine.runs.measuring import measure_on
from nasengine.screen import Screen
from nasengine.search import Search
from nasengine.space import SearchSpace
from nasengine.strategy import Strategy
from nasengine.testing.stubs import tiny_search
from nasengine.trial import Status, Trial

RESULTS = Path(__file__).parent / "results"
QUICK, FULL = 12, 200
BUDGETS = (2_000, 5_000, 10_000, 20_000)
SHARES = (None, 0.5, 0.33, 0.2, 0.1)
STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"name": "random"},
    "evolution": {"name": "evolution"},
    "local_search": {"name": "local_search"},
    "predictor": {"name": "predictor"},
}


@cache
def space_of() -> SearchSpace:
    """Return the space."""
    return load_class(SearchSpace, "nas_bench_201")()


@cache
def best_of(data: str, data_set: str) -> float:
    """Return the table's best accuracy after 200 epochs."""
    import pandas as pd

    table = pd.read_parquet(Path(data) / "tables/nas_bench_201.parquet")
    return float(table[f"{data_set}_val200"].max())


@cache
def search_of(data: str, data_set: str, share: float | None) -> Search:
    """Return a search whose estimators read the table."""
    from nasengine.estimator import Estimator

    path = Path(data).resolve() / "tables/nas_bench_201.parquet"

    def column(name: str) -> Estimator:
        column = f"{data_set}_{name}"
        given = {"name": "tabular", "file": str(path), "key": "arch_str", "column": column}
        return build(Estimator, given, where="estimators")

    full, quick = Objective("full", "max"), Objective("quick", screen=Screen(share or 0.5, "max"))
    estimators = {"quick": column("val12"), "full": column("val200")}
    if share is None:
        return tiny_search(
            space_of(), estimators={"full": estimators["full"]}, objectives=Objectives((full,))
        )
    return tiny_search(space_of(), estimators=estimators, objectives=Objectives((quick, full)))


def run(job: tuple[str, str, float | None, int, str]) -> list[Any]:
    """Run one search; return the job's names and the regret at each budget."""
    data_set, label, share, seed, data = job
    search = replace(search_of(data, data_set, share), seed=seed)
    strategy = build(Strategy, STRATEGIES[label], where="strategy")
    history, spent, best, marks = History(), 0, -np.inf, []
    while len(marks) < len(BUDGETS):
        proposed = strategy.propose(history, 1, search)
        if not proposed:
            marks += [best] * (len(BUDGETS) - len(marks))
            break
        measured = Measured(Status.RUNNING, {}, "")
        while measured.status is Status.RUNNING:
            known = measured.measurements
            measured = measure_on(search, Job(f"trial-{len(history)}", proposed[0], known=known))
            if measured.status is Status.RUNNING:
                measured = held_against(search, measured, known, history)
        spent += 0 if share is None else QUICK
        spent += FULL if "full" in measured.measurements else 0
        # What is not done within a budget does not count for it.
        while len(marks) < len(BUDGETS) and spent > BUDGETS[len(marks)]:
            marks.append(best)
        trial = Trial(
            len(history),
            proposed[0],
            search.space.key(proposed[0]),
            measured.status,
            measured.measurements,
        )
        history.record(trial)
        if "full" in trial.measurements:
            best = max(best, trial.value("full"))
    regrets = [best_of(data, data_set) - found for found in marks]
    return [data_set, label, share, len(history), *regrets]


def main() -> None:
    """Run all, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("NASENGINE_DATA"), required=False)
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    if not asked.data:
        parser.error("--data, or NASENGINE_DATA, is needed")
    sets = ("cifar10", "cifar100")
    kinds = [(d, s, share) for d in sets for s in STRATEGIES for share in SHARES]
    jobs = [(*kind, seed, asked.data) for kind in kinds for seed in range(asked.seeds)]
    with Pool(asked.processes) as pool:
        rows = pool.map(run, jobs, chunksize=asked.seeds)
    lines = [f"python benchmarks/screening.py --data FOLDER, {date.today()}", ""]
    for data_set in sets:
        lines.append(
            f"{data_set}: points of validation accuracy behind the best, mean (standard error) "
            f"after {BUDGETS} epochs, {asked.seeds} seeds"
        )
        for label in STRATEGIES:
            for share in SHARES:
                own = [row for row in rows if row[:3] == [data_set, label, share]]
                scores = np.array([row[4:] for row in own])
                error = scores.std(axis=0, ddof=1) / np.sqrt(len(scores))
                cells = [f"{m:6.3f} ({e:.3f})" for m, e in zip(scores.mean(0), error, strict=True)]
                name = label if share is None else f"{label}, among the best {share:.0%}"
                trials = np.mean([row[3] for row in own])
                lines.append(f"  {name:36s} {' | '.join(cells)} | {trials:.0f} trials")
        lines.append("")
    text = "\n".join(lines)
    print(text)
    (RESULTS / "screening.txt").write_text(text)


if __name__ == "__main__":
    main()

"""How well do zero-cost proxies rank NAS-Bench-201? On cells drawn at random, beside the tables.

    NASENGINE_DATA=... python benchmarks/zero_cost_correlation.py [--cells 200] [--batch 32]
        [--kept scores.json] [--seconds 170]

Cells that compute the same are drawn once. The networks are those of the published figures, 16
channels at first and five cells a stage. The batch is of the built-in procedural textures, not of
CIFAR images: `synflow` and `zen` do not look at the data, the others may rank otherwise on CIFAR.

With a file of scores it goes on from what is there, and with a limit of seconds it ends early, to
be called again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path

import torch
from scipy.stats import kendalltau, spearmanr

from nasengine.architecture import Architecture
from nasengine.errors import EstimationFailed
from nasengine.estimator import Estimator
from nasengine.estimators.flops import Flops
from nasengine.estimators.parameters import Parameters
from nasengine.estimators.tabular import Column, Tabular
from nasengine.estimators.zero_cost import ZeroCost
from nasengine.estimators.zero_cost_proxies import PROXIES
from nasengine.moves import sample
from nasengine.search import Search
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.tasks.classification import Classification
from nasengine.tasks.textures import Textures
from nasengine.testing.stubs import tiny_candidate, tiny_search

TARGETS = ("cifar10_test200", "cifar100_test200")
# Spearman over all 15,625 cells, one batch of CIFAR images: Abdelfattah et al. 2021, as printed in
# their code release (SamsungLabs/zero-cost-nas, notebooks/nasbench201_correlations.ipynb).
PUBLISHED = {
    "grad_norm": ("0.594", "0.637"),
    "snip": ("0.596", "0.637"),
    "synflow": ("0.737", "0.763"),
    "jacob_cov": ("0.731", "0.704"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    space = NASBench201()
    task = Classification(data=Textures(size=32))
    search = tiny_search(space, task=task, estimators={}, seed=given.seed)
    cells = draw(space, given.cells, given.seed)
    counts = {"parameters": Parameters(), "flops": Flops()}
    proxies = {name: ZeroCost(proxy=name, batch=given.batch) for name in PROXIES}
    scores = score(given, search, cells, {**counts, **proxies})
    if scores is not None:
        tell(given, search, cells, scores)


def score(
    given: argparse.Namespace, search: Search, cells: list[Architecture], by: dict[str, Estimator]
) -> list[dict[str, list[float]]] | None:
    """Return every cell's scores with the seconds they took; None if the time was too short.

    All estimators score one cell after the other, so that a part is a sample like the whole.
    """
    end = time.monotonic() + given.seconds
    kept = given.kept
    scores = json.loads(kept.read_text()) if kept and kept.is_file() else []
    for number in range(len(scores), len(cells)):
        if time.monotonic() > end:
            print(f"{number} of {len(cells)} cells are done; call again for the rest")
            return None
        candidate, row = tiny_candidate(search, cells[number], f"trial-{number}"), {}
        for name, estimator in by.items():
            started = time.perf_counter()
            try:
                value = estimator.measure(candidate)[name].value
            except EstimationFailed:
                value = float("-inf")  # as good as no network
            row[name] = [value, time.perf_counter() - started]
        scores.append(row)
        if kept:
            kept.write_text(json.dumps(scores))
    return scores


def tell(
    given: argparse.Namespace,
    search: Search,
    cells: list[Architecture],
    scores: list[dict[str, list[float]]],
) -> None:
    """Print how each ranks the cells, beside what is published."""
    table = Tabular(
        file=Path(os.environ["NASENGINE_DATA"]) / "tables" / "nas_bench_201.parquet",
        key="arch_str",
        column=TARGETS[0],
        further={TARGETS[1]: Column(column=TARGETS[1])},
    )
    truth = [table.measure(tiny_candidate(search, cell)) for cell in cells]
    print(f"NAS-Bench-201, {len(cells)} distinct cells, seed {given.seed}, 16 channels, 5 cells")
    print(f"torch {torch.__version__}, 1 thread, {given.batch} textures of 32x32")
    print("kendall / spearman with the accuracy after 200 epochs; s a cell; cells without a score")
    print(f"{'':10}  {'cifar10':>13}  {'cifar100':>13}  {'s':>5}  failed  published spearman")
    for name in scores[0]:
        found = [row[name][0] for row in scores]
        seconds = sum(row[name][1] for row in scores) / len(scores)
        row = [agreement(found, [value[target].value for value in truth]) for target in TARGETS]
        failed = found.count(float("-inf"))
        published = " / ".join(PUBLISHED.get(name, ("-",)))
        print(f"{name:10}  {row[0]}  {row[1]}  {seconds:5.2f}  {failed:6}  {published}")


def agreement(scores: list[float], values: list[float]) -> str:
    kendall, spearman = kendalltau(scores, values), spearmanr(scores, values)
    return f"{kendall.statistic:6.3f} {spearman.statistic:6.3f}"


def draw(space: NASBench201, count: int, seed: int) -> list:
    """Draw distinct cells."""
    rng, cells = random.Random(seed), {}
    while len(cells) < count:
        cell = sample(space.decisions, rng)
        cells.setdefault(space.key(cell), cell)
    return list(cells.values())


if __name__ == "__main__":
    main()

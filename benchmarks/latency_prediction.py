"""How well does a table of latencies predict whole networks? Random Light SDI networks, one run.

    python benchmarks/latency_prediction.py [--networks 30] [--width 16] [--repeats 50] \
        [--searched-widths "50%" "75%" "100%"]

The table and the networks are timed in turn, round by round, so that the machine is the same for
both. The last line says how well one half of the networks' own readings predicts the other: no
table can be better than that, and a low one means that the machine is busy.
"""

from __future__ import annotations

import argparse
import platform
from statistics import median

import torch

from nasengine.estimators import _engines, _latency_cells, _timing
from nasengine.estimators.latency import Latency
from nasengine.estimators.latency_table import LatencyTable, describe, predict
from nasengine.moves import sample
from nasengine.network import build_network
from nasengine.spaces.light_sdi import LightSDI
from nasengine.statistics import agreement
from nasengine.testing.stubs import TinySegmentation, tiny_search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--searched-widths", nargs="*", default=())
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--engine", default="eager", choices=("eager", "compile", "onnxruntime"))
    parser.add_argument("--fold-batch-norm", action="store_true")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "int8"))
    given = parser.parse_args()
    space = LightSDI(width=given.width, searched_widths=tuple(given.searched_widths))
    search = tiny_search(space, task=TinySegmentation(size=given.size), estimators={})
    search = type(search)(**{**vars(search), "device": given.device})
    setup = Latency(
        engine=given.engine,
        threads=given.threads,
        fold_batch_norm=given.fold_batch_norm,
        precision=given.precision,
    ).setup(search)
    table = LatencyTable(describe(search, setup))
    work = _latency_cells.work(search, table)
    drawn = [sample(space.decisions, search.stream("network", n)) for n in range(given.networks)]
    runs = work.prepare(setup)
    readings: list[list[float]] = [[] for _ in drawn]
    with _engines.measuring(search, setup):
        for number, architecture in enumerate(drawn):
            network = build_network(space.graph, architecture)
            runs["network", number] = _engines.prepare(network, setup, search.task.input_shape)
        now = _timing.clock(given.device)
        for taken in _timing.rounds(runs, now, [1] * given.repeats):
            work.record(taken)
            for number, kept in enumerate(readings):
                kept.extend(taken["network", number])
    costs = table.cost_table(space)
    predicted = [predict(costs, space, architecture) for architecture in drawn]
    measured = [median(kept) for kept in readings]
    widths = ", ".join([str(given.width), *given.searched_widths])
    print(f"Light SDI, width {widths}, {given.size}x{given.size}, {given.networks} networks")
    print(f"{table.facts['device']}; {setup}; {given.repeats} rounds")
    print(f"torch {torch.__version__}, python {platform.python_version()}")
    print("predicted ms  measured ms  error")
    for guess, value in sorted(zip(predicted, measured, strict=True), key=lambda pair: pair[1]):
        print(f"{guess:12.3f}  {value:11.3f}  {guess / value - 1:+6.1%}")
    show("table", agreement(predicted, measured))
    halves = [[median(kept[half::2]) for kept in readings] for half in (0, 1)]
    show("repeat", agreement(*halves))


def show(name: str, quality: dict[str, float]) -> None:
    print(
        f"{name:7} spearman {quality['spearman']:.3f}  kendall {quality['kendall']:.3f}  "
        f"mean relative error {quality['mean_relative_error']:.1%}"
    )


if __name__ == "__main__":
    main()

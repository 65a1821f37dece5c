"""What integers of 8 bits cost in IoU, and gain in time and bytes: networks, and each block.

UNet, Single-U and Light SDI networks drawn at random, on each NEU defect, trained in float32 by the
default recipe; the same networks quantised after that (`quantized`), and timed in both by ONNX
Runtime. And what Light SDI's blocks take in both, summed over its nine slots.

    python benchmarks/int8.py networks --data PATH_TO_NEU_SEG [--networks 6] [--width 8]
    python benchmarks/int8.py blocks

Writes ``results/int8_networks.txt`` and ``results/int8_blocks.txt``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import onnxruntime
import torch

import nasengine
from nasengine.estimators.latency import Latency
from nasengine.machine import processor
from nasengine.spaces.light_sdi import LightSDI
from nasengine.tasks.neu_seg import DEFECTS
from nasengine.testing.stubs import TinySegmentation, tiny_search

RESULTS = Path(__file__).parent / "results"
SIZES = ((8, 48), (16, 96), (64, 96))
"""Widths and sides of the images for which blocks are timed."""
REFERENCES = ["unet", "single_u"]


def spec(defect: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the tables of a run."""
    runtime = {"name": "latency", "engine": "onnxruntime"}
    data = {"name": "neu_seg", "root": str(given.data.resolve()), "defect": defect}
    return {
        "name": "int8",
        "seed": given.seed,
        "threads": 1,
        "references": REFERENCES,
        "space": {"name": "light_sdi", "width": given.width},
        "task": {"name": "segmentation", "data": data | {"size": given.size}},
        "strategy": {"name": "random"},
        "estimators": {
            "iou": {"name": "trained", "iterations": given.training},
            "int8": {"name": "quantized"},
            "fp32_ms": runtime,
            "int8_ms": runtime | {"precision": "int8"},
        },
        "objectives": {"iou": "max"},
        "budget": {"trials": given.networks},
    }


def lines(defect: str, given: argparse.Namespace, folder: str) -> tuple[list[str], list[float]]:
    """Return a line for each network of a defect, and what int8 costs each, in percent of IoU."""
    outcome = nasengine.run(spec(defect, given), runs=folder)
    rows, lost = [], []
    drawn = [(f"random {trial.number}", trial) for trial in outcome.history]
    for name, trial in [*outcome.references.items(), *drawn]:
        fp32, int8 = (100 * trial.value(metric) for metric in ("iou", "int8"))
        weights = (outcome.folder / "trials" / trial.label / "weights.safetensors").stat().st_size
        times = [trial.value(metric) for metric in ("fp32_ms", "int8_ms")]
        size = trial.value("int8.bytes")
        lost.append(int8 - fp32)
        rows.append(
            f"  {name:10s} IoU {fp32:5.2f} -> {int8:5.2f} ({int8 - fp32:+.2f})   "
            f"{times[0]:6.2f} -> {times[1]:5.2f} ms ({times[0] / times[1]:.2f}x)   "
            f"{weights / 1e3:7.0f} -> {size / 1e3:6.0f} kB ({weights / size:.2f}x)"
        )
    told = f"mean {mean(lost):+.2f} +- {stdev(lost):.2f}, worst {min(lost):+.2f}"
    return ["", f"{defect}: IoU in percent, {told}", *rows], lost


def networks(given: argparse.Namespace) -> list[str]:
    """Train networks, and measure them in float32 and in int8."""
    told = [
        f"Light SDI, width {given.width}, {given.size}x{given.size}, {given.training} steps of "
        f"training, one thread; float32 -> int8",
    ]
    lost: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for defect in DEFECTS:
            found, its = lines(defect, given, folder)
            told += found
            lost += its
    return [
        *told,
        "",
        f"all: mean {mean(lost):+.2f} +- {stdev(lost):.2f} over {len(lost)} networks",
    ]


def blocks(_: argparse.Namespace) -> list[str]:
    """Time every block in every slot in float32 and in int8."""
    told = ["Light SDI's blocks, ms summed over the nine slots, one thread; float32 -> int8"]
    for width, side in SIZES:
        space, task = LightSDI(width=width), TinySegmentation(size=side)
        search = tiny_search(space, task=task, estimators={})
        fp32, int8 = (summed(search, precision) for precision in ("fp32", "int8"))
        told += ["", f"width {width}, {side}x{side}"]
        told += [
            f"  {block:22s} {taken:7.3f} -> {int8[block]:7.3f}   {taken / int8[block]:.2f}x"
            for block, taken in fp32.items()
        ]
    return told


def summed(search: Any, precision: Any) -> Counter[str]:
    """Return the milliseconds of each block over all slots."""
    latency = Latency(engine="onnxruntime", precision=precision, threads=1)
    table, sums = latency.measured_table(search), Counter[str]()
    for cell in table.cells:
        sums[cell[1]] += table.cost(cell)
    return sums


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("networks", "blocks"))
    parser.add_argument("--data", type=Path, help="the folder of NEU_Seg, for networks")
    parser.add_argument("--networks", type=int, default=6, help="drawn at random, by defect")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--training", type=int, default=400, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.what == "networks" and given.data is None:
        parser.error("networks need --data")
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    measured = {"networks": networks, "blocks": blocks}[given.what](given)
    told = "\n".join([f"{processor()}, {versions}", *measured])
    print(told)
    (RESULTS / f"int8_{given.what}.txt").write_text(told + "\n")


if __name__ == "__main__":
    main()

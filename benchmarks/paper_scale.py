"""Light SDI-NAS at the paper's size on real steel: searched, trained, beside fixed networks.

``examples/light_sdi_paper.toml`` with width 64 and 400 iterations of search, for every NEU defect
and seed. Differs from the paper's recipe where its own undertrains (see neu_calibration.txt): the
default recipe `adamw`; and in what parameters cost, by default a target of half of UNet's, where
the paper's networks end, as its beta of 0.3 makes nearly every slot its cheapest. In bfloat16.
Latency is left out, since several processes share the device.

    python benchmarks/paper_scale.py --data PATH_TO_NEU_SEG --costs "50% of unet" 0.05
    python benchmarks/paper_scale.py --data PATH_TO_NEU_SEG --strategies darts random \
        --costs "25% of unet"
    python benchmarks/paper_scale.py --data PATH_TO_NEU_SEG --width 32

`random` is one network drawn of all that have 80% to all of the target's parameters. UNet at
width 32 has a quarter of the parameters that it has at width 64.

Every finished run is a line of ``results/paper_scale.jsonl`` and not done again; the table is
``results/paper_scale.txt``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any

from nasengine.tasks.neu_seg import DEFECTS

HERE = Path(__file__).parent
REFERENCES = ("unet", "single_u")
KEYS = ("width", "defect", "seed", "cost", "strategy")
# IoU in percent and millions of parameters of Chen et al. 2023: UNet, Single-U, searched.
PAPER = {
    "inclusion": "66.60 / 31.39M, 65.98 / 15.68M, 68.25 / 16.75M",
    "patches": "81.51 / 31.39M, 80.38 / 15.68M, 82.20 / 18.67M",
    "scratches": "75.00 / 31.39M, 75.77 / 15.68M, 76.26 / 15.78M",
}


def tables(job: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Return the spec of a job: the example's tables with what differs."""
    from nasengine.runs.spec import read_toml

    found: dict[str, Any] = read_toml(HERE.parent / "examples" / "light_sdi_paper.toml")
    data = {"name": "neu_seg", "root": str(given.data), "defect": job["defect"]}
    found["space"]["width"] = job["width"]
    found["task"]["data"] = data
    if job["strategy"] == "random":
        found["strategy"] = {"name": "random"}
        smallest = f"{0.8 * float(job['cost'].partition('%')[0]):g}% of unet"
        limits = {"at_most": job["cost"], "at_least": smallest}
        found["objectives"] = {"iou": "max", "parameters": limits}
    else:
        found["strategy"] |= {
            "cost": {"parameters": cost_of(job["cost"])},
            "precision": "bf16",
            "iterations": given.iterations,
        }
    trained = {"name": "trained", "precision": "bf16", "iterations": given.training}
    found["estimators"] = {"iou": trained, "parameters": {}, "flops": {}}
    references = [*REFERENCES] if job["references"] else []
    return found | {"seed": job["seed"], "device": given.device, "references": references}


def cost_of(text: str) -> Any:
    """Return what a spec calls the cost: a beta, or a target."""
    return {"target": text} if "%" in text else float(text)


def run(job: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Search, train and measure; return what came out."""
    import torch

    import nasengine

    torch.set_num_threads(1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as runs:
        outcome = nasengine.run(tables(job, given), runs=runs)
        networks = {"searched": outcome.winner, **outcome.references}
        told = [json.loads(path.read_text()) for path in outcome.folder.rglob("darts.json")]
        return {key: job[key] for key in KEYS} | {
            "iou": {name: 100 * trial.value("iou") for name, trial in networks.items()},
            "parameters": {n: trial.value("parameters") for n, trial in networks.items()},
            "architecture": dict(outcome.winner.architecture),
            "search_seconds": told[0]["seconds"] if told else None,
            "seconds": time.perf_counter() - started,
            "on": _machine(given.device),
        }


def _machine(device: str) -> str:
    import torch

    name = "CPU" if device == "cpu" else torch.cuda.get_device_name(device)
    return f"{name}, Python {platform.python_version()}, torch {torch.__version__}"


def finished(path: Path) -> list[dict[str, Any]]:
    """Return the runs that are done."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


Key = tuple[str, int]
Measured = dict[Key, tuple[float, float]]
"""IoU in percent and parameters, by defect and seed."""


def networks(done: Sequence[dict[str, Any]]) -> dict[str, Measured]:
    """Return what was measured, by what the networks are called."""
    found: dict[str, Measured] = {}
    for run in sorted(done, key=lambda r: (-r["width"], r["seed"])):
        for name, iou in run["iou"].items():
            label = name
            if name == "searched":
                bound = "at most" if "%" in run["cost"] else "beta"
                label = f"{run['strategy']}, {bound} {run['cost']}"
            measured = found.setdefault(f"width {run['width']}: {label}", {})
            measured[run["defect"], run["seed"]] = iou, run["parameters"][name]
    return found


def table(done: Sequence[dict[str, Any]]) -> list[str]:
    """Return lines on all defects, each network against UNet by the same seed, and by defect."""
    found = networks(done)
    largest = next(found[label] for label in found if label.endswith(": unet"))
    rows = ["", "all defects; IoU less that of the widest UNet, by defect and seed"]
    for label, measured in found.items():
        both = [key for key in measured if key in largest]
        gains = [measured[key][0] - largest[key][0] for key in both]
        rows.append(_row(label, gains, [measured[key][1] for key in both]))
    for defect in DEFECTS:
        rows += ["", f"{defect}; the paper: UNet, Single-U, searched {PAPER[defect]}"]
        for label, measured in found.items():
            mine = [value for (what, _), value in measured.items() if what == defect]
            if mine:
                rows.append(_row(label, *map(list, zip(*mine, strict=True))))
    return rows


def _row(label: str, values: Sequence[float], parameters: Sequence[float]) -> str:
    spread = f"+- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    size = statistics.mean(parameters) / 1e6
    each = " ".join(f"{round(value, 1) + 0.0:.1f}" for value in values)
    return (
        f"  {label:37s} {statistics.mean(values):5.1f} {spread:7s} {size:6.2f}M parameters   {each}"
    )


def main() -> None:
    """Run what is not done, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of NEU_Seg")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--costs", nargs="+", default=["50% of unet"], help="betas or targets")
    parser.add_argument("--strategies", nargs="+", default=["darts"], choices=["darts", "random"])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=400, help="of the search")
    parser.add_argument("--training", type=int, default=600, help="steps")
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    given = parser.parse_args()
    given.data = given.data.resolve()
    given.results.mkdir(parents=True, exist_ok=True)
    kept = given.results / "paper_scale.jsonl"
    done = finished(kept)
    have = {tuple(run[key] for key in KEYS) for run in done}
    measured = {(r["width"], r["defect"], r["seed"]) for r in done if "unet" in r["iou"]}
    left: list[dict[str, Any]] = []
    values = product(given.costs, given.strategies, range(given.seeds), DEFECTS)
    for cost, strategy, seed, defect in values:
        key = (given.width, defect, seed, cost, strategy)
        if key not in have:
            # References depend on neither cost nor strategy: once is enough.
            fixed = key[:3] not in measured
            measured.add(key[:3])
            left.append(dict(zip(KEYS, key, strict=True)) | {"references": fixed})
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.processes, mp_context=context) as pool:
        for future in as_completed(pool.submit(run, job, given) for job in left):
            found = future.result()
            with kept.open("a") as file:
                file.write(json.dumps(found) + "\n")
            iou = found["iou"]["searched"]
            label = " ".join(str(found[key]) for key in KEYS)
            print(f"{label}: {iou:.1f}, {found['seconds']:.0f} s", flush=True)
    done = finished(kept)
    search = statistics.mean(run["search_seconds"] for run in done if run["search_seconds"])
    lines = [
        "IoU in percent over the 50 held-out images of one NEU defect; Light SDI, "
        f"{given.iterations} iterations of",
        f"search, {given.training} steps of training, in bfloat16",
        *sorted({run["on"] for run in done}),
        f"a search takes {search:.0f} s, several of them side by side",
        *table(done),
    ]
    print("\n".join(lines))
    (given.results / "paper_scale.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""Light SDI-NAS at the paper's size on real steel: searched, trained, beside fixed networks.

``examples/light_sdi_paper.toml`` with width 64 and 400 iterations of search, for every NEU defect
and seed. Differs from the paper's recipe where its own undertrains (see neu_calibration.txt): the
default recipe `adamw`; and in beta, of which the paper's 0.3 makes nearly every slot its cheapest.
In bfloat16. Latency is left out, since several processes share the device.

    python benchmarks/paper_scale.py --data PATH_TO_NEU_SEG [--device cuda] [--seeds 3]

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
from pathlib import Path
from typing import Any

from nasengine.tasks.neu_seg import DEFECTS

HERE = Path(__file__).parent
REFERENCES = ("unet", "single_u")
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
    found["space"]["width"] = given.width
    found["task"]["data"] = data
    found["strategy"] |= {
        "cost": {"parameters": job["beta"]},
        "precision": "bf16",
        "iterations": given.iterations,
    }
    trained = {"name": "trained", "precision": "bf16", "iterations": given.training}
    found["estimators"] = {"iou": trained, "parameters": {}, "flops": {}}
    return found | {"seed": job["seed"], "device": given.device, "references": [*REFERENCES]}


def run(job: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Search, train and measure; return what came out."""
    import torch

    import nasengine

    torch.set_num_threads(1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as runs:
        outcome = nasengine.run(tables(job, given), runs=runs)
        networks = {"searched": outcome.winner, **outcome.references}
        facts = json.loads(next(outcome.folder.rglob("darts.json")).read_text())
        return job | {
            "iou": {name: 100 * trial.value("iou") for name, trial in networks.items()},
            "parameters": {n: trial.value("parameters") for n, trial in networks.items()},
            "architecture": dict(outcome.winner.architecture),
            "search_seconds": facts["seconds"],
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


def table(done: Sequence[dict[str, Any]]) -> list[str]:
    """Return lines by defect and beta."""
    rows = []
    for defect in DEFECTS:
        rows += ["", f"{defect}; the paper: UNet, Single-U, searched {PAPER[defect]}"]
        mine = [run for run in done if run["defect"] == defect]
        references = [run for run in mine if run["beta"] == min(r["beta"] for r in mine)]
        for name in REFERENCES:
            rows.append(_row(name, [(run["iou"][name], run) for run in references], name))
        for beta in sorted({run["beta"] for run in mine}):
            of_beta = [(run["iou"]["searched"], run) for run in mine if run["beta"] == beta]
            rows.append(_row(f"searched, beta {beta:g}", of_beta, "searched"))
    return rows


def _row(label: str, runs: Sequence[tuple[float, dict[str, Any]]], name: str) -> str:
    values = [iou for iou, _ in runs]
    spread = f"+- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    size = statistics.mean(run["parameters"][name] for _, run in runs) / 1e6
    each = " ".join(f"{iou:.1f}" for iou in values)
    mean = statistics.mean(values)
    return f"  {label:22s} {mean:5.1f} {spread:7s} {size:6.2f}M parameters   seeds: {each}"


def main() -> None:
    """Run what is not done, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of NEU_Seg")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--betas", type=float, nargs="+", default=[0.05])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=400, help="of the search")
    parser.add_argument("--training", type=int, default=300, help="steps")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    given = parser.parse_args()
    given.data = given.data.resolve()
    kept = given.results / "paper_scale.jsonl"
    jobs = [
        {"defect": defect, "seed": seed, "beta": beta}
        for beta in given.betas
        for seed in range(given.seeds)
        for defect in DEFECTS
    ]
    keys = [tuple(run[key] for key in ("defect", "seed", "beta")) for run in finished(kept)]
    left = [job for job in jobs if tuple(job.values()) not in keys]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.processes, mp_context=context) as pool:
        for future in as_completed(pool.submit(run, job, given) for job in left):
            found = future.result()
            with kept.open("a") as file:
                file.write(json.dumps(found) + "\n")
            iou = found["iou"]["searched"]
            print(
                f"{found['defect']} {found['seed']}: {iou:.1f}, {found['seconds']:.0f} s",
                flush=True,
            )
    done = finished(kept)
    search, whole = (statistics.mean(r[key] for r in done) for key in ("search_seconds", "seconds"))
    lines = [
        "IoU in percent over the 50 held-out images of one NEU defect; Light SDI, width "
        f"{given.width},",
        f"{given.iterations} iterations of search, {given.training} steps of training, in bfloat16",
        *sorted({run["on"] for run in done}),
        f"a search {search:.0f} s, a run with three trainings {whole:.0f} s, "
        f"{given.processes} side by side",
        *table(done),
    ]
    print("\n".join(lines))
    (given.results / "paper_scale.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

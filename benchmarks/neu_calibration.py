"""Train the reference networks of Light SDI on real steel, beside their calibration.

Trains them by the default recipe on one NEU defect at a time, by the same `trained` estimator
that searches use, one single-threaded process a core. Every finished training is kept in
``results/neu_calibration.jsonl`` and not done again, so that it may be stopped and started.

    python benchmarks/neu_calibration.py --data PATH_TO_NEU_SEG [--seeds 3] [--processes 2]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

RESULTS = Path(__file__).parent / "results"
DEFECTS = ("inclusion", "patches", "scratches")
# IoU in percent: mean, and spread over 3 seeds where there were 3 (UNet, Single-U of inclusion).
EXPECTED = {
    ("inclusion", "unet"): "68.0 +- 0.9",
    ("inclusion", "single_u"): "65.0 +- 0.7",
    ("inclusion", "cut_u"): "65.9",
    ("inclusion", "neu_inclusion"): "66.5",
    ("patches", "unet"): "82.4",
    ("patches", "single_u"): "81.8",
    ("patches", "cut_u"): "82.1",
    ("patches", "neu_patches"): "80.4",
    ("scratches", "unet"): "80.7",
    ("scratches", "single_u"): "77.1",
    ("scratches", "cut_u"): "77.3",
    ("scratches", "neu_scratches"): "77.8",
}


def train(job: tuple[str, str, int, str, int, int]) -> dict[str, object]:
    """Train one network from one seed on one defect."""
    defect, network, seed, data, width, iterations = job
    import torch

    torch.set_num_threads(1)
    from nasengine.estimator import Candidate
    from nasengine.estimators.trained import Trained
    from nasengine.objectives import Objectives
    from nasengine.search import Search
    from nasengine.spaces.light_sdi import LightSDI
    from nasengine.tasks.neu_seg import NeuSeg
    from nasengine.tasks.segmentation import Segmentation

    # The same 50 held-out images for every network and seed: figures can be compared in pairs.
    source = NeuSeg(root=Path(data), defect=defect, split_seed=0)
    trained = Trained(iterations=iterations)
    with tempfile.TemporaryDirectory() as folder:
        search = Search(
            space=LightSDI(width=width),
            task=Segmentation(data=source),
            estimators={"iou": trained},
            objectives=Objectives(()),
            seed=seed,
            device="cpu",
            folder=Path(folder),
        )
        architecture = search.space.reference(network)
        started = time.process_time()
        found = trained.measure(Candidate(architecture, search, "reference", {}))
        return {
            "defect": defect,
            "network": network,
            "seed": seed,
            "width": width,
            "iterations": iterations,
            "iou": round(100 * found["iou"].value, 3),
            "loss": round(found["loss"].value, 5),
            "cpu_seconds": round(time.process_time() - started, 1),
            "per_sample": found["iou"].details["per_sample"],
            "train": len(search.splits.train),
            "validation": len(search.splits.validation),
        }


def table(rows: list[dict[str, object]], command: str) -> str:
    """Write the results beside the calibration."""
    import torch

    from nasengine.machine import model_name

    lines = [
        "IoU in percent over the held-out images of one NEU defect, Light SDI, recipe adamw",
        f"command: {command}",
        f"processor: {model_name() or platform.processor()}, one thread a process",
        f"python {platform.python_version()}, torch {torch.__version__}",
        "calibration: the figures that the recipe was chosen by, with 247 to 249 images to train",
        "on and another 50 held out. Here the held-out images are among those 247 to 249, and no",
        "copy of them is trained on: "
        + "; ".join(dict.fromkeys(f"{r['defect']} {r['train']} to train on" for r in rows))
        + ".",
        "A network's mean over seeds has, beside the spread, a standard error of 1.0 to 1.6",
        "(inclusion), 0.6 (scratches), 0.4 (patches) points from the choice of 50 images.",
        "",
        f"{'defect':10} {'network':14} {'width':>5} {'steps':>5} {'seeds':>5} "
        f"{'IoU':>14}  {'calibration':12} {'each seed':24} CPU-s",
    ]
    keys = list(
        dict.fromkeys((r["defect"], r["network"], r["width"], r["iterations"]) for r in rows)
    )
    order = list(EXPECTED)
    keys.sort(key=lambda key: (key[2], key[3], order.index(key[:2])))
    for key in keys:
        same = [r for r in rows if (r["defect"], r["network"], r["width"], r["iterations"]) == key]
        same.sort(key=lambda r: r["seed"])
        values = [r["iou"] for r in same]
        spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        expected = EXPECTED[key[:2]] if key[2:] == (16, 300) else ""
        each = " ".join(f"{value:.1f}" for value in values)
        seconds = statistics.fmean(r["cpu_seconds"] for r in same)
        lines.append(
            f"{key[0]:10} {key[1]:14} {key[2]:5} {key[3]:5} {len(values):5} "
            f"{statistics.fmean(values):8.1f}{spread:7} {expected:12}  {each:24} {seconds:.0f}"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of NEU_Seg (images/, annotations/)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--defects", default=",".join(DEFECTS))
    parser.add_argument("--networks", default="single_u,unet,cut_u,searched")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    kept = RESULTS / "neu_calibration.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    known = {(r["defect"], r["network"], r["seed"], r["width"], r["iterations"]) for r in rows}
    jobs = []
    for defect in arguments.defects.split(","):
        for seed in range(arguments.seeds):
            for name in arguments.networks.split(","):
                network = f"neu_{defect}" if name == "searched" else name
                if (defect, network, seed, arguments.width, arguments.iterations) not in known:
                    jobs.append(
                        (
                            defect,
                            network,
                            seed,
                            arguments.data,
                            arguments.width,
                            arguments.iterations,
                        )
                    )
    shown = [argument for argument in sys.argv[1:] if argument != arguments.data]
    command = " ".join(["python benchmarks/neu_calibration.py", *shown]).replace(
        "--data", "--data NEU_SEG"
    )
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for row in pool.imap_unordered(train, jobs, chunksize=1):
            rows.append(row)
            with kept.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print({name: value for name, value in row.items() if name != "per_sample"}, flush=True)
            (RESULTS / "neu_calibration.txt").write_text(table(rows, command))
    (RESULTS / "neu_calibration.txt").write_text(table(rows, command))


if __name__ == "__main__":
    main()

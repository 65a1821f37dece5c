"""Whether a gradient search in bfloat16 derives as good architectures as in float32.

The same seeds in both precisions, on built-in images; every derived network is trained alike, in
float32. How much the seed alone changes is the measure of how much the precision may.

    python benchmarks/search_precision.py [--seeds 10] [--iterations 60] [--training 250]

Writes ``results/search_precision.txt``.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

RESULTS = Path(__file__).parent / "results"


def search_once(given: Any, seed: int, precision: str, folder: Path) -> tuple[Any, Any, float]:
    """Search and train what was derived; return alphas (decisions x choices), choices, IoU."""
    import torch

    from nasengine.estimator import Candidate
    from nasengine.estimators.trained import Trained
    from nasengine.objectives import Objectives
    from nasengine.search import Search
    from nasengine.spaces.light_sdi import LightSDI
    from nasengine.strategies.alphas import derive
    from nasengine.strategies.darts import Darts
    from nasengine.strategies.gradient_search import GradientSearch
    from nasengine.tasks.segmentation import Segmentation
    from nasengine.tasks.surface_defects import SurfaceDefects

    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    data = SurfaceDefects(size=48, train=150, validation=100, contrast=1.3)
    task = Segmentation(data=data)
    trained = Trained(iterations=given.training, batch=8)
    estimators = {"iou": trained}
    space = LightSDI(width=given.width)
    search = Search(space, task, estimators, Objectives(()), seed, "cpu", folder)
    settings = Darts(
        iterations=given.iterations,
        arch_every=2,
        precision=precision,
        weights={"learning_rate": 0.01},
    )
    found = GradientSearch(settings, search).run()
    architecture = derive(found.alphas, space.decisions)
    candidate = Candidate(architecture, search, "winner", {})
    iou = trained.measure(candidate)["iou"].value
    return torch.stack(list(found.alphas.values())), tuple(architecture.values()), iou


def main() -> None:
    """Search, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--training", type=int, default=250)
    parser.add_argument("--width", type=int, default=8)
    given = parser.parse_args()
    import torch

    from nasengine.statistics import difference

    found = {}
    lines = [
        f"light_sdi width {given.width}, surface_defects 48x48, {given.iterations} iterations, a "
        f"step of the alphas every 2, {given.training} of training; torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    ]
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.seeds):
            for precision in ("fp32", "bf16"):
                place = Path(folder) / f"{seed}-{precision}"
                found[seed, precision] = search_once(given, seed, precision, place)
                lines.append(f"seed {seed} {precision}: IoU {found[seed, precision][2]:.4f}")
                print(lines[-1], flush=True)
    pairs = {
        "precisions, same seed": [((s, "fp32"), (s, "bf16")) for s in range(given.seeds)],
        "seeds, fp32": [((s, "fp32"), (t, "fp32")) for s, t in combinations(range(given.seeds), 2)],
    }
    for name, couples in pairs.items():
        same, correlation, gap = [], [], []
        for one, other in couples:
            (a, choices_a, iou_a), (b, choices_b, iou_b) = found[one], found[other]
            same.append(sum(x == y for x, y in zip(choices_a, choices_b, strict=True)))
            correlation.append(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]))
            gap.append(abs(iou_a - iou_b))
        lines.append(
            f"between {name}: {statistics.mean(same):.1f} of 9 choices equal, correlation of "
            f"alphas {statistics.mean(correlation):.3f}, difference in IoU "
            f"{statistics.mean(gap):.4f}"
        )
    values = {p: [found[s, p][2] for s in range(given.seeds)] for p in ("fp32", "bf16")}
    for precision, scores in values.items():
        lines.append(
            f"IoU {precision}: mean {statistics.mean(scores):.4f}, standard deviation "
            f"{statistics.stdev(scores):.4f}"
        )
    gain = difference(values["bf16"], values["fp32"], paired=True)
    lines.append(
        f"bf16 less fp32, paired: {gain.value:+.4f}, 95% interval {gain.low:+.4f} to "
        f"{gain.high:+.4f}"
    )
    print("\n".join(lines))
    (RESULTS / "search_precision.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

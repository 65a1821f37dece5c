"""Seconds of an iteration (a step of the alphas, one of the weights): NNI's DARTS beside ours.

In one process, in turn: after every iteration of NNI's training the engine takes one of its own,
on as many images, from the batch to the step of the optimiser. The first of each does not count;
figures are medians of wall time, ratios medians of the ratios of neighbours.

    python benchmarks/nni_darts.py [--repeats 9]

Writes ``results/nni_darts.txt``.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from supernet_cases import CASES
from supernet_step import make_search

CASE = CASES["light_sdi_16"]
RESULTS = Path(__file__).parent / "results"


def ours(search: Any, precision: str) -> Any:
    """Return a function that takes one iteration of the engine's own DARTS."""
    from nasengine.strategies.architecture_loss import ArchitectureLoss
    from nasengine.strategies.darts import Darts
    from nasengine.strategies.draws import make_draws
    from nasengine.strategies.search_steps import SearchSteps

    settings = Darts(precision=precision, batch=CASE.batch)
    steps = SearchSteps(settings, search, ArchitectureLoss([], "expected", "cpu"))
    weights, alphas = make_draws(settings, search)

    def iterate() -> None:
        batch = weights.draw(0)
        steps.step_alphas(alphas.draw(0), batch, 0)
        steps.step_weights(batch, 0)

    return iterate


def measure(repeats: int, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of every iteration but the first."""
    from nasengine.strategies.nni_darts import NniDarts
    from nasengine.strategies.nni_search import NniSearch

    search = make_search(CASE, folder)
    works = {f"darts, {precision}": ours(search, precision) for precision in ("fp32", "bf16")}
    seconds: dict[str, list[float]] = {name: [] for name in ("nni_darts", *works)}

    class Timed(NniSearch):
        """Takes turns."""

        def prepare(self, of_alphas: Any) -> None:
            super().prepare(of_alphas)
            self.last = time.perf_counter()

        def after(self) -> bool:
            ends = super().after()
            seconds["nni_darts"].append(time.perf_counter() - self.last)
            for name, work in works.items():
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
            self.last = time.perf_counter()
            return ends

    Timed(NniDarts(iterations=repeats + 1, batch=CASE.batch), search).run()
    return {name: taken[1:] for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    import pytorch_lightning
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(given.repeats, Path(folder))
    lines = [
        f"{os.cpu_count()} cores, 1 thread, load {os.getloadavg()[0]:.1f}; Python "
        f"{platform.python_version()}, torch {torch.__version__}, NNI 3.0, PyTorch Lightning "
        f"{pytorch_lightning.__version__}",
        f"{CASE.text()}; one step of the alphas and one of the weights, {given.repeats} of each",
    ]
    for name, taken in seconds.items():
        times = [n / own for n, own in zip(seconds["nni_darts"], taken, strict=True)]
        lines.append(
            f"{name:12s} {statistics.median(taken) * 1e3:8.1f} ms (least {min(taken) * 1e3:.1f}, "
            f"most {max(taken) * 1e3:.1f}); nni_darts takes {statistics.median(times):.2f}x as long"
        )
    print("\n".join(lines))
    (RESULTS / "nni_darts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

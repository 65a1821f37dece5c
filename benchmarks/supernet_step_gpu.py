"""Seconds, memory and gradients of a supernet's step on a GPU: the engine beside the plain way.

As `supernet_step.py`, step by step in turn, medians, and ratios of neighbouring steps. The plain
way is eager and NCHW: in float32 with TF32 off, and in bfloat16 by autocast. Seconds are those of
the wall until the GPU is done; memory is the peak that torch reserved for one variant alone.

    python benchmarks/supernet_step_gpu.py [--device cuda] [--only light_sdi_16]

Writes ``results/supernet_step_gpu.txt``.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from plain_supernet import PlainSteps
from supernet_cases import CASES, Case
from supernet_step import RESULTS, in_turn, make_search, make_steps, measure_gradients, ratio
from torch import nn

from nasengine.network import build_network
from nasengine.randomness import reproducible
from nasengine.recipe import RECIPES
from nasengine.training import Training

Step = Callable[[], None]
VARIANTS = ("plain fp32", "plain bf16", "fp32", "bf16")
REPEATS = 11
WARM_UP = 4
"""Steps before those that count: libraries load, the engine records."""


def build(variant: str, search: Any, case: Case) -> Any:
    """Return the steps of a variant: plain, the engine's, or the engine's without something."""
    kind, _, other = variant.partition(" ")
    if kind == "plain":
        torch.manual_seed(0)
        return PlainSteps(search.space.graph, search.task.loss, search.device, other == "bf16")
    left_out = other.removeprefix("without ")
    if left_out in ("", "graphs", "lanes"):
        steps = make_steps(search, case.batch, kind)
    else:
        steps = make_steps(search, case.batch, kind, (left_out,))
    if left_out == "graphs":
        steps._recorder.stream = None
    elif left_out == "lanes":
        steps._recorder.lanes = ()
    return steps


def works(steps: Any, batch: tuple[Any, Any]) -> dict[str, Step]:
    """Return one step of each kind, to the end of its last kernel, a few of them done.

    The engine's are reproducible, as they are in a search; the plain ones are not.
    """
    plain = isinstance(steps, PlainSteps)
    order = nullcontext if plain else partial(reproducible, "cuda")

    def weights() -> None:
        with order():
            steps.step_weights(*batch) if plain else steps.step_weights(batch, 0)
            torch.cuda.synchronize()

    def alphas() -> None:
        with order():
            steps.step_alphas(*batch) if plain else steps.step_alphas(batch, batch, 0)
            torch.cuda.synchronize()

    for _ in range(WARM_UP):
        weights()
        alphas()
    return {"weights": weights, "alphas": alphas}


def place(case: Case, folder: Path, device: str) -> tuple[Any, tuple[Any, Any]]:
    """Return the search, and a batch on the device."""
    search = make_search(case, folder, device)
    return search, search.splits.train.on(device).batch(torch.arange(case.batch))


def measure_times(case: Case, folder: Path, device: str) -> list[str]:
    """Return lines on seconds and memory."""
    search, batch = place(case, folder, device)
    peaks, readiness = {}, {}
    each: dict[str, Step] = {}
    for variant in VARIANTS:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before, started = torch.cuda.memory_reserved(), time.perf_counter()
        for kind, work in works(build(variant, search, case), batch).items():
            each[f"{variant} {kind}"] = work
        readiness[variant] = time.perf_counter() - started
        peaks[variant] = torch.cuda.max_memory_reserved() - before
    seconds = in_turn(each, REPEATS, time.perf_counter)
    for variant in VARIANTS:
        pairs = zip(seconds[f"{variant} weights"], seconds[f"{variant} alphas"], strict=True)
        seconds[f"{variant} both"] = [one + other for one, other in pairs]
    rows = ["  step    " + "".join(f"{variant:>20s}" for variant in VARIANTS)]
    for kind in ("weights", "alphas", "both"):
        cells = [_cell(seconds, kind, variant) for variant in VARIANTS]
        rows.append(f"  {kind:8s}" + "".join(cells))
    bf16 = ratio(seconds, "plain bf16 both", "bf16 both")
    rows.append(f"  bf16 against plain bf16, both: {bf16:.2f}x")
    rows.append("  peak memory: " + "; ".join(f"{v} {p / 2**20:.0f} MiB" for v, p in peaks.items()))
    ready = "; ".join(f"{variant} {taken:.1f} s" for variant, taken in readiness.items())
    return [*rows, f"  built, {WARM_UP} steps of each kind taken: {ready}"]


def _cell(seconds: dict[str, list[float]], kind: str, variant: str) -> str:
    median = statistics.median(seconds[f"{variant} {kind}"])
    times = ratio(seconds, f"plain fp32 {kind}", f"{variant} {kind}")
    return f"{median * 1e3:10.2f} ms {times:5.2f}x"


def measure_without(case: Case, folder: Path, device: str) -> list[str]:
    """Return lines on what both steps take where something is left out."""
    search, batch = place(case, folder, device)
    left_out = ("graphs", "lanes", "upsampling", "fold_weights", "conv_bias", "inplace_relu")
    variants = ("bf16", *(f"bf16 without {name}" for name in left_out))
    each = {v: partial(_both, works(build(v, search, case), batch)) for v in variants}
    seconds = in_turn(each, REPEATS, time.perf_counter)
    return [f"  {v:26s} {ratio(seconds, v, 'bf16'):5.2f}x" for v in variants[1:]]


def _both(kinds: dict[str, Step]) -> None:
    for work in kinds.values():
        work()


def measure_training(case: Case, folder: Path, device: str) -> list[str]:
    """Return lines on training one network, a batch of 16."""
    search, batch = place(replace(case, batch=16), folder, device)
    rows = []
    for name in ("unet", "neu_inclusion"):
        network = partial(build_network, search.space.graph, search.space.reference(name))
        each = {
            "plain fp32": plain_training(network(), search, batch, bf16=False),
            "plain bf16": plain_training(network(), search, batch, bf16=True),
            "fp32": training(network(), search, "fp32", folder / f"{name}-fp32"),
            "bf16": training(network(), search, "bf16", folder / f"{name}-bf16"),
        }
        for step in each.values():
            for _ in range(WARM_UP):
                step()
        seconds = in_turn(each, REPEATS, time.perf_counter)
        cells = [
            f"{variant} {statistics.median(seconds[variant]) * 1e3:.2f} ms "
            f"({ratio(seconds, 'plain fp32', variant):.2f}x)"
            for variant in each
        ]
        rows.append(f"  {name}, a step of training, batch 16: {'; '.join(cells)}")
    return rows


def plain_training(network: nn.Module, search: Any, batch: tuple[Any, Any], bf16: bool) -> Step:
    """Return a step of training as one writes it."""
    device = search.device
    optimiser = torch.optim.AdamW(network.to(device).parameters(), lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            outputs = network(batch[0])
        search.task.loss(outputs, batch[1]).backward()
        optimiser.step()
        torch.cuda.synchronize()

    return step


def training(network: nn.Module, search: Any, precision: Any, path: Path) -> Step:
    """Return a step of the engine's training, its batch drawn and augmented."""
    recipe = replace(RECIPES["adamw"], iterations=10_000)
    job = Training(network, search.splits.train, recipe, (), path, precision=precision)
    job._prepare(search, torch.Generator())

    def step() -> None:
        with reproducible("cuda"):
            job._advance()
            torch.cuda.synchronize()

    return step


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", default=[*CASES, "without"])
    given = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False
    lines: list[str] = []

    def tell(*more: str) -> None:
        lines.extend(more)
        print("\n".join(more), flush=True)

    tell(
        f"{torch.cuda.get_device_name(given.device)}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, case in CASES.items():
            if label not in given.only:
                continue
            tell("", case.text(), *measure_times(case, folder, given.device))
            tell(*measure_gradients(case, folder, given.device))
            if case.space == "light_sdi":
                tell(*measure_training(case, folder, given.device))
        if "without" in given.only:
            case = CASES["light_sdi_64"]
            tell("", f"What both steps take without something, relative to all: {case.text()}")
            tell(*measure_without(case, folder, given.device))
    if set(given.only) == {*CASES, "without"}:
        (RESULTS / "supernet_step_gpu.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

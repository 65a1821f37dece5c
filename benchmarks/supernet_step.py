"""Seconds, memory and gradients of a supernet's step: the engine beside the plain way.

In one process, step by step in turn, so that what else the machine does falls on all alike; the
figures are medians, and ratios are medians of ratios of neighbouring steps. Seconds are those of
the processor (``--clock cpu``, for busy machines, one thread) or of the wall. Memory is the peak
of the resident set above what the process held before it built the supernet, in a process for
each variant (two steps of each kind). Gradients are compared with the plain way in float64.

    python benchmarks/supernet_step.py [--quick] [--threads 1] [--clock cpu] [--only light_sdi_16]

Writes ``results/supernet_step.txt`` and ``results/supernet_step.png``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from supernet_cases import CASES, GROWTH, QUICK, Case, own_space

HERE = Path(__file__).parent
RESULTS = HERE / "results"
VARIANTS = ("plain", "fp32", "bf16")


def make_search(case: Case, folder: Path, device: str = "cpu") -> Any:
    """Return the search whose steps are measured."""
    from nasengine.objectives import Objectives
    from nasengine.plugin import load_class
    from nasengine.search import Search
    from nasengine.space import SearchSpace
    from nasengine.tasks.classification import Classification
    from nasengine.tasks.segmentation import Segmentation
    from nasengine.tasks.surface_defects import SurfaceDefects
    from nasengine.tasks.textures import Textures

    if case.space == "own":
        space = own_space(**case.settings)
    else:
        space = load_class(SearchSpace, case.space)(**case.settings)
    samples = {"size": case.size, "train": 2 * case.batch, "validation": 1}
    task: Any = Segmentation(data=SurfaceDefects(**samples))
    if case.space == "nas_bench_201":
        task = Classification(data=Textures(**samples))
    folder.mkdir(parents=True, exist_ok=True)
    own_folder = Path(tempfile.mkdtemp(dir=folder))
    return Search(space, task, {}, Objectives(()), 0, device, own_folder)


def make_steps(search: Any, batch: int, variant: str, without: tuple[str, ...] = ()) -> Any:
    """Return the steps of the engine, as its gradient search makes them, or the plain ones."""
    import torch

    if variant == "plain":
        from plain_supernet import PlainSteps

        torch.manual_seed(0)
        return PlainSteps(search.space.graph, search.task.loss, search.device)
    from nasengine.strategies.architecture_loss import ArchitectureLoss
    from nasengine.strategies.darts import Darts
    from nasengine.strategies.search_steps import SearchSteps

    settings = Darts(precision=variant.partition(" ")[0], batch=batch)
    loss = ArchitectureLoss([], "expected", search.device)
    steps = SearchSteps(settings, search, loss, without)
    if variant.endswith("recomputed"):
        from nasengine.passes import recompute_slots

        recompute_slots(steps.supernet)
    return steps


def take(steps: Any, kind: str, batch: tuple[Any, Any]) -> None:
    """Take one step of the weights or of the alphas."""
    if hasattr(steps, "precision"):
        further = (batch, 0) if kind == "alphas" else (0,)
        getattr(steps, f"step_{kind}")(batch, *further)
    else:
        getattr(steps, f"step_{kind}")(*batch)


def in_turn(
    works: Mapping[str, Callable[[], None]], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Time works in turn, after one of each that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            started = clock()
            work()
            if turn:
                seconds[name].append(clock() - started)
    return seconds


def ratio(seconds: Mapping[str, list[float]], of: str, to: str) -> float:
    """Return the median of the ratios of neighbouring steps."""
    pairs = zip(seconds[of], seconds[to], strict=True)
    return statistics.median(one / other for one, other in pairs)


def measure_times(case: Case, folder: Path, clock: Callable[[], float]) -> list[str]:
    """Return lines on seconds."""
    search = make_search(case, folder)
    train = search.splits.train
    batch = (train.inputs[: case.batch], train.targets[: case.batch])
    steps = {variant: make_steps(search, case.batch, variant) for variant in VARIANTS}
    works = {
        f"{variant} {kind}": lambda s=s, kind=kind: take(s, kind, batch)
        for variant, s in steps.items()
        for kind in ("weights", "alphas")
    }
    seconds = in_turn(works, case.repeats, clock)
    for variant in VARIANTS:
        pairs = zip(seconds[f"{variant} weights"], seconds[f"{variant} alphas"], strict=True)
        seconds[f"{variant} both"] = [one + other for one, other in pairs]
    rows = []
    for kind in ("weights", "alphas", "both"):
        cells = []
        for variant in VARIANTS:
            value = statistics.median(seconds[f"{variant} {kind}"])
            times = ratio(seconds, f"plain {kind}", f"{variant} {kind}")
            cells.append(f"{value * 1e3:9.1f} ms {times:5.2f}x")
        rows.append(f"  {kind:8s}" + "".join(cells))
    return rows


def gradients_of(steps: Any, batch: tuple[Any, Any]) -> tuple[dict[str, Any], Any]:
    """Return the gradients of the weights by slot, and that of all alphas, in float64."""
    import torch

    if hasattr(steps, "precision"):
        steps.supernet.zero_grad()
        steps._task_loss(batch, steps._mixtures(steps._given(0, "alphas"))).backward()
    else:
        steps.gradients(*batch)
    parts: dict[str, list[Any]] = {}
    for name, parameter in steps.supernet.named_parameters():
        slot = name.removeprefix("network.").partition(".")[0]
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parts.setdefault(slot, []).append(found.double().flatten())
    alphas = torch.cat([alpha.grad.double() for alpha in steps.alphas.values()])
    return {slot: torch.cat(values) for slot, values in parts.items()}, alphas


def measure_gradients(case: Case, folder: Path, device: str = "cpu") -> list[str]:
    """Return lines on how near gradients are to those in float64."""
    import torch

    case = replace(case, batch=min(case.batch, 4))
    search = make_search(case, folder, device)
    train = search.splits.train.on(device)
    inputs, targets = train.inputs[: case.batch], train.targets[: case.batch]
    exact = make_steps(search, case.batch, "plain")
    state = exact.supernet.state_dict()
    rows, found = [], {}
    for variant in VARIANTS:
        steps = make_steps(search, case.batch, variant)
        if variant == "plain":
            steps.supernet.load_state_dict(state)
        else:
            # Biases before a batch norm: what the engine puts to zero has no effect.
            own = steps.supernet.state_dict()
            kept = {k: v for k, v in own.items() if k.endswith("bias")}
            loaded = {f"network.{name}": tensor for name, tensor in state.items()}
            steps.supernet.load_state_dict(loaded | _dropped(steps.supernet, kept))
        found[variant] = gradients_of(steps, (inputs, targets))
        del steps
    exact.supernet.double()
    exact.alphas = {k: a.detach().double().requires_grad_() for k, a in exact.alphas.items()}
    exact.of_alphas = torch.optim.SGD(exact.alphas.values(), lr=0.1)
    weights, alphas = gradients_of(exact, (inputs.double(), targets))
    for variant, (own, own_alphas) in found.items():
        total, expected = torch.cat(list(own.values())), torch.cat(list(weights.values()))
        worst = min(_cosine(own[slot], weights[slot]) for slot in weights)
        rows.append(
            f"  {variant:6s} relative error {_error(total, expected):.1e}, cosine "
            f"{_cosine(total, expected):.5f} (worst slot {worst:.5f}); alphas: error "
            f"{_error(own_alphas, alphas):.1e}, cosine {_cosine(own_alphas, alphas):.5f}"
        )
    plain, fp32 = (torch.cat(list(found[name][0].values())) for name in ("plain", "fp32"))
    rows.append(f"  fp32 against plain: relative error {_error(fp32, plain):.1e}")
    return rows


def _dropped(supernet: Any, biases: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, part in supernet.named_modules():
        if getattr(part, "drops_bias", False):
            found[f"{name}.bias"] = biases[f"{name}.bias"]
    return found


def _cosine(one: Any, other: Any) -> float:
    return float(one @ other / (one.norm() * other.norm()))


def _error(one: Any, other: Any) -> float:
    return float((one - other).norm() / other.norm())


def measure_memory(names: Mapping[str, Case], arguments: list[str]) -> dict[str, dict[str, int]]:
    """Return peak bytes by case and variant, each from a process of its own."""
    found: dict[str, dict[str, int]] = {}
    for name in names:
        found[name] = {}
        for variant in (*VARIANTS, "bf16 recomputed"):
            command = [sys.executable, __file__, "--memory-of", name, variant, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
            found[name][variant] = json.loads(done.stdout)
    return found


def memory_of(case: Case, variant: str) -> int:
    """Take two steps of each kind; return by how many bytes the resident set rose at its peak."""
    with tempfile.TemporaryDirectory() as folder:
        search = make_search(case, Path(folder))
        train = search.splits.train
        batch = (train.inputs[: case.batch], train.targets[: case.batch])
        warm = make_steps(make_search(QUICK["own"], Path(folder)), 2, "plain")
        small = (train.inputs[:2, :, :16, :16], train.targets[:2])
        small = (small[0], (small[0][:, 0] > 0.5).long())
        take(warm, "weights", small)
        before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        # The check of gradients holds a copy, before the optimiser's state is made.
        steps = make_steps(search, case.batch, variant)
        for _ in range(2):
            take(steps, "weights", batch)
            take(steps, "alphas", batch)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def measure_passes(case: Case, folder: Path, clock: Callable[[], float]) -> list[str]:
    """Return lines on what a step takes where one pass is left out."""
    from nasengine.passes import PASSES

    search = make_search(case, folder)
    train = search.splits.train
    batch = (train.inputs[: case.batch], train.targets[: case.batch])
    rows = []
    for variant in ("fp32", "bf16"):
        works = {"all": _both(make_steps(search, case.batch, variant), batch)}
        for name in PASSES:
            # Without the interleaving pass bfloat16 falls back to float32: see docs.
            works[name] = _both(make_steps(search, case.batch, variant, (name,)), batch)
        seconds = in_turn(works, max(2, case.repeats - 3), clock)
        for name in PASSES:
            rows.append(f"  {variant} without {name:18s} {ratio(seconds, name, 'all'):5.2f}x")
    return rows


def _both(steps: Any, batch: tuple[Any, Any]) -> Callable[[], None]:
    def both() -> None:
        take(steps, "weights", batch)
        take(steps, "alphas", batch)

    return both


def measure_training(case: Case, folder: Path, clock: Callable[[], float]) -> list[str]:
    """Return lines on the single-path step, and on training a derived network."""
    import torch

    from nasengine.network import build_network
    from nasengine.recipe import RECIPES
    from nasengine.supernet import Mixture, Supernet
    from nasengine.training import Training

    search = make_search(case, folder)
    train = search.splits.train
    batch = (train.inputs[: case.batch], train.targets[: case.batch])
    recipe = replace(RECIPES["adamw"], batch=case.batch, iterations=10_000)
    architecture = search.space.reference("neu_inclusion")

    def single_path(net: Any, inputs: Any, step: int, precision: Any) -> list[Any]:
        rng = search.stream("paths", step)
        counts = {name: len(choices) for name, choices in search.space.decisions.items()}
        path = {name: rng.randrange(count) for name, count in counts.items()}
        mixtures = {n: Mixture(torch.eye(counts[n])[i], (i,), True) for n, i in path.items()}
        return [precision.run(net, inputs, mixtures)]

    def engine(
        network: Any, label: str, precision: Any, passes: Any = None
    ) -> Callable[[], object]:
        path = folder / f"{label}-{precision}"
        job = Training(network, train, recipe, (label,), path, passes, precision=precision)
        job._prepare(search, torch.Generator())
        return job._advance

    plain_network = build_network(search.space.graph, architecture)
    optimiser = torch.optim.AdamW(plain_network.parameters(), lr=1e-3)

    def plain() -> None:
        optimiser.zero_grad()
        search.task.loss(plain_network(batch[0]), batch[1]).backward()
        optimiser.step()

    steps = make_steps(search, case.batch, "plain")
    graph = search.space.graph
    works = {
        "full": lambda: take(steps, "weights", batch),
        "path fp32": engine(Supernet(graph), "path", "fp32", single_path),
        "path bf16": engine(Supernet(graph), "path", "bf16", single_path),
        "network": plain,
        "network fp32": engine(build_network(graph, architecture), "network", "fp32"),
        "network bf16": engine(build_network(graph, architecture), "network", "bf16"),
    }
    seconds = in_turn(works, case.repeats, clock)
    rows = []
    for name, base in (("path", "full"), ("network", "network")):
        what = {"path": "single-path step", "network": "derived network"}[name]
        for variant in ("fp32", "bf16"):
            own = f"{name} {variant}"
            rows.append(
                f"  {what:17s} {variant} {statistics.median(seconds[own]) * 1e3:8.1f} ms, "
                f"the plain {base} step {statistics.median(seconds[base]) * 1e3:8.1f} ms: "
                f"{ratio(seconds, base, own):5.2f}x"
            )
    return rows


def measure_growth(folder: Path, clock: Callable[[], float], quick: bool) -> list[str]:
    """Return lines on how a step grows, and draw them."""
    found: dict[str, dict[str, list[float]]] = {}
    for axis, values in GROWTH.items():
        found[axis] = {variant: [] for variant in VARIANTS}
        for value in values[:2] if quick else values:
            settings = dict(CASES["own"].settings)
            size = 16 if quick else 48
            if axis == "size":
                size = value
            else:
                settings[axis] = value
            case = Case("own", settings, size, 2 if quick else 4, 2)
            search = make_search(case, folder / f"{axis}-{value}")
            train = search.splits.train
            batch = (train.inputs[: case.batch], train.targets[: case.batch])
            works = {v: _both(make_steps(search, case.batch, v), batch) for v in VARIANTS}
            for variant, seconds in in_turn(works, case.repeats, clock).items():
                found[axis][variant].append(min(seconds))
    rows = [
        f"  {axis:10s} {variant:6s}"
        + "".join(
            f"  {value}: {s * 1e3:.0f} ms" for value, s in zip(GROWTH[axis], seconds, strict=False)
        )
        for axis, of in found.items()
        for variant, seconds in of.items()
    ]
    if not quick:
        draw(found)
    return rows


def draw(found: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Draw the growth."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(13, 3.4), sharey=True)
    for panel, (axis, of) in zip(panels, found.items(), strict=True):
        for variant, seconds in of.items():
            panel.plot(GROWTH[axis][: len(seconds)], seconds, marker="o", label=variant)
        panel.set(xlabel=axis, xscale="log", yscale="log")
        panel.set_xticks(GROWTH[axis], [str(value) for value in GROWTH[axis]])
        panel.minorticks_off()
    panels[0].set_ylabel("seconds: one step of the weights, one of the alphas")
    panels[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(RESULTS / "supernet_step.png", dpi=110)


def machine(threads: int, clock: str) -> list[str]:
    """Return lines on where it was measured."""
    import torch

    from nasengine.machine import model_name

    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return [
        f"{model_name() or platform.processor()}, {os.cpu_count()} cores (load {load}), "
        f"{threads} threads, {'seconds of the processor' if clock == 'cpu' else 'wall time'}",
        f"Python {platform.python_version()}, torch {torch.__version__}",
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, nothing is written")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--only", nargs="+", default=[], help="some of the cases, passes, growth")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    import torch

    torch.set_num_threads(given.threads)
    cases = QUICK if given.quick else CASES
    if given.memory_of:
        name, variant = given.memory_of
        print(json.dumps(memory_of(cases[name], variant)))
        return
    cases = {name: case for name, case in cases.items() if not given.only or name in given.only}
    clock = time.process_time if given.clock == "cpu" else time.perf_counter
    lines = machine(given.threads, given.clock)

    def tell(*more: str) -> None:
        lines.extend(more)
        print("\n".join(more), flush=True)

    print("\n".join(lines))
    quick = ["--quick"] if given.quick else []
    peaks = measure_memory(cases, [*quick, "--threads", str(given.threads)])
    with tempfile.TemporaryDirectory() as folder:
        for name, case in cases.items():
            place = Path(folder) / name
            tell("", case.text(), "  step    " + "".join(f"{v:>19s}" for v in VARIANTS))
            tell(*measure_times(case, place, clock))
            tell("  peak memory: " + "; ".join(_memory(peaks[name], v) for v in peaks[name]))
            tell(*measure_gradients(case, place))
            if case.space == "light_sdi":
                tell(*measure_training(case, place, clock))
        if not given.only or "passes" in given.only:
            case = (QUICK if given.quick else CASES)["light_sdi_16"]
            tell("", f"What a step takes without one pass, relative to all: {case.text()}")
            tell(*measure_passes(case, Path(folder) / "passes", clock))
        if not given.only or "growth" in given.only:
            tell("", f"How both steps grow (from {CASES['own'].text()}; best of two)")
            tell(*measure_growth(Path(folder), clock, given.quick))
    if not given.quick:
        # Parts that are measured one by one stand one after another.
        with (RESULTS / "supernet_step.txt").open("a" if given.only else "w") as file:
            file.write("\n".join(lines) + "\n\n")


def _memory(peaks: Mapping[str, int], variant: str) -> str:
    return f"{variant} {peaks[variant] / 2**20:.0f} MiB ({peaks[variant] / peaks['plain']:.2f}x)"


if __name__ == "__main__":
    main()

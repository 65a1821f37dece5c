"""What a trial costs beside its measurement: propose and record, per trial.

    python benchmarks/strategy_overhead.py [--trials 100 1000 5000] [--only random,evolution]

Milliseconds for each trial around the given number, with one made-up objective, canonical keys
included: processor time in memory, wall time where each trial is made durable. On Light SDI (two
million architectures), and on NAS-Bench-201 (6,625 that compute different things), of which 5,000
trials are more than half: there most draws are repeats. Beside them Optuna and NNI alone.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from nasengine.history import History
from nasengine.plugin import build, load_class
from nasengine.runs.storage import Storage
from nasengine.space import SearchSpace
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.strategies.random import Random
from nasengine.strategy import Strategy
from nasengine.testing.strategies import search_for
from nasengine.trial import Measurement, Status, Trial

STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"name": "random"},
    "evolution": {"name": "evolution"},
    "local_search": {"name": "local_search"},
    "predictor": {"name": "predictor"},
    "optuna tpe": {"name": "optuna", "sampler": "tpe_multivariate"},
    "optuna nsga2": {"name": "optuna", "sampler": "nsga2"},
    "nni evolution": {"name": "nni", "tuner": "evolution"},
}
DURABLE = ("random", "evolution", "local_search")
SLOW = {"optuna tpe", "optuna nsga2", "predictor", "TPE", "NSGA-II"}


def ours(
    settings: dict[str, Any], space_name: str, trials: int, timed: int, *, durable: bool = False
) -> float:
    """Return the time of a trial after so many random ones, the first few not counted."""
    space = load_class(SearchSpace, space_name)()
    search = search_for(space)
    strategy, filler = build(Strategy, settings, where="strategy"), Random()
    history, started, clock = History(), 0.0, time.perf_counter if durable else time.process_time
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(Path(folder) / "history.sqlite") if durable else None
        for number in range(trials):
            if number == trials - timed:
                # One timer around all: asking for the time is what costs most on some machines.
                started = clock()
            # The last ones are the strategy's; a few before them fill what it keeps.
            chosen = strategy if number >= trials - timed - 5 else filler
            architecture = chosen.propose(history, 1, search)[0]
            value = {"x": Measurement(hash(architecture) % 1009 / 1009)}
            begun = Trial(number, architecture, space.key(architecture))
            ended = replace(begun, status=Status.COMPLETE, measurements=value)
            if storage:
                storage.begin(begun)
            history.record(begun)
            if storage:
                storage.finish(ended)
            history.record(ended)
        return (clock() - started) / timed * 1000


def optuna_alone(sampler: str, *, durable: bool = False) -> Callable[[int, int], float]:
    """Return how to time an Optuna study that was told so many trials."""

    def timed_trials(trials: int, timed: int) -> float:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        decisions = NASBench201().decisions
        space = {n: optuna.distributions.CategoricalDistribution(c) for n, c in decisions.items()}
        folder = tempfile.TemporaryDirectory()
        address = f"sqlite:///{folder.name}/study.sqlite" if durable else None
        made = getattr(optuna.samplers, sampler)(seed=0)
        study = optuna.create_study(storage=address, sampler=made)
        rng = np.random.default_rng(0)
        # NSGA-II counts generations of its own; TPE learns from whatever it is told.
        own = sampler == "NSGAIISampler"
        for _ in range(trials - timed if own else 0):
            study.tell(study.ask(space), rng.random())
        for _ in range(0 if own else trials - timed):
            params = {n: c[rng.integers(len(c))] for n, c in decisions.items()}
            study.add_trial(
                optuna.create_trial(params=params, distributions=space, value=rng.random())
            )
        clock = time.perf_counter if durable else time.process_time
        started = clock()
        for _ in range(timed):
            study.tell(study.ask(space), rng.random())
        return (clock() - started) / timed * 1000

    return timed_trials


def nni_alone(trials: int, timed: int) -> float:
    """Time NNI's evolution tuner."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nni.algorithms.hpo.evolution_tuner import EvolutionTuner
    logging.getLogger("nni").setLevel(logging.ERROR)
    tuner = EvolutionTuner("minimize")
    decisions = NASBench201().decisions
    tuner.update_search_space(
        {n: {"_type": "choice", "_value": list(c)} for n, c in decisions.items()}
    )
    started = 0.0
    for number in range(trials):
        if number == trials - timed:
            started = time.process_time()
        answer = tuner.generate_parameters(number)
        tuner.receive_trial_result(number, answer, hash(str(answer)) % 1009 / 1009)
    return (time.process_time() - started) / timed * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--only", default="", help="names, separated by commas")
    arguments = parser.parse_args()
    rows: dict[str, Callable[[int, int], float]] = {}
    for name in ("light_sdi", "nas_bench_201"):
        for label, settings in STRATEGIES.items():
            rows[f"{name}: {label}"] = partial(ours, settings, name)
    for label in DURABLE:
        rows[f"durable: {label}"] = partial(ours, STRATEGIES[label], "light_sdi", durable=True)
    rows["Optuna alone: TPE"] = optuna_alone("TPESampler")
    rows["Optuna alone: NSGA-II"] = optuna_alone("NSGAIISampler")
    rows["Optuna alone on SQLite: random"] = optuna_alone("RandomSampler", durable=True)
    rows["Optuna alone on SQLite: TPE"] = optuna_alone("TPESampler", durable=True)
    rows["NNI alone: evolution"] = nni_alone
    wanted = arguments.only.split(",") if arguments.only else list(rows)
    lines = ["python benchmarks/strategy_overhead.py: ms a trial, median of 3", ""]
    lines.append(f"{'after so many trials':32s}" + "".join(f"{t:>10d}" for t in arguments.trials))
    print(lines[-1], flush=True)
    for label in wanted:
        line = f"{label:32s}"
        for trials in arguments.trials:
            slow = label.rpartition(": ")[2] in SLOW or "SQLite" in label
            if "SQLite" in label and trials > 100:
                line += "         -"  # filling it takes many minutes
                continue
            count = min(20 if slow else 500, trials // 2)
            line += f"{median(rows[label](trials, count) for _ in range(1 if slow else 3)):10.3f}"
        lines.append(line)
        print(line, flush=True)
    if not arguments.only:
        path = Path(__file__).parent / "results" / "strategy_overhead.txt"
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

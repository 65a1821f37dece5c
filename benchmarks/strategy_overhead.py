"""What a trial costs beside its measurement: propose and record, in memory, per trial.

    python benchmarks/strategy_overhead.py [--trials 100 1000 5000] [--only random,evolution]

Milliseconds of processor time for each trial around the given number, on NAS-Bench-201 with one
made-up objective, canonical keys included; beside them Optuna and NNI alone, without nasengine.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nasengine.history import History
from nasengine.plugin import build
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
SLOW = {"optuna tpe", "optuna nsga2", "nni evolution", "optuna alone: TPE", "predictor"}


def ours(settings: dict[str, Any], trials: int, timed: int) -> float:
    """Return the time of a trial after so many random ones, the first few not counted."""
    space: SearchSpace = NASBench201()
    search = search_for(space)
    strategy, filler = build(Strategy, settings, where="strategy"), Random()
    history, started = History(), 0.0
    for number in range(trials):
        if number == trials - timed:
            # One timer around all: asking for the time is what costs most on some machines.
            started = time.process_time()
        # The last ones are the strategy's; a few before them fill what it keeps.
        chosen = strategy if number >= trials - timed - 5 else filler
        architecture = chosen.propose(history, 1, search)[0]
        key = space.key(architecture)
        value = {"x": Measurement(hash(architecture) % 1009 / 1009)}
        history.record(Trial(number, architecture, key))
        history.record(Trial(number, architecture, key, Status.COMPLETE, value))
    return (time.process_time() - started) / timed * 1000


def optuna_alone(sampler: str) -> Callable[[int, int], float]:
    """Return how to time an Optuna study that was told so many trials."""

    def timed_trials(trials: int, timed: int) -> float:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        decisions = NASBench201().decisions
        space = {n: optuna.distributions.CategoricalDistribution(c) for n, c in decisions.items()}
        study = optuna.create_study(sampler=getattr(optuna.samplers, sampler)(seed=0))
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
        started = time.process_time()
        for _ in range(timed):
            study.tell(study.ask(space), rng.random())
        return (time.process_time() - started) / timed * 1000

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
    rows: dict[str, Callable[[int, int], float]] = {
        label: (lambda trials, timed, s=settings: ours(s, trials, timed))
        for label, settings in STRATEGIES.items()
    }
    rows["optuna alone: TPE"] = optuna_alone("TPESampler")
    rows["optuna alone: NSGA-II"] = optuna_alone("NSGAIISampler")
    rows["nni alone: evolution"] = nni_alone
    wanted = arguments.only.split(",") if arguments.only else list(rows)
    lines = ["python benchmarks/strategy_overhead.py: ms of processor time a trial", ""]
    lines.append(f"{'after so many trials':24s}" + "".join(f"{t:>10d}" for t in arguments.trials))
    for label in wanted:
        times = [
            rows[label](trials, 20 if label in SLOW else min(500, trials // 2))
            for trials in arguments.trials
        ]
        lines.append(f"{label:24s}" + "".join(f"{ms:10.3f}" for ms in times))
        print(lines[-1], flush=True)
    if not arguments.only:
        path = Path(__file__).parent / "results" / "strategy_overhead.txt"
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""Does a strategy's quality hold on objectives that are no benchmark's? On made-up ones, in memory.

    python benchmarks/made_up.py [--seeds 10] [--only "predictor,evolution"]

Every seed draws another objective: each choice its own part, each pair of choices another (both
normal). Then comes what searches meet: noise, plateaus, failures by chance or of certain choices, a
limit that 2% keep, several goals, traps of three decisions. Values are in standard deviations of
random architectures, and true ones, without the noise; of several goals it is the hypervolume above
3 standard deviations below the mean, which counts 6 of them as 1. Results go to
``benchmarks/results/made_up*``: one line a mark of a run in the CSV (runs that are there are not
repeated), and the table.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from nasengine.architecture import Architecture
from nasengine.graph import SpaceGraph
from nasengine.history import History
from nasengine.objectives import Objective, Objectives, hypervolume, non_dominated
from nasengine.plugin import build
from nasengine.space import SearchSpace
from nasengine.strategy import Strategy
from nasengine.testing.stubs import tiny_search
from nasengine.trial import Measurement, Status, Trial

RESULTS = Path(__file__).parent / "results"
MARKS = (50, 100, 200)
STRATEGIES = ("random", "evolution", "local_search", "predictor", "optuna")
Codes = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A made-up objective: its space, and what makes it hard."""

    decisions: int = 9
    choices: int = 5
    pairs: float = 1.0
    noise: float = 0.0
    plateaus: bool = False
    traps: bool = False
    failures: float = 0.0
    failing_choices: int = 0
    limit: bool = False
    goals: int = 1


PROBLEMS = {
    "9 of 5, additive": Problem(pairs=0.0),
    "9 of 5, pairs": Problem(),
    "9 of 5, mostly pairs": Problem(pairs=3.0),
    "20 of 3, pairs": Problem(20, 3),
    "12 of 8, pairs": Problem(12, 8),
    "30 of 5, pairs": Problem(30, 5),
    "noise of half a deviation": Problem(noise=0.5),
    "noise of a deviation": Problem(noise=1.0),
    "plateaus of a deviation": Problem(plateaus=True),
    "traps of three decisions": Problem(traps=True),
    "two in five fail by chance": Problem(failures=0.4),
    "six choices fail": Problem(failing_choices=6),
    "a limit that 2% keep": Problem(limit=True),
    "two goals": Problem(goals=2),
    "three goals": Problem(goals=3),
}


class Chain(SearchSpace):
    """Slots one after the other, each with as many choices."""

    length: int
    """How many slots."""

    width: int
    """Choices of each."""

    def define(self, graph: SpaceGraph) -> None:
        """Wire the chain."""
        x = graph.input(2)
        for place in range(self.length):
            choices = {f"c{i}": partial(_conv, size=i) for i in range(self.width)}
            x = graph.slot(f"d{place}", x, choices)
        graph.output(x)


def _conv(channels_in: int, channels_out: int, size: int) -> nn.Module:
    return nn.Conv2d(channels_in, channels_out, 1 + 2 * size, padding=size)


class Instance:
    """A problem as one seed draws it: its values, sizes, and what fails."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem, self._seed = problem, seed
        shape = (problem.decisions, problem.choices)
        rng = np.random.default_rng(seed)
        scale = problem.pairs / np.sqrt(problem.decisions)
        self._own = rng.normal(size=(problem.goals, *shape))
        self._pairs = scale * rng.normal(
            size=(problem.goals, shape[0], shape[0], shape[1], shape[1])
        )
        self._sizes = rng.gamma(1.0, size=shape)
        self._bad = [divmod(int(i), shape[1]) for i in rng.integers(np.prod(shape), size=6)]
        self._noise = np.random.default_rng([seed, 1])
        drawn = rng.integers(problem.choices, size=(3000, problem.decisions))
        raw = np.array([self._raw(codes) for codes in drawn])
        self._mean, self._deviation = raw.mean(axis=0), raw.std(axis=0)
        self.largest = float(np.quantile([self.size(codes) for codes in drawn], 0.02))

    def _raw(self, codes: Codes) -> Values:
        if self._problem.traps:
            blocks = codes.reshape(-1, 3)
            trap = sum(
                3.5 if not b.any() else (b != 0).sum() + 0.1 * (b == 1).sum() for b in blocks
            )
            return np.array([float(trap)])
        places = np.arange(len(codes))
        first, second = np.tril_indices(len(codes), -1)
        pairs = self._pairs[:, first, second, codes[first], codes[second]]
        found: Values = self._own[:, places, codes].sum(axis=1) + pairs.sum(axis=1)
        return found

    def value(self, codes: Codes) -> Values:
        """Return the true values, higher is better."""
        value: Values = (self._raw(codes) - self._mean) / self._deviation
        return np.floor(value) if self._problem.plateaus else value

    def size(self, codes: Codes) -> float:
        """Return what the limit is on."""
        return float(self._sizes[np.arange(len(codes)), codes].sum())

    def fails(self, codes: Codes) -> bool:
        """Say whether an architecture fails: always the same."""
        bad = self._bad[: self._problem.failing_choices]
        chance = np.random.default_rng([self._seed, *codes.tolist()]).random()
        return any(codes[d] == c for d, c in bad) or chance < self._problem.failures

    def ended(self, trial: Trial, codes: Codes) -> Trial:
        """Return a trial as it ends."""
        status, measured = Status.COMPLETE, {}
        if self.fails(codes):
            status = Status.FAILED
        elif self._problem.limit and self.size(codes) > self.largest:
            status, measured = Status.INFEASIBLE, {"size": Measurement(self.size(codes))}
        else:
            noise = self._problem.noise * self._noise.normal(size=self._problem.goals)
            seen = (self.value(codes) + noise).tolist()
            measured = {f"x{goal}": Measurement(value) for goal, value in enumerate(seen)}
        return Trial(trial.number, trial.architecture, trial.key, status, measured)


@cache
def space_of(decisions: int, choices: int) -> SearchSpace:
    """Return a space; each is made once."""
    return Chain(length=decisions, width=choices)


def run(name: str, label: str, seed: int) -> list[list[Any]]:
    """Run one search; return a row a mark: problem, strategy, seed, trials, what was found."""
    problem = PROBLEMS[name]
    instance, space = Instance(problem, seed), space_of(problem.decisions, problem.choices)
    goals = tuple(Objective(f"x{goal}", "max") for goal in range(problem.goals))
    limits = (Objective("size", at_most=instance.largest),) if problem.limit else ()
    search = tiny_search(space, objectives=Objectives((*goals, *limits)), seed=seed)
    strategy = build(Strategy, {"name": label}, where="strategy")
    history = History()

    def codes(architecture: Architecture) -> Codes:
        return np.array([c.index(architecture[name]) for name, c in space.decisions.items()])

    while len(history) < MARKS[-1]:
        (architecture,) = strategy.propose(history, 1, search)
        trial = Trial(len(history), architecture, space.key(architecture))
        history.record(instance.ended(trial, codes(architecture)))
    rows: list[list[Any]] = []
    for mark in MARKS:
        complete = [trial for trial in history[:mark] if trial.status is Status.COMPLETE]
        if problem.goals == 1:
            complete = [b for b in (search.objectives.best(complete),) if b is not None]
        values = [instance.value(codes(trial.architecture)) for trial in complete]
        rows.append([name, label, seed, mark, score(values, problem.goals)])
    return rows


def score(values: list[Values], goals: int) -> float:
    """Return the true value of what was chosen, or the hypervolume of all; nothing: -3, or 0."""
    if goals == 1:
        return float(values[0][0]) if values else -3.0
    points = [tuple((3 - value) / 6) for value in values]
    return hypervolume([points[i] for i in non_dominated(points)], (1.0,) * goals)


def table_of(rows: list[list[str]]) -> str:
    """Write the mean and its standard error, a line a strategy and a column a mark."""
    cells: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for name, label, _, mark, found in rows:
        cells[name, label, int(mark)].append(float(found))
    lines = [
        f"python benchmarks/made_up.py, {date.today()}: mean (standard error) after {MARKS} trials"
    ]
    for name in PROBLEMS:
        lines += ["", name]
        for label in STRATEGIES:
            columns = [np.array(cells[name, label, mark]) for mark in MARKS]
            if all(values.size > 1 for values in columns):
                texts = [
                    f"{v.mean():6.3f} ({v.std(ddof=1) / np.sqrt(v.size):.3f})" for v in columns
                ]
                lines.append(f"  {label:14s} {' | '.join(texts)} | {columns[0].size} seeds")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", default=",".join(STRATEGIES), help="strategies")
    arguments = parser.parse_args()
    store = RESULTS / "made_up.csv"
    rows = list(csv.reader(store.open())) if store.exists() else []
    done = {(name, label, int(seed)) for name, label, seed, *_ in rows}
    with store.open("a", newline="") as stream:
        writer = csv.writer(stream)
        for seed in range(arguments.seeds):
            for name in PROBLEMS:
                for label in arguments.only.split(","):
                    if (name, label, seed) not in done:
                        writer.writerows(run(name, label, seed))
                        stream.flush()
    text = table_of(list(csv.reader(store.open())))
    (RESULTS / "made_up.txt").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

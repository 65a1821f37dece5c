"""What a run delivers: the best network beside the references, in ``best/``."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasengine.architecture import write_architecture
from nasengine.files import make_folder, write_json
from nasengine.metric_names import estimator_of, is_primary, own_name
from nasengine.runs.delivered import (
    FROM_WEIGHTS,
    deliver_network,
    measured_facts,
    usage,
    weights_of,
)
from nasengine.runs.goals import known_metrics
from nasengine.runs.verdict import Judged, Standing, Tie, tie
from nasengine.trial import Measurement, Metric, Trial

if TYPE_CHECKING:
    from nasengine.runs.run import Outcome
    from nasengine.search import Search


@dataclass(frozen=True)
class Comparison:
    """The searched network beside the references.

    Parameters
    ----------
    metrics
        The metrics shown, by full name.
    networks
        Measurements by network: ``searched`` first, then the references.
    goals
        The metrics that were optimised, the primary first.
    counted
        The metrics without chance: measured again, they are the same.
    tests
        Goal to the metric that is the same on the test split, where its estimator knows one; it
        is measured only where the data have that split.
    trials
        The primary goal's value of every complete trial.
    judges
        Goal to the metric that a final estimator measured in its place, more exactly.
    """

    metrics: Mapping[str, Metric]
    networks: Mapping[str, Mapping[str, Measurement]]
    goals: tuple[str, ...]
    counted: frozenset[str] = frozenset()
    tests: Mapping[str, str] = field(default_factory=dict)
    trials: Sequence[float] = ()
    judges: Mapping[str, str] = field(default_factory=dict)

    def ratio(self, metric: str, reference: str) -> float:
        """Return searched / reference; NaN where one is missing or the reference is 0."""
        mine = self.networks["searched"].get(metric)
        other = self.networks[reference].get(metric)
        return mine.value / other.value if mine and other and other.value else math.nan

    def verdict(self) -> list[str]:
        """Say plainly, against each reference, whether the search won, and which trials tie."""
        judged: list[Standing | Tie] = [*self.standings(), *filter(None, [self.tie()])]
        return [item.said(self._unit(item.metric)) for item in judged]

    def standings(self) -> list[Standing]:
        """Judge the winner against each reference."""
        return [self._against(name) for name in self.networks if name != "searched"]

    def tie(self) -> Tie | None:
        """Return how many trials are level with the winner, where there are several."""
        goal = self.goals[0]
        mine = self.networks["searched"].get(goal)
        if mine is None:
            return None
        return tie(self.trials, goal, mine.value, alone=len(self.goals) == 1)

    def _unit(self, metric: str) -> str:
        return self.metrics[metric].unit if metric in self.metrics else ""

    def _against(self, reference: str) -> Standing:
        judged = self._judged(reference)
        mine, other = (self.networks[n].get(judged.metric) for n in ("searched", reference))
        if mine is None or other is None:
            return Standing(reference, "not compared", judged.metric)
        sign = self.metrics[self.goals[0]].sign
        return judged.standing(reference, sign, mine, other, self._costs(reference))

    def _judged(self, reference: str) -> Judged:
        """Judge by the test split where both have one: the other has chosen the winner."""
        goal = self.goals[0]
        test, judge = self.tests.get(goal), self.judges.get(goal)
        both = (self.networks["searched"], self.networks[reference])
        if test is not None and all(test in found for found in both):
            return Judged(test, test in self.counted, split="test")
        if judge is not None and all(judge in found for found in both):
            goal = judge
        split = "validation" if test is not None else ""
        chosen_among = max(1, len(self.trials))
        return Judged(goal, goal in self.counted, split, chosen_among, len(self.goals))

    def _costs(self, reference: str) -> dict[str, float]:
        return {
            name: ratio
            for name, metric in self.metrics.items()
            if metric.direction == "min"
            and is_primary(name)
            and name != self.goals[0]
            and math.isfinite(ratio := self.ratio(name, reference))
        }


def compare(outcome: Outcome) -> Comparison:
    """Put the winner beside the references."""
    networks = {"searched": outcome.winner.measurements}
    networks.update({name: trial.measurements for name, trial in outcome.references.items()})
    shown = [*networks.values(), *(trial.measurements for trial in outcome.front)]
    measured = {name for found in shown for name in found}
    # Some metrics need what this run may not have (a test split).
    metrics = {n: m for n, m in known_metrics(outcome.search).items() if n in measured}
    asked = outcome.search.objectives.goals
    goals = tuple(goal.metric for goal in asked)
    judges = _judges(outcome, goals)
    tests = _tests(outcome.search, goals, judges)
    # What a search is asked for goes before what a metric usually is better for.
    for goal in asked:
        alike = {goal.metric, tests.get(goal.metric), judges.get(goal.metric)}
        for name in metrics.keys() & alike:
            if goal.goal:
                metrics[name] = replace(metrics[name], direction=goal.goal)
    estimators = outcome.search.estimators
    counted = frozenset(n for n in metrics if estimators[estimator_of(n)].counts)
    complete = outcome.history.complete
    values = [t.value(goals[0]) for t in complete if goals[0] in t.measurements]
    return Comparison(metrics, networks, goals, counted, tests, values, judges)


def _judges(outcome: Outcome, goals: Sequence[str]) -> dict[str, str]:
    """Return goal to the same metric as the last final estimator of its kind measured it."""
    search, winner = outcome.search, outcome.winner
    before = next(t for t in outcome.history if t.number == winner.number).measurements
    found = {}
    for goal in goals:
        key = estimator_of(goal)
        for other, estimator in search.estimators.items():
            full = goal.replace(key, other, 1)
            late = full in winner.measurements and full not in before
            if late and type(estimator) is type(search.estimators[key]):
                found[goal] = full
    return found


def _tests(search: Search, goals: Sequence[str], judges: Mapping[str, str]) -> dict[str, str]:
    """Return goal to the metric that is the same on the test split, where there is one."""
    found = {}
    for goal in goals:
        judge = judges.get(goal, goal)
        key = estimator_of(judge)
        metrics = search.estimators[key].metrics(search)
        for metric in metrics:
            if metric.test_of == own_name(judge, metrics[0].name):
                found[goal] = f"{key}.{metric.name}"
    return found


def deliver(outcome: Outcome, folder: Path) -> list[str]:
    """Write ``best/``: architecture, weights, pictures, metrics, ONNX, plain PyTorch.

    Where a front was found, ``front/trial-N/architecture.json`` holds each network of it.

    Returns
    -------
    What could not be delivered, and why, a line each.
    """
    best = make_folder(folder / "best")
    for name in FROM_WEIGHTS:  # Of another winner, if the run went on.
        (best / name).unlink(missing_ok=True)
    search, winner = outcome.search, outcome.winner
    use = usage(search, winner.architecture)
    write_json(best / "metrics.json", _metrics(outcome, use))
    _deliver_front(outcome, folder / "front")
    return deliver_network(search, winner.architecture, weights_of(folder, winner), best, use)


def _deliver_front(outcome: Outcome, folder: Path) -> None:
    """Write the front's architectures anew: a run that went on may have another front."""
    if folder.is_dir():
        shutil.rmtree(folder)
    if len(outcome.search.objectives.goals) < 2:
        return
    for trial in outcome.front:
        place = make_folder(make_folder(folder) / trial.label)
        write_architecture(place / "architecture.json", trial.architecture, outcome.search.space)


def _metrics(outcome: Outcome, use: Mapping[str, Any]) -> dict[str, Any]:
    comparison, graph = compare(outcome), outcome.search.space.graph

    def facts(trial: Trial) -> dict[str, Any]:
        return measured_facts(trial, comparison.metrics)

    return {
        "goals": list(comparison.goals),
        "tests": dict(comparison.tests),
        "counted": sorted(comparison.counted),
        "metrics": {
            name: {"unit": metric.unit, "direction": metric.direction}
            for name, metric in comparison.metrics.items()
        },
        "usage": use,
        # Decision to how many slots share it, or to the channels that were chosen.
        "slots": Counter(slot.decision for slot in graph.slots),
        "channels": {
            name: width.of(outcome.winner.architecture) for name, width in graph.widths.items()
        },
        "trials": len(outcome.history),
        "seconds": outcome.seconds,
        "recommended": {
            "trial": outcome.winner.number,
            "as": outcome.search.objectives.recommendation,
        },
        "searched": {"trial": outcome.winner.number, **facts(outcome.winner)},
        "references": {name: facts(trial) for name, trial in outcome.references.items()},
        "ratios": {
            name: {
                metric: ratio
                for metric in comparison.metrics
                if math.isfinite(ratio := comparison.ratio(metric, name))
            }
            for name in outcome.references
        },
        "front": [{"trial": trial.number, **facts(trial)} for trial in outcome.front],
        "verdict": [standing.as_json() for standing in comparison.standings()],
        "tie": None if (tied := comparison.tie()) is None else asdict(tied),
    }

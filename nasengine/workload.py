"""How long a search will take, and how much memory: from one step of training on this machine.

Rough on purpose: the median network is trained for one step and timed, the supernet's share is
taken from its multiply-accumulates, and what keeps activations is counted on the meta device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from nasengine.errors import SpaceError
from nasengine.estimator import by_effort
from nasengine.guard import describe
from nasengine.metric_names import estimator_of
from nasengine.moves import sample
from nasengine.randomness import torch_seed

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nasengine.architecture import Architecture
    from nasengine.estimator import Estimator
    from nasengine.search import Search
    from nasengine.strategy import Strategy


_REPEATS, _LEAST, _SECONDS = 8, 2, 0.4
"""Steps that are taken at most, how many count at least, and the seconds that end it between."""

_MANY = 1000
"""Trials of a search that time alone ends, for what a screen lets on of them."""

_BATCH = 4
"""Samples in a timed step, at most: what a step takes besides its samples is timed with it."""


@dataclass(frozen=True)
class Workload:
    """The training that a part of a search does.

    Parameters
    ----------
    steps
        Optimiser steps.
    batch
        Samples in a step.
    whole
        Whether a step runs every candidate of a supernet, or single networks.
    part
        One channel in so many goes through the candidates of a whole supernet.
    """

    steps: int
    batch: int
    whole: bool = False
    part: int = 1


@dataclass(frozen=True)
class Estimate:
    """What a search will take, roughly.

    Parameters
    ----------
    search_seconds
        Supernet training of the strategy and the estimators.
    trial_seconds
        Training in one trial; where a screen holds some back, in one of them on average.
    bytes
        Activations that the largest step keeps for its backward pass.
    final_seconds
        Training at the end, of the winner and of each reference.
    reference_seconds
        Training in measuring one reference, which no screen holds back.
    """

    search_seconds: float
    trial_seconds: float
    bytes: float
    final_seconds: float = 0.0
    reference_seconds: float = 0.0

    def seconds(self, trials: int | None, references: int, limit: float | None = None) -> float:
        """Return the time of the whole run.

        Parameters
        ----------
        trials
            How many there will be at most; None for as many as the limit allows.
        references
            How many are measured beside the winner.
        limit
            Seconds after which no trial begins; None for no limit.
        """
        searched = math.inf if trials is None else self.search_seconds + trials * self.trial_seconds
        if limit is not None:
            searched = min(searched, limit)
        beside = references * self.reference_seconds
        return searched + beside + (1 + references) * self.final_seconds


def estimate(search: Search, strategy: Strategy, final: Iterable[Estimator] = ()) -> Estimate:
    """Estimate a search by training the median network of a few for one step.

    What is measured without training (counts, latency) is left out.

    Parameters
    ----------
    search, strategy
        What is estimated.
    final
        The estimators that measure the winner and the references at the end.
    """
    shared = [strategy.workload(search)]
    shared += [estimator.shared_workload(search) for estimator in search.estimators.values()]
    measuring = list(_measuring(search))
    own = [work for work, _ in measuring]
    last = [estimator.workload(search) for estimator in final]
    once, end = ([w for w in found if w is not None] for found in (shared, last))
    trainings = [*once, *own, *end]
    if not trainings:
        return Estimate(0.0, 0.0, 0.0)
    network, single, drawn = _median(search)
    supernets = {w.part: _cost_of_supernet(search, w.part) for w in once if w.whole}
    batch = min(_BATCH, max(work.batch for work in trainings))
    per_sample = _seconds_per_sample(network, search, batch, drawn)

    def cost(work: Workload) -> _Cost:
        return supernets[work.part] if work.whole else single

    def seconds(work: Workload) -> float:
        share = cost(work).macs / max(1.0, single.macs)
        return work.steps * work.batch * share * per_sample

    return Estimate(
        sum(map(seconds, once)),
        sum(share * seconds(work) for work, share in measuring),
        max(w.batch * cost(w).bytes for w in trainings),
        sum(map(seconds, end)),
        sum(map(seconds, own)),
    )


def _measuring(search: Search) -> Iterator[tuple[Workload, float]]:
    """Yield the training of one measurement, with the share of the trials that come to it."""
    share = 1.0
    for key, estimator in by_effort(search.estimators):
        if (work := estimator.workload(search)) is not None:
            yield work, share
        own = [s for metric, s in search.objectives.screens.items() if estimator_of(metric) == key]
        come = max(1, round(share * (search.budget.trials or _MANY)))
        share *= min((screen.expected_share(come) for screen in own), default=1.0)


@dataclass(frozen=True)
class _Cost:
    """Multiply-accumulates and bytes kept for the backward pass, of one sample."""

    macs: float
    bytes: float


def _median(search: Search) -> tuple[nn.Module, _Cost, Architecture]:
    """Return the median of five random networks by multiply-accumulates, on the CPU."""
    from nasengine.meta_shapes import made_on_meta
    from nasengine.network import build_network

    rng = search.stream("workload")
    drawn = [sample(search.space.decisions, rng) for _ in range(5)]
    costs = []
    for architecture in drawn:
        network = made_on_meta(partial(build_network, search.space.graph, architecture))
        costs.append(_cost(network, search))
    middle = sorted(range(5), key=lambda index: costs[index].macs)[2]
    with torch_seed(search.seed, "workload"):
        network = build_network(search.space.graph, drawn[middle])
    return network, costs[middle], drawn[middle]


def _cost(network: nn.Module, search: Search, *further: object) -> _Cost:
    import torch

    from nasengine.meta_shapes import MacCount, MetaShapes

    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[id(tensor.untyped_storage())] = tensor.numel() * tensor.element_size()
            holding.append(tensor)
        return tensor

    holding: list[torch.Tensor] = []
    inputs = torch.empty(2, *search.task.input_shape, device="meta")
    counter = MacCount()
    with (
        MetaShapes(),
        counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        # What is random in training (stochastic depth) asks for values, which these have none of.
        network.eval()(inputs, *further)
    return _Cost(counter.macs / 2, sum(kept.values()) / 2)


def _cost_of_supernet(search: Search, part: int) -> _Cost:
    import torch

    from nasengine.meta_shapes import made_on_meta
    from nasengine.supernet import Mixture, Supernet

    supernet = made_on_meta(partial(Supernet, search.space.graph, part))
    mixtures = {
        name: Mixture(torch.empty(len(choices), device="meta"))
        for name, choices in search.space.decisions.items()
    }
    return _cost(supernet, search, mixtures)


def _seconds_per_sample(
    network: nn.Module, search: Search, batch: int, architecture: Architecture
) -> float:
    """Time steps of training on random images, as training does them.

    Raises
    ------
    SpaceError
        If the network runs in evaluation, and fails in a step of training.
    """
    import torch

    from nasengine.passes import memory_format, prepare

    network = prepare(network.to(search.device)).train()
    with torch_seed(search.seed, "workload"):
        inputs = torch.rand(batch, *search.task.input_shape, device=search.device)
        inputs = inputs.contiguous(memory_format=memory_format(inputs))
        try:
            return _usual(_ready(network, inputs)) / batch
        except Exception as error:
            named = search.space.format(architecture)
            raise SpaceError(
                f"the network {named}: a step of training fails: {type(error).__name__}: "
                f"{describe(error)}"
            ) from error


def _ready(network: nn.Module, inputs: torch.Tensor) -> Callable[[], float]:
    """Return a step of training, as it runs once a GPU has recorded it."""
    from nasengine.replay import Recorder, run_until_recorded

    def differentiate(inputs: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = network(inputs).float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    recorder = Recorder([network], str(inputs.device), lambda _: None)

    def step() -> float:
        return float(recorder.run(differentiate, inputs))

    if inputs.is_cuda:
        run_until_recorded(step)
    return step


def _usual(step: Callable[[], object]) -> float:
    """Return the seconds that a step usually takes; the first one prepares, and does not count.

    The median, not the quickest: what else the machine does will be there during the search too.
    """
    begun, taken = time.perf_counter(), list[float]()
    while len(taken) < _REPEATS:
        started = time.perf_counter()
        if len(taken) > _LEAST and started - begun > _SECONDS:
            break
        step()
        taken.append(time.perf_counter() - started)
    return median(taken[1:])

"""A supernet trained by single paths, and the networks that inherit from it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nasengine.architecture import Architecture
from nasengine.batches import Batches
from nasengine.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint
from nasengine.errors import EstimationFailed
from nasengine.passes import Precision, lay_channels_last, memory_format
from nasengine.randomness import torch_seed
from nasengine.search import Search
from nasengine.supernet import Mixture, Supernet, build_path
from nasengine.training import Training

from ._turns import in_turn

if TYPE_CHECKING:
    from .one_shot import OneShot

Weights = Mapping[str, Tensor]
"""A supernet's state dictionary, on the CPU."""


def trained_supernet(settings: OneShot, search: Search) -> Weights:
    """Return the weights of the run's supernet; trained (checkpointed) by the first call.

    The files are named by the settings: two such estimators have two supernets.
    """
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:8]
    kept = search.checkpoints / f"one_shot-{digest}.safetensors"
    if not kept.is_file():
        turn = search.checkpoints / f"one_shot-{digest}.lock"
        with in_turn(turn, search, "the supernet's training"):
            if not kept.is_file():
                progress = search.checkpoints / f"one_shot-{digest}-training.safetensors"
                save_checkpoint(kept, _train(settings, search, progress))
                remove_checkpoint(progress)
    return _load(kept, kept.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _load(path: Path, _changed: int) -> Weights:
    """Read the weights once for all candidates; the time of change tells files apart."""
    weights: Weights = load_checkpoint(path)
    return weights


def _train(settings: OneShot, search: Search, checkpoint: Path) -> dict[str, Tensor]:
    with torch_seed(search.seed, "one_shot", "network"):
        supernet = Supernet(search.space.graph)

    def passes(
        network: nn.Module, inputs: Tensor, step: int, precision: Precision
    ) -> Iterator[Tensor]:
        rng = search.stream("one_shot", "paths", step)
        for path in draw_paths(supernet.decisions, settings.sampling, rng):
            yield precision.run(network, inputs, _mixtures(path, supernet, inputs))

    recipe, labels = settings.resolved(), ("one_shot", "supernet")
    Training(
        supernet,
        search.splits.train,
        recipe,
        labels,
        checkpoint,
        passes,
        precision=settings.precision,
        title="training the supernet",
    ).run(search)
    return {name: tensor.detach().cpu() for name, tensor in supernet.state_dict().items()}


def draw_paths(
    decisions: Mapping[str, tuple[str, ...]], sampling: str, rng: random.Random
) -> list[dict[str, int]]:
    """Draw the paths of a step: decision to the index of its choice.

    Parameters
    ----------
    decisions
        With their choices.
    sampling
        ``uniform``: one path. ``fair``: as many as there are choices, each choice in one.

    Examples
    --------
    >>> paths = draw_paths({"a": ("x", "y"), "b": ("x", "y")}, "fair", random.Random(0))
    >>> [sorted(path[name] for path in paths) for name in ("a", "b")]
    [[0, 1], [0, 1]]
    """
    if sampling == "uniform":
        return [{name: rng.randrange(len(choices)) for name, choices in decisions.items()}]
    orders = {
        name: rng.sample(range(len(choices)), len(choices)) for name, choices in decisions.items()
    }
    return [
        dict(zip(orders, indices, strict=True)) for indices in zip(*orders.values(), strict=True)
    ]


def _mixtures(path: Mapping[str, int], supernet: Supernet, inputs: Tensor) -> dict[str, Mixture]:
    def one_hot(choices: int, chosen: int) -> Tensor:
        return torch.eye(choices, device=inputs.device)[chosen]

    return {
        name: Mixture(one_hot(len(choices), path[name]), (path[name],), positive=True)
        for name, choices in supernet.decisions.items()
    }


def inherited(architecture: Architecture, weights: Weights, search: Search) -> nn.Module:
    """Build what of the supernet an architecture runs, with the supernet's weights, copied.

    Where channels are searched it is at the widest, and zero beyond the architecture's widths: so
    its weights were trained.

    Raises
    ------
    EstimationFailed
        If it has a block that is no candidate.
    """
    graph = search.space.graph
    for decision, choice in architecture.items():
        if choice not in graph.decisions[decision]:
            raise EstimationFailed(
                f"slot {decision!r}: {choice!r} is no candidate, so the supernet has no weights "
                "for it"
            )
    choices = {slot.name: architecture[slot.decision] for slot in graph.slots}
    with torch_seed(search.seed, "one_shot", "inherited"):
        network = build_path(graph, architecture)
    state = {}
    for name in network.state_dict():
        node, _, rest = name.partition(".")
        inner = f"{node}.candidates.{choices[node]}.{rest}" if node in choices else name
        state[name] = weights[f"network.{inner}"]
    network.load_state_dict(state)
    lay_channels_last(network.to(search.device))
    return network


def recalibrate(network: nn.Module, settings: OneShot, search: Search) -> None:
    """Take the statistics of batch norms anew, as the mean over some training batches.

    In the supernet they are those of all paths together, which fit no path.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # The cumulative mean.
    network.eval()
    for norm in norms:
        norm.train()
    samples = search.splits.train.on(search.device)
    with torch_seed(search.seed, "one_shot", "recalibration") as generator, torch.no_grad():
        batches = Batches(len(samples), settings.resolved().batch, generator)
        for _ in range(settings.recalibration if norms else 0):
            inputs, _ = search.task.augment(*samples.batch(batches.draw()), generator)
            network(inputs.contiguous(memory_format=memory_format(inputs)))
    network.eval()

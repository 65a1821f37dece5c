"""One training of one candidate from one seed: data at a fidelity, weights, figures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from nasengine.checkpoint import remove_checkpoint
from nasengine.early_stopping import EarlyStopping
from nasengine.errors import EstimationFailed, SpaceError, SpecError
from nasengine.estimator import Candidate
from nasengine.evaluation import evaluate
from nasengine.files import write_atomically
from nasengine.randomness import torch_seed
from nasengine.search import Search
from nasengine.shapes import infer_shapes
from nasengine.task import Samples
from nasengine.training import Training

from ._held_out import on_held_out

if TYPE_CHECKING:
    from .trained import Trained


@dataclass(frozen=True)
class Run:
    """What one training came to.

    Parameters
    ----------
    values
        By metric.
    per_sample
        The primary metric, and the same on the test split, to its value on each sample alone, for
        paired tests; None where it is not finite. Large splits are left out.
    steps
        Steps done.
    weights
        The state dictionary, in float32 on the CPU.
    """

    values: dict[str, float]
    per_sample: Mapping[str, tuple[float | None, ...]]
    steps: int
    weights: dict[str, Tensor]


def train_once(settings: Trained, candidate: Candidate, search: Search, seed: int) -> Run:
    """Train a candidate from one seed (checkpointed), and measure it."""
    train, validation, test = _samples(settings, search)
    narrow = replace(candidate, search=at_width(settings.width_fraction, search))
    network = narrow.network("seed", seed).to(search.device)
    stopping = None
    primary = settings.primary(search)
    if settings.patience is not None:
        stopping = EarlyStopping(
            lambda network: primary.sign * evaluate(network, validation, search)[primary.name],
            settings.validate_every,
            settings.patience,
        )
    checkpoint = _checkpoint(settings, candidate, seed)
    labels = (candidate.label, "seed", seed)
    training = Training(
        network,
        train,
        settings.resolved(),
        labels,
        checkpoint,
        stopping=stopping,
        precision=settings.precision,
        title="training" if settings.seeds == 1 else f"training {seed + 1} of {settings.seeds}",
    )
    # With several seeds, those already trained must not be trained again after a resume.
    training.run(search, keep=settings.seeds > 1)
    values, per_sample = on_held_out(network, validation, test, search, primary.name)
    values["seconds"] = training.seconds
    return Run(values, per_sample, training.step, _weights(network))


def deliver(run: Run, candidate: Candidate) -> None:
    """Write a run's weights to where the engine takes them from."""
    candidate.int8_path.unlink(missing_ok=True)  # Of other weights.
    write_atomically(candidate.weights_path, save(run.weights))


def remove_checkpoints(settings: Trained, candidate: Candidate) -> None:
    """Remove the checkpoints of every seed."""
    for seed in range(settings.seeds):
        remove_checkpoint(_checkpoint(settings, candidate, seed))


def check_fidelity(settings: Trained, search: Search) -> None:
    """Refuse a width or a resolution at which the space's networks do not fit together.

    Raises
    ------
    SpecError
        With the setting, the size, and what does not fit.
    """
    narrow, end = at_width(settings.width_fraction, search), search.space.graph.order[-1]
    try:
        out = narrow.shapes.out[end]
    except SpaceError as error:
        raise SpecError(f"width_fraction: {error}") from error
    if out != search.shapes.out[end]:
        raise SpecError(f"width_fraction: narrower networks give {out}")
    if settings.resolution < 1:
        _check_resolution(settings.resolution, narrow)


def _check_resolution(resolution: float, search: Search) -> None:
    channels, *size = search.task.input_shape
    scaled = tuple(_scaled(side, resolution) for side in size)
    if not size:
        raise SpecError("resolution: samples without sides have none")
    where = f"resolution: at {resolution} samples are {_text(scaled)}"
    graph = search.space.graph
    try:
        out = infer_shapes(graph, (channels, *scaled)).out[graph.order[-1]]
    except SpaceError as error:
        raise SpecError(f"{where}: {error}") from error
    whole = search.shapes.out[graph.order[-1]][1:]
    if whole and whole != tuple(size) and search.task.targets == "values":
        raise SpecError("resolution: targets of other sides than the inputs' are not resized")
    if whole == tuple(size) and out[1:] != scaled:
        raise SpecError(f"{where}, and the networks give {_text(out[1:])}")


def at_width(fraction: float, search: Search) -> Search:
    """Return the search of the same architectures in networks with a share of the channels.

    Raises
    ------
    SpecError
        If the space has no such networks, with the reason.
    """
    if fraction == 1.0:
        return search
    try:
        return replace(search, space=search.space.narrowed(fraction))
    except SpaceError as error:
        raise SpecError(f"width_fraction: {error}") from error


def _samples(settings: Trained, search: Search) -> tuple[Samples, Samples, Samples | None]:
    splits = search.splits
    train = _fraction(splits.train, settings.data_fraction, search.seed)
    scale = settings.resolution
    test = None if splits.test is None else _resized(splits.test, scale)
    return _resized(train, scale), _resized(splits.validation, scale), test


def _fraction(samples: Samples, fraction: float, seed: int) -> Samples:
    if fraction == 1.0:
        return samples
    count = max(2, round(len(samples) * fraction))
    with torch_seed(seed, "data-fraction") as generator:
        kept = torch.randperm(len(samples), generator=generator)[:count].sort().values
    return samples.take(kept.tolist())


def _resized(samples: Samples, scale: float) -> Samples:
    """Resize inputs and values at each place smoothly, and masks to the nearest class."""
    if scale == 1.0:
        return samples
    sides = samples.inputs.shape[2:]
    size = [_scaled(side, scale) for side in sides]
    targets = samples.targets
    if targets.shape[1:] == sides:
        resize = _smooth if targets.is_floating_point() else _nearest
        targets = resize(targets.unsqueeze(1), size).squeeze(1)
    elif targets.shape[2:] == sides and targets.is_floating_point():
        targets = _smooth(targets, size)
    return replace(samples, inputs=_smooth(samples.inputs, size), targets=targets)


def _smooth(tensor: Tensor, size: list[int]) -> Tensor:
    """Resize (N, C, H, W), or what has other sides; each way is free of aliases."""
    if len(size) != 2:
        return F.interpolate(tensor, size, mode="area")
    return F.interpolate(tensor, size, mode="bilinear", align_corners=False, antialias=True)


def _nearest(masks: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(masks.float(), size, mode="nearest-exact").long()


def _text(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _scaled(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _checkpoint(settings: Trained, candidate: Candidate, seed: int) -> Path:
    """Name the file by the settings too: two estimators may train the same candidate."""
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:8]
    return candidate.folder / f"training-{digest}-{seed}.safetensors"


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the state dictionary; batch norms' buffers are among it."""
    found = {}
    for name, tensor in network.state_dict().items():
        kept = tensor.detach().to("cpu", copy=True).contiguous()
        found[name] = kept.float() if kept.is_floating_point() else kept
        if not torch.isfinite(found[name]).all():
            raise EstimationFailed(f"the trained weights {name} hold NaN or infinity")
    return found

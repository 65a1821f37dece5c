"""What a trained network gives for samples, and the task's metrics of that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nasengine.errors import EstimationFailed
from nasengine.passes import Precision
from nasengine.search import Search
from nasengine.task import Samples, Task


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode inside, every module back into its own mode after."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def predict(network: nn.Module, inputs: Tensor, device: str, batch: int = 64) -> Tensor:
    """Return a network's outputs for samples, in evaluation mode, batch by batch, on the CPU.

    Parameters
    ----------
    network
        On the device already.
    inputs
        (N, C, H, W).
    device
        Where the network is.
    batch
        Samples at once.

    Returns
    -------
    (N, outputs, H, W) or (N, outputs), float32.
    """
    exact = Precision("fp32", device)
    with evaluating(network):
        parts = [
            exact.run(network, part.to(device)).float().cpu() for part in torch.split(inputs, batch)
        ]
    return torch.cat(parts)


def evaluate(network: nn.Module, samples: Samples, search: Search) -> dict[str, float]:
    """Return the task's metrics and ``loss`` of a network over samples.

    Raises
    ------
    EstimationFailed
        If the outputs are not finite.
    """
    outputs = predict(network, samples.inputs, search.device)
    return score(outputs, samples.targets, search.task)


def score(outputs: Tensor, targets: Tensor, task: Task) -> dict[str, float]:
    """Return the task's metrics and ``loss`` of outputs against targets.

    Raises
    ------
    EstimationFailed
        If the outputs are not finite.
    """
    if not torch.isfinite(outputs).all():
        raise EstimationFailed("the trained network gives NaN or infinity on held-out samples")
    found = dict(task.evaluate(outputs, targets))
    found["loss"] = float(task.loss(outputs, targets))
    return found

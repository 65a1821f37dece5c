"""The loop that trains one network on samples: written once, for every estimator that trains.

Samples lie on the device as tensors, so there is no loader. Everything random comes from the
seed, and a checkpoint holds all of the state: a training that was killed and resumed ends with
the weights of one that never was, bit for bit on the CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nasengine.batches import Batches
from nasengine.checkpoint import SavePace, load_checkpoint, save_checkpoint
from nasengine.early_stopping import EarlyStopping
from nasengine.errors import EstimationFailed
from nasengine.optimisers import keep_strides, set_rates, sgd
from nasengine.passes import Precision, choose_precision, prepare_checked
from nasengine.randomness import (
    derive_seed,
    random_state,
    reproducible,
    set_random_state,
    torch_seed,
)
from nasengine.recipe import PrecisionName, Recipe
from nasengine.replay import Recorder
from nasengine.search import Search
from nasengine.task import Samples, Task

Passes = Callable[[nn.Module, Tensor, int, Precision], Iterable[Tensor]]
"""The forward passes of a step: from the network, a batch (N, C, H, W), the step and the
precision to run in, to outputs in float32, one each.

The gradients of all passes of a step are summed; most trainings have one pass.
"""

_CHECKED = 2
"""Samples by which the gradients in bfloat16 are checked."""
_POINTS = 50
"""Points of a training's curve that are kept."""


@dataclass
class Training:
    """One training: what is trained, on what, how, and where it is checkpointed.

    Parameters
    ----------
    network
        Trained in place.
    samples
        What it is trained on.
    recipe
        Optimiser, schedule, batch, iterations.
    labels
        What the training is for: seeds its randomness, names it in records.
    checkpoint
        The file of its checkpoints; left to the caller to remove.
    passes
        The forward passes of a step; by default one through the network.
    stopping
        Stops early on a validation score; by default never.
    save_seconds
        Seconds between checkpoints; more where one takes longer than 2% of that.
    precision
        ``bf16`` (and ``auto``, where the device is quick at it) only if a check of the first
        gradients agrees.
    title
        Names it beside its progress.

    Attributes
    ----------
    step
        Steps done.
    seconds
        Wall time spent training, interrupted parts included.
    curve
        (step, mean loss since the last point), up to 50 points.
    """

    network: nn.Module
    samples: Samples
    recipe: Recipe
    labels: tuple[str | int, ...]
    checkpoint: Path
    passes: Passes | None = None
    stopping: EarlyStopping | None = None
    save_seconds: float = 30.0
    precision: PrecisionName = "fp32"
    title: str = "training"
    step: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)

    def run(self, search: Search, *, keep: bool = False) -> None:
        """Train to the end, from the last checkpoint if there is one.

        Parameters
        ----------
        search
            Task, seed, device, reporter.
        keep
            Write a last checkpoint when done, from which `run` returns at once.

        Raises
        ------
        EstimationFailed
            If the loss is NaN or infinite, with the step.
        Interrupted
            If the run was asked to stop, after a checkpoint.
        """
        seeded = torch_seed(search.seed, *self.labels, "training")
        with seeded as generator, reproducible(search.device):
            self._prepare(search, generator)
            if not self._finished:
                self._loop(search)
                if keep:
                    self._save(search)
        if self.stopping is not None and self.stopping.weights:
            self.network.load_state_dict(self.stopping.weights)

    def _prepare(self, search: Search, generator: torch.Generator) -> None:
        self.network.to(search.device).train()
        self._samples = self.samples.on(search.device)
        wanted = choose_precision(self.precision, search.device)
        self._run = prepare_checked(
            self.network, wanted, self._first_loss(search.task), search.reporter.warn
        )
        self._optimiser = make_optimiser(self.network, self.recipe)
        self._task = search.task
        self._recorder = Recorder([self.network, search.task], search.device, search.reporter.note)
        augmentation = derive_seed(search.seed, *self.labels, "augment")
        self._augmentation = torch.Generator().manual_seed(augmentation)
        self._batches = Batches(len(self.samples), self.recipe.batch, generator)
        self._finished = False
        self._sum, self._count = 0.0, 0
        state = load_checkpoint(self.checkpoint, search.reporter.warn)
        if state is not None:
            self._restore(state, search)

    def _first_loss(self, task: Task) -> Callable[[nn.Module, Precision], Tensor]:
        """Return the loss that the precision is checked by: of some samples, as they are."""
        inputs, targets = self._samples.inputs[:_CHECKED], self._samples.targets[:_CHECKED]

        def loss(network: nn.Module, run: Precision) -> Tensor:
            passes = self.passes or _one_pass
            return torch.stack(
                [task.loss(outputs, targets) for outputs in passes(network, inputs, 0, run)]
            ).sum()

        return loss

    def _loop(self, search: Search) -> None:
        self._pace = SavePace(self.save_seconds)
        total = self.recipe.iterations
        with search.reporter.progress(self.title, total, self.step) as progress:
            while not self._finished:
                started = time.perf_counter()
                loss = self._advance()
                self._finished = self._stops_early(total) or self.step >= total
                self.seconds += time.perf_counter() - started
                self._keep_curve(loss, search)
                progress.advance(1, loss=loss)
                if not self._finished:
                    self._save_if_due(search)

    def _advance(self) -> float:
        """Do one step; return its loss."""
        rate, momentum = self.recipe.rates(self.step)
        set_rates(self._optimiser, rate, momentum)
        inputs, targets = self._samples.batch(self._batches.draw())
        inputs, targets = self._task.augment(inputs, targets, self._augmentation)
        self.network.train()
        if self.passes is None:
            loss, gradients = self._recorder.run(self._differentiated, inputs, targets)
        else:  # Other kernels in every step.
            loss, gradients = self._differentiated(inputs, targets)
        # A replay writes where it was recorded, and steps on batches of another size lie between.
        for parameter, gradient in zip(self.network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        value = float(loss)
        self.step += 1
        if not math.isfinite(value):
            raise EstimationFailed(f"the loss is {value} at step {self.step}")
        self._optimiser.step()
        return value

    def _differentiated(
        self, inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return the mean loss of a step, and its gradient by every parameter."""
        self._optimiser.zero_grad(set_to_none=True)
        losses = []
        for outputs in (self.passes or _one_pass)(self.network, inputs, self.step, self._run):
            loss = self._task.loss(outputs, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return torch.stack(losses).mean(), [p.grad for p in self.network.parameters()]

    def _stops_early(self, total: int) -> bool:
        """Look at the network when it is time, and at the end, which may be the best."""
        stopping = self.stopping
        if stopping is None or (self.step % stopping.every and self.step < total):
            return False
        return stopping.look(self.network)

    def _keep_curve(self, loss: float, search: Search) -> None:
        self._sum, self._count = self._sum + loss, self._count + 1
        if self.step % math.ceil(self.recipe.iterations / _POINTS) and not self._finished:
            return
        mean = self._sum / self._count
        self._sum, self._count = 0.0, 0
        self.curve.append((self.step, mean))
        what = "/".join(str(label) for label in self.labels)
        rate = self._optimiser.param_groups[0]["lr"]
        facts = {"what": what, "step": self.step, "loss": mean, "learning_rate": rate}
        search.reporter.record("training", facts)

    def _save_if_due(self, search: Search) -> None:
        if self._pace.save_if_due(lambda: self._save(search), at_once=search.stop.is_set()):
            search.pause_point()

    def _save(self, search: Search) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "finished": self._finished,
            "curve": self.curve,
            "since": (self._sum, self._count),
            "network": self.network.state_dict(),
            "buffers": _passing_buffers(self.network),
            "optimiser": self._optimiser.state_dict(),
            "batches": self._batches.state_dict(),
            "augmentation": self._augmentation.get_state(),
            "random": random_state(search.device),
            "stopping": self.stopping.state_dict() if self.stopping else None,
        }
        save_checkpoint(self.checkpoint, state)

    def _restore(self, state: Mapping[str, Any], search: Search) -> None:
        self.step, self.seconds = state["step"], state["seconds"]
        self._finished, self.curve = state["finished"], state["curve"]
        self._sum, self._count = state["since"]
        self.network.load_state_dict(state["network"])
        _set_buffers(self.network, state["buffers"])
        self._optimiser.load_state_dict(state["optimiser"])
        keep_strides(self._optimiser)
        self._batches.load_state_dict(state["batches"])
        self._augmentation.set_state(state["augmentation"])
        set_random_state(state["random"], search.device, search.reporter.warn)
        if self.stopping is not None:
            self.stopping.load_state_dict(state["stopping"])


def _one_pass(network: nn.Module, inputs: Tensor, _step: int, run: Precision) -> list[Tensor]:
    return [run.run(network, inputs)]


def make_optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over all of a network's parameters.

    Raises
    ------
    EstimationFailed
        If it has none.
    """
    parameters = list(network.parameters())
    if not parameters:
        raise EstimationFailed("the network has no parameters: there is nothing to train")
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(
            parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
    return sgd(parameters, recipe.learning_rate, 0.9, recipe.weight_decay)


def _passing_buffers(network: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that a state dictionary leaves out."""
    kept = network.state_dict()
    return {name: tensor for name, tensor in network.named_buffers() if name not in kept}


def _set_buffers(network: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    for name, tensor in buffers.items():
        module, _, attribute = name.rpartition(".")
        device = network.get_buffer(name).device
        setattr(network.get_submodule(module), attribute, tensor.to(device))

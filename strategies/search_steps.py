"""The two steps that a gradient search takes in turn: one of the weights, one of the alphas."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nasengine.errors import SearchFailed
from nasengine.optimisers import StepsInBackward, keep_strides, sgd
from nasengine.passes import Precision, frozen, prepare_checked, recompute_slots
from nasengine.randomness import derive_seed, torch_seed
from nasengine.replay import Recorder
from nasengine.supernet import Mixture, Supernet

from .architecture_loss import ArchitectureLoss
from .draws import Batch
from .memory_plan import choose, plan_memory
from .relaxation import Relaxation, shifted, shifts
from .second_order import unrolled_gradient

if TYPE_CHECKING:
    from nasengine.search import Search

    from .darts import Darts, Optimiser

AlphaGradients = tuple[Tensor, Sequence[Tensor | None]]
"""A loss, and its gradient by the alphas of every decision that it depends on."""


class Given(NamedTuple):
    """What a step is given besides its batch: all that changes from one to the next.

    Parameters
    ----------
    temperature
        Divides the alphas.
    noise, shifts
        By decision, what mixtures are drawn by and what moves them; empty where nothing does.
    strengths
        By cost, what its penalty multiplies an excess by; empty where no alphas are trained.
    """

    temperature: Tensor
    noise: Mapping[str, Tensor]
    shifts: Mapping[str, Tensor] = {}
    strengths: Mapping[str, Tensor] = {}


def prepare(
    settings: Darts, search: Search, without: Collection[str] = ()
) -> tuple[Supernet, Precision]:
    """Return the supernet, initialised from the seed, and the precision to run it in.

    It is on the device, in training mode, every pass applied but those named in `without`.
    """
    with torch_seed(search.seed, "darts", "supernet"):
        supernet = Supernet(search.space.graph, settings.partial_channels)
    supernet = supernet.to(search.device).train()
    wanted = choose(settings, search.device)

    def loss(module: nn.Module, precision: Precision) -> Tensor:
        samples = search.splits.train.on(search.device)
        # Two samples: the check keeps all activations in float32, and a copy of the weights.
        checked = min(2, settings.batch)
        inputs = samples.inputs[:checked]
        mixtures = {
            name: Mixture(torch.full((len(choices),), 1 / len(choices), device=search.device))
            for name, choices in supernet.decisions.items()
        }
        outputs = precision.run(module, inputs, mixtures)
        return search.task.loss(outputs, samples.targets[:checked])

    warn = search.reporter.warn
    precision = prepare_checked(supernet, wanted, loss, warn, without=without)
    if settings.memory is not None:
        plan = plan_memory(settings, search, precision)
        recompute_slots(supernet, plan.recomputed)
        search.reporter.note(plan.text())
    return supernet, precision


class SearchSteps:
    """Supernet, alphas and their optimisers, and the steps that train them.

    All randomness of a step comes from the seed and the step's iteration, so that there is no
    state of generators to keep.

    Parameters
    ----------
    settings
        The strategy.
    search
        Space, task, seed, device.
    loss
        The loss of the alphas.
    without
        Names of passes (`nasengine.passes.PASSES`) to leave out.
    """

    def __init__(
        self,
        settings: Darts,
        search: Search,
        loss: ArchitectureLoss,
        without: Collection[str] = (),
    ) -> None:
        self.settings = settings
        self.search = search
        self.loss = loss
        self.supernet, self.precision = prepare(settings, search, without)
        self.relaxation = Relaxation(settings.relaxation, settings.paths)
        self.alphas = {
            name: self.relaxation.initial(len(choices)).to(search.device).requires_grad_()
            for name, choices in search.space.decisions.items()
        }
        self._weights = dict(self.supernet.named_parameters())
        self._weight_optimiser = make_optimiser(list(self._weights.values()), settings.weights)
        self._rate = torch.empty((), device=search.device)
        self._weight_steps = StepsInBackward(self._weight_optimiser)
        self._alpha_optimiser = make_optimiser(list(self.alphas.values()), settings.alphas)
        # Sampled candidates run other kernels in every step; what is recomputed keeps generators.
        recorded = not settings.paths and settings.memory is None
        self._recorder = Recorder(
            [self.supernet, search.task],
            search.device if recorded else "cpu",
            search.reporter.note,
        )

    def temperature(self, iteration: int) -> float:
        """Return the temperature, which goes in a straight line to the final one."""
        start, end = self.settings.temperature, self.settings.final_temperature
        done = iteration / max(1, self.settings.iterations - 1)
        return start if end is None else start + (end - start) * done

    def probabilities(self, iteration: int) -> dict[str, Tensor]:
        """Return the distribution over every decision's choices."""
        return self.relaxation.probabilities(self.alphas, self.temperature(iteration))

    def step_weights(self, batch: Batch, iteration: int) -> float:
        """Take one step of the weights on a batch; return the task's loss before it."""
        with torch_seed(self.search.seed, "darts", "weights", iteration):
            self._set_rate(iteration)
            given = self._given(iteration, "weights")
            loss = self._recorder.run(self._weights_trained, batch, given)
            return self._finite(float(loss), "the task's loss", iteration)

    def step_alphas(self, batch: Batch, training_batch: Batch, iteration: int) -> float:
        """Take one step of the alphas on a batch; return the total loss before it.

        Parameters
        ----------
        batch
            From the alphas' share of the data.
        training_batch
            From the weights' share: what a second-order step unrolls on.
        iteration
            From 0.
        """
        self._weight_optimiser.zero_grad(set_to_none=True)  # Not held over this step.
        with torch_seed(self.search.seed, "darts", "alphas", iteration):
            given = self._given(iteration, "alphas")
            if self.settings.order == 1:
                loss, gradients = self._recorder.run(self._alphas_differentiated, batch, given)
            else:
                self._set_rate(iteration)
                loss, gradients = self._unrolled(batch, training_batch, given)
        value = self._finite(float(loss), "the loss of the alphas", iteration)
        self._check_gradients(gradients, iteration)
        for alpha, gradient in zip(self.alphas.values(), gradients, strict=True):
            alpha.grad = gradient
        self._alpha_optimiser.step()
        return value

    def _weights_trained(self, batch: Batch, given: Given) -> Tensor:
        loss = self._task_loss(batch, self._mixtures(given, for_weights=True))
        self._weight_steps.step(loss)
        return loss.detach()

    def _alphas_differentiated(self, batch: Batch, given: Given) -> AlphaGradients:
        with frozen(self._weights.values()):
            loss = self._total_loss(batch, given)
            alphas = list(self.alphas.values())
            return loss.detach(), torch.autograd.grad(loss, alphas, allow_unused=True)

    def _given(self, iteration: int, step: str) -> Given:
        seed = derive_seed(self.search.seed, "darts", "mixtures", step, iteration)
        generator = torch.Generator().manual_seed(seed)
        temperature = torch.tensor(self.temperature(iteration), device=self.search.device)
        noise = self.relaxation.noise(self.alphas, generator)
        if step == "alphas":
            return Given(temperature, noise, strengths=self.loss.strengths())
        if not self.settings.perturbation:
            return Given(temperature, noise)
        strength = self.settings.perturbation * (iteration + 1) / self.settings.iterations
        return Given(temperature, noise, shifts(self.alphas, strength, generator))

    def _mixtures(self, given: Given, *, for_weights: bool = False) -> dict[str, Mixture]:
        alphas = {n: a.detach() for n, a in self.alphas.items()} if for_weights else self.alphas
        mixtures = self.relaxation.mixtures(
            alphas, given.noise, given.temperature, for_weights=for_weights
        )
        return shifted(mixtures, given.shifts) if given.shifts else mixtures

    def _task_loss(
        self,
        batch: Batch,
        mixtures: Mapping[str, Mixture],
        weights: Sequence[Tensor] | None = None,
    ) -> Tensor:
        inputs, targets = batch
        module: nn.Module = self.supernet
        if weights is not None:
            module = _WithWeights(self.supernet, dict(zip(self._weights, weights, strict=True)))
        outputs = self.precision.run(module, inputs, mixtures)
        return self.search.task.loss(outputs, targets)

    def _total_loss(
        self, batch: Batch, given: Given, weights: Sequence[Tensor] | None = None
    ) -> Tensor:
        task_loss = self._task_loss(batch, self._mixtures(given), weights)
        probabilities = self.relaxation.probabilities(self.alphas, given.temperature)
        return self.loss(task_loss, probabilities, given.strengths)

    def _unrolled(self, batch: Batch, training_batch: Batch, given: Given) -> AlphaGradients:
        def training_loss(weights: Sequence[Tensor]) -> Tensor:
            return self._task_loss(training_batch, self._mixtures(given), weights)

        return unrolled_gradient(
            lambda weights: self._total_loss(batch, given, weights),
            training_loss,
            list(self._weights.values()),
            list(self.alphas.values()),
            self._virtual_step,
            self._weight_optimiser.param_groups[0]["lr"],
        )

    def _virtual_step(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return what SGD would add to the weights: its momentum and weight decay included."""
        group = self._weight_optimiser.param_groups[0]
        changes = []
        for weight, gradient in zip(self._weights.values(), gradients, strict=True):
            change = gradient + group["weight_decay"] * weight.detach()
            momentum = self._weight_optimiser.state.get(weight, {}).get("momentum_buffer")
            if momentum is not None:
                change = change + group["momentum"] * momentum
            changes.append(-group["lr"] * change)
        return changes

    def _set_rate(self, iteration: int) -> None:
        rate: float | Tensor = self.settings.weights.rate(iteration, self.settings.iterations)
        if self._rate.is_cuda:
            # Where a replayed step reads it.
            rate = self._rate.fill_(rate)
        for group in self._weight_optimiser.param_groups:
            group["lr"] = rate

    def _check_gradients(self, gradients: Sequence[Tensor | None], iteration: int) -> None:
        there = [gradient for gradient in gradients if gradient is not None]
        if not there or bool(torch.isfinite(torch.cat(there)).all()):
            return
        for name, gradient in zip(self.alphas, gradients, strict=True):
            if gradient is not None and not bool(torch.isfinite(gradient).all()):
                self._finite(math.nan, f"the gradient of the alphas of {name!r}", iteration)

    def _finite(self, value: float, what: str, iteration: int) -> float:
        if not math.isfinite(value):
            raise SearchFailed(
                f"strategy: {what} is {value} at iteration {iteration + 1} of "
                f"{self.settings.iterations} (learning rate of the weights "
                f"{self._weight_optimiser.param_groups[0]['lr']:g}); the checkpoint before is kept"
            )
        return value

    def state_dict(self) -> dict[str, Any]:
        """Return weights, buffers, alphas, optimisers and penalties."""
        return {
            "supernet": self.supernet.state_dict(),
            "alphas": {name: alpha.detach() for name, alpha in self.alphas.items()},
            "weight_optimiser": self._weight_optimiser.state_dict(),
            "alpha_optimiser": self._alpha_optimiser.state_dict(),
            "penalties": self.loss.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.supernet.load_state_dict(state["supernet"])
        with torch.no_grad():
            for name, alpha in self.alphas.items():
                alpha.copy_(state["alphas"][name])
        self._weight_optimiser.load_state_dict(state["weight_optimiser"])
        for group in self._weight_optimiser.param_groups:
            if "capturable" in group:  # Of the device that it was saved on.
                group["capturable"] = self._rate.is_cuda
        keep_strides(self._weight_optimiser)
        self._alpha_optimiser.load_state_dict(state["alpha_optimiser"])
        self.loss.load_state_dict(state["penalties"])


class _WithWeights(nn.Module):
    """A supernet under other weights than its own; nothing is registered."""

    def __init__(self, supernet: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._call: Callable[..., Tensor] = partial(functional_call, supernet, dict(weights))

    def forward(self, *inputs: Any) -> Tensor:
        return self._call(inputs)


def make_optimiser(
    parameters: Sequence[Tensor | nn.Parameter], chosen: Optimiser
) -> torch.optim.Optimizer:
    """Return an optimiser as the settings have it."""
    rate, decay = chosen.learning_rate, chosen.weight_decay
    if chosen.optimiser == "sgd":
        return sgd(parameters, rate, chosen.first_moment, decay)
    kind = torch.optim.Adam if chosen.optimiser == "adam" else torch.optim.AdamW
    betas = (chosen.first_moment, 0.999)
    replayed = all(parameter.is_cuda for parameter in parameters)
    return kind(
        parameters, lr=rate, betas=betas, weight_decay=decay, fused=True, capturable=replayed
    )

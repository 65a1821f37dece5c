"""DARTS: differentiable architecture search, with its relatives as settings.

Liu, Simonyan, Yang: DARTS: Differentiable Architecture Search (ICLR 2019). The defaults are the
recipe of Chen et al. (2023), Light SDI-NAS. Relatives: ``relaxation = "gumbel", paths = 1`` is
GDAS (Dong and Yang 2019), ``paths = 2`` samples as ProxylessNAS does (Cai, Zhu, Han 2019; what a
step of two alphas does to the chances of the others is left at that), ``perturbation`` is
SmoothDARTS by random noise (Chen and Hsieh 2020), ``stop_when_collapsed`` the first criterion of
DARTS+ (Liang et al. 2019) with the cheapest candidates in place of its skips, ``partial_channels =
4`` PC-DARTS (Xu et al. 2020), without its weights of edges: a space's sums are its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nasengine.architecture import Architecture
from nasengine.errors import SpecError
from nasengine.history import History
from nasengine.plugin import changed
from nasengine.recipe import PrecisionName
from nasengine.strategy import Strategy

from .cost_goals import Costs, check_costs, is_weighed
from .ignored import refuse_ignored

if TYPE_CHECKING:
    from nasengine.search import Search
    from nasengine.workload import Workload


class Optimiser(BaseModel):
    """An optimiser with its settings."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    """Which one."""
    learning_rate: float = Field(3e-4, gt=0, allow_inf_nan=False)
    """Its learning rate."""
    momentum: float | None = Field(None, ge=0, lt=1)
    """SGD's momentum, Adam's beta 1; by default 0.9 for weights, 0 (Adam: 0.5) for alphas."""
    weight_decay: float = Field(1e-4, ge=0, allow_inf_nan=False)
    """L2 for sgd and adam, decoupled for adamw."""

    @property
    def first_moment(self) -> float:
        """The momentum in force."""
        return 0.9 if self.momentum is None else self.momentum


class WeightOptimiser(Optimiser):
    """What trains the weights: SGD at 0.0003.

    The paper leaves momentum and weight decay of its search open; these are its training's.
    """

    schedule: Literal["constant", "cosine"] = "constant"
    """How the learning rate goes on; cosine falls to zero, as in DARTS."""

    def rate(self, iteration: int, iterations: int) -> float:
        """Return the learning rate of an iteration, from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (iteration / iterations)))


class AlphaOptimiser(Optimiser):
    """What trains the alphas: plain SGD at 0.1."""

    learning_rate: float = Field(0.1, gt=0, allow_inf_nan=False)
    """Its learning rate."""
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    """L2 for sgd and adam, decoupled for adamw."""

    @property
    def first_moment(self) -> float:
        """The momentum in force."""
        usual = 0.0 if self.optimiser == "sgd" else 0.5
        return usual if self.momentum is None else self.momentum


class Darts(Strategy):
    """Trains a supernet by gradient, weights and alphas in turn, and derives the best (DARTS)."""

    iterations: int = Field(400, gt=0)
    """Steps of the weights."""
    batch: int = Field(4, gt=0)
    """Samples in a step, of the weights as of the alphas."""
    arch_every: int = Field(10, gt=0)
    """Iterations from one step of the alphas to the next."""
    weights: WeightOptimiser = WeightOptimiser()
    """What trains the weights."""
    alphas: AlphaOptimiser = AlphaOptimiser()
    """What trains the alphas."""
    alpha_share: float = Field(0.5, ge=0, lt=1)
    """Share of the training samples, drawn by the seed, on which the alphas alone are trained;
    0 trains alphas and weights on the same samples."""
    order: Literal[1, 2] = 1
    """2 takes the gradient of the alphas through a step of the weights, at four times the cost."""
    relaxation: Literal["softmax", "none", "gumbel"] = "softmax"
    """How alphas become the weights of the candidates."""
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Divides the alphas before the softmax."""
    final_temperature: float | None = Field(None, gt=0, allow_inf_nan=False)
    """What the temperature goes to, in a straight line; by default it stays."""
    paths: Literal[0, 1, 2] = 0
    """How many candidates of a slot run at once: 0 all, 1 or 2 sampled ones. Of a width all
    channels are computed, and a sampled one masks those beyond it."""
    partial_channels: int = Field(1, gt=0)
    """One channel in so many goes through the candidates, the others pass by: less memory and
    time, where every slot keeps its input's shape. PC-DARTS takes 4."""
    perturbation: float = Field(0.0, ge=0, le=1)
    """Noise on the candidates' weights while the weights are trained, growing to this."""
    cost: Costs = Field(default_factory=dict)
    """What the architecture may cost: estimator to beta, or to { target = "5 ms" }."""
    reading: Literal["expected", "straight_through", "as_printed"] = "expected"
    """How the paper's equation (4) is read; as_printed has no gradient."""
    stop_when_stable: int = Field(0, ge=0)
    """End when so many steps of the alphas changed no arg-max; 0 for never."""
    stop_when_collapsed: int = Field(0, ge=0)
    """End when so many decisions take their cheapest choice; 0 for never."""
    precision: PrecisionName = "fp32"
    """`bf16` trains the supernet in bfloat16 (weights and losses stay float32), `auto` where the
    machine is quick at it; both only where a check of the first gradients agrees with `fp32`."""
    memory: str | None = None
    """What a step may hold, such as "8 GiB" (weights, gradients, optimiser, activations): slots
    that do not fit are computed again in the backward pass. By default all is kept."""
    top_k: int = Field(1, gt=0)
    """How many architectures are proposed (for each target), best first."""
    log_every: int = Field(10, gt=0)
    """Iterations between entries in the log."""
    save_seconds: float = Field(30.0, ge=0)
    """Seconds between checkpoints, more where saving takes longer than 2% of that; 0 saves after
    every iteration."""

    @model_validator(mode="after")
    def _consistent(self) -> Darts:
        """Refuse settings that would be ignored or contradict each other."""
        softmax_needed = {"temperature", "final_temperature", "paths"} & changed(self)
        if self.relaxation == "none" and softmax_needed:
            names = ", ".join(sorted(softmax_needed))
            raise ValueError(f"relaxation none has no {names}; use softmax or gumbel")
        if self.relaxation == "gumbel" and self.paths == 2:
            raise ValueError("two paths are drawn without Gumbel weights; use relaxation softmax")
        if self.paths and self.perturbation:
            raise ValueError("perturbation needs all candidates to run (paths = 0)")
        if self.order == 2 and self.paths:
            raise ValueError("order 2 needs all candidates to run (paths = 0)")
        if self.order == 2 and self.weights.optimiser != "sgd":
            raise ValueError("order 2 unrolls a step of SGD; set weights.optimiser to sgd")
        if self.order == 2 and self.memory is not None:
            raise ValueError("memory needs order 1")
        if self.iterations < self.arch_every:
            raise ValueError("no step of the alphas in so few iterations; lower arch_every")
        steps = self.iterations // self.arch_every
        if self.stop_when_stable > steps:
            raise ValueError(f"stop_when_stable: there are {steps} steps of the alphas in all")
        limited = [
            key for key, goal in self.cost.items() if goal.target is not None or goal.targets
        ]
        if limited and self.reading == "as_printed":
            raise ValueError(f"reading as_printed has no gradient to meet a target ({limited[0]})")
        if sum(bool(goal.targets) for goal in self.cost.values()) > 1:
            raise ValueError("only one cost can have several targets")
        return self

    def check(self, search: Search) -> None:
        """Refuse costs that the search cannot have or read, and a precision the device lacks.

        And an early end that could never come.

        Raises
        ------
        SpecError
            Naming the setting and what is possible.
        """
        check_costs(self.cost, search)
        if not is_weighed(self.cost, search):
            refuse_ignored(
                self,
                reading="no cost is in the loss (a beta or a target in strategy.cost, or a limit "
                "at_most of the objectives on what has a cost table)",
            )
        decisions = len(search.space.decisions)
        if self.stop_when_collapsed > decisions:
            raise SpecError(f"strategy.stop_when_collapsed: the space has {decisions} decisions")
        self._check_partial(search)
        from .memory_plan import choose, plan_memory

        precision = choose(self, search.device)
        if self.memory is not None:
            plan_memory(self, search, precision)

    def _check_partial(self, search: Search) -> None:
        if self.partial_channels == 1:
            return
        graph = search.space.graph
        for slot in graph.slots:
            if graph.widths_of(slot.name):
                raise SpecError(
                    f"partial_channels: {self.partial_channels} needs slots of fixed channels; "
                    f"those of {slot.name!r} are searched "
                    f"({', '.join(graph.widths_of(slot.name))})"
                )
            into, out = search.shapes.into[slot.name], search.shapes.out[slot.name]
            if into != (out,) or out[0] % self.partial_channels:
                shapes = ["x".join(map(str, shape)) for shape in (out, *into)]
                raise SpecError(
                    f"partial_channels: {self.partial_channels} needs slots that read one node "
                    f"and keep its shape, with channels that it divides; slot {slot.name!r} makes "
                    f"{shapes[0]} of {' and '.join(shapes[1:])}"
                )

    def workload(self, search: Search) -> Workload:  # noqa: ARG002
        """Return the steps of weights and alphas.

        An unrolled step of the alphas counts four, one of two paths two; a step of the weights
        runs one path.
        """
        from nasengine.workload import Workload

        each = 4 if self.order == 2 else max(1, self.paths)
        steps = self.iterations + self.iterations // self.arch_every * each
        return Workload(steps, self.batch, whole=not self.paths, part=self.partial_channels)

    def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
        """Search, or read what an earlier call found; return what was derived and is not measured.

        The checkpoints lie in ``search.checkpoints``: an interrupted search goes on where it was.
        """
        from .derived import derive_all, propose_derived
        from .gradient_search import GradientSearch

        result = GradientSearch(self, search).run()
        found = derive_all(self.cost, self.top_k, search, result.alphas)
        return propose_derived(found, history, count, search)

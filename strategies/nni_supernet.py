"""A space as a model space of NNI's, and the training that NNI's DARTS wraps.

Imports NNI and PyTorch Lightning, which are only silent inside `silence.silent_nni_darts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from nni.nas.evaluator.pytorch import Lightning, LightningModule, Trainer
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.oneshot.pytorch.strategy import DARTS
from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined, unused-ignore]
    LightningEnvironment,
)
from torch import Tensor, fx, nn

from nasengine.graph import Node, SpaceGraph
from nasengine.masks import AtWidths
from nasengine.network import assemble
from nasengine.shapes import make_module
from nasengine.supernet import is_computed_anew
from nasengine.widths import searched

from .draws import Batch, Draws


class NniSpace(ModelSpace):  # type: ignore[misc]
    """A space's graph with a `LayerChoice` in every slot, and of masks where widths are searched.

    Widths mask what is behind slots and operations, nothing inside of them. Slots that share a
    decision bear one label, so that NNI gives them one alpha. Candidates are numbered, not named:
    NNI makes attributes of the names.

    Parameters
    ----------
    graph
        A finished graph.
    """

    def __init__(self, graph: SpaceGraph) -> None:
        super().__init__()
        modules: dict[str, nn.Module] = {}

        def fill(
            built: fx.Graph, slot: Node, inputs: tuple[fx.Node, ...], _: Mapping[str, fx.Node]
        ) -> fx.Node:
            candidates = [
                make_module(
                    f"slot {slot.name!r}, candidate {name!r}", factory, *graph.channels[slot.name]
                )
                for name, factory in slot.candidates.items()
            ]
            modules[slot.name] = LayerChoice(candidates, label=slot.decision)
            return built.call_module(slot.name, inputs)

        def narrow(node: Node) -> tuple[nn.Module, Sequence[str]] | None:
            channels = graph.out[node.name]
            if not is_computed_anew(graph, node, modules[node.name]):
                return None
            masks = (
                LayerChoice(
                    [
                        AtWidths(channels, {decision: choice})
                        for choice in graph.decisions[decision]
                    ],
                    label=decision,
                )
                for decision in dict.fromkeys(width.decision for width in searched(channels))
            )
            return nn.Sequential(*masks), ()

        self.network = assemble(graph, None, fill, modules, "NniNetwork", narrow=narrow)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network on (N, C, H, W)."""
        output: Tensor = self.network(x)
        return output


class Steps(Protocol):
    """What the engine does in a training that NNI leads."""

    def optimiser(self) -> torch.optim.Optimizer:
        """Return what trains the weights, which are on their device."""

    def prepare(self, of_alphas: torch.optim.Optimizer) -> None:
        """Prepare, before the first iteration."""

    def before(self) -> None:
        """Prepare an iteration."""

    def loss(self, network: nn.Module, batch: Batch, of_alphas: bool) -> Tensor:
        """Return the loss of a step of the alphas or of the weights."""

    def after(self) -> bool:
        """Follow an iteration; say whether to end."""


class Training(LightningModule):  # type: ignore[misc]
    """The module of NNI's evaluator: what a step computes; NNI's DARTS decides when."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return what trains the weights; NNI adds its own for the alphas."""
        return self.steps.optimiser()

    def on_train_start(self) -> None:
        """Go on from a checkpoint."""
        marked = [o for o in self.trainer.optimizers if getattr(o, "is_arch_optimizer", False)]
        self.steps.prepare(marked[0])

    def on_train_batch_start(self, *_: Any) -> None:
        """Set the learning rate."""
        self.steps.before()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch: NNI numbers steps of the alphas 2 t, the others 2 t + 1."""
        return self.steps.loss(self.model, batch, batch_idx % 2 == 0)

    def on_train_batch_end(self, *_: Any) -> None:
        """Log, save, stop."""
        self.trainer.should_stop = self.steps.after()


@dataclass
class Loader:
    """The batches of the iterations that are left, in the shape of a data loader."""

    draws: Draws
    first: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        for iteration in range(self.first, self.first + self.count):
            yield self.draws.draw(iteration)


class Supernet(NamedTuple):
    """A space that NNI has made a supernet.

    Parameters
    ----------
    space
        The module, mutated.
    alphas
        NNI's, by decision.
    strategy
        NNI's DARTS, which made it.
    """

    space: NniSpace
    alphas: dict[str, nn.Parameter]
    strategy: DARTS

    @property
    def weights(self) -> list[nn.Parameter]:
        """All parameters but the alphas."""
        alphas = {id(alpha) for alpha in self.alphas.values()}
        return [p for p in self.space.parameters() if id(p) not in alphas]


def make_supernet(graph: SpaceGraph, alpha_learning_rate: float) -> Supernet:
    """Build a space's supernet as NNI does; weights and alphas are drawn from torch's generator."""
    strategy = DARTS(arc_learning_rate=alpha_learning_rate)
    space = strategy.mutate_model(NniSpace(graph))
    return Supernet(
        space, {name: strategy._arch_parameters[name] for name in graph.decisions}, strategy
    )


def train(
    supernet: Supernet, steps: Steps, weights: Loader, alphas: Loader, device: str, folder: Path
) -> dict[str, int]:
    """Let NNI's DARTS train a supernet; return its export: decision to the index of a choice.

    Parameters
    ----------
    supernet
        From `make_supernet`.
    steps
        What the engine does.
    weights, alphas
        Batches for the steps of each, as many for one as for the other.
    device
        ``cpu``, ``cuda``, ``cuda:1``.
    folder
        Where PyTorch Lightning would put files, had it any.
    """
    where = torch.device(device)
    trainer = Trainer(
        accelerator="cpu" if where.type == "cpu" else "gpu",
        devices=1 if where.type == "cpu" else [where.index or 0],
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        # One process, also where a scheduler's variables would make Lightning think of more.
        plugins=[LightningEnvironment()],
    )
    evaluator = Lightning(Training(steps), trainer, weights, alphas)
    evaluator = supernet.strategy.mutate_evaluator(evaluator)
    evaluator.evaluate(supernet.space)
    exported: dict[str, int] = evaluator.module.export()
    return exported

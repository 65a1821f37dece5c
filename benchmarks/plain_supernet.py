"""A supernet as one writes it down: eager, float32, NCHW, the weighted sum written out.

Independent of the engine's supernet, passes and steps: of the engine it reads the space's graph,
for the blocks and how they are wired.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from nasengine.graph import SpaceGraph


class PlainSupernet(nn.Module):
    """Every candidate of every slot; parameters bear the names of the engine's supernet."""

    def __init__(self, graph: SpaceGraph) -> None:
        super().__init__()
        self.graph = graph
        for node in graph.nodes:
            channels = graph.channels[node.name]
            if node.kind == "operation":
                setattr(self, node.name, node.factory(*channels))
            elif node.kind == "slot":
                candidates = {name: make(*channels) for name, make in node.candidates.items()}
                setattr(self, node.name, nn.ModuleDict({"candidates": nn.ModuleDict(candidates)}))

    def forward(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Run every candidate; `weights` holds one weight a choice, by decision."""
        values: dict[str, Tensor] = {}
        for node in self.graph.nodes:
            inputs = [values[name] for name in node.inputs]
            if node.kind == "input":
                value = x
            elif node.kind == "operation":
                value = getattr(self, node.name)(*inputs)
            elif node.kind == "slot":
                candidates = getattr(self, node.name)["candidates"].values()
                shares = weights[node.decision]
                value = sum(w * block(*inputs) for w, block in zip(shares, candidates, strict=True))
            elif node.kind == "concat":
                value = torch.cat(inputs, 1)
            elif node.kind == "add":
                value = sum(inputs)
            else:
                value = inputs[0]
            values[node.name] = value
        return value


class PlainSteps:
    """One step of the weights (SGD with momentum) and one of the alphas (SGD), as in DARTS.

    In float32, or in bfloat16 by autocast.
    """

    def __init__(
        self,
        graph: SpaceGraph,
        loss: Callable[[Tensor, Tensor], Tensor],
        device: str = "cpu",
        bf16: bool = False,
    ) -> None:
        self.supernet = PlainSupernet(graph).train().to(device)
        self.loss = loss
        self.context = torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()
        self.alphas = {
            name: torch.zeros(len(choices), device=device, requires_grad=True)
            for name, choices in graph.decisions.items()
        }
        self.of_weights = torch.optim.SGD(
            self.supernet.parameters(), lr=3e-4, momentum=0.9, weight_decay=1e-4
        )
        self.of_alphas = torch.optim.SGD(self.alphas.values(), lr=0.1)

    def gradients(self, inputs: Tensor, targets: Tensor) -> float:
        """Compute the gradients of weights and alphas alike."""
        self.of_weights.zero_grad()
        self.of_alphas.zero_grad()
        weights = {name: torch.softmax(alpha, 0) for name, alpha in self.alphas.items()}
        with self.context:
            outputs = self.supernet(inputs, weights)
        loss = self.loss(outputs, targets)
        loss.backward()
        return loss.item()

    def step_weights(self, inputs: Tensor, targets: Tensor) -> None:
        """Train the weights."""
        self.gradients(inputs, targets)
        self.of_weights.step()

    def step_alphas(self, inputs: Tensor, targets: Tensor) -> None:
        """Train the alphas."""
        self.gradients(inputs, targets)
        self.of_alphas.step()

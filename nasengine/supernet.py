"""The supernet: every candidate of every slot in one network, mixed by weights.

The mixing weights come from outside (a strategy's relaxation of its alphas, a sampled path), so
that the supernet is a plain function of its input, its parameters and the mixtures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, fx, nn

from nasengine.graph import Node, SpaceGraph
from nasengine.network import assemble
from nasengine.shapes import make_module


class Mixture(NamedTuple):
    """How a decision mixes its choices.

    Parameters
    ----------
    weights
        One weight a choice, in order: shape (choices,).
    active
        Indices of the choices that run; the others count as weight 0. None runs all.
    """

    weights: Tensor
    active: tuple[int, ...] | None = None


class MixedOperation(nn.Module):
    """The weighted sum of a slot's candidates.

    Parameters
    ----------
    candidates
        Modules by choice, in the decision's order; all give the same shape.

    Shape
    -----
    (N, C_in, H, W) and a `Mixture` to (N, C_out, H', W').
    """

    def __init__(self, candidates: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict(candidates)

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        """Return the sum of weight x candidate(x) over the active candidates."""
        modules = list(self.candidates.values())
        active = range(len(modules)) if mixture.active is None else mixture.active
        total: Tensor | None = None
        for index in active:
            term = modules[index](x) * mixture.weights[index].to(x.dtype)
            total = term if total is None else total + term
        assert total is not None
        return total


class Supernet(nn.Module):
    """All networks of a space in one, as an `fx.GraphModule` with a mixture per decision.

    Parameters
    ----------
    graph
        A finished graph.

    Attributes
    ----------
    network
        The `fx.GraphModule`; its placeholders are the input and ``mix_<decision>``.
    decisions
        Decision to choices, in the order of the mixtures' weights.
    """

    def __init__(self, graph: SpaceGraph) -> None:
        super().__init__()
        self.decisions = dict(graph.decisions)
        modules: dict[str, nn.Module] = {}

        def fill(
            built: fx.Graph, slot: Node, x: fx.Node, mixtures: Mapping[str, fx.Node]
        ) -> fx.Node:
            into, out = graph.channels[slot.name]
            candidates = {
                name: make_module(f"slot {slot.name!r}, candidate {name!r}", factory, into, out)
                for name, factory in slot.candidates.items()
            }
            modules[slot.name] = MixedOperation(candidates)
            return built.call_module(slot.name, (x, mixtures[f"mix_{slot.decision}"]))

        further = [f"mix_{decision}" for decision in self.decisions]
        reads = {node.name: node.inputs for node in graph.nodes}
        self.network = assemble(graph, reads, fill, modules, "Supernet", further)

    def forward(self, x: Tensor, mixtures: Mapping[str, Mixture]) -> Tensor:
        """Run the supernet on (N, C, H, W) under one mixture per decision."""
        output: Tensor = self.network(x, *(mixtures[decision] for decision in self.decisions))
        return output

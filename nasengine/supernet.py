"""The supernet: every candidate of every slot in one network, mixed by weights.

The mixing weights come from outside (a strategy's relaxation of its alphas, a sampled path), so
that the supernet is a plain function of its input, its parameters and the mixtures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
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
    positive
        Whether every weight is known to be above 0, which lets more candidates take theirs
        inside.
    """

    weights: Tensor
    active: tuple[int, ...] | None = None
    positive: bool = False


class MixedOperation(nn.Module):
    """The weighted sum of a slot's candidates.

    Parameters
    ----------
    candidates
        Modules by choice, in the decision's order; all give the same shape.

    Attributes
    ----------
    takes_weight
        Candidates that take their weight as a second input, and give a tensor that nothing keeps
        for the backward pass (see `nasengine.passes.fold_weights`).
    takes_positive_weight
        Candidates that take it as a second input if it is above 0.
    skipped
        Candidates that add nothing, and run only where no other does.

    Shape
    -----
    (N, C_in, H, W) and a `Mixture` to (N, C_out, H', W').
    """

    def __init__(self, candidates: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict(candidates)
        self.takes_weight: set[str] = set()
        self.takes_positive_weight: set[str] = set()
        self.skipped: set[str] = set()

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        """Return the sum of weight x candidate(x) over the active candidates."""
        names = list(self.candidates)
        active = range(len(names)) if mixture.active is None else mixture.active
        # What nothing keeps comes first: the others are added to it in place.
        order = sorted(active, key=lambda index: names[index] not in self.takes_weight)
        first, *others = [i for i in order if names[i] not in self.skipped] or order[:1]
        total, is_own = self._first(names[first], x, mixture, first)
        for index in others:
            name, weight = names[index], mixture.weights[index]
            if self._takes(name, mixture):
                term = self.candidates[name](x, weight)
                total = total.add_(term) if is_own else total + term
            else:
                term = self.candidates[name](x)
                weight = weight.to(term.dtype)
                # One pass over memory for the product and the sum.
                total = (total.addcmul_ if is_own else total.addcmul)(term, weight)
            is_own = True
        return total

    def _first(self, name: str, x: Tensor, mixture: Mixture, index: int) -> tuple[Tensor, bool]:
        """Return a weighted output, and whether nothing keeps it for the backward pass."""
        module, weight = self.candidates[name], mixture.weights[index]
        if self._takes(name, mixture):
            return module(x, weight), name in self.takes_weight
        output: Tensor = module(x)
        return output * weight.to(output.dtype), True

    def _takes(self, name: str, mixture: Mixture) -> bool:
        return name in self.takes_weight or (
            mixture.positive and name in self.takes_positive_weight
        )


class PartialOperation(MixedOperation):
    """A slot's candidates on a part of the channels, while the others pass by.

    The channels are shuffled after it, so that others go through the candidates of the next slot
    (Xu et al.: PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search,
    ICLR 2020, section 3.2).

    Parameters
    ----------
    candidates
        As of `MixedOperation`, for C / part channels.
    part
        One channel in so many goes through the candidates.

    Shape
    -----
    (N, C, H, W) and a `Mixture` to (N, C, H, W).
    """

    def __init__(self, candidates: Mapping[str, nn.Module], part: int) -> None:
        super().__init__(candidates)
        self.part = part

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        """Return the channels, a part of them mixed, shuffled."""
        through = x.shape[1] // self.part
        mixed = super().forward(x[:, :through].contiguous(), mixture)
        joined = torch.cat((mixed, x[:, through:].to(mixed.dtype)), 1)
        return torch.channel_shuffle(joined, self.part)


class Supernet(nn.Module):
    """All networks of a space in one, as an `fx.GraphModule` with a mixture per decision.

    Parameters
    ----------
    graph
        A finished graph.
    part
        One channel in so many goes through the candidates, in every slot; each keeps its input's
        shape, and its channels can be divided by it.

    Attributes
    ----------
    network
        The `fx.GraphModule`; its placeholders are the input and ``mix_<decision>``.
    decisions
        Decision to choices, in the order of the mixtures' weights.
    """

    def __init__(self, graph: SpaceGraph, part: int = 1) -> None:
        super().__init__()
        self.decisions = dict(graph.decisions)
        modules: dict[str, nn.Module] = {}

        def fill(
            built: fx.Graph, slot: Node, x: fx.Node, mixtures: Mapping[str, fx.Node]
        ) -> fx.Node:
            into, out = (channels // part for channels in graph.channels[slot.name])
            candidates = {
                name: make_module(f"slot {slot.name!r}, candidate {name!r}", factory, into, out)
                for name, factory in slot.candidates.items()
            }
            modules[slot.name] = (
                MixedOperation(candidates) if part == 1 else PartialOperation(candidates, part)
            )
            return built.call_module(slot.name, (x, mixtures[f"mix_{slot.decision}"]))

        further = [f"mix_{decision}" for decision in self.decisions]
        reads = {node.name: node.inputs for node in graph.nodes}
        self.network = assemble(graph, reads, fill, modules, "Supernet", further)

    def forward(self, x: Tensor, mixtures: Mapping[str, Mixture]) -> Tensor:
        """Run the supernet on (N, C, H, W) under one mixture per decision."""
        output: Tensor = self.network(x, *(mixtures[decision] for decision in self.decisions))
        return output

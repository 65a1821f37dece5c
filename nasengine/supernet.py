"""The supernet: every candidate of every slot in one network, mixed by weights.

The mixing weights come from outside (a strategy's relaxation of its alphas, a sampled path), so
that the supernet is a plain function of its input, its parameters and the mixtures.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from nasengine.graph import Node, SpaceGraph
from nasengine.network import assemble
from nasengine.replay import side_by_side
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


class ScaledNorm(NamedTuple):
    """The batch norm that ends a candidate, and takes its weight.

    Parameters
    ----------
    norm
        Its path in the candidate; the module takes its next factor as ``scale``.
    through_relu
        Whether a ReLU follows, which only weights above 0 pass.
    """

    norm: str
    through_relu: bool


class MixedOperation(nn.Module):
    """The weighted sum of a slot's candidates.

    Parameters
    ----------
    candidates
        Modules by choice, in the decision's order; all give the same shape.

    Attributes
    ----------
    scaled
        Candidates whose last batch norm is scaled by their weight in place of their output (see
        `nasengine.passes.fold_weights`).
    skipped
        Candidates that add nothing, and run only where no other does.

    Shape
    -----
    (N, C_in, H, W), or several tensors, and a `Mixture` to (N, C_out, H', W').
    """

    def __init__(self, candidates: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict(candidates)
        self.scaled: dict[str, ScaledNorm] = {}
        self.skipped: set[str] = set()

    def forward(self, *inputs: Tensor, mixture: Mixture) -> Tensor:
        """Return the sum of weight x candidate(*inputs) over the active candidates."""
        names = list(self.candidates)
        active = range(len(names)) if mixture.active is None else mixture.active
        # What nothing keeps comes first: the others are added to it in place.
        order = sorted(active, key=lambda index: not self._ends_in_norm(names[index]))
        order = [i for i in order if names[i] not in self.skipped] or order[:1]
        weights = mixture.weights.unbind()
        terms = side_by_side(
            partial(self._output, names[index], inputs, weights[index], mixture.positive)
            for index in order
        )
        total, left = next(terms)
        is_own = left is not None or self._ends_in_norm(names[order[0]])
        total = total if left is None else total * left.to(total.dtype)
        for term, left in terms:
            # Of the wider type whichever comes first, as a sum is.
            is_own = is_own and torch.promote_types(total.dtype, term.dtype) is total.dtype
            if left is None:
                total = total.add_(term) if is_own else total + term
            else:
                # One pass over memory for the product and the sum.
                add = total.addcmul_ if is_own else total.addcmul
                total = add(term, left.to(term.dtype))
            is_own = True
        return total

    def _ends_in_norm(self, name: str) -> bool:
        """Say whether a candidate's output, scaled, is one that nothing keeps."""
        return name in self.scaled and not self.scaled[name].through_relu

    def _output(
        self, name: str, inputs: tuple[Tensor, ...], weight: Tensor, positive: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return a candidate's output and the weight that it is still to be multiplied by."""
        candidate, scaled = self.candidates[name], self.scaled.get(name)
        if scaled is None or (scaled.through_relu and not positive):
            return candidate(*inputs), weight
        norm: Any = candidate.get_submodule(scaled.norm)
        norm.scale = weight
        try:
            # A forward that passes its norm by, as some do by chance, leaves the weight there.
            return candidate(*inputs), norm.scale
        finally:
            norm.scale = None


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

    def forward(self, *inputs: Tensor, mixture: Mixture) -> Tensor:
        """Return the channels of one tensor, a part of them mixed, shuffled."""
        (x,) = inputs
        through = x.shape[1] // self.part
        mixed = super().forward(x[:, :through].contiguous(), mixture=mixture)
        joined = torch.cat((mixed, x[:, through:].to(mixed.dtype)), 1)
        return torch.channel_shuffle(joined, self.part)


class Supernet(nn.Module):
    """All networks of a space in one, as an `fx.GraphModule` with a mixture per decision.

    Parameters
    ----------
    graph
        A finished graph.
    part
        One channel in so many goes through the candidates, in every slot; each reads one node and
        keeps its shape, and its channels can be divided by it.

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
            built: fx.Graph,
            slot: Node,
            inputs: tuple[fx.Node, ...],
            mixtures: Mapping[str, fx.Node],
        ) -> fx.Node:
            channels = [count // part for count in graph.channels[slot.name]]
            candidates = {
                name: make_module(f"slot {slot.name!r}, candidate {name!r}", factory, *channels)
                for name, factory in slot.candidates.items()
            }
            modules[slot.name] = (
                MixedOperation(candidates) if part == 1 else PartialOperation(candidates, part)
            )
            mixture = mixtures[f"mix_{slot.decision}"]
            return built.call_module(slot.name, inputs, {"mixture": mixture})

        further = [f"mix_{decision}" for decision in self.decisions]
        reads = {node.name: node.inputs for node in graph.nodes}
        self.network = assemble(graph, reads, fill, modules, "Supernet", further)

    def forward(self, x: Tensor, mixtures: Mapping[str, Mixture]) -> Tensor:
        """Run the supernet on (N, C, H, W) under one mixture per decision."""
        output: Tensor = self.network(x, *(mixtures[decision] for decision in self.decisions))
        return output

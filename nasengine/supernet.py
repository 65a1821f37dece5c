"""The supernet: every candidate of every slot in one network, mixed by weights.

The mixing weights come from outside (a strategy's relaxation of its alphas, a sampled path), so
that the supernet is a plain function of its input, its parameters and the mixtures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from nasengine.graph import Node, SpaceGraph
from nasengine.hidden_norms import hidden_norms
from nasengine.masks import AtWidths, mask_of, masked, reaching
from nasengine.network import assemble, choosing
from nasengine.replay import side_by_side
from nasengine.shapes import make_module
from nasengine.widths import Channels, searched, times, widest

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)


class Mixture(NamedTuple):
    """How a decision mixes its choices.

    Parameters
    ----------
    weights
        One weight a choice, in order: shape (choices,).
    active
        Indices of the choices that run; None runs all. The others have weight 0, and may have a
        gradient: channels beyond a width take it, for nothing has to run for them.
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
    hidden
        Where channels are searched, candidate to the norms inside it that widths mask, with their
        channels (see `nasengine.hidden_norms`).

    Shape
    -----
    (N, C_in, H, W), or several tensors, and a `Mixture` to (N, C_out, H', W'); with the mixtures of
    the widths that mask what is `hidden`, by decision.
    """

    def __init__(self, candidates: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict(candidates)
        self.hidden: Mapping[str, Mapping[str, Channels]] = {}
        self.scaled: dict[str, ScaledNorm] = {}
        self.skipped: set[str] = set()

    def forward(
        self, *inputs: Tensor, mixture: Mixture, widths: Mapping[str, Mixture] | None = None
    ) -> Tensor:
        """Return the sum of weight x candidate(*inputs) over the active candidates."""
        masks = self._masks(widths or {}, mixture.weights.device)
        names = list(self.candidates)
        active = range(len(names)) if mixture.active is None else mixture.active
        # What nothing keeps comes first: the others are added to it in place.
        order = sorted(active, key=lambda index: not self._ends_in_norm(names[index]))
        order = [i for i in order if names[i] not in self.skipped] or order[:1]
        weights = mixture.weights.unbind()
        terms = side_by_side(
            partial(self._output, names[index], inputs, weights[index], mixture.positive, masks)
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

    def _masks(self, widths: Mapping[str, Mixture], device: torch.device) -> dict[Channels, Tensor]:
        """Return what each channel of a hidden norm is multiplied by."""
        weights = {decision: reaching(mixture.weights) for decision, mixture in widths.items()}
        every = {channels for norms in self.hidden.values() for channels in norms.values()}
        return {channels: mask_of(channels, weights, device) for channels in every}

    def _output(
        self,
        name: str,
        inputs: tuple[Tensor, ...],
        weight: Tensor,
        positive: bool,
        masks: Mapping[Channels, Tensor],
    ) -> tuple[Tensor, Tensor | None]:
        """Return a candidate's output and the weight that it is still to be multiplied by."""
        candidate, scaled = self.candidates[name], self.scaled.get(name)
        masked: dict[str, Tensor] = {
            f"{path}.{part}": getattr(candidate.get_submodule(path), part) * masks[channels]
            for path, channels in self.hidden.get(name, {}).items()
            for part in ("weight", "bias")
        }
        if scaled is None or (scaled.through_relu and not positive):
            return _called(candidate, inputs, masked), weight
        norm: Any = candidate.get_submodule(scaled.norm)
        norm.scale = weight
        try:
            # A forward that passes its norm by, as some do by chance, leaves the weight there.
            return _called(candidate, inputs, masked), norm.scale
        finally:
            norm.scale = None


def _called(module: nn.Module, inputs: tuple[Tensor, ...], other: dict[str, Tensor]) -> Tensor:
    """Call a module with other tensors in the place of some of its parameters."""
    found: Tensor = functional_call(module, other, inputs) if other else module(*inputs)
    return found


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

    def forward(
        self, *inputs: Tensor, mixture: Mixture, widths: Mapping[str, Mixture] | None = None
    ) -> Tensor:
        """Return the channels of one tensor, a part of them mixed, shuffled."""
        (x,) = inputs
        through = x.shape[1] // self.part
        mixed = super().forward(x[:, :through].contiguous(), mixture=mixture, widths=widths)
        joined = torch.cat((mixed, x[:, through:].to(mixed.dtype)), 1)
        return torch.channel_shuffle(joined, self.part)


class Narrowed(nn.Module):
    """The channels of a node as the widths' mixtures have them: those beyond a width are zero.

    A channel is multiplied by the weights of all widths that reach it, so that one width alone is
    the network of that width, and a mixture goes from one to the other (Wan et al.: FBNetV2,
    CVPR 2020, section 3.1).

    Parameters
    ----------
    channels
        What the node's channels are made of.

    Shape
    -----
    (N, C, ...) and a `Mixture` for each of the `decisions` to (N, C, ...).
    """

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.channels = channels
        self.decisions = tuple(dict.fromkeys(width.decision for width in searched(channels)))

    def forward(self, x: Tensor, *mixtures: Mixture) -> Tensor:
        """Return the tensor with each channel times the weight of the widths that reach it."""
        weights = {
            decision: reaching(mixture.weights)
            for decision, mixture in zip(self.decisions, mixtures, strict=True)
        }
        return masked(x, mask_of(self.channels, weights, x.device))


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
            mixed = MixedOperation(candidates) if part == 1 else PartialOperation(candidates, part)
            modules[slot.name] = mixed
            given: dict[str, Any] = {"mixture": mixtures[f"mix_{slot.decision}"]}
            hidden = {name: hidden_norms(graph, slot, name) for name in candidates}
            if any(hidden.values()):
                mixed.hidden = hidden
                used = graph.widths_of(slot.name)
                given["widths"] = {decision: mixtures[f"mix_{decision}"] for decision in used}
            return built.call_module(slot.name, inputs, given)

        def narrow(node: Node) -> tuple[nn.Module, Sequence[str]] | None:
            if not is_computed_anew(graph, node, modules[node.name]):
                return None
            narrowed = Narrowed(graph.out[node.name])
            return narrowed, [f"mix_{decision}" for decision in narrowed.decisions]

        further = [f"mix_{decision}" for decision in self.decisions]
        self.network = assemble(graph, None, fill, modules, "Supernet", further, narrow)

    def forward(self, x: Tensor, mixtures: Mapping[str, Mixture]) -> Tensor:
        """Run the supernet on (N, C, H, W) under one mixture per decision."""
        output: Tensor = self.network(x, *(mixtures[decision] for decision in self.decisions))
        return output


def is_computed_anew(graph: SpaceGraph, node: Node, module: nn.Module) -> bool:
    """Say whether a node's searched channels are computed there, not only passed on.

    An operation without weights that keeps its channels (a pooling, an upsampling) passes on what
    it reads: what is zero stays zero, and what was multiplied is not multiplied again. So does one
    that makes each into several (a flattening). A norm makes all alike, whatever they were.
    """
    out = graph.out[node.name]
    kept = {
        times(factor, graph.out[source])
        for source in node.inputs
        for factor in {1, widest(out) // widest(graph.out[source])} - {0}
    }
    parts = [*module.modules()]
    weighs = any(True for _ in module.parameters()) or any(isinstance(m, _NORMS) for m in parts)
    return node.kind == "slot" or weighs or out not in kept


def build_path(graph: SpaceGraph, architecture: Mapping[str, str]) -> fx.GraphModule:
    """Build what of a supernet an architecture runs: at the widest, and zero beyond its widths.

    Where no channels are searched it is the network of the architecture.

    Parameters
    ----------
    graph
        A finished graph.
    architecture
        A candidate for every slot, a choice for every width.
    """
    modules: dict[str, nn.Module] = {}
    at_widest = {**architecture, **{name: w.choices[-1] for name, w in graph.widths.items()}}

    def narrow(node: Node) -> tuple[nn.Module, Sequence[str]] | None:
        is_new = is_computed_anew(graph, node, modules[node.name])
        return (AtWidths(graph.out[node.name], architecture), ()) if is_new else None

    fill = choosing(graph, at_widest, modules)
    path = assemble(graph, at_widest, fill, modules, "Path", narrow=narrow)
    for slot in graph.slots:
        hidden = hidden_norms(graph, slot, architecture[slot.decision])
        for name, channels in hidden.items() if slot.name in modules else ():
            mask = AtWidths(channels, architecture)
            norm = path.get_submodule(f"{slot.name}.{name}")
            norm.register_forward_hook(lambda _, __, output, mask=mask: mask(output))
    return path

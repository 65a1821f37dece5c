"""Batch norms inside blocks whose channels are searched: what a width masks there.

A mask behind a block leaves its inside at the widest. Where a norm inside has as many channels as
the block reads or gives, at every width, or so many times as many as one width (an inverted
bottleneck), its scale and shift are multiplied by their mask, which costs no pass over memory; a
ReLU behind it keeps zeros and factors above them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasengine.graph import Node, SpaceGraph
from nasengine.meta_shapes import made_cheaply
from nasengine.shapes import make_module
from nasengine.widths import Channels, chosen, searched, times

_known: WeakKeyDictionary[SpaceGraph, dict[tuple[str, str], dict[str, Channels]]] = (
    WeakKeyDictionary()
)


def hidden_norms(graph: SpaceGraph, node: Node, name: str) -> dict[str, Channels]:
    """Return the norms inside a candidate whose channels go by those of its slot: path to channels.

    But for the one that ends it, if it ends in one: what is behind it is masked.

    Parameters
    ----------
    graph
        A finished graph.
    node
        A slot of it.
    name
        The candidate.
    """
    if not graph.widths_of(node.name):
        return {}
    known = _known.setdefault(graph, {})
    if (node.name, name) not in known:
        known[node.name, name] = _found(graph, node, name)
    return known[node.name, name]


def _found(graph: SpaceGraph, node: Node, name: str) -> dict[str, Channels]:
    variants = graph.variants(node.name)
    every = [graph.channels_of(node.name, variant) for variant in variants]
    make = partial(make_module, f"slot {node.name!r}, candidate {name!r}", node.candidates[name])
    made = [made_cheaply(partial(make, *channels)) for channels in every]
    norms = [_norms(module) for module in made]
    given = {
        tuple(chosen(channels, variant) for variant in variants): channels
        for channels in graph.called_with(node.name)
        if any(searched(channels))
    }
    counts = {path: tuple(one.get(path, 0) for one in norms) for path in norms[0]}
    likened = {path: _likened(count, given) for path, count in counts.items()}
    found = {path: channels for path, channels in likened.items() if channels is not None}
    found.pop(_last_with_weights(made[0]), None)
    return found


def _likened(counts: tuple[int, ...], given: Mapping[tuple[int, ...], Channels]) -> Channels | None:
    """Return the channels that come to these counts: given ones, or a multiple of one width."""
    if counts in given:
        return given[counts]
    for own, channels in given.items():
        factor = counts[0] // own[0]
        if len(channels) == 1 and counts == tuple(factor * count for count in own):
            return times(factor, channels)
    return None


def _norms(module: nn.Module) -> dict[str, int]:
    """Return the channels of the norms that have a scale and a shift."""
    parts = module.named_modules()
    return {p: m.num_features for p, m in parts if isinstance(m, _BatchNorm) and m.affine}


def _last_with_weights(module: nn.Module) -> str:
    """Return the path of the last part that has weights of its own."""
    parts = module.named_modules()
    own = [path for path, m in parts if any(True for _ in m.parameters(recurse=False))]
    return own[-1] if own else ""

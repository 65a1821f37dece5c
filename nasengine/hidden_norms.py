"""Batch norms inside blocks whose channels are searched: what a width masks there.

A mask behind a block leaves its inside at the widest. Where a norm inside has as many channels as
the block reads or gives, at every width, its scale and shift are multiplied by their mask, which
costs no pass over memory; a ReLU behind it keeps zeros and factors above them.
"""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasengine.graph import Node, SpaceGraph
from nasengine.meta_shapes import made_cheaply
from nasengine.shapes import make_module
from nasengine.widths import Channels, chosen, searched


def hidden_norms(graph: SpaceGraph, node: Node, name: str) -> dict[str, Channels]:
    """Return the norms inside a candidate whose channels are those of its slot: path to channels.

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
    found = {path: given[count] for path, count in counts.items() if count in given}
    found.pop(_last_with_weights(made[0]), None)
    return found


def _norms(module: nn.Module) -> dict[str, int]:
    """Return the channels of the norms that have a scale and a shift."""
    parts = module.named_modules()
    return {p: m.num_features for p, m in parts if isinstance(m, _BatchNorm) and m.affine}


def _last_with_weights(module: nn.Module) -> str:
    """Return the path of the last part that has weights of its own."""
    parts = module.named_modules()
    own = [path for path, m in parts if any(True for _ in m.parameters(recurse=False))]
    return own[-1] if own else ""

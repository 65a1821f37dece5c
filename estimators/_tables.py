"""Cost tables by counting: every candidate at its slot's real shape, on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from nasengine.architecture import Architecture
from nasengine.canonical import meanings
from nasengine.estimator import CostTable
from nasengine.network import build_network
from nasengine.shapes import Shape, make_module

if TYPE_CHECKING:
    from nasengine.graph import Factory, Node
    from nasengine.search import Search
    from nasengine.space import SearchSpace

Count = Callable[[nn.Module, Shape], int]
"""Counts something of a module on the meta device, for a sample of shape (C, H, W)."""


def meta_network(search: Search, architecture: Mapping[str, str]) -> fx.GraphModule:
    """Build a network without weights: in milliseconds, at any width."""
    with torch.device("meta"):
        return build_network(search.space.graph, architecture).eval()


def counted_table(search: Search, unit: str, count: Count) -> CostTable:
    """Count every candidate in every slot, and what is left of a whole network.

    A connection that is cut costs nothing: `simplify` takes it out. Candidates of one factory at
    one shape are counted once.
    """
    costs = {slot.name: dict[str, float]() for slot in search.space.graph.slots}
    seen: dict[tuple[Factory, int, int, Shape], int] = {}
    for slot, name, factory in fillings(search.space):
        into = search.shapes.into[slot.name]
        what = (factory, *search.space.graph.channels[slot.name], into)
        if what not in seen:
            seen[what] = _counted(search, slot, name, factory, count)
        costs[slot.name][name] = float(seen[what])
    decisions = {slot.name: slot.decision for slot in search.space.graph.slots}
    whole = connected(search.space)
    total = count(meta_network(search, whole), search.task.input_shape)
    slots = CostTable(unit, 0.0, costs, decisions)
    return CostTable(unit, total - slots.predict(whole), costs, decisions)


def fillings(space: SearchSpace) -> list[tuple[Node, str, Factory]]:
    """Return (slot, name, factory) of all that may stand in a slot, choices first."""
    return [
        (slot, name, factory)
        for slot in space.graph.slots
        for name, factory in {**slot.candidates, **slot.baselines}.items()
    ]


def connected(space: SearchSpace) -> Architecture:
    """Return an architecture that cuts no connection it need not cut."""
    meaning = meanings(space.graph)
    chosen: dict[str, str] = {}
    for slot in space.graph.slots:
        whole = [name for name in slot.candidates if meaning[slot.name, name] != "zero"]
        chosen.setdefault(slot.decision, (whole or list(slot.candidates))[0])
    return Architecture(chosen)


def is_cut(space: SearchSpace, slot: Node, name: str) -> bool:
    """Say whether a candidate cuts its connection."""
    return meanings(space.graph)[slot.name, name] == "zero"


def _counted(search: Search, slot: Node, name: str, factory: Factory, count: Count) -> int:
    if is_cut(search.space, slot, name):
        return 0
    where = f"slot {slot.name!r}, candidate {name!r}"
    with torch.device("meta"):
        module = make_module(where, factory, *search.space.graph.channels[slot.name])
    return count(module.eval(), search.shapes.into[slot.name])

"""Which architectures compute the same: what a cut connection and an identity leave of a graph.

`simplify` says what is built; `nasengine.certificate` compares what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from weakref import WeakKeyDictionary

from nasengine.factories import Factory
from nasengine.graph import SpaceGraph
from nasengine.meta_shapes import made_cheaply
from nasengine.operations import Meaning, meaning_of
from nasengine.shapes import make_module

_meanings: WeakKeyDictionary[SpaceGraph, dict[tuple[str, str], Meaning]] = WeakKeyDictionary()


def meanings(graph: SpaceGraph) -> Mapping[tuple[str, str], Meaning]:
    """Say of each (slot, candidate) whether it is a `Zero`, an `nn.Identity` or a real module.

    One that is a `Zero` or an `nn.Identity` at some widths alone counts as a real module.
    """
    found = _meanings.get(graph)
    if found is None:
        found = {}
        seen: dict[tuple[Factory, tuple[int, ...]], Meaning] = {}
        for slot in graph.slots:
            every = {graph.channels_of(slot.name, chosen) for chosen in graph.variants(slot.name)}
            for name, factory in {**slot.candidates, **slot.baselines}.items():
                where = f"slot {slot.name!r}, candidate {name!r}"
                for channels in every:
                    if (factory, channels) not in seen:
                        make = partial(make_module, where, factory, *channels)
                        seen[factory, channels] = meaning_of(made_cheaply(make))
                meant = {seen[factory, channels] for channels in every}
                found[slot.name, name] = meant.pop() if len(meant) == 1 else "module"
        _meanings[graph] = found
    return found


def uncut(graph: SpaceGraph) -> dict[str, tuple[str, ...]]:
    """Return each decision's choices that cut no connection; all where every one does."""
    meaning, found = meanings(graph), dict(graph.decisions)
    for slot in graph.slots:
        left = tuple(c for c in found[slot.decision] if meaning[slot.name, c] != "zero")
        found[slot.decision] = left or found[slot.decision]
    return found


def simplify(graph: SpaceGraph, architecture: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return what is left of the graph: node to the nodes that it reads.

    Sums lose the terms that are zero; what then reaches no output is gone. A sum of zeros alone
    keeps one, for its shape. Identities stay (they cost nothing).
    """
    meaning = meanings(graph)
    zero: set[str] = set()
    reads: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes:
        inputs = node.inputs
        if node.kind == "slot":
            choice = meaning[node.name, architecture[node.decision]]
            if choice == "zero" or (choice == "identity" and inputs[0] in zero):
                zero.add(node.name)
        elif node.kind == "add":
            live = tuple(source for source in inputs if source not in zero)
            if not live:
                zero.add(node.name)
            inputs = live or inputs[:1]
        reads[node.name] = inputs
    output = next(node.name for node in graph.nodes if node.kind == "output")
    alive, queue = {output}, [output]
    while queue:
        for source in reads[queue.pop()]:
            if source not in alive:
                alive.add(source)
                queue.append(source)
    return {name: inputs for name, inputs in reads.items() if name in alive}

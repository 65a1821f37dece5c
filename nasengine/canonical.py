"""Which architectures compute the same: simplification, and a canonical key.

Two architectures are one when their graphs are the same after cut connections (`Zero`) and
identities are taken out and equal parallel branches are put in one order. Constants are not
folded: a convolution of zeros stays a convolution.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import nn

from nasengine.graph import Factory, Node, SpaceGraph
from nasengine.operations import Zero
from nasengine.shapes import make_module

Meaning = Literal["zero", "identity", "module"]

_meanings: WeakKeyDictionary[SpaceGraph, dict[tuple[str, str], Meaning]] = WeakKeyDictionary()


def meanings(graph: SpaceGraph) -> Mapping[tuple[str, str], Meaning]:
    """Say of each (slot, candidate) whether it is a `Zero`, an `nn.Identity` or a real module."""
    found = _meanings.get(graph)
    if found is None:
        found = {}
        seen: dict[tuple[Factory, int, int], Meaning] = {}
        for slot in graph.slots:
            into, out = graph.channels[slot.name]
            for name, factory in {**slot.candidates, **slot.baselines}.items():
                if (factory, into, out) not in seen:
                    where = f"slot {slot.name!r}, candidate {name!r}"
                    with torch.device("meta"):
                        seen[factory, into, out] = _meaning(make_module(where, factory, into, out))
                found[slot.name, name] = seen[factory, into, out]
        _meanings[graph] = found
    return found


def _meaning(module: nn.Module) -> Meaning:
    if isinstance(module, Zero):
        return "zero"
    return "identity" if type(module) is nn.Identity else "module"


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


def canonical_key(graph: SpaceGraph, architecture: Mapping[str, str]) -> str:
    """Return a key that architectures of one space share exactly when they compute the same.

    Nodes of the simplified graph are coloured by what they compute from their inputs and by who
    reads them, until the colours are stable (colour refinement, Weisfeiler and Leman 1968).
    """
    reads = simplify(graph, architecture)
    meaning = meanings(graph)
    labels = _labels(graph)
    forward: dict[str, str] = {}
    passes: dict[str, str] = {}
    for name, inputs in reads.items():
        node = graph[name]
        choice = architecture[node.decision] if node.kind == "slot" else ""
        through = node.kind == "slot" and meaning[name, choice] == "identity"
        if through or (node.kind == "add" and len(inputs) == 1):
            passes[name] = passes.get(inputs[0], inputs[0])
            continue
        forward[name] = labels[name, choice]
    edges = {
        name: tuple(passes.get(source, source) for source in inputs)
        for name, inputs in reads.items()
        if name in forward
    }
    return _refined(graph, forward, edges)


def _refined(graph: SpaceGraph, labels: dict[str, str], edges: dict[str, tuple[str, ...]]) -> str:
    readers: dict[str, list[str]] = {name: [] for name in labels}
    for name, inputs in edges.items():
        for source in inputs:
            readers[source].append(name)
    colours, classes = labels, len(set(labels.values()))
    while True:
        refined = {}
        for name in labels:
            into = [colours[source] for source in edges[name]]
            if graph[name].kind == "add":
                into.sort()
            out = sorted(colours[reader] for reader in readers[name])
            refined[name] = _digest(f"{colours[name]}({','.join(into)})<{','.join(out)}>")
        count = len(set(refined.values()))
        if count == classes:
            return _digest(",".join(sorted(refined.values())))
        colours, classes = refined, count


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


@lru_cache(maxsize=64)
def _labels(graph: SpaceGraph) -> dict[tuple[str, str], str]:
    """Name what stands at a node: equal only for the same factory on the same channels.

    Fixed operations are each their own, so that nothing moves past them.
    """
    numbers: dict[tuple[Factory, int, int], int] = {}
    labels: dict[tuple[str, str], str] = {}
    for node in graph.nodes:
        if node.kind != "slot":
            labels[node.name, ""] = node.kind if node.kind in ("add", "concat") else node.name
            continue
        for name, factory in _fillings(node).items():
            what = (factory, *graph.channels[node.name])
            labels[node.name, name] = f"{name}#{numbers.setdefault(what, len(numbers))}"
    return labels


def _fillings(node: Node) -> dict[str, Factory]:
    return {**node.candidates, **node.baselines}

"""What a predictor sees of an architecture: features that follow from the space's graph alone.

Three groups. The first two are of what is left once dead branches are cut, so that architectures
that compute the same look the same:

- for every decision, one column a choice and one for "cut": the choice if its slots are alive,
  of a width if anything of such channels is;
- for the whole network, how many slots hold each choice, how many are cut, and its depth;
- for every decision, one column a choice, whether its slots are alive or not: a table, or a cost
  that somebody else measured, may count the dead. Left out where nothing is ever cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from nasengine.architecture import Architecture
from nasengine.graph import SpaceGraph
from nasengine.moves import enumerate_all, sample
from nasengine.randomness import stream

if TYPE_CHECKING:
    from nasengine.space import SearchSpace

Array = npt.NDArray[np.float64]

REMEMBERED = 100_000
"""Rows kept a space; beyond, they are computed anew."""

AT_ONCE = 20_000
"""Spaces up to this size are computed as a whole: the graph is gone through once, not often."""

_kept: WeakKeyDictionary[SpaceGraph, Features] = WeakKeyDictionary()


def features_of(space: SearchSpace) -> Features:
    """Return a space's features, which remember the rows that they have computed."""
    if space.graph not in _kept:
        _kept[space.graph] = Features(space.graph)
    return _kept[space.graph]


class Features:
    """Turns architectures of one space into rows of numbers.

    Parameters
    ----------
    graph
        The space's finished graph.

    Attributes
    ----------
    local
        Number of columns that tell the decisions that are alive; they come first.
    whole
        Number of those that tell the whole network; they come next.
    written
        Number of those that tell the decisions as they are written; they come last.
    columns
        Number of all.
    widths
        Number of columns of each decision among the first; one less among the last.
    """

    def __init__(self, graph: SpaceGraph) -> None:
        from nasengine.canonical import meanings

        self.decisions = graph.decisions
        self._nodes = graph.nodes
        self._widths_of = {node.name: graph.widths_of(node.name) for node in graph.nodes}
        self._size = prod(len(choices) for choices in self.decisions.values())
        self._code = {n: {c: i for i, c in enumerate(cs)} for n, cs in self.decisions.items()}
        self.widths = [len(choices) + 1 for choices in self.decisions.values()]
        self.local = sum(self.widths)
        # Of every choice of every decision, one after the other: its decision and its number.
        counts = [len(choices) for choices in self.decisions.values()]
        self._decision_of = np.repeat(np.arange(len(counts)), counts)
        self._number_of = np.concatenate([np.arange(count) for count in counts])
        # After those of a decision stands whether it is cut.
        self._order = np.argsort([*self._decision_of, *range(len(counts))], kind="stable")
        choices = [choice for choices in self.decisions.values() for choice in choices]
        self._named = np.array(
            [[c == name for name in sorted(set(choices))] for c in choices], float
        )
        meaning = meanings(graph)
        self._means = {
            kind: {
                slot.name: np.array([meaning[slot.name, c] == kind for c in slot.candidates])
                for slot in graph.slots
            }
            for kind in ("module", "zero")
        }
        self._rows: dict[Architecture, Array] = {}
        rng = stream(0, "features")
        rows = self._compute([sample(self.decisions, rng) for _ in range(200)])
        self.whole = self._named.shape[1] + 2
        self.written = len(choices) if rows[:, np.cumsum(self.widths) - 1].any() else 0
        self.columns = self.local + self.whole + self.written
        whole = rows[:, self.local : self.local + self.whole]
        self._mean, spread = whole.mean(axis=0), whole.std(axis=0)
        # Scaled so that two random networks are at a distance of about 1 all told.
        self._scale = np.where(spread > 1e-9, spread, np.inf) * np.sqrt(whole.shape[1])

    def __call__(self, architectures: Sequence[Architecture]) -> Array:
        """Return the features of architectures: (architectures, columns)."""
        if not self._rows and self._size <= AT_ONCE:
            self._remember(list(enumerate_all(self.decisions)))
        new = [a for a in dict.fromkeys(architectures) if a not in self._rows]
        if new:
            if len(self._rows) + len(new) > REMEMBERED:
                self._rows.clear()
                new = list(dict.fromkeys(architectures))
            self._remember(new)
        return np.array([self._rows[architecture] for architecture in architectures])

    def _remember(self, architectures: Sequence[Architecture]) -> None:
        rows = self._compute(architectures)[:, : self.columns]
        whole = rows[:, self.local : self.local + self.whole]
        whole -= self._mean
        whole /= self._scale
        self._rows.update(zip(architectures, rows, strict=True))

    def _compute(self, architectures: Sequence[Architecture]) -> Array:
        codes = {
            name: np.array([code[a[name]] for a in architectures])
            for name, code in self._code.items()
        }
        alive, depth = self._trace(codes, len(architectures))
        chosen = np.column_stack(list(codes.values()))[:, self._decision_of] == self._number_of
        slots = np.column_stack([sum(parts) for parts in alive.values()])
        each = np.array([len(parts) for parts in alive.values()])
        share = slots / each
        own = np.hstack([share[:, self._decision_of] * chosen, 1 - share])[:, self._order]
        totals = (slots[:, self._decision_of] * chosen) @ self._named
        cut = each.sum() - slots.sum(axis=1)
        return np.column_stack([own, totals, cut, depth, chosen])

    def _trace(
        self, codes: dict[str, npt.NDArray[np.int64]], count: int
    ) -> tuple[dict[str, list[Array]], Array]:
        """Return whether each slot of a decision, or a width, is alive, and the network's depth."""
        always = np.ones(count, dtype=bool)
        reaches: dict[str, npt.NDArray[np.bool_]] = {}
        depth: dict[str, Array] = {}
        for node in self._nodes:
            inputs = [depth[s] * reaches[s] for s in node.inputs] or [np.zeros(count)]
            depth[node.name] = np.maximum.reduce(inputs) if len(inputs) > 1 else inputs[0]
            reaches[node.name] = always
            if node.kind == "slot":
                module, zero = (
                    self._means[kind][node.name][codes[node.decision]]
                    for kind in ("module", "zero")
                )
                # A module of zeros is no zero: it has a bias, or a normalisation.
                reaches[node.name] = (reaches[node.inputs[0]] | module) & ~zero
                depth[node.name] = depth[node.name] + module
            elif node.kind == "add":
                reaches[node.name] = np.logical_or.reduce([reaches[s] for s in node.inputs])
        return self._alive(reaches), depth[self._nodes[-1].name]

    def _alive(self, reaches: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, list[Array]]:
        """Return whether each slot of a decision, or a width, is used on the way to the output."""
        used: dict[str, npt.NDArray[np.bool_]] = {}
        alive: dict[str, list[Array]] = {name: [] for name in self.decisions}
        for node in reversed(self._nodes):
            if node.kind == "output":
                used[node.name] = reaches[node.name]
            here = used.get(node.name)
            here = np.zeros_like(reaches[node.name]) if here is None else here
            if node.kind in ("slot", "add"):
                here = here & reaches[node.name]
            if node.kind == "slot":
                alive[node.decision].append(here.astype(float))
            if node.kind in ("operation", "slot"):
                for width in self._widths_of[node.name]:
                    before = alive[width][0] if alive[width] else 0.0
                    alive[width] = [np.maximum(before, here)]
            for source in node.inputs:
                used[source] = used[source] | here if source in used else here
        return alive

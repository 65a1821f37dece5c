"""The contract of search spaces."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import ValidationError

from nasengine.architecture import Architecture, check_architecture, parse_choices
from nasengine.errors import ArchitectureError, SpaceError, did_you_mean
from nasengine.graph import SpaceGraph
from nasengine.plugin import Plugin

if TYPE_CHECKING:
    from nasengine.certificate import Plan
    from nasengine.shapes import Shapes

_REMEMBERED = 100_000
"""Canonical keys that a space keeps."""


class SearchSpace(Plugin):
    """A search space: settings, and one method that wires them into a graph.

    Attributes
    ----------
    widths
        The settings that say how many channels networks have inside, all lowered together by an
        estimator that measures narrower networks; empty where there are none. Not what is
        searched: see `SpaceGraph.width`.

    Examples
    --------
    >>> from torch import nn
    >>> class Tiny(SearchSpace):
    ...     "Two 1x1 convolutions, with or without a ReLU."
    ...     width: int = 8
    ...     def define(self, graph):
    ...         block = {"conv": lambda i, o: nn.Conv2d(i, o, 1),
    ...                  "relu": lambda i, o: nn.Sequential(nn.Conv2d(i, o, 1), nn.ReLU())}
    ...         x = graph.input(3)
    ...         x = graph.slot("first", x, block, out=self.width)
    ...         x = graph.slot("second", x, block, out=1)
    ...         graph.output(x)
    >>> space = Tiny()
    >>> space.size, space.decisions
    (4, {'first': ('conv', 'relu'), 'second': ('conv', 'relu')})
    """

    kind: ClassVar[str] = "space"
    widths: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def define(self, graph: SpaceGraph) -> None:
        """Wire the space: input, operations, slots, output."""

    def references(self) -> Mapping[str, Mapping[str, str | int]]:
        """Return named networks to compare with: decision to choice (a candidate or baseline).

        A width's choice may be given as the number that names it.
        """
        return {}

    def parse(self, text: str) -> Mapping[str, str]:
        """Read an architecture string, as tables of results use it.

        By default what `format` writes.

        Raises
        ------
        ArchitectureError
            If the text is none.
        """
        if "=" not in text:
            raise ArchitectureError(
                f"{type(self).__name__} has no architecture strings of its own; got {text!r}; "
                f"{did_you_mean(text, self.references())}"
            )
        return parse_choices(text, self)

    def format(self, architecture: Architecture) -> str:
        """Write an architecture as the space's own string; by default ``decision=choice,...``."""
        return ",".join(f"{decision}={choice}" for decision, choice in architecture.items())

    # What follows comes from the settings and the graph, and is not for spaces to override.

    def narrowed(self, fraction: float) -> SearchSpace:
        """Return this space with a share of the channels: the same architectures, less to compute.

        Raises
        ------
        SpaceError
            If it has no `widths`, the share changes none of them, its graph does not allow them, or
            decisions have other choices then: a searched width's are to be named by something else
            than their numbers (see `SpaceGraph.width`).
        """
        name = type(self).__name__
        if not self.widths:
            raise SpaceError(f"{name} names no settings as its `widths`, to be made narrower by")
        before = {setting: getattr(self, setting) for setting in self.widths}
        after = {setting: max(1, round(fraction * value)) for setting, value in before.items()}
        said = ", ".join(f"{setting} = {value}" for setting, value in after.items())
        if after == before:
            raise SpaceError(f"{fraction} of {name}'s channels is all of them: {said}")
        try:
            found = type(self)(**{**self.model_dump(by_alias=True), **after})
            otherwise = _otherwise(self.graph, found.graph)
        except (ValidationError, SpaceError) as error:
            reason = str(error)
            if isinstance(error, ValidationError):
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise SpaceError(f"{fraction} of {name}'s channels, {said}: {reason}") from error
        if otherwise:
            raise SpaceError(f"{name} has other {otherwise} with {said}")
        return found

    @cached_property
    def graph(self) -> SpaceGraph:
        """The finished graph.

        Raises
        ------
        SpaceError
            If `define` raised, or wired something that is no search space.
        """
        from nasengine.defining import located

        graph = SpaceGraph()
        with located(type(self)):
            self.define(graph)
        graph.finish()
        return graph

    @property
    def decisions(self) -> dict[str, tuple[str, ...]]:
        """Every decision with its choices, in order."""
        return self.graph.decisions

    @property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(choices) for choices in self.decisions.values())

    def architecture(
        self, choices: Mapping[str, object], where: str = "architecture"
    ) -> Architecture:
        """Check choices and make them an architecture of this space.

        Raises
        ------
        ArchitectureError
            Naming every unknown or missing decision or choice.
        """
        return check_architecture(choices, self.decisions, where=where)

    def reference(self, name: str) -> Architecture:
        """Return a reference network's architecture, which may hold baseline blocks.

        Raises
        ------
        ArchitectureError
            If there is no reference of that name, or it does not fit the space.
        """
        references = self.references()
        if name not in references:
            raise ArchitectureError(
                f"no reference network {name!r}; {did_you_mean(name, references)}"
            )
        return check_architecture(references[name], self.fillings, where=f"reference {name!r}")

    @cached_property
    def fillings(self) -> dict[str, tuple[str, ...]]:
        """Every decision with all that may stand there: its choices, then its baselines."""
        found = dict(self.decisions)
        for slot in self.graph.slots:
            further = tuple(name for name in slot.baselines if name not in found[slot.decision])
            found[slot.decision] += further
        return found

    def key(self, architecture: Architecture) -> str:
        """Return the canonical key: equal for architectures that compute the same function."""
        found = self._keys.get(architecture)
        if found is None:
            if len(self._keys) >= _REMEMBERED:
                self._keys.clear()
            found = self._keys[architecture] = self._plan.key(architecture)
        return found

    def shapes(self, input_shape: tuple[int, ...]) -> Shapes:
        """Return the shape of every node for an input of (C, H, W); inferred once.

        Raises
        ------
        SpaceError
            Naming what does not fit: see `nasengine.shapes.infer_shapes`.
        """
        from nasengine.shapes import infer_shapes

        if input_shape not in self._shapes:
            self._shapes[input_shape] = infer_shapes(self.graph, input_shape)
        return self._shapes[input_shape]

    @cached_property
    def _shapes(self) -> dict[tuple[int, ...], Shapes]:
        return {}

    @cached_property
    def _plan(self) -> Plan:
        # Imports torch, which a space that is only listed does without.
        from nasengine.certificate import plan_of

        return plan_of(self.graph)

    @cached_property
    def _keys(self) -> dict[Architecture, str]:
        # Strategies ask for a key before they propose, and the engine asks again.
        return {}


def _otherwise(graph: SpaceGraph, other: SpaceGraph) -> str:
    """Say what of a graph's decisions another one has otherwise; empty where they are equal."""
    for name in graph.widths:
        own, its = graph.decisions[name], other.decisions.get(name, ())
        if own != its:
            return (
                f"choices of the width {name!r} ({', '.join(its)} in place of {', '.join(own)}; "
                f"names such as {{'half': ..., 'full': ...}} would stay)"
            )
    return "slots or candidates" if graph.decisions != other.decisions else ""

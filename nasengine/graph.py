"""A search space's graph, held as data: input, operations, slots, merges, output.

From it come the derived network and the supernet (`nasengine.network`), shapes
(`nasengine.shapes`), canonical keys (`nasengine.canonical`) and pictures
(`nasengine.delivery.picture`).
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from keyword import iskeyword
from operator import index
from typing import TYPE_CHECKING, Literal, SupportsIndex

from nasengine.errors import SpaceError, did_you_mean
from nasengine.factories import Factories, Factory, check_bound, described
from nasengine.widths import (
    Channels,
    Width,
    check_count,
    chosen,
    combinations,
    joined,
    searched,
    searched_width,
    widest,
    written,
)

if TYPE_CHECKING:
    import networkx as nx

Kind = Literal["input", "operation", "slot", "add", "concat", "output"]


@dataclass(frozen=True)
class Node:
    """One node of a space's graph, also the handle that wires it to others.

    Parameters
    ----------
    name
        Unique, a Python identifier: it names the module in the networks.
    kind
        What stands there.
    inputs
        Names of the nodes it reads, in order.
    out
        Channels out, or the width that says how many; None means as many as the first input has.
    factory
        The module of an operation.
    candidates
        The choices of a slot, in order.
    baselines
        Further blocks that only reference networks put there; never searched.
    decision
        The decision that fills a slot: its own name, or the one it shares.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...] = ()
    out: int | Width | None = None
    factory: Factory | None = None
    candidates: Mapping[str, Factory] = field(default_factory=dict)
    baselines: Mapping[str, Factory] = field(default_factory=dict)
    decision: str = ""

    def __str__(self) -> str:
        return self.name


Source = Node | str

_VARIANTS = 64
"""Combinations of widths that a node is tried at; its channels seldom depend on more than three."""

_ONE: Mapping[str, str] = {
    "input": "what belongs together (an image, its depth) is one, whose channels operations split",
    "output": "what is to come out together is one by graph.concat, which the task's loss splits",
}
"""What to do in place of several inputs or outputs."""


class SpaceGraph:
    """What `SearchSpace.define` wires.

    Sources are the nodes that earlier calls returned, or names (also of nodes still to come).

    Attributes
    ----------
    decisions
        Decision to its choices.
    channels
        Node to the channels of each input, then those out: what its factories are called with, at
        the widest where they are searched (see `channels_of`). A sum or concatenation has those of
        its result alone, twice.
    order
        The nodes' names in topological order, once finished.
    out
        Node to what its channels out are made of.
    widths
        The decisions on numbers of channels.

    Examples
    --------
    >>> from torch import nn
    >>> graph = SpaceGraph()
    >>> x = graph.input(3)
    >>> x = graph.slot("stem", x, {"conv": lambda i, o: nn.Conv2d(i, o, 1)}, out=8)
    >>> _ = graph.output(x)
    >>> graph.finish()
    >>> graph.decisions
    {'stem': ('conv',)}
    >>> graph.channels["stem"]
    (3, 8)

    A slot that reads several nodes has candidates that are called with several tensors:

    >>> class Gated(nn.Module):
    ...     def __init__(self, deep, skip, out):
    ...         super().__init__()
    ...         self.gate, self.end = nn.Conv2d(deep, skip, 1), nn.Conv2d(skip, out, 1)
    ...     def forward(self, deep, skip):
    ...         return self.end(skip * self.gate(deep).sigmoid())
    >>> graph = SpaceGraph()
    >>> x = graph.input(3)
    >>> y = graph.operation("wide", x, lambda i, o: nn.Conv2d(i, o, 1), out=8)
    >>> _ = graph.output(graph.slot("fuse", [y, x], {"gated": Gated}, out=4))
    >>> graph.finish()
    >>> graph.channels["fuse"]
    (8, 3, 4)

    Channels are searched where they are a width in place of a number:

    >>> graph = SpaceGraph()
    >>> width = graph.width("width", (8, 16))
    >>> x = graph.operation("stem", graph.input(3), lambda i, o: nn.Conv2d(i, o, 1), out=width)
    >>> x = graph.slot("body", x, {"conv": lambda i, o: nn.Conv2d(i, o, 1)}, out=2 * width)
    >>> _ = graph.output(graph.operation("head", x, lambda i, o: nn.Conv2d(i, o, 1), out=1))
    >>> graph.finish()
    >>> graph.decisions, graph.channels["body"], graph.channels_of("body", {"width": "8"})
    ({'width': ('8', '16'), 'body': ('conv',)}, (16, 32), (8, 16))
    """

    def __init__(self) -> None:
        # Here and below, not at the top: it takes 0.2 s, and the command line lists spaces.
        import networkx as nx

        self.dag: nx.DiGraph[str] = nx.DiGraph()
        self.decisions: dict[str, tuple[str, ...]] = {}
        self.channels: dict[str, tuple[int, ...]] = {}
        self.order: tuple[str, ...] = ()
        self.out: dict[str, Channels] = {}
        self.widths: dict[str, Width] = {}
        self._widths_of: dict[str, tuple[str, ...]] = {}
        self._factories = Factories()

    def __getitem__(self, name: str) -> Node:
        node: Node = self.dag.nodes[name]["node"]
        return node

    @property
    def nodes(self) -> list[Node]:
        """Every node, in topological order once finished."""
        return [self[name] for name in (self.order or self.dag.nodes)]

    @property
    def slots(self) -> list[Node]:
        """The slots, in topological order once finished."""
        return [node for node in self.nodes if node.kind == "slot"]

    def channels_of(self, name: str, choices: Mapping[str, str]) -> tuple[int, ...]:
        """Return a node's channels in a network: those of each input, then those out.

        Parameters
        ----------
        name
            The node.
        choices
            A choice for every width that it depends on (see `widths_of`), or for all decisions.
        """
        if not self.widths_of(name):
            return self.channels[name]
        return tuple(chosen(channels, choices) for channels in self.called_with(name))

    def called_with(self, name: str) -> tuple[Channels, ...]:
        """Return what a node's channels are made of: each input's, then those out.

        A sum or concatenation has those of its result alone, twice.
        """
        node, out = self[name], self.out[name]
        into = [self.out[source] for source in node.inputs]
        return (out, out) if node.kind in ("add", "concat") or not into else (*into, out)

    def widths_of(self, name: str) -> tuple[str, ...]:
        """Return the widths (decisions) on which a node's channels depend, in or out."""
        return self._widths_of[name]

    def variants(self, name: str) -> list[dict[str, str]]:
        """Return the choices that a node's widths may have together, all widest first.

        Where these are more than some dozens, each width's own beside the widest of the others.
        """
        return combinations([self.widths[width] for width in self.widths_of(name)], _VARIANTS)

    def input(self, channels: int, name: str = "input") -> Node:
        """Add the network's input of so many channels: (N, channels, H, W)."""
        return self._add(Node(name, "input", out=channels))

    def width(self, name: str, options: Iterable[int] | Mapping[str, int]) -> Width:
        """Add a decision on a number of channels, and return what stands for it as ``out``.

        ``2 * width`` is twice as many by the same decision. What reads a node of searched channels
        and says no ``out`` of its own has as many.

        Parameters
        ----------
        name
            The decision's name.
        options
            The numbers to choose from, increasing; or these by the names of the choices.
        """
        width = searched_width(name, options)
        if name in self.widths:
            raise SpaceError(f"width {name!r} is defined twice; keep what graph.width returned")
        self.widths[name] = width
        return width

    def operation(
        self,
        name: str,
        sources: Source | Sequence[Source],
        factory: Factory,
        out: int | Width | None = None,
    ) -> Node:
        """Add a fixed module; with several sources it is called with several tensors.

        `factory` gets the channels of each source, then those out (by default as many as the first
        source has).
        """
        return self._add(Node(name, "operation", _names(sources), out, factory))

    def slot(
        self,
        name: str,
        sources: Source | Sequence[Source],
        choices: Mapping[str, Factory],
        out: int | Width | None = None,
        *,
        shares: str | None = None,
        baselines: Mapping[str, Factory] | None = None,
    ) -> Node:
        """Add a place that a search fills.

        Parameters
        ----------
        name
            The slot's name.
        sources
            The node that it reads, or several in order: each candidate is called with as many
            tensors, and its factory with the channels of each, then those out.
        choices
            The candidates by name; every one must give the same output shape.
        out
            Channels out, or a width (`width`); by default as many as the first source has.
        shares
            The name of a decision that several slots follow, such as a repeated cell's edge; by
            default the slot decides for itself.
        baselines
            Further blocks that reference networks may put here, and no search proposes.
        """
        node = Node(
            name,
            "slot",
            _names(sources),
            out,
            None,
            _by_name(choices, f"slot {name!r}: choices"),
            _by_name(baselines or {}, f"slot {name!r}: baselines"),
            shares or name,
        )
        return self._add(node)

    def add(self, name: str, sources: Source | Iterable[Source]) -> Node:
        """Add the elementwise sum of tensors of one shape."""
        return self._add(Node(name, "add", _names(sources)))

    def concat(self, name: str, sources: Source | Iterable[Source]) -> Node:
        """Add the concatenation of tensors along the channels."""
        return self._add(Node(name, "concat", _names(sources)))

    def output(self, source: Source, name: str = "output") -> Node:
        """Say which node is the network's output."""
        return self._add(Node(name, "output", _names(source)))

    def _add(self, node: Node) -> Node:
        if not isinstance(node.name, str):
            raise SpaceError(
                f"{node.kind}: a name comes first, as text; got {_described(node.name)}; "
                f'such as graph.{node.kind}("{node.kind}_1", ...)'
            )
        if not node.name.isidentifier():
            raise SpaceError(f"node {node.name!r}: a name must be a Python identifier")
        if iskeyword(node.name):
            raise SpaceError(f"node {node.name!r}: a name must not be a word of Python's own")
        if node.decision and not node.decision.isidentifier():
            raise SpaceError(f"slot {node.name!r}: shares must be a Python identifier")
        if node.name in self.dag:
            raise SpaceError(f"node {node.name!r} is defined twice")
        self._check_out(node)
        node = self._with_known_factories(node)
        self.dag.add_node(node.name, node=node)
        return node

    def _check_out(self, node: Node) -> None:
        out = node.out
        if isinstance(out, Width):
            if node.kind == "input":
                raise SpaceError(f"input {node.name!r}: an input's channels are the task's")
            self._check_own(out, node)
            return
        if out is not None and not isinstance(out, SupportsIndex):
            raise SpaceError(
                f"node {node.name!r}: channels are a whole number, or a width by graph.width; got "
                f"{_described(out)}"
            )
        if out is not None and out < 1:
            raise SpaceError(f"node {node.name!r}: {node.out} channels out; at least 1 is needed")

    def _check_own(self, width: Width, node: Node) -> None:
        own = self.widths.get(width.decision)
        if own is None or width != (width.widest // own.widest or 1) * own:
            raise SpaceError(
                f"node {node.name!r}: the width {width.decision!r} is not what this graph's "
                f"graph.width returned, nor a multiple of it"
            )

    def _with_known_factories(self, node: Node) -> Node:
        """Return a node whose factories are those of earlier nodes where they make the same."""
        where, known = f"{node.kind} {node.name!r}", self._factories.known
        if node.kind == "operation":
            return replace(node, factory=known(where, node.factory))  # type: ignore[arg-type]
        candidates, baselines = (
            {name: known(f"{where}, candidate {name!r}", each) for name, each in blocks.items()}
            for blocks in (node.candidates, node.baselines)
        )
        check_bound(where, {**node.candidates, **node.baselines})
        return replace(node, candidates=candidates, baselines=baselines)

    def finish(self) -> None:
        """Check the wiring and infer the channels; called once, by the engine.

        Raises
        ------
        SpaceError
            If a source is unknown, a name is missing, there is a cycle, a node reaches no output
            or is reached by no input, a slot has no candidates, slots that share a decision offer
            different choices, a sum is of unequal channels, a width is used nowhere or reaches the
            output, or a factory reads a variable that has changed since it was wired.
        """
        self._factories.check_unchanged()
        self._connect()
        self._check_ends()
        self._infer_channels()
        self._collect_decisions()

    def _connect(self) -> None:
        import networkx as nx

        for node in self.nodes:
            if node.kind != "input" and not node.inputs:
                raise SpaceError(f"{node.kind} {node.name!r} reads nothing")
            for source in node.inputs:
                if source not in self.dag:
                    raise SpaceError(
                        f"node {node.name!r} reads {source!r}, which does not exist; "
                        f"{did_you_mean(source, self.dag.nodes)}"
                    )
                self.dag.add_edge(source, node.name)
        if not nx.is_directed_acyclic_graph(self.dag):
            cycle = [edge[0] for edge in nx.find_cycle(self.dag)]
            raise SpaceError("the graph has a cycle: " + " -> ".join([*cycle, cycle[0]]))
        rank = {name: index for index, name in enumerate(self.dag.nodes)}
        self.order = tuple(nx.lexicographical_topological_sort(self.dag, key=rank.__getitem__))

    def _check_ends(self) -> None:
        import networkx as nx

        for kind in ("input", "output"):
            found = [node.name for node in self.nodes if node.kind == kind]
            if len(found) != 1:
                several = f": {', '.join(found)}; {_ONE[kind]}"
                listed = several if found else f"; graph.{kind}(...) wires it"
                raise SpaceError(f"a space has one {kind}, this one has {len(found)}{listed}")
        start, end = self.order[0], next(n.name for n in self.nodes if n.kind == "output")
        alive = nx.ancestors(self.dag, end) | {end}
        for node in self.nodes:
            if node.name not in alive:
                raise SpaceError(f"node {node.name!r} ({node.kind}) reaches no output")
            if node.kind == "slot" and not node.candidates:
                raise SpaceError(f"slot {node.name!r} has no candidates")
        reached = nx.descendants(self.dag, start) | {start}
        for node in self.nodes:
            if node.name not in reached:
                raise SpaceError(f"node {node.name!r} ({node.kind}) is reached by no input")

    def _infer_channels(self) -> None:
        for node in self.nodes:
            self.out[node.name] = self._channels_out(node)
            self.channels[node.name] = tuple(map(widest, self.called_with(node.name)))
        self._widths_of = {
            node.name: tuple(
                dict.fromkeys(w.decision for c in self.called_with(node.name) for w in searched(c))
            )
            for node in self.nodes
        }
        used = {width for widths in self._widths_of.values() for width in widths}
        for name in self.widths:
            if name not in used:
                raise SpaceError(f"width {name!r} is no node's; it is given as out=...")
        for name, names in self._widths_of.items():
            check_count(f"node {name!r}", [self.widths[width] for width in names])
        end = self.order[-1]
        if self.widths_of(end):
            raise SpaceError(
                f"output {end!r} has {written(self.out[end])} channels, and a network's own are "
                f"not searched: an operation with a number for out=... makes them so many"
            )

    def _channels_out(self, node: Node) -> Channels:
        into = [self.out[source] for source in node.inputs]
        if node.kind == "concat":
            return joined(into)
        if node.kind == "add" and len(set(into)) > 1:
            listed = ", ".join(
                f"{s} has {written(c)}" for s, c in zip(node.inputs, into, strict=True)
            )
            raise SpaceError(f"add {node.name!r} sums unequal channels: {listed}")
        if node.out is None:
            return into[0]
        return (node.out if isinstance(node.out, Width) else index(node.out),)

    def _collect_decisions(self) -> None:
        owner: dict[str, str] = {}
        self.decisions.update((name, width.choices) for name, width in self.widths.items())
        for slot in self.slots:
            for name in {slot.name, slot.decision} & self.widths.keys():
                raise SpaceError(f"slot {slot.name!r}: {name!r} is the name of a width")
            choices = tuple(slot.candidates)
            if self.decisions.setdefault(slot.decision, choices) != choices:
                raise SpaceError(
                    f"slots {owner[slot.decision]!r} and {slot.name!r} share the decision "
                    f"{slot.decision!r} and offer different choices: "
                    f"{', '.join(self.decisions[slot.decision])}; {', '.join(choices)}"
                )
            owner.setdefault(slot.decision, slot.name)
            twice = set(slot.candidates) & set(slot.baselines)
            if twice:
                raise SpaceError(f"slot {slot.name!r}: {sorted(twice)} both candidate and baseline")


def _by_name(choices: object, where: str) -> dict[str, Factory]:
    if not isinstance(choices, Mapping):
        listed = "; several nodes are read as a list" if isinstance(choices, Node) else ""
        raise SpaceError(
            f"{where} are factories by name, such as {{'conv': conv}}; got {_described(choices)}"
            f"{listed}"
        )
    for name in choices:
        if not isinstance(name, str):
            raise SpaceError(f"{where}: a name is text; got {_described(name)}")
    return dict(choices)


def _names(sources: Source | Iterable[Source]) -> tuple[str, ...]:
    if isinstance(sources, (Node, str)):
        return (str(sources),)
    found = tuple(sources) if isinstance(sources, Iterable) else (sources,)
    for source in found:
        if not isinstance(source, (Node, str)):
            raise SpaceError(
                f"what is read is a node, the name of one, or a list of these; "
                f"got {_described(source)}"
            )
    return tuple(str(source) for source in found)


def _described(got: object) -> str:
    return f"the node {got.name!r}" if isinstance(got, Node) else described(got)

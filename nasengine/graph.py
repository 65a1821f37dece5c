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
from typing import TYPE_CHECKING, Literal, SupportsIndex

from nasengine.errors import SpaceError, did_you_mean
from nasengine.factories import Factories, Factory, check_bound, described

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
        Channels out; None means as many as the first input has.
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
    out: int | None = None
    factory: Factory | None = None
    candidates: Mapping[str, Factory] = field(default_factory=dict)
    baselines: Mapping[str, Factory] = field(default_factory=dict)
    decision: str = ""

    def __str__(self) -> str:
        return self.name


Source = Node | str

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
        Node to the channels of each input, then those out: what its factories are called with.
        A sum or concatenation has those of its result alone, twice.
    order
        The nodes' names in topological order, once finished.

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
    """

    def __init__(self) -> None:
        # Here and below, not at the top: it takes 0.2 s, and the command line lists spaces.
        import networkx as nx

        self.dag: nx.DiGraph[str] = nx.DiGraph()
        self.decisions: dict[str, tuple[str, ...]] = {}
        self.channels: dict[str, tuple[int, ...]] = {}
        self.order: tuple[str, ...] = ()
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

    def input(self, channels: int, name: str = "input") -> Node:
        """Add the network's input of so many channels: (N, channels, H, W)."""
        return self._add(Node(name, "input", out=channels))

    def operation(
        self,
        name: str,
        sources: Source | Sequence[Source],
        factory: Factory,
        out: int | None = None,
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
        out: int | None = None,
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
            Channels out; by default as many as the first source has.
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
        if node.out is not None and not isinstance(node.out, SupportsIndex):
            raise SpaceError(
                f"node {node.name!r}: channels are a whole number; got {_described(node.out)}"
                + "; candidates may differ in their channels inside" * (node.kind == "slot")
            )
        if node.out is not None and node.out < 1:
            raise SpaceError(f"node {node.name!r}: {node.out} channels out; at least 1 is needed")
        node = self._with_known_factories(node)
        self.dag.add_node(node.name, node=node)
        return node

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
            different choices, a sum is of unequal channels, or a factory reads a variable that has
            changed since it was wired.
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
            into = [self.channels[source][-1] for source in node.inputs] or [node.out or 0]
            if node.kind == "add" and len(set(into)) > 1:
                listed = ", ".join(f"{s} has {c}" for s, c in zip(node.inputs, into, strict=True))
                raise SpaceError(f"add {node.name!r} sums unequal channels: {listed}")
            if node.kind in ("add", "concat"):
                into = into[:1] if node.kind == "add" else [sum(into)]
            self.channels[node.name] = (*into, into[0] if node.out is None else node.out)

    def _collect_decisions(self) -> None:
        owner: dict[str, str] = {}
        for slot in self.slots:
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

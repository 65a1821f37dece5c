"""Canonical keys, fast enough for every proposal of a search.

A space's graph is cut at the nodes through which all paths pass (a repeated cell's ends, say).
What lies between two cuts is a region. A region's certificate depends on nothing but its own
choices and on whether zeros come in, so it is kept, and regions that repeat share it.

A certificate describes what is left of the region as nested text, each node with its number of
readers. That text determines the graph unless two nodes with several readers each look alike from
below; then the order of its nodes is made canonical by colour refinement and individualisation
(McKay and Piperno, Practical graph isomorphism II, 2014, section 2).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from nasengine.canonical import meanings
from nasengine.factories import Factory
from nasengine.graph import Kind, Node, SpaceGraph
from nasengine.operations import Meaning
from nasengine.widths import Channels, chosen

_LIMIT = 65_536  # certificates kept for one region
_LEAVES = 512  # orders tried for one region before giving up on recognising its symmetries

_plans: WeakKeyDictionary[SpaceGraph, Plan] = WeakKeyDictionary()

Filling = tuple[str, Meaning]
"""What stands at a node: a label, equal only for equal modules, and its meaning."""


def plan_of(graph: SpaceGraph) -> Plan:
    """Return a finished graph's plan, made once."""
    plan = _plans.get(graph)
    if plan is None:
        plan = _plans[graph] = Plan(graph)
    return plan


@dataclass(frozen=True)
class Part:
    """One node of a region; nodes are numbered, 0 is the region's input.

    Parameters
    ----------
    kind
        The node's kind.
    inputs
        Numbers of the nodes that it reads.
    fillings
        By choice; a node that is no slot has one, under the empty name.
    slot
        The position of its choice among the region's, or -1.
    channels
        Where they are searched: those of each input, then those out.
    widths
        The widths in these, with the positions of their choices among the region's.
    known
        Of searched channels, what was said before.
    """

    kind: Kind
    inputs: tuple[int, ...]
    fillings: Mapping[str, Filling]
    slot: int
    channels: tuple[Channels, ...] = ()
    widths: tuple[tuple[str, int], ...] = ()

    known: dict[tuple[str, ...], Filling] = field(default_factory=dict, compare=False)

    def filling(self, choices: Sequence[str]) -> Filling:
        """Return what stands here under the region's choices."""
        choice = choices[self.slot] if self.slot >= 0 else ""
        if not self.channels:
            return self.fillings[choice]
        asked = (choice, *[choices[place] for _, place in self.widths])
        if asked not in self.known:
            widths = {name: choices[place] for name, place in self.widths}
            label, meaning = self.fillings[choice]
            counts = [chosen(part, widths) for part in self.channels]
            self.known[asked] = f"{label}@{counts}", meaning
        return self.known[asked]


class Plan:
    """How to key the architectures of one space: its regions, in order.

    Parameters
    ----------
    graph
        A finished graph.
    """

    def __init__(self, graph: SpaceGraph) -> None:
        fillings = _fillings(graph)
        found = [_region(graph, start, names, fillings) for start, names in _between_cuts(graph)]
        shapes = [_shape(parts, decisions) for parts, decisions in found]
        regions: dict[object, Region] = {}
        self._steps: list[tuple[Region, int, int]] = []
        self._decisions = list(dict.fromkeys(decisions for _, decisions in found))
        for (parts, decisions), shape in zip(found, shapes, strict=True):
            if shape not in regions:
                # What repeats is keyed as one: its parts never move to another region.
                name = f"cell{len(regions)}" if shapes.count(shape) > 1 else ""
                regions[shape] = Region(parts, name)
            step = (regions[shape], self._decisions.index(decisions), 1)
            if self._steps and self._steps[-1][:2] == step[:2]:
                step = (*step[:2], self._steps.pop()[2] + 1)
            self._steps.append(step)

    def key(self, architecture: Mapping[str, str]) -> str:
        """Return a key of the network that an architecture stands for.

        Architectures of one space with one key compute the same function, once their weights are
        paired, with the same parameters and operations. Of two with different keys, the networks
        differ after cut connections, identities and dead branches are taken out, sums within sums
        are flattened, and the order of a sum's terms is ignored. Constants are not folded: a
        convolution of zeros stays a convolution. Fixed operations are each their own: nothing
        moves past them.
        """
        picks = [tuple([architecture[name] for name in names]) for names in self._decisions]
        zero = False
        found = []
        for region, index, times in self._steps:
            left = times
            while left:
                before = zero
                text, zero = region.certificate(picks[index], before)
                # What repeats and lets zeros through as they came goes on as it began.
                same = left if zero == before else 1
                if text:
                    found += [text] * same
                left -= same
        return _digest(",".join(found))


class Region:
    """What lies between two cuts of a graph.

    Parameters
    ----------
    parts
        Its nodes in topological order, the input first and the output last.
    name
        Set where it repeats.
    """

    def __init__(self, parts: Sequence[Part], name: str) -> None:
        self._parts = parts
        self._name = name
        self._known: dict[tuple[tuple[str, ...], bool], tuple[str, bool]] = {}
        self._rigid = not name and _is_rigid(parts)
        self._decided = [part for part in parts if part.slot >= 0 or part.channels]

    def certificate(self, choices: tuple[str, ...], zero: bool) -> tuple[str, bool]:
        """Say what the region computes from its input, and whether that is zeros.

        Parameters
        ----------
        choices
            One for each of its slots.
        zero
            Whether zeros come in.
        """
        known = self._known.get((choices, zero))
        if known is None:
            if self._rigid and not zero:
                return self._as_chosen(choices), False
            left, zero_out = reduce_parts(self._parts, choices, zero)
            text = ",".join(pieces(left))
            known = (f"{self._name}<{text}>" if self._name else text, zero_out)
            if len(self._known) >= _LIMIT:
                self._known.clear()
            self._known[choices, zero] = known
        return known

    def _as_chosen(self, choices: tuple[str, ...]) -> str:
        return ";".join([part.filling(choices)[0] for part in self._decided])


@dataclass
class Left:
    """What is left of a region: numbers as in its parts; node 0 is the input.

    Parameters
    ----------
    labels
        What stands at each node; ``+`` for a sum.
    reads
        What each node reads; sums are flattened where nobody else reads the inner one.
    readers
        How often each node is read; 0 for one that is gone. The output has one more.
    output
        The number of the output.
    """

    labels: list[str]
    reads: list[tuple[int, ...]]
    readers: list[int]
    output: int
    alive: list[int] = field(default_factory=list)


def reduce_parts(parts: Sequence[Part], choices: Sequence[str], zero: bool) -> tuple[Left, bool]:
    """Take out zeros, identities, sums of one, dead branches and sums within sums."""
    count = len(parts)
    same = list(range(count))  # the node that a node merely passes on
    zeros = [zero] + [False] * (count - 1)
    labels = [""] * count
    reads: list[tuple[int, ...]] = [()] * count
    for number in range(1, count):
        part = parts[number]
        inputs = part.inputs
        if part.kind == "add":
            live = tuple([source for source in inputs if not zeros[source]])
            if not live:
                zeros[number] = True
            inputs = live or inputs[:1]
            passes = len(inputs) == 1
            labels[number] = "+"
        else:
            choice = choices[part.slot] if part.slot >= 0 else ""
            found = part.filling(choices) if part.channels else part.fillings[choice]
            labels[number], meaning = found
            passes = meaning == "identity"
            if meaning == "zero" or (passes and zeros[inputs[0]]):
                zeros[number] = True
        if passes:
            same[number] = same[inputs[0]]
        else:
            reads[number] = tuple([same[source] for source in inputs])
    left = Left(labels, reads, [0] * count, same[-1])
    _count_readers(left)
    _flatten(left)
    return left, zeros[-1]


def _count_readers(left: Left) -> None:
    readers = left.readers
    readers[left.output] = 1
    for number in range(left.output, 0, -1):
        if readers[number]:
            left.alive.append(number)
            for source in left.reads[number]:
                readers[source] += 1
    left.alive.reverse()


def _flatten(left: Left) -> None:
    inner = set()
    for number in left.alive:
        if left.labels[number] != "+":
            continue
        terms: list[int] = []
        for source in left.reads[number]:
            if left.labels[source] == "+" and left.readers[source] == 1:
                terms += left.reads[source]
                inner.add(source)
            else:
                terms.append(source)
        left.reads[number] = tuple(terms)
    if inner:
        left.alive = [number for number in left.alive if number not in inner]


def pieces(left: Left) -> Iterator[str]:
    """Yield one text for each piece between two cuts of what is left."""
    text = {0: "x"}
    opened, since = left.readers[0], 0
    shared: set[str] = set()
    ambiguous = False
    for position, number in enumerate(left.alive):
        reads, label, readers = left.reads[number], left.labels[number], left.readers[number]
        inside = [text[source] for source in reads]
        if label == "+":
            inside.sort()
        described = f"{label}({','.join(inside)})"
        if len(described) > 48:
            described = _digest(described)
        opened -= len(reads)
        if opened == 0:
            yield _ordered(left, left.alive[since : position + 1]) if ambiguous else described
            text[number] = "x"
            since, ambiguous = position + 1, False
            shared.clear()
        elif readers > 1:
            text[number] = described = f"{described}*{readers}"
            ambiguous = ambiguous or described in shared
            shared.add(described)
        else:
            text[number] = described
        opened += readers


def _ordered(left: Left, numbers: Sequence[int]) -> str:
    """Describe a piece by its adjacency, in the least of the orders that its structure allows."""
    inside = set(numbers)
    reads = {number: left.reads[number] for number in numbers}
    start = next(s for number in numbers for s in reads[number] if s not in inside)
    colours = {number: left.labels[number] for number in numbers} | {start: "x"}
    leaves = [0]
    least = _least(reads, colours, left.labels, leaves)
    if least is None:  # too symmetric: kept apart, which is always safe
        return _digest("as numbered:" + repr(sorted((n, left.labels[n], reads[n]) for n in reads)))
    return _digest("in order:" + least)


def _least(
    reads: Mapping[int, tuple[int, ...]],
    colours: Mapping[int, str],
    labels: Sequence[str],
    leaves: list[int],
) -> str | None:
    colours = _refined(reads, colours, labels)
    classes: dict[str, list[int]] = {}
    for number, colour in colours.items():
        classes.setdefault(colour, []).append(number)
    several = sorted(colour for colour, members in classes.items() if len(members) > 1)
    if not several:
        leaves[0] += 1
        place = {number: i for i, number in enumerate(sorted(colours, key=colours.__getitem__))}
        rows = []
        for number, sources in reads.items():
            into = [place[source] for source in sources]
            if labels[number] == "+":
                into.sort()
            rows.append(f"{place[number]}:{labels[number]}{into}")
        return ";".join(sorted(rows))
    best: str | None = None
    for number in classes[several[0]]:
        found = _least(reads, {**colours, number: colours[number] + "!"}, labels, leaves)
        if found is None or leaves[0] > _LEAVES:
            return None
        best = found if best is None else min(best, found)
    return best


def _refined(
    reads: Mapping[int, tuple[int, ...]], colours: Mapping[int, str], labels: Sequence[str]
) -> dict[int, str]:
    """Colour nodes by their inputs and readers until no colour splits."""
    readers: dict[int, list[int]] = {number: [] for number in colours}
    for number, sources in reads.items():
        for source in sources:
            readers[source].append(number)
    current, count = dict(colours), len(set(colours.values()))
    while True:
        finer = {}
        for number, colour in current.items():
            into = [current[source] for source in reads.get(number, ())]
            if labels[number] == "+":
                into.sort()
            # Where a reader reads matters too: the first or the second input of a concatenation.
            out = sorted(
                f"{current[r]}{[] if labels[r] == '+' else _places(reads[r], number)}"
                for r in readers[number]
            )
            finer[number] = _digest(f"{colour}({','.join(into)})<{','.join(out)}>")
        found = len(set(finer.values()))
        if found == count:
            return finer
        current, count = finer, found


def _places(sources: Sequence[int], number: int) -> list[int]:
    return [place for place, source in enumerate(sources) if source == number]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def _between_cuts(graph: SpaceGraph) -> Iterator[tuple[str, list[str]]]:
    """Yield the node at which each region starts, and the nodes after it, its end the last."""
    readers = Counter(source for node in graph.nodes for source in node.inputs)
    start = graph.order[0]
    names: list[str] = []
    opened = readers[start]
    for name in graph.order[1:]:
        names.append(name)
        opened -= len(graph[name].inputs)
        if opened == 0:
            yield start, names
            start, names = name, []
        opened += readers[name]


def _fillings(graph: SpaceGraph) -> dict[str, dict[str, Filling]]:
    meaning = meanings(graph)
    numbers: dict[tuple[Factory, tuple[int, ...]], int] = {}
    found: dict[str, dict[str, Filling]] = {}
    for node in graph.nodes:
        if node.kind != "slot":
            label = {"concat": "&", "add": "+"}.get(node.kind, f"={node.name}")
            found[node.name] = {"": (label, "module")}
            continue
        found[node.name] = row = {}
        for name, factory in {**node.candidates, **node.baselines}.items():
            # Where any channels are searched, they are told apart from the factory.
            what = (factory, () if graph.widths else graph.channels[node.name])
            label = str(numbers.setdefault(what, len(numbers)))
            if graph.widths and not graph.widths_of(node.name):
                label += f"@{list(graph.channels[node.name])}"
            row[name] = (label, meaning[node.name, name])
    return found


def _region(
    graph: SpaceGraph, start: str, names: Sequence[str], fillings: Mapping[str, dict[str, Filling]]
) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    number = {name: index for index, name in enumerate([start, *names])}
    parts = [Part("input", (), {}, -1)]
    decisions: list[str] = []
    for name in names:
        node: Node = graph[name]
        slot = -1
        if node.kind == "slot":
            slot = len(decisions)
            decisions.append(node.decision)
        widths = graph.widths_of(name) if node.kind in ("operation", "slot") else ()
        decisions += [width for width in widths if width not in decisions]
        places = tuple((width, decisions.index(width)) for width in widths)
        channels = graph.called_with(name) if widths else ()
        inputs = tuple(number[source] for source in node.inputs)
        parts.append(Part(node.kind, inputs, fillings[name], slot, channels, places))
    return tuple(parts), tuple(decisions)


def _shape(parts: Sequence[Part], decisions: tuple[str, ...]) -> object:
    """Return what two regions have in common when the same choices do the same in both."""
    numbers: dict[str, int] = {}
    rows = []
    for part in parts:
        row = tuple(
            (name, numbers.setdefault(label, len(numbers)), meaning)
            for name, (label, meaning) in part.fillings.items()
        )
        rows.append((part.kind, part.inputs, row, part.slot, part.channels))
    return tuple(rows), decisions


def _is_rigid(parts: Sequence[Part]) -> bool:
    """Say whether different choices always make different networks.

    So it is where nothing is ever taken out, no two nodes can change places, and a fixed operation
    makes it unlike every other region.
    """
    slots = [part for part in parts if part.slot >= 0]
    fixed = any(part.kind == "operation" for part in parts)
    if not slots or not fixed:
        return False
    if any(meaning != "module" for part in slots for _, meaning in part.fillings.values()):
        return False
    text = ["x"]
    for part in parts[1:]:
        inside = [text[source] for source in part.inputs]
        if part.kind == "add":
            inside.sort()
        label = "slot" if part.slot >= 0 else part.fillings[""][0]
        text.append(_digest(f"{label}({','.join(inside)})"))
    return len(set(text)) == len(text)


def _of_any_width(
    parts: Sequence[Part], decisions: tuple[str, ...]
) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """Return a region without its widths: a cell is one cell whatever its channels."""
    slots = [part.slot for part in parts if part.slot >= 0]
    return (
        tuple(
            Part(p.kind, p.inputs, p.fillings, slots.index(p.slot) if p.slot >= 0 else -1)
            for p in parts
        ),
        tuple(decisions[slot] for slot in slots),
    )


def repeated_regions(graph: SpaceGraph) -> list[tuple[int, int, str, list[str]]]:
    """Return the regions with slots that stand in a graph more than once.

    Returns
    -------
    A row each: the number of the cell that it is, its own number, the node before it, its nodes.
    """
    fillings = _fillings(graph)
    rows = [
        (start, list(names), _shape(*_of_any_width(*_region(graph, start, names, fillings))))
        for start, names in _between_cuts(graph)
    ]
    shapes = [shape for _, names, shape in rows if any(graph[n].kind == "slot" for n in names)]
    repeated = [shape for shape in dict.fromkeys(shapes) if shapes.count(shape) > 1]
    return [
        (repeated.index(shape) + 1, index, start, names)
        for index, (start, names, shape) in enumerate(rows)
        if shape in repeated
    ]

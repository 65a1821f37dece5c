"""Where the nodes of a space's graph stand in its picture.

Left to right along the data; further down where the image is smaller, so that a UNet looks like a
U. A cell that repeats is one box, drawn in full in a panel of its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from nasengine.certificate import repeated_regions
from nasengine.errors import SpaceError
from nasengine.graph import SpaceGraph
from nasengine.widths import Width, chosen, searched

GAP = 0.55
ROW = 1.0
SIZES = {"slot": (2.3, 0.78), "cell": (2.3, 0.78), "operation": (1.5, 0.46), "output": (0.95, 0.46)}
_SMALL = (0.95, 0.46)
MERGE = (0.42, 0.42)
BESIDE = 0.05
"""How far beside a box its channels are said."""
STACKED = 0.14
"""How far the box of several cells in a row stands out behind itself."""
_LETTER = 0.1
CONNECTOR = "connector"
"""The kind of a box by which a wire goes on in another row of the picture."""


@dataclass
class Box:
    """One thing in the picture; x and y are its centre.

    Parameters
    ----------
    name
        The node's name, or the cell's.
    kind
        The node's kind, ``cell``, or `CONNECTOR`.
    reads
        Names of the boxes that it reads.
    level
        How often the image was halved there.
    text
        What stands in it.
    channels
        Those out, said beside it; empty where they are not said.
    searched
        Whether they are.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    level: int
    text: str
    channels: str = ""
    searched: bool = False
    x: float = 0.0
    y: float = 0.0
    lane: int = 0
    hangs: bool = False
    width: float = field(init=False)
    height: float = field(init=False)

    def __post_init__(self) -> None:
        if self.kind in ("add", "concat", CONNECTOR):
            self.width, self.height = MERGE
        elif self.kind == "input":
            self.width, self.height = max(_SMALL[0], 0.3 + 0.105 * len(self.text)), _SMALL[1]
        else:
            self.width, self.height = SIZES[self.kind]
        if self.kind == "operation":
            self.width = 0.35 + 0.105 * len(self.text)

    @property
    def left(self) -> float:
        """Its left side."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """Its right side."""
        return self.x + self.width / 2

    @property
    def is_stack(self) -> bool:
        """Whether it stands for several cells in a row."""
        return self.kind == "cell" and " x " in self.text

    @property
    def beside(self) -> float:
        """Where its channels are said."""
        return self.right + BESIDE + STACKED * self.is_stack

    @property
    def end(self) -> float:
        """Its right side, or that of the channels beside it."""
        return self.beside + _LETTER * len(self.channels) if self.channels else self.right

    @property
    def clear(self) -> float:
        """Where its wire may turn: behind channels that are longer than a gap."""
        return self.right if self.end < self.right + 0.9 * GAP else self.end


@dataclass
class Panel:
    """One part of the picture.

    Parameters
    ----------
    title
        What stands over it; empty for none.
    boxes
        By name, placed.
    across
        Its left and right, where they are not those of its boxes.
    """

    title: str
    boxes: dict[str, Box]
    across: tuple[float, float] | None = None

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top."""
        boxes = self.boxes.values()
        own = (min(box.left for box in boxes), max(box.right for box in boxes))
        return (
            *(self.across or own),
            min(box.y for box in boxes) - ROW / 2,
            max(box.y for box in boxes) + ROW / 2,
        )


def panels(graph: SpaceGraph, choices: Mapping[str, str] | None = None) -> list[Panel]:
    """Return the whole network, then every cell that repeats.

    Channels are said as the choices have them; without any, all that there are to choose from.
    """
    levels = image_levels(graph)
    regions = _cells(graph)
    inside = {name: (key, index) for key, index, _, names in regions for name in names}
    titles = {
        key: f"cell {key}" if len({r[0] for r in regions}) > 1 else "cell" for key, *_ in regions
    }
    whole = _network_boxes(graph, levels, inside, titles)
    for box in whole:
        _say_channels(box, graph, choices)
    found = [Panel("", place(whole))]
    for key, rows in groupby(sorted(regions, key=lambda r: (r[0], r[1])), key=lambda r: r[0]):
        _, _, start, names = next(iter(rows))
        boxes = [Box(start, "input", (), 0, f"{titles[key]} input")]
        boxes += [_box(graph, name, 0, graph[name].inputs) for name in names]
        found.append(Panel(f"{titles[key]}: the same in every place", place(boxes)))
    return found


def _cells(graph: SpaceGraph) -> list[tuple[int, int, str, list[str]]]:
    """Return the repeated regions of more than one node, numbered anew.

    One slot alone is drawn as itself wherever it stands: a frame would hide its choice.
    """
    regions = [region for region in repeated_regions(graph) if len(region[3]) > 1]
    keys = list(dict.fromkeys(sorted(key for key, *_ in regions)))
    return [(keys.index(key) + 1, index, start, names) for key, index, start, names in regions]


def _network_boxes(
    graph: SpaceGraph,
    levels: Mapping[str, int],
    inside: Mapping[str, tuple[int, int]],
    titles: Mapping[int, str],
) -> list[Box]:
    """Return a box for each node, and one for each run of cells that give the same channels.

    It is named after what its first cell gives.
    """
    ends = {cell: name for name, cell in inside.items()}
    stands_for: dict[str, str] = {}
    boxes: list[Box] = []
    run: list[tuple[int, int]] = []
    for node in graph.nodes:
        cell = inside.get(node.name)
        reads = tuple(dict.fromkeys(stands_for[source] for source in node.inputs))
        if cell is None:
            run = []
            boxes.append(_box(graph, node.name, levels[node.name], reads))
            stands_for[node.name] = node.name
            continue
        end = ends[cell]
        if not run or run[-1][0] != cell[0] or graph.out[ends[run[-1]]] != graph.out[end]:
            run = []
            boxes.append(Box(end, "cell", reads, levels[node.name], ""))
        if cell not in run:
            run.append(cell)
            boxes[-1].text = f"{titles[cell[0]]} x {len(run)}" if len(run) > 1 else titles[cell[0]]
        stands_for[node.name] = boxes[-1].name
    return boxes


def _box(graph: SpaceGraph, name: str, level: int, reads: Sequence[str]) -> Box:
    kind = graph[name].kind
    text = {"add": "+", "concat": "\u2016"}.get(kind, name)
    return Box(name, kind, tuple(reads), level, text)


def _say_channels(box: Box, graph: SpaceGraph, choices: Mapping[str, str] | None) -> None:
    """Say the channels out of slots and cells, and of what is fixed where it sets searched ones."""
    out = graph.out[box.name]
    box.searched = any(searched(out))
    sets_searched = box.kind == "operation" and isinstance(graph[box.name].out, Width)
    if sets_searched or box.kind in ("slot", "cell"):
        box.channels = "+".join(map(str, out)) if choices is None else str(chosen(out, choices))


def image_levels(graph: SpaceGraph) -> dict[str, int]:
    """Return how often the image was halved at each node; all 0 where that cannot be said."""
    from nasengine.shapes import infer_shapes

    channels = graph.channels[graph.order[0]][1]
    side = 256
    try:
        shapes = infer_shapes(graph, (channels, side, side)).out
    except SpaceError:
        return dict.fromkeys(graph.order, 0)
    levels: dict[str, int] = {}
    for node in graph.nodes:
        shape = shapes[node.name]
        if len(shape) == 3 and min(shape[1:]) > 1:
            levels[node.name] = round(math.log2(side / shape[1]))
        else:
            levels[node.name] = max((levels[source] for source in node.inputs), default=0)
    return levels


def place(boxes: Iterable[Box]) -> dict[str, Box]:
    """Give every box its place, in the order given (topological).

    What changes the image's size hangs under or over what it reads, where nothing else stands.
    """
    order, standing = list(boxes), set[str]()
    while True:
        placed = _placed(order, standing)
        hidden = [box.name for box in order if box.hangs and _overlaps(box, order)]
        if not hidden:
            return placed
        standing.update(hidden)


def _overlaps(box: Box, others: Iterable[Box]) -> bool:
    return any(
        other is not box
        and other.left < box.end
        and box.left < other.end
        and abs(other.y - box.y) < (other.height + box.height) / 2
        for other in others
    )


def _placed(boxes: Iterable[Box], standing: Collection[str]) -> dict[str, Box]:
    placed: dict[str, Box] = {}
    ends: dict[tuple[int, int], float] = {}
    for box in boxes:
        before = [placed[name] for name in box.reads]
        box.hangs = (
            box.kind == "operation"
            and len(before) == 1
            and before[0].level != box.level
            and not before[0].hangs
            and box.name not in standing
        )
        if box.hangs:
            box.x, box.lane = before[0].x, before[0].lane
        elif before:
            left = max(map(_behind, before))
            box.x = left + box.width / 2
            box.lane = _lane(box, before, left, ends)
        else:
            box.lane = _lane(box, [], box.left, ends)
        if not box.hangs:
            ends[box.level, box.lane] = max(box.right + GAP / 2, box.end)
        placed[box.name] = box
    _set_heights(placed)
    return placed


def _behind(box: Box) -> float:
    """Return where the next box may begin."""
    if box.hangs:
        return box.x + 0.25 * box.width + GAP / 2
    return max(box.right + GAP, box.clear + 0.7 * GAP)


def _lane(
    box: Box, before: Sequence[Box], left: float, ends: Mapping[tuple[int, int], float]
) -> int:
    lanes = sorted(one.lane for one in before) or [0]
    wanted = lanes[len(lanes) // 2]
    for step in range(2 * len(ends) + 2):
        lane = wanted + (step + 1) // 2 * (1 if step % 2 else -1)
        if ends.get((box.level, lane), -math.inf) <= left:
            return lane
    return wanted


def _set_heights(placed: Mapping[str, Box]) -> None:
    """Stack the levels, each as high as its lanes need."""
    base: dict[int, float] = {}
    y = 0.0
    for level in sorted({box.level for box in placed.values()}):
        lanes = [box.lane for box in placed.values() if box.level == level and not box.hangs]
        if not lanes:
            continue
        base[level] = y - max(lanes) * ROW
        y = base[level] + min(lanes) * ROW - 1.75 * ROW
    for box in placed.values():
        if not box.hangs:
            box.y = base[box.level] + box.lane * ROW
    for box in placed.values():
        if box.hangs:
            source = placed[box.reads[0]]
            box.y = source.y + (-0.875 if box.level > source.level else 0.875) * ROW


Point = tuple[float, float]


def route(panel: Panel, source: Box, target: Box) -> list[tuple[str | Point, ...]]:
    """Return a wire's path: ``("line", to)`` or ``("curve", control, control, to)``, from a start.

    A wire keeps to its source's lane, beside what stands there, and turns just before its target.
    """
    if target.hangs or (source.hangs and abs(source.x - target.x) < target.width / 2):
        side = 1 if target.y > source.y else -1
        return [
            ("line", (source.x, source.y + side * source.height / 2)),
            ("line", (source.x, target.y - side * target.height / 2)),
        ]
    if source.hangs:
        side = 1 if target.y > source.y else -1
        corner = (source.x, target.y)
        return [
            ("line", (source.x, source.y + side * source.height / 2)),
            ("curve", corner, corner, (target.left, target.y)),
        ]
    start, end = (source.right, source.y), (target.left, target.y)
    turn = end[0] - min(GAP, end[0] - source.clear)
    beside = _beside(panel, source, turn)
    path: list[tuple[str | Point, ...]] = [("line", start)]
    y = source.y + beside
    if beside:
        path.append(_bend(start, (start[0] + GAP * 0.8, y)))
    path.append(("line", (turn, y)))
    path.append(_bend((turn, y), end))
    return path


def _bend(start: Point, end: Point) -> tuple[str | Point, ...]:
    middle = (start[0] + end[0]) / 2
    return ("curve", (middle, start[1]), (middle, end[1]), end)


def _beside(panel: Panel, source: Box, turn: float) -> float:
    """Return how far beside its lane a wire must run to pass what stands there."""
    boxes = [box for box in panel.boxes.values() if box.level == source.level and not box.hangs]
    if not any(source.right < box.x < turn and box.lane == source.lane for box in boxes):
        return 0.0
    lowest = min(box.lane for box in boxes) == source.lane
    return -ROW / 2 if lowest and source.lane < 0 else ROW / 2

"""A picture too wide to read, cut into rows that stand one under the other.

What is read in a later row goes on through connectors: a circle with a letter beside what gives it,
and one with the same letter where it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from string import ascii_uppercase

from nasengine.delivery.picture_layout import CONNECTOR, GAP, MERGE, Box, Panel, place

WIDEST = 32.0
"""Width of a picture that is left as it is, in the layout's units."""

ROW_WIDEST = 26.0
"""Width of a row: where a page shows it whole, its text is read with ease."""

_LEVEL_TEXT = 1.6  # what says how large the image is, left of the boxes
_ROOM = ROW_WIDEST - _LEVEL_TEXT - 2 * (MERGE[0] + GAP)


def rows(panel: Panel) -> list[Panel]:
    """Return a panel in as few rows as fit, cut where few wires cross; itself where it fits.

    Parameters
    ----------
    panel
        Its boxes are placed, and are placed anew.
    """
    left, right, *_ = panel.extent
    if right - left <= WIDEST:
        return [panel]
    # What is read stands further left than its reader; what hangs comes after what holds it.
    boxes = sorted(panel.boxes.values(), key=lambda box: box.x)
    chunks = [boxes[start:end] for start, end in pairwise(_cuts(boxes))]
    entering = [_read_from_elsewhere(chunk) for chunk in chunks]
    names = [box.name for box in boxes if any(box.name in read for read in entering)]
    letters = {name: _letter(index) for index, name in enumerate(names)}
    found = [
        Panel(panel.title, place(_connected(chunk, [panel.boxes[name] for name in read], letters)))
        for chunk, read in zip(chunks, entering, strict=True)
    ]
    left = min(row.extent[0] for row in found)
    left -= _LEVEL_TEXT * any(box.level for box in boxes)
    across = (left, max(row.extent[1] for row in found))
    for row in found:
        row.across = across
    return found


def _cuts(boxes: Sequence[Box]) -> list[int]:
    """Return where rows begin, and the end: few rows, then few wires cut, then rows alike in width.

    The best rows up to each box, from those up to the boxes before it.
    """
    crossing = [_crossing(boxes, cut) for cut in range(len(boxes))]
    best = {0: (0, 0, 0.0)}
    begins: dict[int, int] = {}
    for end in range(1, len(boxes) + 1):
        if end < len(boxes) and boxes[end].hangs:
            continue
        found: list[tuple[tuple[int, int, float], int]] = []
        left, right = boxes[end - 1].left, boxes[end - 1].right
        for start in range(end - 1, -1, -1):
            left, right = min(left, boxes[start].left), max(right, boxes[start].right)
            if right - left > _ROOM and found:
                break
            if start in best:
                count, wires, uneven = best[start]
                row = (count + 1, wires + crossing[start], uneven + (right - left) ** 2)
                found.append((row, start))
        best[end], begins[end] = min(found)
    cuts = [len(boxes)]
    while cuts[0]:
        cuts.insert(0, begins[cuts[0]])
    return cuts


def _crossing(boxes: Sequence[Box], cut: int) -> int:
    """Return how many boxes before a cut are read behind it."""
    read = {name for box in boxes[cut:] for name in box.reads}
    return sum(box.name in read for box in boxes[:cut])


def _read_from_elsewhere(chunk: Sequence[Box]) -> list[str]:
    own = {box.name for box in chunk}
    return list(dict.fromkeys(name for box in chunk for name in box.reads if name not in own))


def _letter(index: int) -> str:
    """Return A to Z, then AA to ZZ."""
    more, last = divmod(index, 26)
    return (ascii_uppercase[more - 1] if more else "") + ascii_uppercase[last]


def _connected(
    chunk: Sequence[Box], entering: Sequence[Box], letters: Mapping[str, str]
) -> list[Box]:
    """Return a row's boxes between the connectors of what enters and of what goes on."""
    return [
        *(Box(box.name, CONNECTOR, (), box.level, letters[box.name]) for box in entering),
        *chunk,
        *(
            Box(f"{box.name} goes on", CONNECTOR, (box.name,), box.level, letters[box.name])
            for box in chunk
            if box.name in letters
        ),
    ]

"""A picture of a search space, or of one of its architectures."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from nasengine.delivery.picture_layout import CONNECTOR, STACKED, Box, Panel, panels, route
from nasengine.delivery.picture_rows import rows
from nasengine.errors import SpecError, did_you_mean
from nasengine.graph import SpaceGraph
from nasengine.space import SearchSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS = ("svg", "png")
_INK, _PALE, _WIRE = "#22303c", "#eef1f4", "#7d8b97"
# Told apart by colour-blind readers too (Okabe and Ito), then lighter ones for long lists.
_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#d55e00",
    "#56b4e9",
    "#b8a800",
    "#7a5195",
    "#8c564b",
    "#5f9e6e",
    "#bc80bd",
    "#636363",
)
_INCH = 0.62  # a unit of the layout
_MARGIN = 0.5
_LINE = 0.35
"""Height of a line below the drawing."""
_LETTERS = 16
"""Letters of such a line in the width of a column of the legend."""


def draw(space: SearchSpace, path: Path, architecture: Mapping[str, str] | None = None) -> None:
    """Draw a space, or an architecture in it, as a file; the suffix says which format.

    Parameters
    ----------
    space
        The space.
    path
        Where to: ``.svg`` or ``.png``.
    architecture
        Its choices colour the slots; branches that it cuts are pale. Without one, every slot shows
        all its choices.

    Raises
    ------
    SpecError
        If the suffix is another.
    StorageError
        If the disk refuses.
    """
    from nasengine.files import write_atomically

    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in _FORMATS:
        raise SpecError(f"{path}: a picture is .svg or .png; {did_you_mean(suffix, _FORMATS)}")
    write_atomically(path, render(space, suffix, architecture))


def render(space: SearchSpace, suffix: str, architecture: Mapping[str, str] | None = None) -> bytes:
    """Return the picture's bytes; the same for the same space and architecture."""
    import matplotlib

    figure = _figure(space.graph, architecture)
    target = io.BytesIO()
    # Text stays text, and neither a date nor random names make two equal pictures differ.
    with matplotlib.rc_context({"svg.hashsalt": "nasengine", "svg.fonttype": "none"}):
        metadata = {"Date": None} if suffix == "svg" else {}
        figure.savefig(target, format=suffix, dpi=160, metadata=metadata, facecolor="white")
    return target.getvalue()


def _figure(graph: SpaceGraph, architecture: Mapping[str, str] | None) -> Figure:
    from matplotlib.figure import Figure

    colours = _colours_of(graph, architecture)
    parts = [row for panel in panels(graph, architecture) for row in rows(panel)]
    extents = [panel.extent for panel in parts]
    width = max(right - left for left, right, _, _ in extents) + 2 * _MARGIN
    heights = [
        top - bottom + 2 * _MARGIN + 0.4 * bool(p.title)
        for p, (_, _, bottom, top) in zip(parts, extents, strict=True)
    ]
    columns = max(1, int(max(width, 9) * _INCH // 1.35))
    widths = _widths(graph, architecture, columns)
    legend = 0.5 + _LINE * (-(-(len(colours) + 3) // columns) + len(widths))
    figure = Figure(figsize=(max(width, 9) * _INCH, (sum(heights) + legend) * _INCH))
    total = sum(heights) + legend
    top_of_panel = total
    for panel, height, (left, right, bottom, top) in zip(parts, heights, extents, strict=True):
        top_of_panel -= height
        axes = figure.add_axes((0, top_of_panel / total, 1, height / total))
        middle, half = (left + right) / 2, max(width, 9) / 2
        axes.set_xlim(middle - half, middle + half)
        axes.set_ylim(bottom - _MARGIN, bottom - _MARGIN + height)
        axes.set_axis_off()
        _paint(axes, panel, graph, architecture, colours)
        if panel.title:
            axes.text(left, top + _MARGIN, panel.title, color=_INK, fontsize=9, va="center")
    drawn = {box.kind for panel in parts for box in panel.boxes.values()}
    _legend(figure, colours, drawn, above=_LINE * len(widths) / total)
    for place, line in enumerate(reversed(widths)):
        y = _LINE * (place + 0.8) / total
        figure.text(0.5, y, line, **_font(8, _INK), parse_math=False)
    return figure


def _widths(graph: SpaceGraph, architecture: Mapping[str, str] | None, columns: int) -> list[str]:
    """Return lines of the widths: each with its choices, or with what was chosen."""
    shown = {
        name: "|".join(width.choices) if architecture is None else architecture[name]
        for name, width in graph.widths.items()
    }
    space = "\N{NO-BREAK SPACE}"
    said = ", ".join(f"{name}{space}{choices}" for name, choices in shown.items())
    lines = wrap(f"searched channels: {said}", _LETTERS * columns) if said else []
    return [line.replace(space, " ") for line in lines]


def _colours_of(graph: SpaceGraph, architecture: Mapping[str, str] | None) -> dict[str, str]:
    """Return a colour for every choice; a baseline gets one where it is used."""
    names = dict.fromkeys(name for slot in graph.slots for name in slot.candidates)
    if architecture is not None:
        names.update(dict.fromkeys(architecture[slot.decision] for slot in graph.slots))
    return {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}


def _legend(
    figure: Figure, colours: Mapping[str, str], drawn: Collection[str], above: float
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(facecolor=colour, label=name) for name, colour in colours.items()]
    signs = [
        ("add", "$+$", "sum"),
        ("concat", r"$\Vert$", "concatenation"),
        (CONNECTOR, "o", "goes on at the same letter"),
    ]
    for kind, sign, label in signs:
        if kind in drawn:
            colour = _WIRE if kind == CONNECTOR else _INK
            handles.append(Line2D([], [], ls="", marker=sign, color=colour, label=label))
    handles.append(Line2D([], [], ls="", marker="$64$", ms=9, color=_WIRE, label="channels"))
    columns = max(1, min(len(handles), int(figure.get_figwidth() // 1.35)))
    figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, above),
        ncols=columns,
        frameon=False,
        fontsize=8,
        labelcolor=_INK,
        handlelength=1.0,
        handleheight=1.0,
    )


def _paint(
    axes: Axes,
    panel: Panel,
    graph: SpaceGraph,
    architecture: Mapping[str, str] | None,
    colours: Mapping[str, str],
) -> None:
    from nasengine.canonical import meanings, simplify

    dead: set[str] = set()
    if architecture is not None:
        kept = simplify(graph, architecture)
        cut = meanings(graph)
        dead = {
            node.name
            for node in graph.nodes
            if node.name not in kept
            or (node.kind == "slot" and cut[node.name, architecture[node.decision]] == "zero")
        }
    for box in panel.boxes.values():
        for source in box.reads:
            _wire(axes, panel, panel.boxes[source], box, pale=bool({source, box.name} & dead))
    _sizes(axes, panel)
    for box in panel.boxes.values():
        if box.kind == "slot":
            _slot(axes, box, graph, architecture, colours, pale=box.name in dead)
        else:
            _fixed(axes, box)
        _channels(axes, box)


def _channels(axes: Axes, box: Box) -> None:
    """Say the channels out beside a box; searched ones stand out."""
    font = _font(6.5, _INK if box.searched else _WIRE, bold=box.searched, at="left")
    axes.text(box.beside, box.y + 0.15, box.channels, **font)


def _sizes(axes: Axes, panel: Panel) -> None:
    """Say at the left how large the image is on each level."""
    levels = {box.level: box.y for box in panel.boxes.values() if not box.hangs and not box.lane}
    left = panel.extent[0]
    for level, y in levels.items():
        if level > 0:
            axes.text(left, y, f"1/{2**level} size", **_font(7.5, _WIRE, at="left"))


def _slot(
    axes: Axes,
    box: Box,
    graph: SpaceGraph,
    architecture: Mapping[str, str] | None,
    colours: Mapping[str, str],
    *,
    pale: bool,
) -> None:
    node = graph[box.name]
    if architecture is None:
        _rounded(axes, box, "white", _INK)
        axes.text(box.x, box.y + 0.13, node.decision, **_font(8, _INK, bold=True))
        chip, count = 0.2, len(node.candidates)
        start = box.x - (count - 1) * chip / 2
        for index, name in enumerate(node.candidates):
            _chip(axes, start + index * chip, box.y - 0.19, chip * 0.78, colours[name])
        return
    choice = architecture[node.decision]
    fill = "white" if pale else colours[choice]
    ink = _WIRE if pale else _ink_on(fill)
    _rounded(axes, box, fill, colours[choice], dashed=pale)
    axes.text(box.x, box.y + 0.14, node.decision, **_font(8, ink, bold=True))
    axes.text(box.x, box.y - 0.16, choice, **_font(min(7.5, 125 / len(choice)), ink))


def _ink_on(fill: str) -> str:
    """Return white or dark, whichever is easier to read on a colour (W3C's luminance)."""
    red, green, blue = (int(fill[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "white" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.3 else _INK


def _fixed(axes: Axes, box: Box) -> None:
    if box.kind in ("add", "concat", CONNECTOR):
        from matplotlib.patches import Circle

        fill, ink = (_WIRE, "white") if box.kind == CONNECTOR else ("white", _INK)
        edge = _WIRE if box.kind == CONNECTOR else _INK
        axes.add_patch(Circle((box.x, box.y), box.width / 2, fc=fill, ec=edge, lw=1, zorder=3))
        axes.text(box.x, box.y - 0.01, box.text, **_font(9 / len(box.text), ink))
        return
    if box.kind == "cell":
        for shift in (STACKED, STACKED / 2) if box.is_stack else ():
            _rounded(axes, box, "white", _INK, shift=shift)
    _rounded(axes, box, "white" if box.kind == "cell" else _PALE, _INK)
    axes.text(box.x, box.y, box.text, **_font(8, _INK, bold=box.kind == "cell"))


def _rounded(
    axes: Axes, box: Box, fill: str, edge: str, *, dashed: bool = False, shift: float = 0.0
) -> None:
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (box.left + shift, box.y - box.height / 2 + shift),
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=0.14",
            fc=fill,
            ec=edge,
            lw=1.0,
            ls="--" if dashed else "-",
            zorder=3,
        )
    )


def _chip(axes: Axes, x: float, y: float, side: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x - side / 2, y - side / 2), side, side, fc=colour, lw=0, zorder=4))


def _wire(axes: Axes, panel: Panel, source: Box, target: Box, *, pale: bool) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    points, codes = [], []
    for step, (code, *corner) in enumerate(route(panel, source, target)):
        curved = code == "curve" and step > 0
        points += corner
        codes += [Curve.CURVE4] * 3 if curved else [Curve.LINETO if step else Curve.MOVETO]
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(points, codes),
            arrowstyle="-|>,head_length=3.2,head_width=1.7",
            color=_WIRE,
            alpha=0.35 if pale else 1.0,
            lw=1.1,
            shrinkA=0,
            shrinkB=0,
            zorder=1,
        )
    )


def _font(size: float, colour: str, *, bold: bool = False, at: str = "center") -> dict[str, Any]:
    return {
        "fontsize": size,
        "color": colour,
        "ha": at,
        "va": "center",
        "fontweight": "bold" if bold else "normal",
        "zorder": 5,
    }

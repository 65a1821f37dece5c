"""Charts as inline SVG: pure functions from values to text. Colours are the page's (`style`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .html import Html, join, tag
from .scale import Scale, drawable, tick_text, ticks

WIDTH, HEIGHT = 470, 280
_RIGHT, _TOP, _BOTTOM = 14, 14, 46
_DIGIT = 7.4
"""Width of a digit in a tick's text."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Parameters
    ----------
    title
        Its name.
    unit
        Of its values; empty for a ratio or a plain number.
    counts
        Whether its values are whole numbers, and its ticks are.
    """

    title: str
    unit: str = ""
    counts: bool = False

    @property
    def label(self) -> str:
        """The title with the unit, where the title does not say it."""
        told = not self.unit or self.title.endswith(self.unit)
        return self.title if told else f"{self.title} ({self.unit})"


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Parameters
    ----------
    name
        For the legend; empty for none of its own.
    points
        (x, y); those that have no place on an axis are left out.
    colour
        1 to 6, of the page's palette; 0 for grey.
    kind
        ``line``, ``dashed``, ``step`` (to the right, then up), ``dots``, ``rings`` or ``stars``.
    titles
        What each point says when pointed at.
    """

    name: str
    points: Sequence[Point]
    colour: int = 1
    kind: Literal["line", "dashed", "step", "dots", "rings", "diamonds", "stars"] = "line"
    titles: Sequence[str] = ()

    @property
    def known(self) -> list[tuple[Point, str]]:
        """The points that can be drawn, with their titles."""
        titles = [*self.titles, *[""] * (len(self.points) - len(self.titles))]
        both = zip(self.points, titles, strict=True)
        return [(p, title) for p, title in both if all(map(drawable, p))]


def chart(title: str, series: Sequence[Series], x: Axis, y: Axis, note: str = "") -> Html | None:
    """Return a chart with its caption; None where no series has a point.

    Parameters
    ----------
    title
        Above it.
    series
        Drawn in order, so the last lies on top.
    x, y
        The axes.
    note
        Below it, in small print.
    """
    series = [each for each in series if each.known]
    if not series:
        return None
    points = [point for each in series for point, _ in each.known]
    up = Scale.over([p[1] for p in points], HEIGHT - _BOTTOM, _TOP, margin=0.08)
    longest = max(len(tick_text(value, y.unit)) for value in ticks(up.low, up.high))
    left = 34 + round(_DIGIT * longest)
    across = Scale.over([p[0] for p in points], left, WIDTH - _RIGHT, margin=0.04)
    drawn = [_draw(each, across, up) for each in series]
    return figure(title, svg(_grid(across, up, x, y), *drawn, label=title), legend(series), note)


def svg(*parts: Html, label: str, width: float = WIDTH, height: float = HEIGHT) -> Html:
    """Return an SVG element that grows with the page."""
    box = f"0 0 {width:g} {height:g}"
    return tag("svg", *parts, viewBox=box, role="img", aria_label=label, class_="chart")


def figure(title: str, drawing: Html, key: Html | None = None, note: str = "") -> Html:
    """Return a drawing with title, legend and note."""
    small = tag("p", note, class_="note") if note else None
    return tag("figure", tag("figcaption", title), key, drawing, small)


def legend(series: Sequence[Series]) -> Html | None:
    """Return the names of the series beside their marks; None for a single one without need."""
    named: dict[str, Series] = {}
    for each in series:
        if each.name:
            named.setdefault(each.name, each)
    if not named or (len(series) == 1 and len(named) == 1):
        return None
    return tag("div", *(_key(each) for each in named.values()), class_="legend")


def _key(series: Series) -> Html:
    if series.kind in ("line", "dashed", "step"):
        mark = tag("path", d="M1 7H21", class_=f"{_line_class(series)} c{series.colour}")
    else:
        mark = _mark(series, 11, 7, "")
    return tag("span", tag("svg", mark, viewBox="0 0 22 14", class_="key"), series.name)


def _grid(across: Scale, up: Scale, x: Axis, y: Axis) -> Html:
    parts = []
    for value in ticks(up.low, up.high):
        at = up(value)
        parts.append(tag("path", d=f"M{across.start:g} {at}H{WIDTH - _RIGHT}", class_="grid"))
        text = tick_text(value, y.unit)
        parts.append(tag("text", text, x=across.start - 7, y=at + 4, class_="end"))
    centre = (_TOP + HEIGHT - _BOTTOM) / 2
    turned = f"rotate(-90 13 {centre:g})"
    parts.append(tag("text", y.label, x=13, y=centre, transform=turned, class_="title middle"))
    return join([*parts, _bottom(across, x, HEIGHT)])


def _bottom(across: Scale, x: Axis, height: float) -> Html:
    """Draw the axis below, its ticks and its title."""
    y, left, right = height - _BOTTOM, across.start, across.end
    parts = [tag("path", d=f"M{left:g} {y:g}H{right:g}", class_="axis")]
    for value in _roomy(across, x):
        at, text = across(value), tick_text(value, x.unit)
        parts.append(tag("path", d=f"M{at:g} {y:g}v4", class_="axis"))
        parts.append(tag("text", text, x=at, y=y + 18, class_="middle"))
    middle = (left + right) / 2
    parts.append(tag("text", x.label, x=middle, y=height - 7, class_="title middle"))
    return join(parts)


def _roomy(across: Scale, x: Axis) -> list[float]:
    """Return ticks whose texts do not touch."""
    values = ticks(across.low, across.high)
    if x.counts:  # Ticks are multiples of 1, or of what divides it: some are whole.
        values = [value for value in values if value.is_integer()]
    longest = max(len(tick_text(value, x.unit)) for value in values)
    most = max(2, int((across.end - across.start) / (longest * _DIGIT * 1.3 + 12)))
    return values[:: math.ceil(len(values) / most)]


def _draw(series: Series, across: Scale, up: Scale) -> Html:
    placed = [(across(x), up(y), title) for (x, y), title in series.known]
    if series.kind in ("line", "dashed", "step"):
        return _line(series, placed)
    return join(_mark(series, x, y, title) for x, y, title in placed)


def _line(series: Series, placed: Sequence[tuple[float, float, str]]) -> Html:
    (x, y, _), *rest = placed
    to = "H{0:g}V{1:g}" if series.kind == "step" else "L{0:g} {1:g}"
    d = f"M{x:g} {y:g}" + "".join(to.format(x, y) for x, y, _ in rest)
    path = tag("path", d=d, class_=f"{_line_class(series)} c{series.colour}")
    # A line of one point would not be seen.
    dot = tag("circle", cx=x, cy=y, r=2.5, class_=f"dot c{series.colour}") if not rest else None
    return join([path, dot])


def _line_class(series: Series) -> str:
    return "line dashed" if series.kind == "dashed" else "line"


def _mark(series: Series, x: float, y: float, title: str) -> Html:
    said = tag("title", title) if title else None
    colour = f"c{series.colour}"
    if series.kind == "stars":
        shape = tag("polygon", points=_star(x, y, 9.0), class_=f"dot {colour}")
    elif series.kind == "diamonds":
        d = f"M{x:g} {y - 6:g}l6 6l-6 6l-6 -6z"
        shape = tag("path", d=d, class_=f"dot {colour}")
    else:
        style = "ring" if series.kind == "rings" else "dot"
        shape = tag("circle", cx=x, cy=y, r=4, class_=f"{style} {colour}")
    return tag("g", said, shape) if said else shape


def _star(x: float, y: float, size: float) -> str:
    corners = []
    for index in range(10):
        radius = size if index % 2 == 0 else size * 0.45
        angle = math.pi * (index / 5 - 0.5)
        corners.append(f"{x + radius * math.cos(angle):.1f},{y + radius * math.sin(angle):.1f}")
    return " ".join(corners)


def strips(title: str, rows: Sequence[Series], x: Axis) -> Html | None:
    """Return values as dots along one line a series, with the mean of each.

    Parameters
    ----------
    title
        Above it.
    rows
        The x of their points counts; the name stands above the line.
    x
        The axis.
    """
    rows = [each for each in rows if each.known]
    if not rows:
        return None
    height, pitch = 46.0 * len(rows) + _BOTTOM + 8, 46.0
    across = Scale.over([p[0] for each in rows for p, _ in each.known], 14, WIDTH - 14)
    parts = []
    for place, each in enumerate(rows):
        y = 34 + pitch * place
        values = [p[0] for p, _ in each.known]
        mean = across(sum(values) / len(values))
        parts.append(tag("text", each.name, x=14, y=y - 14, class_="title"))
        parts.append(tag("path", d=f"M14 {y:g}H{WIDTH - 14}", class_="grid"))
        parts.append(tag("path", d=f"M{mean} {y - 9:g}v18", class_=f"line c{each.colour}"))
        parts += [_mark(each, across(p[0]), y, said) for p, said in each.known]
    parts.append(_bottom(across, x, height))
    return figure(title, svg(*parts, label=title, height=height))


_Rows = Mapping[str, Mapping[str, float]]


def heat_map(title: str, rows: _Rows, marked: Mapping[str, str], note: str = "") -> Html | None:
    """Return shares as shades, a row a decision; the marked choice of a row is framed.

    Decisions that have no choices in common stand in tables of their own.

    Parameters
    ----------
    title
        Above it.
    rows
        Decision to choice to a share, 0 to 1. Decisions may have different choices.
    marked
        Decision to choice.
    note
        Below it.
    """
    if not rows:
        return None
    shares = [share for row in rows.values() for share in row.values()]
    scale = Scale(min(shares), max(shares), 5, 95)
    digits = 2 if scale.high - scale.low > 0.1 else 3 if scale.high - scale.low > 0.01 else 4
    grids = [_heat(group, marked, scale, digits) for group in _of_common_choices(rows)]
    note += f" Shades go from {scale.low:.{digits}f} to {scale.high:.{digits}f}."
    return figure(title, tag("div", *grids, class_="scroll"), None, note.strip())


def _of_common_choices(rows: _Rows) -> list[dict[str, Mapping[str, float]]]:
    """Return the rows in groups, such that each choice is of one group alone."""
    groups: list[dict[str, Mapping[str, float]]] = []
    for name, row in rows.items():
        near = [group for group in groups if any(row.keys() & other for other in group.values())]
        joined = {key: found for group in near for key, found in group.items()}
        groups = [*(group for group in groups if group not in near), {**joined, name: row}]
    return groups


def _heat(rows: _Rows, marked: Mapping[str, str], scale: Scale, digits: int) -> Html:
    choices = list(dict.fromkeys(choice for row in rows.values() for choice in row))
    head = tag("thead", tag("tr", tag("th"), *(tag("th", choice) for choice in choices)))
    body = []
    for decision, row in rows.items():
        cells = [_cell(row.get(c), scale, digits, c == marked.get(decision)) for c in choices]
        body.append(tag("tr", tag("th", decision), *cells))
    return tag("table", head, tag("tbody", *body), class_="heat")


def _cell(share: float | None, scale: Scale, digits: int, marked: bool) -> Html:
    if share is None:
        return tag("td", class_="none")
    shade = scale(share)
    classes = ["shade", "marked" if marked else "", "deep" if shade > 55 else ""]
    text = f"{share:.{digits}f}" + (" ✓" if marked else "")
    return tag("td", text, style=f"--share:{shade:.0f}%", class_=" ".join(filter(None, classes)))


def spark(
    title: str, lines: Mapping[str, Sequence[Point]], strong: str, low: float, high: float
) -> Html:
    """Return a small chart of one decision: a line a choice, the strong one on top in colour."""
    width, height = 220.0, 90.0
    points = [point for line in lines.values() for point in line]
    across = Scale.over([p[0] for p in points], 4, width - 4, margin=0)
    up = Scale(low, high, height - 4, 4)
    ordered = sorted(lines, key=lambda name: name == strong)
    drawn = [
        _draw(Series(name, lines[name], 1 if name == strong else 0), across, up) for name in ordered
    ]
    base = tag("path", d=f"M4 {height - 4:g}H{width - 4:g}", class_="grid")
    text = join([tag("b", title), tag("small", strong)])
    drawing = svg(base, *drawn, label=title, width=width, height=height)
    return tag("figure", tag("figcaption", text), drawing, class_="small")

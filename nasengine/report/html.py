"""HTML by construction: text is escaped wherever it is put, so nothing has to remember to."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Html(str):
    """Text that is HTML already; every other string is escaped when it becomes part of a page."""

    __slots__ = ()


MISSING, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"

_VOID = {"meta", "img", "br", "hr", "line", "circle", "rect", "path", "polyline", "polygon"}

Child = str | float | None
"""What a tag may hold: HTML, text, a number, or None for nothing."""


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """Return an element; attributes that are None or False are left out.

    Parameters
    ----------
    name
        Of the element.
    children
        What is in it, escaped unless it is `Html`.
    attributes
        ``class_`` becomes ``class``, ``stroke_width`` becomes ``stroke-width``.

    Examples
    --------
    >>> tag("p", "1 < 2", tag("b", "so"), class_="note")
    '<p class="note">1 &lt; 2<b>so</b></p>'
    >>> tag("img", src="x", alt="")
    '<img src="x" alt="">'
    """
    listed = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        # SVG's elements have to be closed, HTML's may not be.
        return Html(f"<{name}{listed}>" if name in _HTML_VOID else f"<{name}{listed}/>")
    return Html(f"<{name}{listed}>{join(children)}</{name}>")


_HTML_VOID = {"meta", "img", "br", "hr"}


def join(parts: Iterable[Child], between: str = "") -> Html:
    """Put parts after one another.

    Examples
    --------
    >>> join(["a & b", tag("br"), None, 3])
    'a &amp; b<br>3'
    """
    return Html(escape(between).join(_html(part) for part in parts if part is not None))


def _html(part: Child) -> str:
    return part if isinstance(part, Html) else escape(_text(part))


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def table(
    titles: Iterable[Child], rows: Iterable[Iterable[Child]], *, numbers_from: int = 1
) -> Html:
    """Return a table that scrolls sideways where it does not fit.

    Parameters
    ----------
    titles
        Of the columns.
    rows
        Cells.
    numbers_from
        The first column that holds numbers, set right; text stands left of it.
    """

    def cells(name: str, row: Iterable[Child]) -> Html:
        return join(
            tag(name, cell, class_="number" if place >= numbers_from else None)
            for place, cell in enumerate(row)
        )

    head = tag("thead", tag("tr", cells("th", titles)))
    body = tag("tbody", *(tag("tr", cells("td", row)) for row in rows))
    return tag("div", tag("table", head, body), class_="scroll")


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Return names with their values, one a line; what has no value is left out."""
    listed = [join([tag("dt", name), tag("dd", value)]) for name, value in pairs if value]
    return tag("dl", *listed)


def bullets(lines: Iterable[Child], class_: str | None = None) -> Html:
    """Return a list."""
    return tag("ul", *(tag("li", line) for line in lines), class_=class_)


def grid(parts: Iterable[Html | None], class_: str) -> Html | None:
    """Return parts beside one another as far as there is room; None where there are none."""
    held = [part for part in parts if part]
    return tag("div", *held, class_=class_) if held else None


def details(summary: str, *children: Child) -> Html:
    """Return what is shown on demand."""
    return tag("details", tag("summary", summary), *children)


def section(title: str, *children: Child | None) -> Html | None:
    """Return a section, or None where it would be empty."""
    held = [child for child in children if child]
    if not held:
        return None
    return tag("section", tag("h2", title), *held, id=title.lower().replace(" ", "-"))

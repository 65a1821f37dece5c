"""A table as wide as the terminal: no number and no name is ever cut.

Columns that hold nothing are left out. Titles may break between words. Where that does not suffice,
columns that can be spared go; then the table is turned, its rows as columns; then every row becomes
lines of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table


def print_columns(
    console: Console,
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    spare: Collection[str] = (),
) -> None:
    """Print rows under their titles; the first column names the row.

    Parameters
    ----------
    console
        Where to, as wide as it is.
    titles
        Of the columns.
    rows
        Cells of text, one for each title.
    spare
        Titles of columns that are left out where there is no room.
    """
    held = [i for i in range(len(titles)) if i == 0 or any(row[i] for row in rows)]
    titles, rows = [titles[i] for i in held], [[row[i] for i in held] for row in rows]
    kept = [index for index, title in enumerate(titles) if title not in spare]
    without = [titles[i] for i in kept], [[row[i] for i in kept] for row in rows]
    # As many columns as rows, few mostly; what it says first may break as titles do.
    turned = [[str(cell) for cell in column] for column in zip(titles, *rows, strict=True)]
    table = (
        _fitting(console, titles, rows)
        or _fitting(console, *without)
        or _fitting(console, turned[0], turned[1:], names_break=True)
    )
    if table is not None:
        console.print(table)
    else:
        _print_lines(console, titles, rows)


def _widths(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, names_break: bool
) -> list[int]:
    """Return each column's least width: no cell is broken, and no word of a title."""
    found = []
    for place, title in enumerate(titles):
        cells = [row[place] for row in rows]
        if names_break and place == 0:
            cells = " ".join(cells).split()
        found.append(max(map(cell_len, [*title.split(), *cells]), default=0))
    return found


def _fitting(
    console: Console,
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    names_break: bool = False,
) -> Table | None:
    """Return a table of what is given; None where it is wider than the console."""
    widths = _widths(titles, rows, names_break=names_break)
    # A column has a space at both sides and a line before it; the last line closes the table.
    room = console.width - sum(widths) - 3 * len(widths) - 1
    if room < 0:
        return None
    table = Table()
    for place, (title, least) in enumerate(zip(titles, widths, strict=True)):
        # What is left goes to titles that would break, the first ones first.
        whole = max(map(cell_len, [title, *(row[place] for row in rows)]))
        more = min(room, whole - least)
        room -= more
        # Fixed: rich takes from a column's least width where titles are long.
        side: Literal["left", "right"] = "right" if place else "left"
        table.add_column(title, justify=side, width=least + more, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _print_lines(console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print each row as its name and a line for each of its values, with no width to fit in."""
    for name, *values in rows:
        console.print(name, style="bold", highlight=False, soft_wrap=True)
        for title, value in zip(titles[1:], values, strict=True):
            if value:
                console.print(f"  {title}: {value}", highlight=False, soft_wrap=True)

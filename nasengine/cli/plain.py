"""A console that shows text as it is: names and reasons come from files and from candidates.

What looks like markup stays as it was written, and control characters, which could move the cursor,
recolour or rename the terminal, are shown by their codes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich import console
from rich.segment import Segment

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    r"""Show control characters by their codes; lines and tabs stay.

    Examples
    --------
    >>> plain("a \x1b[31mred\x1b[0m name")
    'a \\x1b[31mred\\x1b[0m name'
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class PlainConsole(console.Console):
    """Rich's console, without markup in text and without control characters from it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def render(
        self,
        renderable: console.RenderableType,
        options: console.ConsoleOptions | None = None,
    ) -> Iterable[Segment]:
        """Render, with what is not rich's own made plain."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else plain(text), style, control)

"""A setting that would change nothing is refused, not ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nasengine.errors import SpecError
from nasengine.plugin import changed

if TYPE_CHECKING:
    from nasengine.strategy import Strategy


def refuse_ignored(strategy: Strategy, **reasons: str) -> None:
    """Refuse settings that are changed from their default and do nothing in this search.

    Parameters
    ----------
    strategy
        Whose settings.
    reasons
        By setting: where it does something, or what it would do.

    Raises
    ------
    SpecError
        Naming each such setting, with the reason.
    """
    given = changed(strategy)
    problems = [
        f"strategy.{name}: does nothing here: {reason}; leave it out"
        for name, reason in reasons.items()
        if name in given
    ]
    if problems:
        raise SpecError("\n".join(problems))

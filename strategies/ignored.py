"""What would come to nothing in a search: a setting is refused, a whole strategy is warned of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nasengine.errors import SpecError
from nasengine.plugin import changed

if TYPE_CHECKING:
    from nasengine.search import Search
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


def warn_if_all_random(strategy: Strategy, setting: str, search: Search) -> None:
    """Warn of a budget that ends with the random trials that a strategy begins with.

    Parameters
    ----------
    strategy
        Whose setting.
    setting
        The one that says how many these are.
    search
        Its budget.
    """
    trials, first = search.budget.trials, getattr(strategy, setting)
    if trials is not None and trials <= first:
        search.reporter.warn(
            f"strategy: the first {first} architectures are random, and the budget has {trials} "
            f"trials: this is random search; lower strategy.{setting}"
        )

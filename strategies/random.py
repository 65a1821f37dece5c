"""Random search: the baseline that every strategy has to beat.

Li and Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019,
https://arxiv.org/abs/1902.07638

Every choice of a decision is as likely. Architectures that compute the same count as one, which is
drawn so many times as often as it can be written in ways, and proposed once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.strategy import Strategy
from nasengine.unseen import TRIES, Unseen

from .ignored import refuse_ignored

if TYPE_CHECKING:
    from nasengine.search import Search

    from .strata import Strata


class Random(Strategy):
    """Random search: uniform choices without replacement, or over the whole range of a cost."""

    stratify: str | None = None
    """An estimator with a cost table (parameters, flops): spread the trials evenly over its
    range, where uniform draws would nearly all be of medium size."""

    strata: int = Field(default=10, ge=2)
    """Into how many equal parts the range of that cost is divided."""

    def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
        """Draw architectures that are not in the history."""
        rng = search.stream("random", len(history))
        unseen = Unseen(history, search, rng)
        if self.stratify is None:
            return unseen.samples(count)
        strata = _strata(self.stratify, search)
        places = map(van_der_corput, itertools.count(len(history)))

        def draws() -> Iterator[Architecture]:
            stratum = int(next(places) * self.strata)
            return strata.draws(stratum, self.strata, TRIES, rng)

        return unseen.samples(count, draws)

    def check(self, search: Search) -> None:
        """Refuse a cost that is not additive, or that nothing estimates, and strata of none.

        Raises
        ------
        SpecError
            Naming the estimator and those there are, or saying what is too much.
        """
        if self.stratify is None:
            refuse_ignored(self, strata="it divides the range of the cost that stratify names")
            return
        from .cost_goals import check_table

        check_table("strategy.stratify", self.stratify, search)
        if search.has_cost_table(self.stratify):
            _strata(self.stratify, search)


def _strata(key: str, search: Search) -> Strata:
    from .strata import Strata

    return Strata(search.cost_table(key).terms(), search.space.decisions)


def van_der_corput(number: int) -> float:
    """Return a term of the sequence that fills [0, 1) evenly at every length.

    Examples
    --------
    >>> [van_der_corput(n) for n in range(4)]
    [0.0, 0.5, 0.25, 0.75]
    """
    value, step = 0.0, 0.5
    while number:
        value, number, step = value + step * (number & 1), number >> 1, step / 2
    return value

"""The contract of search strategies."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.plugin import Plugin

if TYPE_CHECKING:
    from nasengine.search import Search
    from nasengine.workload import Workload


class Strategy(Plugin):
    """Proposes architectures from what has been measured so far.

    `propose` is a function of the history and the seed: it keeps no state of its own, so that
    resuming a search is calling it again.
    """

    kind: ClassVar[str] = "strategy"

    @abstractmethod
    def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
        """Return up to `count` architectures to measure next.

        Called whenever a worker is free, with every trial so far (running ones included). What is
        already in the history (`search.space.key`) is not proposed again.

        Parameters
        ----------
        history
            All trials, in order of number.
        count
            How many can be measured at once; at least 1.
        search
            The space, the objectives, randomness (``search.stream("name", len(history))``), and,
            for strategies that train, the task, cost tables, device and checkpoint folder.

        Returns
        -------
        Architectures; an empty sequence means that the search is finished.
        """

    def check(self, search: Search) -> None:
        """Refuse, before anything runs, a search that this strategy cannot do.

        Raises
        ------
        SpecError
            Naming the setting and what is possible.
        """

    def workload(self, search: Search) -> Workload | None:  # noqa: ARG002
        """Return the training of a supernet that the search does itself; None without one."""
        return None

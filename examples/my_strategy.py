"""A strategy of one's own: change one slot of the best network so far."""

from nasengine import Strategy, Unseen
from nasengine.moves import mutate


class Climb(Strategy):
    """Begins anywhere, then changes one slot of the best so far."""

    tries: int = 100
    """Changes that may turn out to be measured already before it draws anything new."""

    def propose(self, history, count, search):
        """Return architectures; none when the search is finished."""
        rng = search.stream("climb", len(history))
        unseen = Unseen(history, search, rng)
        best = search.objectives.best(history)
        if best is None:
            return unseen.samples(count)
        decisions = search.space.decisions
        changed = (mutate(best.architecture, decisions, rng) for _ in range(self.tries))
        return unseen.samples(count, lambda: changed)

"""A strategy of one's own: change one slot of the best network so far."""

from nasengine import Strategy
from nasengine.moves import mutate, sample


class Climb(Strategy):
    """Begins anywhere, then changes one slot of the best so far."""

    tries: int = 100
    """Changes that may turn out to be measured already before it gives up."""

    def propose(self, history, count, search):
        """Return one architecture; none when the search is finished."""
        rng = search.stream("climb", len(history))
        best = search.objectives.best(history)
        for _ in range(self.tries):
            if best is None:
                architecture = sample(search.space.decisions, rng)
            else:
                architecture = mutate(best.architecture, search.space.decisions, rng)
            if search.space.key(architecture) not in history.keys:
                return [architecture]
        return []

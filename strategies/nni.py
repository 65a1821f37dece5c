"""NNI's own tuners as strategies, in process.

Microsoft, Neural Network Intelligence 3.0, https://nni.readthedocs.io

Every decision is a ``choice`` of NNI's search space. A tuner is told each trial once, and seeded
for each proposal by the spec's seed and the number of trials (`nni_tuners`).

NNI's TPE and random tuners answer a repeat from a grid search, in silence: in a small space nearly
every proposal is then one of the grid's, which is worse than random. By default (``repeats =
"ask"``) a tuner that repeats itself is asked again, then its answer is mutated; ``repeats =
"grid"`` is NNI as it comes. A run notes which of the two it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from nasengine.architecture import Architecture
from nasengine.errors import PluginError, SpecError
from nasengine.history import History
from nasengine.strategy import Strategy
from nasengine.unseen import TRIES, Unseen, walk

from .foreign_settings import ForeignSettings, check_settings
from .ignored import refuse_ignored, warn_if_all_random

if TYPE_CHECKING:
    from nasengine.search import Search

ASKS = 5
"""Times that a tuner is asked before its answer is mutated."""

REPEATING = ("tpe", "random")
"""The tuners whose repeats NNI answers from a grid."""

OURS = ("optimize_mode", "seed", "tpe_args", "population_size")
"""Arguments of tuners that are given by the strategy."""

IGNORED = {
    "constant_liar_type": "a tuner is told what was measured, not what is being measured",
}
"""Settings of tuners that would change nothing, with the reason."""

REFUSED = {
    "gp": "NNI 3.0's does not run on today's scikit-learn; optuna with sampler = 'gp' does",
    "metis": "NNI 3.0's does not run on today's scikit-learn; predictor does",
    "anneal": "it needs hyperopt, which does not run on today's scipy; local_search does",
    "smac": "it needs a SMAC release that today's packages exclude; optuna with 'tpe' is near",
    "hyperband": "it trains at several fidelities, which a strategy does not decide here",
    "bohb": "it trains at several fidelities, which a strategy does not decide here",
    "batch": "it only replays a list of settings",
    "pbt": "it changes settings while networks train",
    "dngo": "it needs pybnn, which is no longer installable",
    "regularized_evolution": "it is for NNI's own model spaces; evolution is the same algorithm",
}


class Nni(Strategy):
    """NNI 3.0's own tuners (TPE, evolution, random, grid search); one objective."""

    tuner: Literal["tpe", "evolution", "random", "grid"] = "tpe"
    """Which tuner; the others that NNI has are refused with the reason."""

    population: int = Field(default=32, ge=2)
    """Individuals of the evolution tuner."""

    repeats: Literal["ask", "grid"] = "ask"
    """What follows a repeat of the TPE and random tuners: they are asked again, or, as NNI comes,
    the next point of a grid is taken."""

    settings: ForeignSettings = Field(default_factory=dict)
    """The tuner's own settings, by the names that NNI's documentation gives them: those of TPE's
    ``tpe_args``; the others have none besides these."""

    @field_validator("tuner", mode="before")
    @classmethod
    def _offered(cls, value: object) -> object:
        if isinstance(value, str) and value in REFUSED:
            raise ValueError(f"not offered: {REFUSED[value]}")
        return value

    def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
        """Ask a tuner that was told the history."""
        from .nni_tuners import answers, quiet

        rng = search.stream("nni", len(history))
        unseen = Unseen(history, search, rng)
        if len(history) == len(search.start):
            self._note(search)
        found: list[Architecture] = []
        with quiet():
            asked = answers(self, history, search)
            for _ in range(count):
                last, new = None, None
                for last in islice(asked, None if self.tuner == "grid" else ASKS):
                    new = unseen.first([last])
                    if new is not None:
                        break
                if new is None and last is not None and self.tuner != "grid":
                    new = unseen.first(islice(walk(last, search.space.decisions, rng), TRIES))
                new = new or unseen.sample()
                if new is None:
                    break
                found.append(new)
        return found

    def _note(self, search: Search) -> None:
        if self.tuner in REPEATING:
            how = (
                "NNI's own: the next of a grid (in small spaces worse than random)"
                if self.repeats == "grid"
                else "asked again, then mutated (NNI's own grid search is off)"
            )
            search.reporter.note(f"NNI's {self.tuner} tuner; what it repeats is answered by: {how}")

    def check(self, search: Search) -> None:
        """Refuse what NNI's tuners cannot do.

        Raises
        ------
        SpecError
            If there are several goals, or none; naming a setting that the tuner does not have.
        PluginError
            If NNI is not installed.
        """
        goals = [goal.metric for goal in search.objectives.goals]
        if len(goals) != 1:
            raise SpecError(
                f"objectives: NNI's tuners know one goal; got {', '.join(goals) or 'none'}; "
                f"evolution, optuna, local_search and predictor know several"
            )
        if self.tuner == "evolution":
            warn_if_all_random(self, "population", search)
        else:
            refuse_ignored(self, population=f"the tuner {self.tuner} has none; evolution has")
        if self.tuner not in REPEATING:
            refuse_ignored(self, repeats="NNI gives grid points for repeats of tpe and random only")
        if find_spec("nni") is None:
            raise PluginError("the strategy nni needs NNI: pip install 'nasengine[nni]'")
        if self.settings:
            self._check_settings()

    def _check_settings(self) -> None:
        from .nni_tuners import TUNERS, quiet

        tuner = TUNERS[self.tuner]
        check_settings(self.settings, tuner.takes, OURS, IGNORED)
        with quiet():
            tuner.probe(self)

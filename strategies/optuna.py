"""Optuna's samplers as strategies, through ask and tell.

Akiba et al., Optuna: A Next-generation Hyperparameter Optimization Framework, KDD 2019,
https://optuna.readthedocs.io

Every decision is a categorical parameter of an in-memory study that is told each trial once; the
sampler is new for each proposal, seeded by the spec's seed and the number of trials, so that a
resumed search, whose study is told all trials anew, goes on the same. Limits go in through
``set_constraint``. An answer that was proposed before is mutated until it is something new.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from nasengine.architecture import Architecture
from nasengine.errors import SpecError
from nasengine.history import History
from nasengine.randomness import derive_seed
from nasengine.strategy import Strategy
from nasengine.unseen import TRIES, Unseen, walk

from .foreign_settings import ForeignSettings, check_settings

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from nasengine.search import Search

CHEAP = ("qmc", "random")
"""Samplers without a model; one with a model of the same trials would answer much the same."""

ASKS = 5
"""Times that a cheap sampler is asked before its answer is mutated."""

REFUSED = {
    "cmaes": "CMA-ES samples numbers only, and every choice is a category: Optuna would draw at "
    "random in its place",
    "grid": "random visits the whole space without repeats",
    "brute_force": "random visits the whole space without repeats",
}

_FOR_NUMBERS = "it is for numbers, and every choice is a category"
_QUIET = "Optuna's warnings are not shown"

IGNORED = {
    "consider_magic_clip": _FOR_NUMBERS,
    "consider_endpoints": _FOR_NUMBERS,
    "consider_prior": "Optuna has kept it without effect since 4.3",
    "group": "every trial has every decision, so that there is one group",
    "warn_independent_sampling": _QUIET,
    "warn_asynchronous_seeding": _QUIET,
}
"""Settings of samplers that would change nothing, with the reason."""


class Optuna(Strategy):
    """Optuna's samplers (TPE, NSGA-II and III, GP, QMC, random), by ask and tell."""

    sampler: Literal["tpe", "tpe_multivariate", "nsga2", "nsga3", "gp", "qmc", "random"] = (
        "tpe_multivariate"
    )
    """Which sampler; ``qmc`` knows no categories and is given the number of each choice, and is
    scrambled by the seed unless its settings say otherwise."""

    settings: ForeignSettings = Field(default_factory=dict)
    """The sampler's own settings, by the names that Optuna's documentation gives them."""

    @field_validator("sampler", mode="before")
    @classmethod
    def _offered(cls, value: object) -> object:
        if isinstance(value, str) and value in REFUSED:
            raise ValueError(f"not offered: {REFUSED[value]}")
        return value

    def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
        """Ask a sampler that was told the history."""
        from .optuna_study import quiet, told

        rng = search.stream("optuna", len(history))
        unseen = Unseen(history, search, rng)
        found: list[Architecture] = []

        def sampler_of_generation(number: int) -> BaseSampler:
            return self.make_sampler(_seed(search, "generation", number), 0)

        with quiet(), told(history, search, sampler_of_generation, self) as study:
            for number in range(count):
                if found:
                    study.run(found[-1])
                answers: list[Architecture] = []
                for attempt in range(ASKS if self.sampler in CHEAP else 1):
                    point = len(history) + number + attempt
                    # The points of a quasi-random sequence are scrambled by one and the same seed.
                    labels = () if self.sampler == "qmc" else (len(history), number, attempt)
                    sampler = self.make_sampler(_seed(search, *labels), point)
                    with study.tentative():
                        answers.append(study.ask(sampler))
                    if answers[-1] in unseen:
                        break
                mutants = walk(answers[-1], search.space.decisions, rng)
                new = unseen.first(chain([answers[-1]], islice(mutants, TRIES))) or unseen.sample()
                if new is None:
                    break
                found.append(new)
        return found

    def make_sampler(self, seed: int, number: int) -> BaseSampler:
        """Make the sampler for one proposal.

        Parameters
        ----------
        seed
            What it draws from.
        number
            The point of the sequence, for ``qmc``.
        """
        from optuna import samplers

        from .optuna_study import numbered_qmc

        settings: dict[str, Any] = {**self.settings, "seed": seed}
        if self.sampler == "qmc":
            # Unscrambled, as Optuna's default is, it would be the same with every seed.
            return numbered_qmc(number, {"scramble": True, **settings})
        if self.sampler.startswith("tpe"):
            # Said either way: Optuna's default differs from one release to the next.
            settings["multivariate"] = self.sampler == "tpe_multivariate"
        return getattr(samplers, CLASSES[self.sampler])(**settings)  # type: ignore[no-any-return]

    def check(self, search: Search) -> None:
        """Refuse settings that the sampler does not have.

        Raises
        ------
        SpecError
            Naming the setting and the sampler's own.
        """
        from .optuna_study import quiet

        if not search.objectives.goals:
            raise SpecError("objectives: the strategy optuna needs at least one goal")
        self._check_settings(search)
        try:
            with quiet():
                self.make_sampler(0, 0)
        except (TypeError, ValueError) as error:
            raise SpecError(f"strategy.settings: {self.sampler} refuses them: {error}") from error

    def _check_settings(self, search: Search) -> None:
        from optuna import samplers

        ignored = dict(IGNORED)
        if len(search.objectives.goals) == 1:
            ignored["dividing_parameter"] = "with one goal there is one direction, not to divide"
        takes = getattr(samplers, CLASSES[self.sampler])
        check_settings(self.settings, takes, ("seed", "multivariate"), ignored)


def _seed(search: Search, *labels: str | int) -> int:
    return derive_seed(search.seed, "optuna", *labels) % 2**32


CLASSES = {
    "tpe": "TPESampler",
    "tpe_multivariate": "TPESampler",
    "nsga2": "NSGAIISampler",
    "nsga3": "NSGAIIISampler",
    "gp": "GPSampler",
    "qmc": "QMCSampler",
    "random": "RandomSampler",
}

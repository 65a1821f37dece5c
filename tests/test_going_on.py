"""Whether a trial is measured further, and what is said where it is not."""

from __future__ import annotations

from collections.abc import Mapping

from nasengine.architecture import Architecture
from nasengine.estimator import Candidate, Estimator
from nasengine.objectives import Objective, Objectives
from nasengine.runs.execution import Measured
from nasengine.runs.going_on import held_against, say_broken
from nasengine.screen import BAR, Screen
from nasengine.search import Search
from nasengine.testing.stubs import tiny_search
from nasengine.trial import Measurement, Metric, Status, Trial


class Several(Estimator):
    """Has metrics of units of their own."""

    def metrics(self, search: Search) -> tuple[Metric, ...]:
        return (Metric("accuracy", "%", "max"), Metric("size", "bytes", "min"))

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        raise NotImplementedError


def search_for(*objectives: Objective) -> Search:
    return tiny_search(estimators={"made": Several()}, objectives=Objectives(objectives))


def test_what_passed_a_screen_is_not_asked_again_by_it() -> None:
    """Trials that came after it may be better: it would be held back by who measured faster."""
    search = search_for(Objective("made", screen=Screen(0.5, "max")))
    passed = {"made": Measurement(0.1, {BAR: 0.0})}
    better = [
        Trial(n, Architecture({}), str(n), measurements={"made": Measurement(0.9)}) for n in (1, 2)
    ]
    measured = Measured(Status.RUNNING, passed, "", 1.0)
    assert held_against(search, measured, passed, better) == measured
    assert held_against(search, measured, (), better).status is Status.SCREENED


def test_every_broken_limit_is_told_in_its_own_unit() -> None:
    search = search_for(
        Objective("made", "max", at_least=90.0), Objective("made.size", at_most=2.0**20)
    )
    found = {"made": Measurement(80.0), "made.size": Measurement(2.0**21)}
    assert say_broken(search, found) == (
        "made is 80.00%, at least 90.00% is asked; made.size is 2.0 MiB, at most 1.0 MiB is asked"
    )
    assert say_broken(search, {"made": Measurement(90.0)}) == ""

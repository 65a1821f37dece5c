"""Goals and limits: feasibility first, fronts, hypervolume."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasengine.architecture import Architecture
from nasengine.objectives import (
    Objective,
    Objectives,
    dominates,
    hypervolume,
    non_dominated,
    precedes,
)
from nasengine.trial import Measurement, Status, Trial

BOTH = Objectives((Objective("iou", "max"), Objective("size", "min", at_most=10.0)))
POINTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12)


def trial(number: int, status: Status = Status.COMPLETE, **values: float) -> Trial:
    measurements = {name: Measurement(value) for name, value in values.items()}
    reason = "" if status is Status.COMPLETE else "reason"
    return Trial(number, Architecture({"a": "b"}), str(number), status, measurements, reason)


def test_infeasible_and_failed_trials_are_never_best_nor_on_the_front() -> None:
    poor = trial(0, iou=0.1, size=9.0)
    partial = trial(1, Status.INFEASIBLE, size=11.0)
    whole = trial(2, Status.INFEASIBLE, size=11.0, iou=0.99)
    assert BOTH.best([partial, whole, trial(3, Status.FAILED), poor]) is poor
    assert BOTH.front([partial, whole, poor]) == [poor]
    assert BOTH.best([partial, whole]) is None


def test_feasibility_first_then_the_least_violation() -> None:
    feasible = BOTH.standing(trial(0, iou=0.0, size=10.0))
    near = BOTH.standing(trial(1, Status.INFEASIBLE, size=10.5))
    far = BOTH.standing(trial(2, Status.INFEASIBLE, size=20.0, iou=1.0))
    unknown = BOTH.standing(trial(3, Status.INFEASIBLE))
    assert feasible < near < far < unknown
    assert precedes(feasible, near)
    assert precedes(near, far)
    assert not precedes(far, near)


def test_ranks_put_fronts_in_order_and_infeasible_last() -> None:
    trials = [
        trial(0, iou=0.5, size=5.0),
        trial(1, iou=0.9, size=9.0),
        trial(2, iou=0.4, size=6.0),
        trial(3, Status.INFEASIBLE, size=30.0),
        trial(4, Status.INFEASIBLE, size=20.0),
        trial(5, iou=0.5, size=5.0),
    ]
    assert BOTH.ranks(trials) == [0, 0, 1, 3, 2, 0]


def test_not_a_number_is_the_worst_of_the_feasible() -> None:
    one = Objectives((Objective("iou", "max"),))
    good, bad = trial(0, iou=-1e9), trial(1, iou=math.nan)
    assert one.standing(good) < one.standing(bad)
    assert one.best([bad, good]) is good


def test_the_knee_is_nearest_to_the_ideal_and_ties_go_to_the_earlier() -> None:
    trials = [trial(i, iou=iou, size=s) for i, (iou, s) in enumerate([(1, 9), (0.9, 2), (0, 1)])]
    assert BOTH.best(trials) is trials[1]
    assert BOTH.best([trial(4, iou=1, size=1), trial(5, iou=1, size=1)]).number == 4


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_extremes_the_better_by_the_first_goal_is_taken(first: int) -> None:
    """By distance both are as far: the earlier one was taken, here of an IoU of 0."""
    empty = trial(first, iou=0.0, size=1.0)
    large = trial(1 - first, iou=0.8, size=9.0)
    assert BOTH.best([empty, large]) is large
    size_first = Objectives(BOTH.items[::-1])
    assert size_first.best([empty, large]) is empty


def test_of_two_a_third_goal_does_not_outvote_the_first() -> None:
    three = Objectives((*BOTH.items, Objective("flops", "min")))
    small = trial(0, iou=0.1, size=1.0, flops=1.0)
    large = trial(1, iou=0.8, size=9.0, flops=9.0)
    assert three.best([small, large]) is large
    unknown = trial(2, iou=0.9, size=math.nan, flops=0.0)
    assert three.best([unknown, small]) is small


def test_equally_far_points_go_to_the_better_by_the_first_goal() -> None:
    ends = [trial(0, iou=0.0, size=1.0), trial(1, iou=1.0, size=9.0)]
    tied = [trial(2, iou=0.5, size=3.0), trial(3, iou=0.75, size=5.0)]
    assert BOTH.best([*ends, *tied]) is tied[1]


@given(POINTS)
def test_non_dominated_is_its_definition(points: list[tuple[int, int, int]]) -> None:
    expected = [
        i
        for i, p in enumerate(points)
        if not any(dominates(q, p) for q in points) and p not in points[:i]
    ]
    assert non_dominated(points) == expected
    everyone = [i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)]
    assert non_dominated(points, equal=True) == everyone


@pytest.mark.parametrize("goals", [1, 2, 3])
@given(POINTS)
def test_hypervolume_counts_the_unit_cubes_it_covers(
    goals: int, points: list[tuple[int, int, int]]
) -> None:
    cut = [p[:goals] for p in points]
    cubes = [(i // 16 % 4, i // 4 % 4, i % 4)[:goals] for i in range(64)]
    covered = {c for c in cubes if any(all(x <= y for x, y in zip(p, c)) for p in cut)}  # noqa: B905
    assert hypervolume(cut, (4,) * goals) == len(covered)


def test_thousands_of_points_take_no_time() -> None:
    rng = random.Random(0)
    points = [(rng.random(), rng.random()) for _ in range(5000)]
    front = [points[i] for i in non_dominated(points)]
    assert 0.9 < hypervolume(front, (1, 1)) < 1

"""Moves in a search space."""

import random

from hypothesis import given
from hypothesis import strategies as st

from nasengine import moves

spaces = st.dictionaries(
    st.sampled_from("abcde"),
    st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=4, unique=True).map(tuple),
    min_size=1,
    max_size=4,
)


@given(spaces, st.integers())
def test_a_mutant_differs_in_one_decision(decisions, seed):
    rng = random.Random(seed)
    one = moves.sample(decisions, rng)
    mutant = moves.mutate(one, decisions, rng)
    free = any(len(choices) > 1 for choices in decisions.values())
    assert sum(one[name] != mutant[name] for name in decisions) == free
    assert all(mutant[name] in choices for name, choices in decisions.items())


@given(spaces, st.integers())
def test_neighbours_are_all_that_differ_in_one_decision(decisions, seed):
    one = moves.sample(decisions, random.Random(seed))
    near = {
        other
        for other in moves.enumerate_all(decisions)
        if sum(one[name] != other[name] for name in decisions) == 1
    }
    found = list(moves.neighbours(one, decisions))
    assert set(found) == near
    assert len(found) == len(near)


@given(spaces, st.integers())
def test_encodings_tell_architectures_apart(decisions, seed):
    every = list(moves.enumerate_all(decisions))
    codes = {tuple(moves.encode(one, decisions)) for one in every}
    assert len(codes) == len(set(every)) == len(every)
    assert all(sum(code) == len(decisions) for code in codes)


def test_samples_are_uniform():
    decisions = {"a": ("x", "y"), "b": ("u", "v", "w")}
    rng = random.Random(0)
    drawn = [moves.sample(decisions, rng) for _ in range(6000)]
    assert all(850 < drawn.count(one) < 1150 for one in moves.enumerate_all(decisions))


@given(spaces, st.integers())
def test_a_child_has_each_decision_from_a_parent(decisions, seed):
    rng = random.Random(seed)
    one, other = moves.sample(decisions, rng), moves.sample(decisions, rng)
    child = moves.cross_over(one, other, rng)
    assert all(child[name] in (one[name], other[name]) for name in decisions)
    assert moves.cross_over(one, one, rng) == one

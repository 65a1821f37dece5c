"""The least of sums of terms, against every combination of choices."""

import itertools
import random
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_darts_costs import joint_costs

from nasengine import elimination
from nasengine.elimination import eliminate, elimination_order
from nasengine.terms import ends, total


def sizes_of(terms):
    return {n: k for names, costs in terms.items() for n, k in zip(names, costs.shape, strict=True)}


def every(terms):
    sizes = sizes_of(terms)
    for chosen in itertools.product(*map(range, sizes.values())):
        network = dict(zip(sizes, chosen, strict=True))
        yield network, total(terms, network)


@given(joint_costs())
def test_the_least_and_the_most_are_those_of_exhaustive_search(drawn):
    terms = drawn[1].terms
    cheapest, dearest = ends(terms)
    costs = [cost for _, cost in every(terms)]
    assert cheapest.is_exact and dearest.is_exact
    assert (cheapest.least, -dearest.least) == pytest.approx((min(costs), max(costs)))
    assert total(terms, cheapest.cheapest) == pytest.approx(min(costs))
    assert total(terms, dearest.cheapest) == pytest.approx(max(costs))


@given(joint_costs(), st.sampled_from([1, 4, elimination.MOST]), st.randoms(use_true_random=False))
def test_what_choices_add_to_the_least_is_their_cost_however_much_is_kept_apart(drawn, most, rng):
    terms = drawn[1].terms
    order = list(sizes_of(terms))
    rng.shuffle(order)
    with patch.object(elimination, "MOST", most):
        found = eliminate(terms, order)
    assert list(found.more) == order[::-1]
    added = [term for own in found.more.values() for term in own]
    assert all((costs >= 0).all() for _, costs in added)
    for name, own in found.more.items():
        before = order[order.index(name) + 1 :]
        assert all(names[-1] == name and {*names[:-1]} <= {*before} for names, _ in own)
    least = min(cost for _, cost in every(terms))
    assert found.least <= least + 1e-9
    for network, cost in every(terms):
        more = sum(float(costs[tuple(network[n] for n in names)]) for names, costs in added)
        assert found.least + more == pytest.approx(cost)
    assert found.reached == pytest.approx(total(terms, found.cheapest))
    if found.is_exact:
        assert found.reached == pytest.approx(least)


def test_where_few_are_kept_apart_there_is_a_bound_below_the_least():
    """A triangle of unequal neighbours: two of three can have what they want."""
    unlike = np.array([[1.0, 0.0], [0.0, 1.0]])
    terms = dict.fromkeys(itertools.combinations("abc", 2), unlike)
    assert eliminate(terms).least == 1.0
    with patch.object(elimination, "MOST", 4):
        found = eliminate(terms)
    assert (found.least, found.reached, found.is_exact) == (0.0, 1.0, False)


CHAIN = [(f"block{n}", f"width{n}", f"width{n + 1}") for n in range(12)]
SKIPS = [(f"merge{n}", f"width{n}", f"width{12 - n}") for n in range(6)]
"""To a chain of twelve blocks between widths of their own: ways across, as in a UNet."""


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("scopes", "most"), [(CHAIN, 2), ([*CHAIN, *SKIPS], 5)])
def test_few_are_open_at_once_however_blocks_are_declared(scopes, most, seed):
    names, rng = list(dict.fromkeys(n for scope in scopes for n in scope)), random.Random(seed)
    rng.shuffle(names)
    scopes = rng.sample(scopes, len(scopes))
    order = elimination_order({name: 5 if name[0] != "w" else 8 for name in names}, scopes)
    assert sorted(step.decision for step in order) == sorted(names)
    assert sorted(scope for step in order for scope in step.scopes) == sorted(scopes)
    assert max(len(step.open) for step in order) <= most
    done: set[str] = set()
    for step in order:
        done.add(step.decision)
        touched = {n for scope in scopes if done & {*scope} for n in scope}
        assert {*step.open} == touched - done

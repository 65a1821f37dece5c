"""Streams are of their seed and all labels, and the process's own generators go on as before."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from nasengine.randomness import (
    derive_seed,
    kept_generators,
    random_state,
    set_random_state,
    stream,
    torch_seed,
)


def test_a_seed_is_of_every_label_in_its_place() -> None:
    labels = ["a", "b", "a/b", "a\\", "\\/b", "", 1, 2]
    purposes = [
        (seed, *told)
        for seed in (0, 1)
        for count in range(4)
        for told in itertools.product(labels, repeat=count)
    ]
    seeds = {derive_seed(*purpose) for purpose in purposes}
    assert len(seeds) == len(purposes)
    assert min(seeds) >= 0
    assert 2**62 < max(seeds) < 2**63
    assert len({stream(*purpose).random() for purpose in purposes}) == len(purposes)


PINNED = 6_066_141_377_154_694_009


def test_a_seed_is_the_same_on_every_machine() -> None:
    """A run that is resumed elsewhere, or by a later version, goes on with the same streams."""
    assert derive_seed(0, "proposal", 3) == PINNED
    assert stream(0, "proposal", 3).random() == random.Random(PINNED).random()


def drawn() -> tuple[float, ...]:
    """Draw from every global generator; of NumPy's normals, the second of a pair is kept by it."""
    return (
        random.random(),
        random.gauss(0, 1),
        float(np.random.normal()),
        float(np.random.random()),
        float(torch.rand(())),
        float(torch.randn(())),
    )


def test_all_generators_are_of_the_labels_inside_and_go_on_after() -> None:
    drawn()
    with kept_generators():
        usual = [drawn(), drawn()]

    def inside(*labels: str | int) -> tuple[float, ...]:
        with torch_seed(*labels) as generator:  # type: ignore[arg-type]
            return (float(torch.rand((), generator=generator)), *drawn())

    assert inside(0, "a", "b", 1) == inside(0, "a", "b", 1)
    for one, other in itertools.combinations(
        [
            inside(0, "a", "b", 1),
            inside(0, "a", "b", 2),
            inside(0, "b", "a", 1),
            inside(1, "a", "b", 1),
        ],
        2,
    ):
        assert all(x != y for x, y in zip(one, other, strict=True))
    assert drawn() == usual[0]
    with pytest.raises(ZeroDivisionError), torch_seed(0, "a"):
        raise ZeroDivisionError
    assert drawn() == usual[1]


def test_a_state_that_is_put_back_draws_the_same_again() -> None:
    drawn()
    state = random_state("cpu")
    first = [drawn() for _ in range(3)]
    with torch_seed(0, "others"):
        drawn()
    drawn()
    set_random_state(state, "cpu", pytest.fail)
    assert [drawn() for _ in range(3)] == first

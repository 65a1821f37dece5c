"""Random search: uniform without replacement, or over the whole range of a cost."""

import random
from collections import Counter
from typing import Any

import pytest

from nasengine.architecture import Architecture
from nasengine.errors import SpecError
from nasengine.estimator import Estimator
from nasengine.estimators.parameters import Parameters
from nasengine.history import History
from nasengine.moves import enumerate_all
from nasengine.search import Search
from nasengine.strategies.random import Random
from nasengine.strategies.strata import Strata
from nasengine.testing.strategies import BranchedSpace, complete, play, search_for
from nasengine.testing.stubs import AdditiveEstimator, CountingEstimator, TinyWidths, tiny_search
from nasengine.trial import Trial
from nasengine.unseen import LISTED, Unseen

PAIRS = [(f"w{one}", f"w{other}") for other in range(6) for one in range(other)]


def with_estimators(**estimators: Estimator) -> Search:
    from nasengine.spaces.nas_bench_macro import NASBenchMacro

    return tiny_search(NASBenchMacro(), estimators=estimators)


def test_draws_are_uniform() -> None:
    search = search_for(BranchedSpace())
    firsts = Counter(
        Random().propose(History(), 1, search_for(search.space, seed=seed))[0]["tail"]
        for seed in range(300)
    )
    assert set(firsts) == {"conv", "wide", "skip"}
    assert max(firsts.values()) < 140


def costs(strategy: Random, search: Search) -> list[float]:
    table = search.cost_table("cost")
    return [table.predict(t.architecture) for t in play(strategy, search, 40)]


def test_stratified_covers_the_whole_range_of_a_cost() -> None:
    search = with_estimators(cost=AdditiveEstimator())
    uniform, stratified = costs(Random(), search), costs(Random(stratify="cost"), search)
    # 8 layers of cost 0 to 2: the extremes are one architecture in 6,561 each.
    assert min(uniform) > 1 or max(uniform) < 15
    assert min(stratified) <= 1
    assert max(stratified) >= 15
    thirds = Counter(int(cost * 3 / 17) for cost in stratified)
    assert min(thirds[third] for third in range(3)) >= 10


def test_stratified_trials_go_to_every_stratum_in_turn() -> None:
    search = with_estimators(cost=AdditiveEstimator())
    found = costs(Random(stratify="cost", strata=8), search)
    table = search.cost_table("cost")
    low, high = (sum(end(row.values()) for row in table.costs.values()) for end in (min, max))
    for start in range(0, 40, 8):
        strata = [int((c - low) / (high - low + 1) * 8) for c in found[start : start + 8]]
        assert len(set(strata)) >= 7, "the emptier ends give way to others"


def strata_of(decisions: int, choices: int) -> Strata:
    """Return the strata of a space in which the n-th choice of every decision costs n."""
    names = tuple(map(str, range(choices)))
    rows = {f"d{index}": names for index in range(decisions)}
    return Strata({(name,): {c: float(c) for c in names} for name in rows}, rows)


def test_draws_of_a_stratum_are_uniform() -> None:
    rng, strata = random.Random(0), strata_of(3, 3)
    drawn = Counter(strata.draws(0, 1, 5400, rng))
    assert len(drawn) == 27
    assert all(abs(count - 200) < 4 * 14 for count in drawn.values())
    # A seventh of a range from 0 to 6: one total each.
    for total in range(7):
        found = list(strata.draws(total, 7, 50, rng))
        assert {sum(map(int, a.values())) for a in found} == {total}
    assert len(found) == 50


def test_strata_divide_what_the_choices_cost() -> None:
    """From the cheapest network on, wherever that is; what only references have is no choice."""
    row = {"0": 100.0, "1": 101.0, "2": 102.0, "reference": 900.0}
    rng, names = random.Random(0), ("d0", "d1", "d2")
    strata = Strata({(name,): row for name in names}, dict.fromkeys(names, ("0", "1", "2")))
    for total in range(7):
        found = list(strata.draws(total, 7, 20, rng))
        assert [sum(map(int, a.values())) for a in found] == [total] * 20
    level = Strata({("d",): {"a": 3.0, "b": 3.0}}, {"d": ("a", "b")})
    assert {a["d"] for a in level.draws(0, 1, 20, rng)} == {"a", "b"}
    gap = Strata({("d",): {"a": 0.0, "b": 9.0}}, {"d": ("a", "b")})
    assert [len(list(gap.draws(part, 3, 5, rng))) for part in range(3)] == [5, 0, 5]


def test_strata_are_as_fine_as_a_thousandth_of_the_range() -> None:
    rng, strata = random.Random(0), strata_of(2, 100)
    for stratum in range(10):
        totals = [sum(map(int, a.values())) for a in strata.draws(stratum, 10, 100, rng)]
        assert 19.8 * stratum - 1 <= min(totals) and max(totals) <= 19.8 * (stratum + 1) + 1


def test_no_space_is_too_large_for_strata() -> None:
    """8^400 architectures are more than a float holds; costs range from 0 to 2800."""
    strata, rng = strata_of(400, 8), random.Random(0)
    for stratum in (0, 1, 9):
        (found,) = strata.draws(stratum, 10, 1, rng)
        assert sum(map(int, found.values())) / 280 == pytest.approx(stratum + 0.5, abs=0.6)


def test_strata_know_costs_of_several_decisions_together() -> None:
    """Two slots, their widths and one that costs nothing: each network of a cost is as likely."""
    costs = {"x": 0.0, "y": 1.0}, {"2": 1.0, "4": 3.0}, {"2": 0.0, "4": 1.0, "6": 3.0}
    block, w, v = costs
    terms = {
        ("first", "w"): {f"{b}@{n}": block[b] * w[n] for b in block for n in w},
        ("w", "v"): {f"{n}@{m}": w[n] * v[m] for n in w for m in v},
        ("second", "v", "w"): {
            f"{b}@{m}@{n}": block[b] + v[m] * w[n] for b in block for m in v for n in w
        },
    }
    decisions = {
        "w": tuple(w),
        "v": tuple(v),
        "first": tuple(block),
        "free": ("a", "b"),
        "second": tuple(block),
    }

    def cost(network: Architecture) -> int:
        return int(sum(row["@".join(network[n] for n in names)] for names, row in terms.items()))

    every = Counter(cost(network) for network in enumerate_all(decisions))
    low, high = min(every), max(every)
    strata, rng, parts = Strata(terms, decisions), random.Random(0), high - low + 1
    for total in range(low, high + 1):
        found = Counter(strata.draws(total - low, parts, 100 * every[total], rng))
        assert set(map(cost, found)) <= {total}
        assert len(found) == every[total]
        assert all(abs(count - 100) < 45 for count in found.values())


def test_widths_are_searched_over_the_whole_range_of_a_cost() -> None:
    search = tiny_search(TinyWidths(), estimators={"cost": Parameters()})
    Random(stratify="cost").check(search)
    predict = search.cost_table("cost").predict
    ends = sorted(map(predict, enumerate_all(search.space.decisions)))
    found = [predict(t.architecture) for t in play(Random(stratify="cost", strata=4), search, 4)]
    step = (ends[-1] - ends[0]) / 4
    assert {min(3, int((cost - ends[0]) / step)) for cost in found} == {0, 1, 2, 3}


def test_more_widths_at_once_than_strata_tell_apart_are_refused() -> None:
    decisions = {f"w{n}": ("2", "3", "4", "5") for n in range(6)}
    pairs = {pair: {f"{a}@{b}": 1.0 for a in "2345" for b in "2345"} for pair in PAIRS}
    with pytest.raises(SpecError, match=r"^strategy\.stratify: .* 4096 combinations, and 2000 can"):
        Strata(pairs, decisions)


@pytest.mark.parametrize("key", ["cots", "plain"])
def test_stratify_needs_a_cost_table(key: str) -> None:
    search = with_estimators(cost=AdditiveEstimator(), plain=CountingEstimator())
    with pytest.raises(SpecError, match=rf"strategy.stratify: .* '{key}'.*cost"):
        Random(stratify=key).check(search)
    Random(stratify="cost").check(search)


def test_a_stratum_that_is_used_up_gives_way() -> None:
    search = tiny_search(BranchedSpace(), estimators={"cost": AdditiveEstimator()})
    keys = {trial.key for trial in play(Random(stratify="cost", strata=3), search, 100)}
    assert keys == {trial.key for trial in play(Random(), search, 100)}


def test_a_space_too_large_to_be_listed_is_visited_to_its_end(monkeypatch: Any) -> None:
    import nasengine.unseen as module

    search = search_for(BranchedSpace())
    everything = len(play(Random(), search, 100))
    monkeypatch.setattr(module, "LISTED", 47)
    monkeypatch.setattr(module, "TRIES", 1)
    assert LISTED > search.space.size > 47
    assert len(play(Random(), search, 100)) >= everything - 1


def test_what_runs_and_what_is_proposed_at_once_is_seen() -> None:
    search = search_for(BranchedSpace())
    history = History()
    first = Random().propose(history, 3, search)
    history.record(Trial(0, first[0], search.space.key(first[0])))
    unseen = Unseen(history, search, search.stream("test"))
    assert first[0] not in unseen
    assert first[1] in unseen
    assert unseen.take(first[1])
    assert not unseen.take(first[1])
    assert complete(history[0]).value("x") == complete(history[0]).value("x")

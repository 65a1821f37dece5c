"""Every strategy, and the estimator that shares a supernet, where channels are searched."""

import math
from dataclasses import replace

import pytest
import torch
from test_darts import Neighbours
from test_darts_resume import Killed, Reaping, die
from test_strategy_conformance import GP, ROWS
from test_widths_supernet import Blocks
from torch import nn

from nasengine.errors import SpecError
from nasengine.estimators._supernet_scores import inherited, trained_supernet
from nasengine.estimators.one_shot import OneShot
from nasengine.estimators.parameters import Parameters
from nasengine.history import History
from nasengine.moves import enumerate_all
from nasengine.network import build_network
from nasengine.space import SearchSpace
from nasengine.spaces.light_sdi import LightSDI
from nasengine.strategies.darts import Darts
from nasengine.strategies.features import Features
from nasengine.strategies.gradient_search import GradientSearch
from nasengine.strategies.memory_plan import choose, plan_memory
from nasengine.strategies.nni_darts import NniDarts
from nasengine.strategies.nni_search import NniSearch
from nasengine.strategies.predictor import Predictor
from nasengine.supernet import Mixture, Supernet
from nasengine.testing.strategies import StrategyContract, play, search_for
from nasengine.testing.stubs import Kept, TinyGate, TinyWidths, tiny_candidate, tiny_search

ONE_OF_EACH = {name: rows[0] for name, rows in ROWS.items()} | {
    "optuna_gp": GP,
    "darts": Darts(iterations=4, arch_every=2, batch=2, top_k=64),
    "nni_darts": NniDarts(iterations=2, batch=2, top_k=64),
}


class TestSearchedWidths(StrategyContract):
    """Widths inside a branch that a gate may cut: 48 architectures, 28 that differ."""

    trials = 12

    @pytest.fixture(params=ONE_OF_EACH.values(), ids=ONE_OF_EACH)
    def strategy(self, request):
        return request.param

    @pytest.fixture
    def space(self):
        return TinyGate()

    @pytest.fixture
    def search(self, strategy, space):
        search = search_for(space)
        strategy.check(search)
        return search


@pytest.mark.parametrize("name", [n for n in ONE_OF_EACH if n != "optuna_gp"])
def test_every_strategy_proposes_widths_of_light_sdi(name):
    space = LightSDI(width=4, searched_widths=("50%", "100%"))
    search = search_for(space)
    strategy = ONE_OF_EACH[name]
    strategy.check(search)
    history = play(strategy, search, 6)
    for trial in history:
        assert trial.architecture == space.architecture(trial.architecture)


class OnlyWidths(SearchSpace):
    """No slot: two numbers of channels, and one that is no choice."""

    def define(self, graph):
        def conv(channels_in, channels_out):
            block = nn.Conv2d(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out)
            return nn.Sequential(*block, nn.ReLU())

        x = graph.operation("a", graph.input(2), conv, out=graph.width("first", (2, 4, 8)))
        x = graph.operation("b", x, conv, out=2 * graph.width("second", (2, 3)))
        x = graph.operation("c", x, conv, out=graph.width("third", (5,)))
        graph.output(graph.operation("d", x, conv, out=1))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_widths_may_be_all_that_is_searched(name):
    space = OnlyWidths()
    strategy = Predictor(initial=2) if name == "predictor" else ONE_OF_EACH[name]
    search = search_for(space)
    strategy.check(search)
    history = play(strategy, search, 12)
    assert {trial.key for trial in history} == {
        space.key(a) for a in enumerate_all(space.decisions)
    }
    assert len(history) == 6


def make_search(space=None, folder=None, reporter=None):
    search = tiny_search(
        space or TinyGate(), estimators={"parameters": Parameters()}, folder=folder
    )
    return replace(search, reporter=reporter or Kept())


SETTINGS = {
    "plain": {},
    "none": {"relaxation": "none"},
    "gumbel": {"relaxation": "gumbel", "final_temperature": 0.5},
    "one path": {"paths": 1},
    "GDAS": {"relaxation": "gumbel", "paths": 1},
    "two paths": {"paths": 2},
    "second order": {"order": 2},
    "perturbed": {"perturbation": 0.3},
    "adamw": {"weights": {"optimiser": "adamw"}, "alphas": {"optimiser": "adam"}},
    "bf16": {"precision": "bf16"},
    "a cost": {"cost": {"parameters": 0.3}},
    "a target": {"cost": {"parameters": {"target": 300}}},
    "stopping": {"stop_when_collapsed": 4, "stop_when_stable": 2},
}


@pytest.mark.parametrize("space", [TinyWidths(), TinyGate(), Blocks()], ids=["sum", "gate", "in"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_setting_of_darts_searches_widths(settings, space):
    search = make_search(space)
    steps = 60 if settings.get("paths") else 8
    settings = {"iterations": steps, "arch_every": 2, "alphas": {"learning_rate": 1.0}} | settings
    strategy = Darts.model_validate({"batch": 2} | settings)
    strategy.check(search)
    (found,) = strategy.propose(History(), 1, search)
    assert found == space.architecture(found)
    alphas = search.reporter.of("darts")[-1]["alphas"]
    assert alphas.keys() == space.decisions.keys()
    # Each has moved: gradients reach widths as they reach blocks.
    assert all(len({round(a, 9) for a in alphas[name]}) > 1 for name in space.graph.widths)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_slots_of_searched_widths_are_computed_again_where_memory_is_short(precision):
    search = make_search(Blocks())
    settings = {"iterations": 4, "arch_every": 2, "batch": 2, "precision": precision}
    usual = Darts.model_validate(settings | {"memory": "1 GB"})
    whole = plan_memory(usual, search, choose(usual, "cpu")).peak
    short = Darts.model_validate(settings | {"memory": f"{whole - 1} B"})
    short.check(search)
    found = [GradientSearch(strategy, make_search(Blocks())) for strategy in (usual, short)]
    alphas = [one.run().alphas for one in found]
    assert "computed again" in found[1].search.reporter.notes[0]
    torch.testing.assert_close(*alphas)


class Sides(SearchSpace):
    """Channels that see the image, and channels that see nothing."""

    def define(self, graph):
        class Nothing(nn.Module):
            def forward(self, x):
                return x * 0.0

        def conv(channels_in, channels_out):
            # Along a row, as far as what tells foreground lies.
            block = nn.Conv2d(channels_in, channels_out, (1, 5), padding=(0, 2))
            return nn.Sequential(block, nn.BatchNorm2d(channels_out), nn.ReLU())

        image = graph.input(3)
        nothing = graph.operation("nothing", image, lambda _in, _out: Nothing())
        widths = [graph.width(name, (1, 4, 16)) for name in ("seeing", "blind")]
        ends = [
            graph.operation(f"side_{n}", source, conv, out=width)
            for n, (source, width) in enumerate(zip((image, nothing), widths, strict=True))
        ]
        both = graph.concat("both", ends)
        graph.output(graph.operation("head", both, lambda i, o: nn.Conv2d(i, o, 1), out=1))


DRAWS = ("plain", "gumbel", "one path", "GDAS", "two paths")


@pytest.mark.parametrize("settings", [SETTINGS[name] for name in DRAWS], ids=DRAWS)
def test_channels_go_where_they_help(settings):
    given = {"iterations": 150, "arch_every": 2, "weights": {"learning_rate": 0.05}}
    given |= {"alphas": {"learning_rate": 1.0}, "cost": {"parameters": {"target": 400}}}
    task, estimators = Neighbours(samples=32), {"parameters": Parameters()}
    for seed in range(2):
        search = tiny_search(Sides(), task=task, estimators=estimators, seed=seed)
        (found,) = Darts.model_validate(given | settings).propose(History(), 1, search)
        assert dict(found) == {"seeing": "16", "blind": "4"}


def test_partial_channels_are_refused_where_channels_are_searched():
    with pytest.raises(
        SpecError, match=r"partial_channels: 2 needs slots of fixed channels; .* 'first' are sear"
    ):
        Darts(partial_channels=2).check(make_search())


KILLED = {name: (GradientSearch, SETTINGS[name]) for name in ("plain", "GDAS", "a target")}
KILLED["NNI"] = (NniSearch, {})


@pytest.mark.parametrize(("kind", "settings"), KILLED.values(), ids=KILLED)
def test_killed_anywhere_a_search_of_widths_ends_the_same(kind, settings, tmp_path):
    given = {"iterations": 6, "log_every": 1, "save_seconds": 0, "batch": 2} | settings
    if kind is GradientSearch:
        strategy = Darts.model_validate({"arch_every": 2} | given)
    else:
        strategy = NniDarts.model_validate(given)

    def ended(folder, reporter):
        search = make_search(folder=folder, reporter=reporter)
        result = kind(strategy, search).run()
        return {name: alpha.tolist() for name, alpha in result.alphas.items()}

    (tmp_path / "whole").mkdir()
    whole = ended(tmp_path / "whole", Reaping())
    for at in range(1, 6):
        (tmp_path / str(at)).mkdir()
        with pytest.raises(Killed):
            ended(tmp_path / str(at), Reaping(at, die))
        assert ended(tmp_path / str(at), Reaping()) == whole


def test_the_cheapest_choice_of_a_width_is_the_narrowest():
    search = make_search()
    settings = {"iterations": 4, "arch_every": 2}
    found = GradientSearch(Darts.model_validate(settings), search)
    found._prepare()
    assert found._cheapest == {
        **{"width": {"2"}, "inner": {"narrow"}},
        **{"first": {"pointwise"}, "inside": {"pointwise"}},
    }
    costly = Darts.model_validate(settings | {"cost": {"parameters": 0.1}})
    found = GradientSearch(costly, make_search())
    found._prepare()
    assert found._cheapest["width"] == {"2"} and found._cheapest["inner"] == {"narrow"}


def test_doubts_are_counted_in_decisions():
    search = make_search()
    settings = {"iterations": 8, "arch_every": 2, "cost": {"parameters": 0.95}}
    settings |= {"alphas": {"learning_rate": 10.0}}
    Darts.model_validate(settings).propose(History(), 1, search)
    warnings = " ".join(search.reporter.warnings)
    assert "of 5 decisions took their cheapest choice (width, inner" in warnings


@pytest.mark.parametrize("space", [TinyWidths(), TinyGate()], ids=["sum", "gate"])
def test_nni_mixes_widths_as_the_engine_does(space):
    from nasengine.strategies.silence import silent_nni_darts

    with silent_nni_darts():
        from nasengine.strategies.nni_supernet import make_supernet

        theirs = make_supernet(space.graph, 1e-3)
        assert theirs.alphas.keys() == space.decisions.keys()
        ours = Supernet(space.graph).eval()
        with torch.no_grad():
            for alpha in theirs.alphas.values():
                alpha.copy_(torch.randn(len(alpha)))
            weights = [*theirs.space.parameters()]
            alphas = {id(alpha) for alpha in theirs.alphas.values()}
            weights = [weight for weight in weights if id(weight) not in alphas]
            for own, weight in zip(ours.parameters(), weights, strict=True):
                own.copy_(weight)
            x = torch.randn(2, 3, 8, 8)
            mixed = {n: Mixture(torch.softmax(a, 0)) for n, a in theirs.alphas.items()}
            torch.testing.assert_close(theirs.space.eval()(x), ours(x, mixed))


def test_nni_trains_the_alphas_of_widths():
    search = make_search()
    strategy = NniDarts(iterations=4, batch=2, alpha_learning_rate=0.1)
    (found,) = strategy.propose(History(), 1, search)
    assert found == search.space.architecture(found)
    alphas = search.reporter.of("darts")[-1]["alphas"]
    assert all(max(alphas[name]) - min(alphas[name]) > 0.05 for name in search.space.graph.widths)


def test_a_predictor_sees_where_a_width_is_alive():
    space = TinyGate()
    features = Features(space.graph)
    cut = {name: end - 1 for name, end in zip(features.decisions, _ends(features), strict=True)}
    for architecture in enumerate_all(space.decisions):
        (row,) = features([architecture])
        dead = architecture["gate"] == "none"
        assert row[cut["inner"]] == row[cut["inside"]] == float(dead)
        assert row[cut["width"]] == row[cut["first"]] == 0.0
        start = cut["inner"] - 3
        chosen = [float(c == architecture["inner"]) for c in space.decisions["inner"]]
        assert row[start : start + 3].tolist() == [0.0] * 3 if dead else chosen


def _ends(features):
    total = 0
    for width in features.widths:
        total += width
        yield total


def test_what_computes_the_same_has_the_same_features():
    space = TinyGate()
    features, rows = Features(space.graph), {}
    for architecture in enumerate_all(space.decisions):
        row = features([architecture])[0][: features.local + features.whole]
        rows.setdefault(space.key(architecture), []).append(row)
    assert all((row == found[0]).all() for found in rows.values() for row in found)


ESTIMATOR = OneShot(iterations=20, batch=4, recalibration=2)


def test_one_supernet_scores_networks_of_every_width(tmp_path):
    search = tiny_search(TinyGate(), estimators={"score": ESTIMATOR}, folder=tmp_path)
    weights = trained_supernet(ESTIMATOR, search)
    scores = {}
    for architecture in list(enumerate_all(search.space.decisions))[::5]:
        found = ESTIMATOR.measure(tiny_candidate(search, architecture))
        assert all(math.isfinite(measured.value) for measured in found.values())
        scores[architecture] = found["loss"].value
        # What lies beyond the widths neither counts nor learns by these.
        network = inherited(architecture, weights, search).eval()
        x = torch.randn(2, *search.task.input_shape)
        before = network(x)
        for name, mask in network.named_buffers():
            if name.endswith(".mask"):
                beyond = (mask == 0).view(1, -1, 1, 1)
                seen = network.get_submodule(name.removesuffix(".mask"))
                seen.register_forward_pre_hook(lambda _, x, beyond=beyond: x[0] + 9.0 * beyond)
        assert torch.equal(network(x), before)
    assert len(set(scores.values())) > 5


def test_fair_paths_need_as_many_widths_as_candidates():
    search = tiny_search(TinyGate(), estimators={"score": ESTIMATOR})
    with pytest.raises(SpecError, match="this space has 2, 3"):
        OneShot(sampling="fair").check(search)
    even = tiny_search(TinyWidths(), estimators={"score": ESTIMATOR})
    OneShot(sampling="fair").check(even)


def test_networks_are_as_wide_as_they_are_decided_and_scores_as_wide_as_the_supernet(tmp_path):
    search = tiny_search(TinyWidths(), estimators={"score": ESTIMATOR}, folder=tmp_path)
    narrow = search.space.architecture({n: c[0] for n, c in search.space.decisions.items()})
    built = build_network(search.space.graph, narrow)
    scored = inherited(narrow, trained_supernet(ESTIMATOR, search), search)
    assert built.stem[0].weight.shape[0] == 4
    assert scored.stem[0].weight.shape[0] == 8

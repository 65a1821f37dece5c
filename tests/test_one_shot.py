"""Weight sharing: paths, a supernet trained once, inherited weights, recalibration."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasengine.errors import EstimationFailed, Interrupted, SpecError
from nasengine.estimator import Candidate
from nasengine.estimators._supernet_scores import (
    draw_paths,
    inherited,
    recalibrate,
    trained_supernet,
)
from nasengine.estimators.one_shot import OneShot
from nasengine.evaluation import evaluate
from nasengine.graph import SpaceGraph
from nasengine.moves import enumerate_all
from nasengine.reporter import Reporter
from nasengine.search import Search
from nasengine.space import SearchSpace
from nasengine.supernet import Mixture, Supernet
from nasengine.testing.stubs import TinySpace, tiny_candidate, tiny_search

FAST: dict[str, Any] = {"iterations": 6, "batch": 4, "recalibration": 2}


def search_for(folder: Path, estimator: OneShot, **rest: Any) -> Search:
    folder.mkdir(exist_ok=True)
    return tiny_search(estimators={"score": estimator}, folder=folder, **rest)


def norm_conv(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out))


def plain(_channels_in: int, _channels_out: int) -> nn.Module:
    return nn.Identity()


class Shared(SearchSpace):
    """Two slots that share a decision, beside one of another size."""

    def define(self, graph: SpaceGraph) -> None:
        x = graph.input(3)
        for name in ("one", "two"):
            x = graph.slot(name, x, {"conv": norm_conv, "skip": plain}, shares="edge")
        x = graph.slot("last", x, {"a": norm_conv, "b": norm_conv, "c": norm_conv}, out=1)
        graph.output(x)


@pytest.mark.parametrize("sampling", ["uniform", "fair"])
def test_paths_take_every_choice_alike(sampling: str) -> None:
    decisions = {"a": ("x", "y", "z"), "b": ("u", "v", "w")}
    drawn = [p for step in range(900) for p in draw_paths(decisions, sampling, random.Random(step))]
    pairs = Counter((path["a"], path["b"]) for path in drawn)
    assert len(pairs) == 9
    assert max(pairs.values()) < 1.5 * min(pairs.values())
    if sampling == "fair":
        assert set(Counter(path["a"] for path in drawn).values()) == {900}


def test_only_drawn_candidates_run_and_learn(tmp_path: Path) -> None:
    estimator = OneShot(iterations=1, batch=4)
    search = search_for(tmp_path, estimator)
    trained = trained_supernet(estimator, search)
    from nasengine.randomness import torch_seed

    with torch_seed(search.seed, "one_shot", "network"):
        fresh = Supernet(search.space.graph).state_dict()
    changed = {
        n.split(".")[3]
        for n in fresh
        # Biases before a batch norm are put to zero, drawn or not.
        if "first" in n and n.endswith("weight") and not torch.equal(fresh[n], trained[n])
    }
    (path,) = draw_paths(search.space.decisions, "uniform", search.stream("one_shot", "paths", 0))
    assert changed == {search.space.decisions["first"][path["first"]]}


@pytest.mark.parametrize("sampling", ["uniform", "fair"])
def test_the_same_seed_gives_the_same_scores(sampling: Any, tmp_path: Path) -> None:
    estimator = OneShot(sampling=sampling, **FAST)
    scores = []
    for name in ("a", "b"):
        search = search_for(tmp_path / name, estimator)
        architectures = list(enumerate_all(search.space.decisions))
        # The order in which networks are scored does not matter.
        for architecture in architectures if name == "a" else architectures[::-1]:
            candidate = tiny_candidate(search, architecture)
            scores.append((name, architecture, estimator.measure(candidate)))
    first, second = ({a: m for n, a, m in scores if n == name} for name in ("a", "b"))
    assert first == second
    assert len({m["loss"].value for m in first.values()}) == 4


def test_the_supernet_is_trained_once_and_left_as_it_was(tmp_path: Path) -> None:
    estimator = OneShot(**FAST)
    search = search_for(tmp_path, estimator)
    estimator.measure(tiny_candidate(search))
    files = {path.name: path.read_bytes() for path in search.checkpoints.glob("*.safetensors")}
    before = {name: t.clone() for name, t in trained_supernet(estimator, search).items()}
    assert len(files) == 1
    for architecture in enumerate_all(search.space.decisions):
        estimator.measure(tiny_candidate(search, architecture))
    after = trained_supernet(estimator, search)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {
        path.name: path.read_bytes() for path in search.checkpoints.glob("*.safetensors")
    } == files


def test_a_score_is_of_the_recalibrated_network_on_the_validation_split(tmp_path: Path) -> None:
    estimator = OneShot(**FAST)
    search = search_for(tmp_path, estimator)
    candidate = tiny_candidate(search)
    found = {name: m.value for name, m in estimator.measure(candidate).items()}
    network = inherited(candidate.architecture, trained_supernet(estimator, search), search)
    recalibrate(network, estimator, search)
    assert found == evaluate(network, search.splits.validation, search)


def test_estimators_of_other_settings_have_supernets_of_their_own(tmp_path: Path) -> None:
    first, second = OneShot(**FAST), OneShot(sampling="fair", **FAST)
    search = search_for(tmp_path, first)
    one, other = trained_supernet(first, search), trained_supernet(second, search)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert len(list(search.checkpoints.glob("*.safetensors"))) == 2


class StopAt(Reporter):
    """Asks the search to stop at the n-th record of a step."""

    def __init__(self, at: int) -> None:
        self.left, self.search = at, None

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        self.left -= "step" in facts
        if self.left == 0:
            self.search.stop.set()  # type: ignore[attr-defined]


@pytest.mark.parametrize("sampling", ["uniform", "fair"])
def test_a_stopped_supernet_resumes_to_the_bit(sampling: Any, tmp_path: Path) -> None:
    estimator = OneShot(sampling=sampling, **FAST)
    whole = trained_supernet(estimator, search_for(tmp_path / "whole", estimator))
    reporter = StopAt(3)
    search = replace(search_for(tmp_path / "stopped", estimator), reporter=reporter)
    reporter.search = search  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        trained_supernet(estimator, search)
    search.stop.clear()
    resumed = trained_supernet(estimator, search)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert reporter.left == 3 - 6


def test_two_workers_train_one_supernet(tmp_path: Path) -> None:
    estimator = OneShot(iterations=20, batch=4)
    search = search_for(tmp_path, estimator)
    script = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from nasengine.estimators.one_shot import OneShot\n"
        "from nasengine.estimators._supernet_scores import trained_supernet\n"
        "from nasengine.reporter import Reporter\n"
        "from nasengine.testing.stubs import tiny_search\n"
        "class Counting(Reporter):\n"
        "    def record(self, kind, facts): print(facts.get('step', ''), flush=True)\n"
        "from dataclasses import replace\n"
        "estimator = OneShot(iterations=20, batch=4)\n"
        "search = tiny_search(estimators={'score': estimator}, folder=Path(sys.argv[1]))\n"
        "trained_supernet(estimator, replace(search, reporter=Counting()))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [worker.communicate(timeout=200) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    steps = [int(line) for out, _ in said for line in out.split()]
    assert sorted(steps) == list(range(1, 21))
    assert trained_supernet(estimator, search)


def test_inherited_networks_are_the_supernet_s_paths(tmp_path: Path) -> None:
    estimator = OneShot(**FAST)
    search = search_for(tmp_path, estimator, space=Shared())
    weights = trained_supernet(estimator, search)
    supernet = Supernet(search.space.graph)
    supernet.load_state_dict(dict(weights))
    supernet.eval()
    inputs = search.splits.validation.inputs
    for architecture in enumerate_all(search.space.decisions):
        mixtures = {
            name: Mixture(torch.ones(len(choices)), (choices.index(architecture[name]),))
            for name, choices in search.space.decisions.items()
        }
        network = inherited(architecture, weights, search).eval()
        torch.testing.assert_close(network(inputs), supernet(inputs, mixtures))


def test_recalibration_takes_the_path_s_own_statistics(tmp_path: Path) -> None:
    estimator = OneShot(iterations=6, batch=4, recalibration=2)
    search = search_for(tmp_path, estimator)
    architecture = tiny_candidate(search).architecture
    network = inherited(architecture, trained_supernet(estimator, search), search)
    seen: list[Tensor] = []
    first = network.get_submodule("first")
    first[0].register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    stale = first[1].running_mean.clone()
    recalibrate(network, estimator, search)
    wanted = torch.stack([output.mean((0, 2, 3)) for output in seen]).mean(0)
    assert len(seen) == 2
    torch.testing.assert_close(first[1].running_mean, wanted)
    assert not torch.allclose(first[1].running_mean, stale)
    assert not any(module.training for module in network.modules())


def test_references_with_baseline_blocks_fail_with_the_reason(tmp_path: Path) -> None:
    estimator = OneShot(**FAST)
    search = search_for(tmp_path, estimator, space=TinySpace())
    candidate = Candidate(search.space.reference("big"), search, "reference-big", {})
    with pytest.raises(EstimationFailed, match="slot 'first': 'double' is no candidate"):
        estimator.measure(candidate)


def test_check_refuses(tmp_path: Path) -> None:
    fair = OneShot(sampling="fair")
    with pytest.raises(SpecError, match="this space has 2, 3; take 'uniform'"):
        fair.check(search_for(tmp_path / "fair", fair, space=Shared()))
    wrong = OneShot(metric="iuo")
    search = search_for(tmp_path / "metric", OneShot())
    with pytest.raises(SpecError, match="did you mean 'iou'"):
        wrong.check(search)
    OneShot(metric="iou", sampling="fair").check(search)


def test_scores_rank_a_crippled_choice_last(tmp_path: Path) -> None:
    class Crippling(SearchSpace):
        """A slot that is a convolution, or forgets its input."""

        def define(self, graph: SpaceGraph) -> None:
            from nasengine.operations import Zero

            x = graph.input(3)
            x = graph.slot(
                "slot",
                x,
                {"conv": norm_conv, "other": norm_conv, "none": lambda i, o: Zero()},
            )
            graph.output(graph.operation("head", x, norm_conv, out=1))

    estimator = OneShot(iterations=150, batch=4, learning_rate=0.05)
    search = search_for(tmp_path, estimator, space=Crippling())
    loss = {
        architecture["slot"]: estimator.measure(tiny_candidate(search, architecture))
        for architecture in enumerate_all(search.space.decisions)
    }
    worst = loss.pop("none")["loss"].value
    assert all(worst > 1.3 * measured["loss"].value for measured in loss.values())

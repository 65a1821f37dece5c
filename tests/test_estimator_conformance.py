"""Every installed estimator keeps its contract on every installed space; all have a row here."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from typing import ClassVar

import pytest
from safetensors.torch import save_file

from nasengine.errors import EstimationFailed
from nasengine.estimator import Candidate, Estimator
from nasengine.estimators.flops import Flops
from nasengine.estimators.latency import Latency
from nasengine.estimators.memory import Memory
from nasengine.estimators.one_shot import OneShot
from nasengine.estimators.parameters import Parameters
from nasengine.estimators.quantized import Quantized
from nasengine.estimators.tabular import Tabular
from nasengine.estimators.trained import Trained
from nasengine.estimators.zero_cost import ZeroCost
from nasengine.plugin import installed
from nasengine.search import Search
from nasengine.spaces.light_sdi import LightSDI
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.spaces.nas_bench_macro import NASBenchMacro
from nasengine.testing import estimators as suite
from nasengine.testing.estimators import EstimatorContract
from nasengine.testing.stubs import CountingEstimator, TinyWidths, tiny_candidate, tiny_search

SPACES = {
    "light_sdi": LightSDI(width=2),
    "nas_bench_201": NASBench201(width=2, cells_per_stage=1),
    "nas_bench_macro": NASBenchMacro(width=2, features=8),
}

SEARCHED_WIDTHS = {
    "light_sdi at searched widths": LightSDI(width=2, searched_widths=("50%", "100%")),
    "tiny at searched widths": TinyWidths(),
}


class Row(EstimatorContract):
    """An estimator's row: the whole contract on the tiny space, its core on every space."""

    plugin = ""
    baselines = True  # whether it measures references with blocks that no search proposes
    beside: ClassVar[dict[str, Estimator]] = {}  # what it needs in the search

    @pytest.mark.parametrize("name", [*SPACES, *SEARCHED_WIDTHS])
    def test_on_every_space(self, name, tmp_path):
        space = {**SPACES, **SEARCHED_WIDTHS}[name]
        search = tiny_search(space, estimators=self.beside, folder=tmp_path)
        architecture, *_, reference = suite.whole_architectures(search, 1)
        estimator = self.make(search)
        estimator.check(search)
        for label, drawn in (("trial-0", architecture), ("reference", reference)):
            candidate = tiny_candidate(search, drawn, label)
            foreign = any(drawn[name] not in c for name, c in search.space.decisions.items())
            if foreign and not self.baselines:
                with pytest.raises(EstimationFailed, match="is no candidate"):
                    estimator.measure(candidate)
                continue
            self.before(candidate)
            self.test_what_is_declared_is_measured(estimator, search, candidate)
        self.test_the_table_covers_the_space(estimator, search)
        self.test_the_table_predicts(estimator, search)

    @pytest.fixture
    def estimator(self, search) -> Estimator:
        return self.make(search)

    @pytest.fixture
    def search(self, tmp_path) -> Search:
        return tiny_search(estimators=self.beside, folder=tmp_path)

    @pytest.fixture
    def candidate(self, search) -> Candidate:
        found = tiny_candidate(search, suite.whole_architectures(search)[0])
        self.before(found)
        return found

    def before(self, candidate: Candidate) -> None:
        """Do what estimators before it do."""

    def make(self, search: Search) -> Estimator:
        raise NotImplementedError


class TestParameters(Row):
    plugin = "parameters"

    def make(self, search) -> Estimator:
        return Parameters()


class TestFlops(Row):
    plugin = "flops"

    def make(self, search) -> Estimator:
        return Flops()


class TestLatency(Row):
    plugin = "latency"
    varying = frozenset({"latency", "p90", "spread", "fps"})
    tolerance = None

    def make(self, search) -> Estimator:
        return Latency(repeats=2, seconds=0.0, max_spread=1e6)


class TestMemory(Row):
    plugin = "memory"

    def make(self, search) -> Estimator:
        return Memory(training_batch=4)


class TestTrained(Row):
    plugin = "trained"
    varying = frozenset({"seconds"})
    optional = frozenset({"test_iou", "test_accuracy", "test_loss"})  # the stubs have no test split

    def make(self, search) -> Estimator:
        return Trained(iterations=2, batch=4)


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the extra onnx is not installed")
class TestQuantized(Row):
    plugin = "quantized"
    optional = frozenset({"test_iou", "test_accuracy", "test_loss"})
    beside: ClassVar[dict[str, Estimator]] = {"trained": Trained(iterations=1)}

    @pytest.mark.parametrize("name", SPACES)
    def test_on_every_space(self, name, tmp_path):
        super().test_on_every_space(name, tmp_path)

    def before(self, candidate: Candidate) -> None:
        save_file(candidate.network().state_dict(), candidate.weights_path)

    def make(self, search) -> Estimator:
        return Quantized(samples=4)


class TestOneShot(Row):
    plugin = "one_shot"
    baselines = False

    def make(self, search) -> Estimator:
        return OneShot(iterations=2, batch=4, recalibration=1)


class TestZeroCost(Row):
    plugin = "zero_cost"

    def make(self, search) -> Estimator:
        return ZeroCost(proxy="synflow")


class TestTabular(Row):
    plugin = "tabular"

    def make(self, search) -> Estimator:
        rows = [
            {"arch": search.space.format(architecture), "val": float(number)}
            for number, architecture in enumerate(dict.fromkeys(suite.whole_architectures(search)))
        ]
        path = search.folder / "table.json"
        path.write_text(json.dumps(rows))
        return Tabular(file=path, key="arch", column="val")


class TestCounting(EstimatorContract):
    """The stub that other suites use is an estimator too."""

    @pytest.fixture
    def estimator(self):
        return CountingEstimator()


ROWS = {cls.plugin for cls in Row.__subclasses__()}


def test_every_installed_estimator_has_a_row():
    assert set(installed("estimator")) == ROWS


def test_every_installed_space_is_covered():
    assert set(installed("space")) == set(SPACES)


@pytest.mark.parametrize("name", sorted(installed("estimator")))
def test_entry_points_name_estimators(name):
    point = installed("estimator")[name]
    assert issubclass(getattr(import_module(point.module), point.attr), Estimator)


class Forgetful(CountingEstimator):
    """Declares more than it measures."""

    def metrics(self, search):
        return (*super().metrics(search), *[type(super().metrics(search)[0])("more", "", "max")])


class Meddling(CountingEstimator):
    """Draws from torch's global generator."""

    def measure(self, candidate: Candidate):
        import torch

        torch.rand(1)
        return super().measure(candidate)


def test_the_suite_can_fail(tmp_path):
    search = tiny_search(estimators={}, folder=tmp_path)
    candidate, contract = tiny_candidate(search), EstimatorContract()
    with pytest.raises(AssertionError):
        contract.test_what_is_declared_is_measured(Forgetful(), search, candidate)
    with pytest.raises(AssertionError):
        contract.test_torch_is_left_as_it_was(Meddling(), search, candidate)

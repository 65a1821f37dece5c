"""What every estimator must keep, as a pytest class to inherit.

Examples
--------
In a package that offers its own estimator::

    from nasengine.testing.estimators import EstimatorContract

    class TestMine(EstimatorContract):
        @pytest.fixture
        def estimator(self):
            return MyEstimator()
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nasengine.architecture import Architecture
from nasengine.errors import SpecError
from nasengine.estimator import Candidate, Estimator, row_key
from nasengine.moves import sample
from nasengine.search import Search
from nasengine.testing.stubs import tiny_candidate, tiny_search
from nasengine.trial import Measurement


def torch_state() -> dict[str, Any]:
    """Return what an estimator must leave of torch's global state as it was."""
    import torch

    return {
        "random state": torch.random.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


class EstimatorContract:
    """Override the fixture `estimator`, and `search` where it needs a search of its own.

    Attributes
    ----------
    varying
        Metrics that differ from run to run, such as a time.
    optional
        Declared metrics that some data cannot give, such as those of a test split.
    tolerance
        How far the cost table's prediction may be from the measurement, relative to it; None
        where the table is of something that no test machine measures twice alike.
    """

    varying: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    tolerance: float | None = 1e-9

    @pytest.fixture
    @abstractmethod
    def estimator(self) -> Estimator:
        """Return the estimator, with settings that make it quick."""

    @pytest.fixture
    def search(self, tmp_path: Path) -> Search:
        """Return the search that it serves; by default around the tiny space."""
        return tiny_search(estimators={}, folder=tmp_path)

    @pytest.fixture
    def candidate(self, search: Search) -> Candidate:
        """Return an architecture whose connections are whole, as far as the space has such."""
        return tiny_candidate(search, whole_architectures(search)[0])

    def test_it_accepts_the_search(self, estimator: Estimator, search: Search) -> None:
        """Nothing refuses what the suite measures."""
        estimator.check(search)

    def test_metrics_are_declared(self, estimator: Estimator, search: Search) -> None:
        """Names are there and unique, directions are known."""
        metrics = estimator.metrics(search)
        names = [metric.name for metric in metrics]
        assert names and all(names) and len(set(names)) == len(names)
        assert all(metric.direction in ("max", "min") for metric in metrics)
        assert estimator.effort in (0, 1, 2, 3)

    def test_what_is_declared_is_measured(
        self, estimator: Estimator, search: Search, candidate: Candidate
    ) -> None:
        """Every metric gets a finite number, explained in JSON values, and nothing else does."""
        found = estimator.measure(candidate)
        declared = {metric.name for metric in estimator.metrics(search)}
        assert declared - self.optional <= set(found) <= declared
        for name, measurement in found.items():
            assert isinstance(measurement.value, float) and math.isfinite(measurement.value), name
            json.dumps(dict(measurement.details), allow_nan=False)

    def test_the_same_again(
        self, estimator: Estimator, search: Search, candidate: Candidate
    ) -> None:
        """The seed and the candidate's label decide, but for what varies by nature."""
        first = _values(estimator.measure(candidate), self.varying)
        again = tiny_candidate(search, candidate.architecture, candidate.label)
        assert _values(estimator.measure(again), self.varying) == first

    def test_torch_is_left_as_it_was(
        self, estimator: Estimator, search: Search, candidate: Candidate
    ) -> None:
        """Random state, threads, gradient mode, dtype and device do not change."""
        assert search.splits  # loading is not the estimator's doing
        before = torch_state()
        estimator.measure(candidate)
        assert torch_state() == before
        if estimator.has_table:
            estimator.table(search)
            assert torch_state() == before

    def test_the_candidate_builds_the_same_network_after(
        self, estimator: Estimator, candidate: Candidate
    ) -> None:
        """Nothing that a candidate or its space holds is changed."""
        import torch

        before = candidate.network().state_dict()
        estimator.measure(candidate)
        after = candidate.network().state_dict()
        assert list(before) == list(after)
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_settings_are_frozen(self, estimator: Estimator) -> None:
        """A setting cannot change during a run."""
        for name in type(estimator).model_fields:
            with pytest.raises(ValidationError):
                setattr(estimator, name, getattr(estimator, name))

    def test_the_table_covers_the_space(self, estimator: Estimator, search: Search) -> None:
        """Each choice and baseline of each slot has a finite cost; or there is no table.

        Where it depends on widths, at each of them.
        """
        if not estimator.has_table:
            with pytest.raises(SpecError, match="no cost table"):
                estimator.table(search)
            return
        table, space = estimator.table(search), search.space
        slots = {slot.name: slot for slot in space.graph.slots}
        assert table.unit == estimator.metrics(search)[0].unit
        assert math.isfinite(table.fixed)
        assert dict(table.decisions) == {name: slot.decision for name, slot in slots.items()}
        assert set(table.costs) == {*slots, *table.widths}
        for name, row in table.costs.items():
            own = [(*slots[name].candidates, *slots[name].baselines)] if name in slots else []
            widths = [space.decisions[width] for width in table.widths.get(name, ())]
            assert set(row) == set(map(row_key, product(*own, *widths)))
            assert all(math.isfinite(cost) and cost >= 0 for cost in row.values())
        assert table.to_json() == json.loads(json.dumps(table.to_json(), allow_nan=False))

    def test_the_table_predicts(self, estimator: Estimator, search: Search) -> None:
        """Fixed part and slots add up to what is measured, where no connection is cut."""
        if not estimator.has_table or self.tolerance is None:
            return
        table, primary = estimator.table(search), estimator.metrics(search)[0].name
        for number, architecture in enumerate(whole_architectures(search)):
            candidate = tiny_candidate(search, architecture, f"trial-{number}")
            measured = estimator.measure(candidate)[primary].value
            assert table.predict(architecture) == pytest.approx(measured, rel=self.tolerance)


def _values(found: Mapping[str, Measurement], varying: frozenset[str]) -> dict[str, float]:
    return {name: m.value for name, m in found.items() if name not in varying}


def whole_architectures(search: Search, count: int = 3) -> list[Architecture]:
    """Draw architectures without cut connections, and add a reference network."""
    from nasengine.canonical import meanings

    space, graph = search.space, search.space.graph
    cuts = {
        (graph[slot].decision, choice)
        for (slot, choice), meaning in meanings(graph).items()
        if meaning == "zero"
    }
    whole = {
        decision: tuple(c for c in choices if (decision, c) not in cuts) or choices
        for decision, choices in space.decisions.items()
    }
    drawn = [sample(whole, search.stream("conformance", index)) for index in range(count)]
    references = (space.reference(name) for name in space.references())
    full = [reference for reference in references if cuts.isdisjoint(reference.items())]
    return [*drawn, *full[:1]]

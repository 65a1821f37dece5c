"""Tasks whose targets are numbers, and samples that are no images: the whole way, by contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from nasengine import DataSource, Metric, Nested, Samples, SearchSpace, SourcedTask, SpaceGraph
from nasengine.census import census
from nasengine.delivery.usage import usage_docstring, usage_facts
from nasengine.errors import DataError, SpecError
from nasengine.estimators.trained import Trained
from nasengine.randomness import derive_seed
from nasengine.runs.delivered import deliver_network, usage
from nasengine.task import Splits, Targets, Usage
from nasengine.testing.stubs import TinySegmentation, tiny_candidate, tiny_search
from nasengine.testing.tasks import DataSourceContract, TaskContract

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Noise(DataSource):
    """Samples of noise with sides of one's choice; the target is what lies below it."""

    targets: ClassVar[Targets] = "values"

    sides: tuple[int, ...] = (16, 24)

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, *self.sides)

    def load(self, seed: int) -> Splits:
        return Splits(*(self._draw(seed, split) for split in ("train", "validation")))

    def _draw(self, seed: int, split: str) -> Samples:
        generator = torch.Generator().manual_seed(derive_seed(seed, split))
        clean = torch.rand(6, 1, *self.sides, generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        return Samples(clean + 0.1 * noise, clean, tuple(f"{split}-{i}" for i in range(6)))


class Restored(SourcedTask):
    """What lies below the noise, by the mean squared error."""

    targets: ClassVar[Targets] = "values"
    data: Annotated[DataSource, Nested(DataSource)] = Field(default_factory=Noise)

    @property
    def outputs(self) -> int:
        return 1

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("error", "", "min"),)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs.float(), targets)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        return {"error": float(F.mse_loss(outputs, targets))}


class Vectors(Noise):
    """Which of three things a sample has: a number each, 0 or 1."""

    @property
    def classes(self) -> tuple[str, ...]:
        return ("bright", "even", "square")

    def _draw(self, seed: int, split: str) -> Samples:
        drawn = super()._draw(seed, split)
        labels = (drawn.targets.flatten(1)[:, :3] > 0.5).float()
        return replace(drawn, targets=labels)


class SeveralLabels(Restored):
    """Several labels at once."""

    data: Annotated[DataSource, Nested(DataSource)] = Field(default_factory=Vectors)

    @property
    def outputs(self) -> int:
        return 3

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs.float(), targets)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        return {"error": float(((outputs > 0).float() != targets).float().mean())}


class Layers(SearchSpace):
    """Two layers with as many sides as the samples have."""

    sides: int = 2
    halved: bool = False
    places: int = 0
    """Where not 0, weights for so many places."""

    def define(self, graph: SpaceGraph) -> None:
        convolution = CONVOLUTIONS[self.sides]
        blocks = {
            "small": lambda i, o: convolution(i, o, 1),
            "large": lambda i, o: convolution(i, o, 3, padding=1),
        }
        x = graph.slot("first", graph.input(1), blocks, out=4)
        if self.halved:
            x = graph.operation("down", x, lambda i, o: convolution(i, o, 2, stride=2))
            x = graph.operation("up", x, lambda i, o: nn.Upsample(scale_factor=2))
        if self.places:
            x = graph.operation("placed", x, lambda i, o: Placed(i, self.places))
        graph.output(graph.slot("last", x, blocks, out=1))


class Placed(nn.Module):
    """Adds a weight for each place of a grid of 4 x 4 pixels, as position embeddings do."""

    def __init__(self, channels: int, places: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(1, channels, places))

    def forward(self, x: Tensor) -> Tensor:
        coarse = F.avg_pool2d(x, 4)
        placed = coarse.flatten(2) + self.weights
        return F.interpolate(placed.reshape(coarse.shape), x.shape[2:])


class TestNoise(DataSourceContract):
    @pytest.fixture(params=[Noise(), Noise(sides=(20,)), Noise(sides=(4, 4, 4)), Vectors()])
    def source(self, request: pytest.FixtureRequest) -> DataSource:
        found: DataSource = request.param
        return found


class TestRestored(TaskContract):
    @pytest.fixture(params=[(16, 24), (20,), (4, 4, 4)])
    def task(self, request: pytest.FixtureRequest) -> Restored:
        return Restored(data=Noise(sides=request.param))


class TestSeveralLabels(TaskContract):
    @pytest.fixture
    def task(self) -> SeveralLabels:
        return SeveralLabels()

    def outputs_for(self, task: object, targets: Tensor, sharpness: float = 20.0) -> Tensor:
        return (2 * targets - 1) * sharpness


@pytest.mark.parametrize(
    ("targets", "kind", "said"),
    [
        (torch.rand(2, 5), "", r"of torch.float32; allowed: torch.int64; a task whose targets are"),
        (torch.rand(2, 5).double(), "values", r"float64; allowed: torch.float32 or torch.int64$"),
        (torch.tensor([1.0, float("nan")]), "values", "'b' has the target nan; allowed: finite"),
        (torch.rand(3, 5), "values", r"shape \(3, 5\); allowed: \(2, 5\)"),
        (torch.zeros(2, dtype=torch.int64), "masks", r"allowed: \(2, 8\)$"),
        (torch.zeros(2, 8, dtype=torch.int64), "labels", r"allowed: \(2,\)$"),
    ],
)
def test_targets_are_held_to_their_kind(targets: Tensor, kind: Targets, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Samples(torch.rand(2, 1, 8), targets, ("a", "b")).check((1, 8), 2, kind)


def test_a_task_refuses_data_of_another_kind() -> None:
    class Labels(Restored):
        """A class for each sample."""

        targets: ClassVar[Targets] = "labels"

    with pytest.raises(ValueError, match=r"labels needs labels .* data of Noise are values"):
        Labels()


@pytest.mark.parametrize("sides", [(32,), (16, 24), (8, 8, 8)])
@pytest.mark.parametrize("halved", [False, True])
def test_samples_of_any_dimensions_are_trained_on_and_delivered(
    sides: tuple[int, ...], halved: bool, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    task, space = Restored(data=Noise(sides=sides)), Layers(sides=len(sides), halved=halved)
    estimator = Trained(iterations=2, batch=4)
    search = tiny_search(space, task=task, estimators={"error": estimator}, folder=tmp_path)
    candidate = tiny_candidate(search)
    assert estimator.measure(candidate)["error"].value > 0
    best, use = tmp_path / "best", usage(search, candidate.architecture)
    best.mkdir()
    problems = deliver_network(search, candidate.architecture, candidate.weights_path, best, use)
    assert problems == []
    assert use["inputs"] == f"(N, 1, {', '.join(map(str, sides))}), float32"
    assert use["sides_divisible_by"] == (2 if halved else 1)
    shape = onnx.load(best / "model.onnx").graph.input[0].type.tensor_type.shape
    free = {1: ["length"], 2: ["height", "width"], 3: ["depth", "height", "width"]}
    assert [dim.dim_param for dim in shape.dim] == ["batch", "", *free[len(sides)]]
    assert (best / "predictions.png").is_file() == (len(sides) == 2)


def test_a_network_with_weights_for_each_place_is_of_one_size() -> None:
    task = TinySegmentation(size=16, channels=1)
    search = tiny_search(Layers(places=16), task=task)
    architecture = search.space.architecture({"first": "small", "last": "large"})
    assert "sides_divisible_by" not in usage(search, architecture)


@pytest.mark.parametrize(
    ("shape", "out", "classified", "sizes"),
    [
        ((2, 32), (3,), "samples", "of any length"),
        ((2, 32), (3, 32), "places", "of any length"),
        ((2, 8, 8, 8), (3, 8, 8, 8), "places", "of any size"),
        ((2, 8, 8), (3, 8, 8), "pixels", "of any height and width"),
    ],
)
def test_usage_says_what_is_classified(
    shape: tuple[int, ...], out: tuple[int, ...], classified: str, sizes: str
) -> None:
    facts = usage_facts(Usage("", ("a", "b", "c"), "argmax"), shape, out, 1)
    assert facts["classifies"] == classified
    assert ("resized" in facts["outputs"]) == (classified == "pixels")
    assert sizes in usage_docstring(facts)


@pytest.mark.parametrize("sides", [(32,), (16, 24), (8, 8, 8)])
def test_values_at_each_place_are_resized_with_the_inputs(
    sides: tuple[int, ...], tmp_path: Path
) -> None:
    task = Restored(data=Noise(sides=sides))
    estimator = Trained(iterations=2, batch=4, resolution=0.5)
    space = Layers(sides=len(sides))
    search = tiny_search(space, task=task, estimators={"error": estimator}, folder=tmp_path)
    estimator.check(search)
    assert estimator.measure(tiny_candidate(search))["error"].value > 0


def test_values_of_other_sides_have_no_resolution(tmp_path: Path) -> None:
    class Halved(SearchSpace):
        """Networks that give half the sides."""

        def define(self, graph: SpaceGraph) -> None:
            x = graph.operation("down", graph.input(1), lambda i, o: nn.AvgPool2d(2))
            graph.output(graph.slot("last", x, {"one": lambda i, o: nn.Conv2d(i, o, 1)}, out=1))

    estimator = Trained(resolution=0.5)
    search = tiny_search(Halved(), task=Restored(), estimators={"error": estimator})
    with pytest.raises(SpecError, match="resolution: targets of other sides"):
        estimator.check(search)


def test_values_are_counted_by_their_range() -> None:
    found = census(Restored().load(0), values=True)["train"]
    assert found["samples"] == 6
    assert found["values"]["shape"] == [1, 16, 24]
    assert 0 <= found["values"]["least"] < found["values"]["mean"] < found["values"]["largest"] <= 1
    json.dumps(found)

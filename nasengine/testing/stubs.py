"""Tiny parts to test a plugin with: no file, no download.

`tiny_search` gives a whole search around any space, and `Kept` keeps what is told in it;
`TinySpace`, `TinySegmentation` and `TinyClassification` are the smallest parts that every strategy
and estimator can work on, `TinyWidths` and `TinyGate` spaces whose channels are searched.
"""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nasengine.architecture import Architecture
from nasengine.estimator import Candidate, CostTable, Estimator
from nasengine.graph import SpaceGraph
from nasengine.objectives import Objective, Objectives
from nasengine.operations import Zero
from nasengine.randomness import torch_seed
from nasengine.reporter import Reporter
from nasengine.search import Budget, Search
from nasengine.space import SearchSpace
from nasengine.task import Samples, Splits, Task
from nasengine.trial import Measurement, Metric, Trial

if TYPE_CHECKING:
    from torch import Tensor, nn


def _pointwise(channels_in: int, channels_out: int) -> nn.Module:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def _conv(channels_in: int, channels_out: int) -> nn.Module:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def _double(channels_in: int, channels_out: int) -> nn.Module:
    from torch import nn

    return nn.Sequential(_conv(channels_in, channels_out), _conv(channels_out, channels_out))


def _head(channels_in: int, channels_out: int) -> nn.Module:
    from torch import nn

    return nn.Conv2d(channels_in, channels_out, 1)


class TinySpace(SearchSpace):
    """Two slots and a 1x1 convolution, from an image to a mask of its size."""

    widths: ClassVar[tuple[str, ...]] = ("width",)

    channels: int = Field(default=3, gt=0)
    """Channels in."""

    width: int = Field(default=4, gt=0)
    """Channels of the slots."""

    classes: int = Field(default=1, gt=0)
    """Channels out."""

    def define(self, graph: SpaceGraph) -> None:
        """Wire two slots in a row."""
        choices = {"pointwise": _pointwise, "conv": _conv}
        baselines = {"double": _double}
        x = graph.input(self.channels)
        x = graph.slot("first", x, choices, out=self.width, baselines=baselines)
        x = graph.slot("second", x, choices, out=self.width, baselines=baselines)
        x = graph.operation("head", x, _head, out=self.classes)
        graph.output(x)

    def references(self) -> Mapping[str, Mapping[str, str]]:
        """Return the network with the baseline block everywhere."""
        return {"big": {"first": "double", "second": "double"}}


class TinyWidths(TinySpace):
    """The tiny space with two numbers of channels searched: before a sum and a concatenation."""

    def define(self, graph: SpaceGraph) -> None:
        """Wire two slots in a row, and the ways past them."""
        choices = {"pointwise": _pointwise, "conv": _conv}
        baselines = {"double": _double}
        outer, inner = (
            graph.width(name, {"narrow": self.width, "wide": 2 * self.width})
            for name in ("outer", "inner")
        )
        stem = graph.operation("stem", graph.input(self.channels), _pointwise, out=outer)
        first = graph.slot("first", stem, choices, out=inner, baselines=baselines)
        second = graph.slot("second", first, choices, baselines=baselines)
        both = graph.concat("both", [stem, graph.add("total", [first, second])])
        graph.output(graph.operation("head", both, _head, out=self.classes))

    def references(self) -> Mapping[str, Mapping[str, str]]:
        """Return the widest network with the baseline block everywhere."""
        blocks = {"first": "double", "second": "double"}
        return {"big": {"outer": "wide", "inner": "wide", **blocks}}


class TinyGate(SearchSpace):
    """Searched channels of a slot, and others inside a branch that a gate may cut.

    Examples
    --------
    >>> TinyGate().decisions["inner"], TinyGate().size
    (('narrow', 'middle', 'wide'), 48)
    """

    channels: int = Field(default=3, gt=0)
    """Channels in."""

    classes: int = Field(default=1, gt=0)
    """Channels out."""

    def define(self, graph: SpaceGraph) -> None:
        """Wire a slot, and a branch that is added to it."""
        from torch import nn

        choices = {"pointwise": _pointwise, "conv": _conv}
        width = graph.width("width", (2, 4))
        inner = graph.width("inner", {"narrow": 2, "middle": 3, "wide": 6})
        x = graph.slot("first", graph.input(self.channels), choices, out=width)
        y = graph.slot("inside", x, choices, out=inner)
        y = graph.operation("back", graph.concat("both", [x, y]), _pointwise, out=width)
        y = graph.slot("gate", y, {"skip": lambda *_: nn.Identity(), "none": Zero})
        graph.output(graph.operation("head", graph.add("sum", [x, y]), _head, out=self.classes))


class _TinyTask(Task):
    """What the tiny tasks share: sizes, and the same samples from the same seed."""

    channels: int = Field(default=3, gt=0)
    """Channels of a sample."""

    size: int = Field(default=16, gt=0)
    """Height and width of a sample."""

    classes: int = Field(default=1, gt=0)
    """Channels (or logits) that a network gives."""

    samples: int = Field(default=8, gt=0)
    """Samples to train on; half as many to validate."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.size, self.size)

    @property
    def outputs(self) -> int:
        """The classes."""
        return self.classes

    def load(self, seed: int) -> Splits:
        """Make the samples, in milliseconds."""
        return Splits(
            self._make(seed, "train", self.samples),
            self._make(seed, "validation", max(2, self.samples // 2)),
        )

    def _make(self, seed: int, split: str, count: int) -> Samples:
        raise NotImplementedError


class TinySegmentation(_TinyTask):
    """A bright rectangle on noise, to be told from its background."""

    kind: ClassVar[str] = "task"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Intersection over union of all that is not background."""
        return (Metric("iou", "", "max"),)

    def _make(self, seed: int, split: str, count: int) -> Samples:
        import torch

        with torch_seed(seed, "tiny-segmentation", split) as generator:
            inputs = torch.rand(count, *self.input_shape, generator=generator) * 0.5
            targets = torch.zeros(count, self.size, self.size, dtype=torch.int64)
            half = max(1, self.size // 2)
            for index in range(count):
                top, left = torch.randint(0, half, (2,), generator=generator).tolist()
                window = (slice(top, top + half), slice(left, left + half))
                targets[index][window] = 1 + index % max(1, self.classes - 1)
                inputs[index][(slice(None), *window)] += 0.4
        return Samples(inputs, targets, tuple(f"{split}-{index}" for index in range(count)))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return binary cross-entropy, or cross-entropy for several classes."""
        from torch.nn import functional as F

        if self.classes == 1:
            return F.binary_cross_entropy_with_logits(
                outputs.float().squeeze(1), (targets > 0).float()
            )
        return F.cross_entropy(outputs.float(), targets)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Return the IoU of foreground over all samples."""
        found = outputs.squeeze(1) > 0 if self.classes == 1 else outputs.argmax(1) > 0
        wanted = targets > 0
        union = (found | wanted).sum().item()
        return {"iou": (found & wanted).sum().item() / union if union else 1.0}


class TinyClassification(_TinyTask):
    """Noise around one mean a class."""

    kind: ClassVar[str] = "task"
    classes: int = Field(default=2, gt=1)
    """Classes, and logits that a network gives."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The share of samples classified right."""
        return (Metric("accuracy", "", "max"),)

    def _make(self, seed: int, split: str, count: int) -> Samples:
        import torch

        with torch_seed(seed, "tiny-classification", split) as generator:
            targets = torch.arange(count) % self.classes
            noise = torch.rand(count, *self.input_shape, generator=generator)
            level = targets.float().div(self.classes).reshape(-1, 1, 1, 1)
        return Samples(
            0.5 * noise + 0.5 * level, targets, tuple(f"{split}-{index}" for index in range(count))
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy."""
        from torch.nn import functional as F

        return F.cross_entropy(outputs.float(), targets)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Return the accuracy."""
        return {"accuracy": (outputs.argmax(1) == targets).float().mean().item()}


class CountingEstimator(Estimator):
    """Counts how often the first choice of a decision was taken: a cost without a network."""

    effort: ClassVar[int] = 0

    def metrics(self, search: Search) -> tuple[Metric, ...]:  # noqa: ARG002
        """Return the one metric."""
        return (Metric("firsts", "", "min"),)

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Count."""
        firsts = sum(
            candidate.architecture[decision] == choices[0]
            for decision, choices in candidate.search.space.decisions.items()
        )
        return {"firsts": Measurement(float(firsts))}


class AdditiveEstimator(CountingEstimator):
    """One that has a cost table: 0, 1, 2, ... for the choices of every slot."""

    def table(self, search: Search) -> CostTable:
        """Return the table."""
        costs = {
            slot.name: {choice: float(index) for index, choice in enumerate(slot.candidates)}
            for slot in search.space.graph.slots
        }
        decisions = {slot.name: slot.decision for slot in search.space.graph.slots}
        return CostTable("", 0.0, costs, decisions)


class Kept(Reporter):
    """Keeps what it is told, to be asked what a part tells.

    Attributes
    ----------
    notes, warnings
        The texts.
    records
        (kind, facts).
    trials
        Those that ended.

    Examples
    --------
    >>> reporter = Kept()
    >>> replace(tiny_search(), reporter=reporter).reporter.warn("mind the gap")
    >>> reporter.warnings
    ['mind the gap']
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.records: list[tuple[str, Mapping[str, Any]]] = []
        self.trials: list[Trial] = []

    def note(self, text: str) -> None:
        """Keep a note."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """Keep a warning."""
        self.warnings.append(text)

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Keep facts."""
        self.records.append((kind, facts))

    def trial(self, trial: Trial) -> None:
        """Keep a trial."""
        self.trials.append(trial)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the facts of one kind."""
        return [facts for name, facts in self.records if name == kind]


def tiny_task(space: SearchSpace, size: int = 16, samples: int = 8) -> Task:
    """Return the tiny task that a space's networks fit: masks or labels, by their output."""
    from nasengine.shapes import infer_shapes

    start = next(node.name for node in space.graph.nodes if node.kind == "input")
    end = next(node.name for node in space.graph.nodes if node.kind == "output")
    channels = space.graph.channels[start][-1]
    out = infer_shapes(space.graph, (channels, size, size)).out[end]
    if len(out) == 1:
        return TinyClassification(channels=channels, size=size, classes=out[0], samples=samples)
    return TinySegmentation(channels=channels, size=size, classes=out[0], samples=samples)


@cache
def _scratch() -> Path:
    """Return this process's folder of temporary ones."""
    folder = tempfile.TemporaryDirectory(prefix="nasengine-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def tiny_search(
    space: SearchSpace | None = None,
    *,
    task: Task | None = None,
    estimators: Mapping[str, Estimator] | None = None,
    objectives: Objectives | None = None,
    folder: Path | None = None,
    seed: int = 0,
    trials: int = 8,
) -> Search:
    """Return a search around a space, on the CPU, of a few trials.

    Parameters
    ----------
    space
        By default `TinySpace`.
    task
        By default the tiny task that the space's networks fit.
    estimators
        By default `CountingEstimator` as ``firsts``.
    objectives
        By default the first estimator's primary metric, in its own direction.
    folder
        The run's folder; by default a new temporary one, removed when the process exits.

    Examples
    --------
    >>> search = tiny_search()
    >>> search.space.size, search.task.input_shape, list(search.estimators)
    (4, (3, 16, 16), ['firsts'])
    """
    space = TinySpace() if space is None else space
    task = tiny_task(space) if task is None else task
    estimators = {"firsts": CountingEstimator()} if estimators is None else estimators
    folder = Path(tempfile.mkdtemp(dir=_scratch())) if folder is None else folder
    search = Search(
        space=space,
        task=task,
        estimators=estimators,
        objectives=objectives or Objectives(()),
        seed=seed,
        device="cpu",
        folder=folder,
        budget=Budget(trials=trials),
    )
    if objectives is not None or not estimators:
        return search
    key, estimator = next(iter(estimators.items()))
    goal = estimator.metrics(search)[0].direction
    return replace(search, objectives=Objectives((Objective(key, goal),)))


def tiny_candidate(
    search: Search, architecture: Architecture | None = None, label: str = "trial-0"
) -> Candidate:
    """Return a candidate of a search; by default the first choice of every decision."""
    if architecture is None:
        architecture = Architecture({name: c[0] for name, c in search.space.decisions.items()})
    return Candidate(architecture, search, label, {})

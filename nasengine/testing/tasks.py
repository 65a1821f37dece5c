"""What every task and every data source must keep, as pytest classes to inherit.

Examples
--------
In a package that offers its own data source::

    from nasengine.testing.tasks import DataSourceContract

    class TestMySource(DataSourceContract):
        @pytest.fixture
        def source(self):
            return MySource(root=..., size=32)
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

import pytest

from nasengine.task import IGNORED, DataSource, Samples, Task

if TYPE_CHECKING:
    from torch import Tensor

SHARPNESS = 20.0


def perfect_outputs(targets: Tensor, outputs: int, sharpness: float = SHARPNESS) -> Tensor:
    """Return logits that say the classes: (N, outputs, H, W) or (N, outputs), float32.

    Parameters
    ----------
    targets
        (N, H, W) or (N,), int64; where it is `IGNORED` they say class 0.
    outputs
        How many; 1 is a binary problem whose sign decides.
    sharpness
        The logits are plus and minus this.
    """
    import torch
    from torch.nn import functional

    if outputs == 1:
        return ((targets > 0).float() * 2 - 1).unsqueeze(1) * sharpness
    hot = functional.one_hot(targets.clamp(min=0), outputs).movedim(-1, 1)
    return (hot.to(torch.float32) * 2 - 1) * sharpness


def _same(one: Samples, other: Samples) -> bool:
    import torch

    return (
        one.names == other.names
        and torch.equal(one.inputs, other.inputs)
        and torch.equal(one.targets, other.targets)
    )


class DataSourceContract:
    """Override the fixture `source` with a small instance.

    Attributes
    ----------
    random
        Whether another seed gives other samples or another split.
    """

    random: bool = True

    @pytest.fixture
    @abstractmethod
    def source(self) -> DataSource:
        """Return a data source with at most some dozens of small samples."""
        raise NotImplementedError("override the fixture `source`")

    def test_samples_are_as_the_source_says(self, source: DataSource) -> None:
        """Shape, type, range and classes agree with what `shape` and `classes` state."""
        for samples in source.load(seed=0).parts.values():
            samples.check(source.shape, len(source.classes), source.targets, ignores=True)
            assert samples.inputs.is_contiguous()
            if source.inputs == "images":
                assert 0 <= float(samples.inputs.min()) <= float(samples.inputs.max()) <= 1

    def test_classes_are_distinct(self, source: DataSource) -> None:
        """There are at least two classes, with a name each, where the targets are classes."""
        if source.targets == "values":
            pytest.skip("the targets are values")
        assert len(source.classes) >= 2
        assert len(set(source.classes)) == len(source.classes)
        assert all(source.classes)

    def test_names_are_distinct_over_all_splits(self, source: DataSource) -> None:
        """No sample is in two splits."""
        names = [name for part in source.load(seed=0).parts.values() for name in part.names]
        assert len(set(names)) == len(names)

    def test_no_image_is_in_two_splits(self, source: DataSource) -> None:
        """No picture that is trained on is measured on, under whatever name."""
        seen: dict[bytes, str] = {}
        for split, samples in source.load(seed=0).parts.items():
            for image in samples.inputs:
                assert seen.setdefault(image.numpy().tobytes(), split) == split

    def test_training_samples_hold_every_kind_of_target(self, source: DataSource) -> None:
        """There is something to learn: more than one class in the training targets."""
        assert len(set(source.load(seed=0).train.targets.flatten().tolist())) > 1

    def test_same_seed_same_samples(self, source: DataSource) -> None:
        """Loading again with the same seed gives the same bytes in the same order."""
        first, again = source.load(seed=3).parts, source.load(seed=3).parts
        assert first.keys() == again.keys()
        assert all(_same(first[name], again[name]) for name in first)

    def test_other_seed_other_samples(self, source: DataSource) -> None:
        """Another seed gives other samples, or divides them otherwise, where it is random."""
        first = source.load(seed=3).parts
        others = [source.load(seed=seed).parts for seed in (4, 5, 6)]
        differ = any(not _same(first[name], other[name]) for other in others for name in first)
        assert differ == self.random

    def test_loading_leaves_the_global_generators_alone(self, source: DataSource) -> None:
        """Randomness comes from the seed given, and from nowhere else."""
        import random

        import numpy as np
        import torch

        before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
        source.load(seed=0)
        after = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
        assert before[0] == after[0]
        assert torch.equal(before[1], after[1])
        assert before[2] == after[2]


class TaskContract:
    """Override the fixture `task` with a small instance, and of values what outputs say them."""

    def outputs_for(self, task: Task, targets: Tensor, sharpness: float = SHARPNESS) -> Tensor:
        """Return outputs that say the targets: the better the higher the sharpness, 20 at best.

        Below 0 they say the opposite. Of values, by default, they are the values themselves and
        20 - sharpness too much: override it where outputs are none (logits), or have another shape.
        """
        if task.targets == "values":
            return targets.float() + (SHARPNESS - sharpness)
        return perfect_outputs(targets, task.outputs, sharpness)

    @pytest.fixture
    @abstractmethod
    def task(self) -> Task:
        """Return a task with at most some dozens of small samples."""
        raise NotImplementedError("override the fixture `task`")

    @pytest.fixture
    def samples(self, task: Task) -> Samples:
        """Return the training samples."""
        return task.load(seed=0).train

    def test_samples_are_as_the_task_says(self, task: Task, samples: Samples) -> None:
        """`input_shape` is what `load` gives, and targets fit the outputs."""
        assert task.outputs >= 1
        samples.check(task.input_shape, max(task.outputs, 2), task.targets, ignores=task.ignores)

    def test_loss_is_a_finite_scalar_with_a_gradient(self, task: Task, samples: Samples) -> None:
        """In float32, and every output of an undecided network is pushed somewhere."""
        import torch

        outputs = torch.zeros_like(self.outputs_for(task, samples.targets))
        outputs.requires_grad_()
        loss = task.loss(outputs, samples.targets)
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        (gradient,) = torch.autograd.grad(loss, outputs)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0

    def test_ignored_targets_count_for_nothing(self, task: Task, samples: Samples) -> None:
        """Whatever a network says where the target is `IGNORED`, loss and metrics are the same."""
        import torch

        if not task.ignores:
            pytest.skip("samples with ignored targets are refused")
        targets = samples.targets.clone()
        ignored = torch.rand(targets.shape, generator=torch.Generator().manual_seed(0)) < 0.3
        outputs = self.outputs_for(task, targets, sharpness=0.5)
        others = self.outputs_for(task, targets, sharpness=-3.0)
        targets[ignored] = IGNORED
        others = torch.where(ignored.unsqueeze(1), others, outputs).requires_grad_()
        loss = task.loss(others, targets)
        assert float(loss.detach()) == pytest.approx(float(task.loss(outputs, targets)), rel=1e-6)
        assert task.evaluate(others.detach(), targets) == task.evaluate(outputs, targets)
        (gradient,) = torch.autograd.grad(loss, others)
        assert not gradient.movedim(1, -1)[ignored].any()
        assert gradient.movedim(1, -1)[~ignored].abs().sum() > 0

    def test_nothing_but_ignored_targets_is_no_fault(self, task: Task, samples: Samples) -> None:
        """A batch in which nothing counts has a loss and a gradient that are finite."""
        import torch

        if not task.ignores:
            pytest.skip("samples with ignored targets are refused")
        outputs = self.outputs_for(task, samples.targets).requires_grad_()
        loss = task.loss(outputs, torch.full_like(samples.targets, IGNORED))
        (gradient,) = torch.autograd.grad(loss, outputs)
        assert loss.isfinite()
        assert not gradient.any()

    def test_loss_is_float32_for_bfloat16_outputs(self, task: Task, samples: Samples) -> None:
        """Mixed precision does not reach the loss."""
        import torch

        outputs = self.outputs_for(task, samples.targets, sharpness=0.5).bfloat16()
        exact = task.loss(outputs.float(), samples.targets)
        mixed = task.loss(outputs, samples.targets)
        assert mixed.dtype == torch.float32
        assert float(mixed) == pytest.approx(float(exact), rel=1e-3)

    def test_loss_falls_towards_the_targets(self, task: Task, samples: Samples) -> None:
        """From wrong to undecided to right to surely right, the loss falls each time."""
        losses = [
            float(task.loss(self.outputs_for(task, samples.targets, s), samples.targets))
            for s in (-4.0, 0.0, 1.0, 8.0)
        ]
        assert losses == sorted(losses, reverse=True)
        assert len(set(losses)) == len(losses)

    def test_loss_stays_finite_at_extreme_outputs(self, task: Task, samples: Samples) -> None:
        """Surely wrong outputs give a large loss, never inf or nan."""
        outputs = self.outputs_for(task, samples.targets, sharpness=-1e4)
        assert task.loss(outputs, samples.targets).isfinite()

    def test_evaluate_gives_the_stated_metrics(self, task: Task, samples: Samples) -> None:
        """`metrics` names what `evaluate` gives, in that order, each once and finite."""
        import torch

        outputs = torch.zeros_like(self.outputs_for(task, samples.targets))
        values = task.evaluate(outputs, samples.targets)
        assert list(values) == [metric.name for metric in task.metrics]
        assert all(isinstance(value, float) and math.isfinite(value) for value in values.values())

    def test_perfect_outputs_are_best(self, task: Task, samples: Samples) -> None:
        """No outputs beat those that say the targets, in the primary metric."""
        primary = task.metrics[0]
        right, wrong = (
            primary.sign
            * task.evaluate(self.outputs_for(task, samples.targets, s), samples.targets)[
                primary.name
            ]
            for s in (SHARPNESS, -SHARPNESS)
        )
        assert right > wrong
        if primary.direction == "max" and not primary.unit:
            assert right == 1

    def test_augment_keeps_shapes_and_comes_from_the_generator(
        self, task: Task, samples: Samples
    ) -> None:
        """The same generator gives the same batch; inputs and targets keep shape and type."""
        import torch

        batches = [
            task.augment(
                samples.inputs.clone(), samples.targets.clone(), torch.Generator().manual_seed(1)
            )
            for _ in range(2)
        ]
        (inputs, targets), (again, targets_again) = batches
        assert inputs.shape == samples.inputs.shape
        assert inputs.dtype == samples.inputs.dtype
        assert targets.shape == samples.targets.shape
        assert targets.dtype == samples.targets.dtype
        assert torch.equal(inputs, again)
        assert torch.equal(targets, targets_again)

    def test_augment_keeps_pairs_aligned(self, task: Task, samples: Samples) -> None:
        """An image that shows its own targets still shows them afterwards; labels stay."""
        import torch

        generator = torch.Generator().manual_seed(1)
        if samples.targets.ndim == 1:
            _, targets = task.augment(samples.inputs, samples.targets, generator)
            assert torch.equal(targets, samples.targets)
            return
        given = samples.targets
        if given.shape[1:] == samples.inputs.shape[2:]:
            given = given.unsqueeze(1)
        if given.shape[2:] != samples.inputs.shape[2:]:
            pytest.skip("the targets are of whole samples")
        shown = given[:, :1].float().expand_as(samples.inputs).contiguous()
        inputs, targets = task.augment(shown, samples.targets, generator)
        told = targets if targets.ndim == inputs.ndim else targets.unsqueeze(1)
        assert torch.equal(inputs[:, :1], told[:, :1].float())

    def test_augment_leaves_what_it_was_given(self, task: Task, samples: Samples) -> None:
        """The samples are kept as tensors for the whole run: they are never changed."""
        import torch

        inputs, targets = samples.inputs.clone(), samples.targets.clone()
        task.augment(samples.inputs, samples.targets, torch.Generator().manual_seed(1))
        assert torch.equal(inputs, samples.inputs)
        assert torch.equal(targets, samples.targets)

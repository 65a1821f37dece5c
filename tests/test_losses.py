"""The losses are the paper's equations, checked against plain arithmetic."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from nasengine.task import IGNORED
from nasengine.tasks.losses import binary_loss, dice_loss, multiclass_loss

Loss = Callable[..., torch.Tensor]


def test_dice_is_equation_3_with_squared_denominators() -> None:
    p, g = torch.tensor([0.2, 0.7, 0.9]), torch.tensor([0.0, 1.0, 1.0])
    expected = 1 - (2 * (0.7 + 0.9) + 1) / ((0.04 + 0.49 + 0.81) + 2 + 1)
    assert float(dice_loss(p, g, epsilon=1.0)) == pytest.approx(expected, abs=1e-6)
    unsquared = 1 - (2 * 1.6 + 1) / (1.8 + 2 + 1)
    assert float(dice_loss(p, g, epsilon=1.0)) != pytest.approx(unsquared, abs=1e-3)


@given(seed=st.integers(0, 2**32 - 1), number=st.integers(1, 3), size=st.integers(1, 5))
def test_dice_is_between_0_and_1(seed: int, number: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    p = torch.from_numpy(generator.random((number, size)))
    g = torch.from_numpy(generator.integers(0, 2, (number, size)).astype(float))
    assert 0 <= float(dice_loss(p, g)) <= 1
    assert float(dice_loss(g, g)) == 0


def test_dice_sums_over_the_batch_not_over_images() -> None:
    p, g = torch.tensor([[0.9, 0.8], [0.1, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    each = torch.stack([dice_loss(p[i], g[i]) for i in range(2)]).mean()
    assert float(dice_loss(p, g)) != pytest.approx(float(each), abs=1e-4)
    assert float(dice_loss(p, g)) == pytest.approx(float(dice_loss(p.flatten(), g.flatten())))


def test_binary_loss_is_equation_2() -> None:
    logits = torch.tensor([[[[1.5, -2.0]]]])
    targets = torch.tensor([[[1, 0]]])
    p = [1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(2.0))]
    bce = -(math.log(p[0]) + math.log(1 - p[1])) / 2
    dice = 1 - (2 * p[0] + 1e-3) / (p[0] ** 2 + p[1] ** 2 + 1 + 1e-3)
    loss = binary_loss(logits, targets, dice=1.0, cross_entropy=0.5, epsilon=1e-3)
    assert float(loss) == pytest.approx(dice + 0.5 * bce)


def test_multiclass_without_dice_is_cross_entropy() -> None:
    logits = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(18).reshape(2, 3, 3) % 4
    loss = multiclass_loss(logits, targets, dice=0.0, cross_entropy=1.0, epsilon=1.0)
    assert float(loss) == pytest.approx(float(functional.cross_entropy(logits, targets)))


def test_multiclass_dice_is_the_mean_over_the_foreground() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(32).reshape(2, 4, 4) % 3
    p = logits.softmax(1)
    expected = sum(dice_loss(p[:, k], (targets == k).float()) for k in (1, 2)) / 2
    loss = multiclass_loss(logits, targets, dice=1.0, cross_entropy=0.0, epsilon=1.0)
    assert float(loss) == pytest.approx(float(expected))


def test_a_batch_without_foreground_has_a_finite_gradient() -> None:
    logits = torch.full((1, 1, 2, 2), -30.0, requires_grad=True)
    loss = binary_loss(logits, torch.zeros(1, 2, 2, dtype=torch.int64), 1.0, 0.5, 1.0)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_binary_gradient_is_right() -> None:
    logits = torch.linspace(-2, 2, 18).reshape(2, 1, 3, 3).requires_grad_()
    targets = torch.arange(18).reshape(2, 3, 3) % 2
    loss = binary_loss(logits, targets, 1.0, 0.5, 1.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    step = 1e-2 * gradient / gradient.norm()
    with torch.no_grad():
        after = binary_loss(logits + step, targets, 1.0, 0.5, 1.0)
        before = binary_loss(logits - step, targets, 1.0, 0.5, 1.0)
    assert float(after - before) / 2e-2 == pytest.approx(float(gradient.norm()), rel=1e-2)


@pytest.mark.parametrize(("loss", "outputs"), [(binary_loss, 1), (multiclass_loss, 3)])
def test_what_is_ignored_is_as_if_it_were_not_there(loss: Loss, outputs: int) -> None:
    logits = torch.randn(2, outputs, 4, 6, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(48).reshape(2, 4, 6) % max(outputs, 2)
    cut = float(loss(logits[..., :4], targets[..., :4], 1.0, 0.5, 1.0))
    targets[..., 4:] = IGNORED
    assert float(loss(logits, targets, 1.0, 0.5, 1.0)) == pytest.approx(cut, rel=1e-5)
    nothing = torch.full_like(targets, IGNORED)
    assert float(loss(logits, nothing, 0.0, 1.0, 1.0)) == 0


@pytest.mark.parametrize(("loss", "outputs"), [(binary_loss, 1), (multiclass_loss, 3)])
def test_a_loss_of_half_precision_is_computed_in_float32(loss: Loss, outputs: int) -> None:
    logits = torch.randn(2, outputs, 4, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.arange(32).reshape(2, 4, 4) % max(outputs, 2)
    found = loss(logits, targets, 1.0, 0.5, 1.0)
    assert found.dtype is torch.float32
    assert torch.equal(found, loss(logits.float(), targets, 1.0, 0.5, 1.0))

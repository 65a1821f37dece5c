"""A batch norm that computes as `nn.BatchNorm2d` does, another way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasengine.passes.forgotten import remember
from nasengine.passes.tracing import recast, replace_each


class PreparedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm with the parameters and settings of an `nn.BatchNorm2d`, computed another way.

    In training it sums so that rounding does not grow with the number of pixels. torch's own
    kernel for channels last adds up one by one in float32; what that loses turns ReLUs over, and
    gradients come out 1e-3 to 1e-2 away from float64's.

    Attributes
    ----------
    forgets
        Whether the output may be forgotten after the forward pass and computed again in the
        backward pass: see `nasengine.passes.forgotten`.
    scale
        A scalar to scale the next output by; taken once.

    Shape
    -----
    (N, C, H, W) to (N, C, H, W).
    """

    forgets: bool = False
    scale: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalise and scale."""
        self._check_input_dim(input)
        scale, self.scale = self.scale, None
        gamma: Tensor = self.weight if scale is None else self.weight * scale
        beta: Tensor = self.bias if scale is None else self.bias * scale
        if self.training and input.device.type == "cpu":
            return self._by_own_sums(input, gamma, beta)
        return self._by_torch(input, gamma, beta)

    def _by_torch(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Normalise as `nn.BatchNorm2d` does, by a scale and a shift of one's own."""
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        tracked = not self.training or self.track_running_stats
        moments = (self.running_mean, self.running_var) if tracked else (None, None)
        by_batch = self.training or self.running_mean is None
        return F.batch_norm(x, *moments, gamma, beta, by_batch, self.momentum or 0.0, self.eps)

    def _by_own_sums(self, input: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:  # noqa: A002
        if input.numel() == input.shape[1]:
            raise ValueError(f"a batch norm in training needs more than one value: {input.shape}")
        output, mean, variance = _Normalise.apply(  # type: ignore[no-untyped-call]
            input, gamma, beta, self.eps
        )
        self._track(mean, variance, input.numel() // input.shape[1])
        if self.forgets and torch.is_grad_enabled():
            again = partial(_normalised, eps=self.eps)
            remember(output, again, input, gamma, beta, mean, variance)
        return output  # type: ignore[no-any-return]

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, as torch does, by the unbiased variance."""
        if not self.track_running_stats:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.running_mean is None or self.running_var is None or not self.momentum:
            return
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)


def _normalised(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, *, eps: float
) -> Tensor:
    """Return (N, C, H, W) normalised by given moments, scaled and shifted."""
    found: Tensor = torch.native_batch_norm(x, gamma, beta, mean, variance, False, 0.0, eps)[0]
    return found


class _Normalise(torch.autograd.Function):
    """(N, C, H, W), scale, shift, epsilon to the output, the mean and the biased variance."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        if x.dtype is torch.float32 and x.is_contiguous(memory_format=torch.channels_last):
            mean, variance = _moments(x)
            output = _normalised(x, gamma, beta, mean, variance, eps=eps)
            inverse = (variance + eps).rsqrt()
        else:
            found = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.0, eps)
            output, mean, inverse = found
            # By rounding, a channel of one value may come out below zero.
            variance = (inverse.square().reciprocal() - eps).clamp_min_(0)
        ctx.eps = eps
        ctx.save_for_backward(x, gamma, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return output, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        x, gamma, mean, inverse = ctx.saved_tensors
        found: Sequence[Any] = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, gamma, None, None, mean, inverse, True, ctx.eps,
            ctx.needs_input_grad[:3],
        )  # fmt: skip
        return (*found, None)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of every channel; torch's `mean` sums in cascades."""
    pixels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    mean = pixels.mean(0)
    return mean, (pixels - mean).square_().mean(0)


def prepared_norm(module: nn.BatchNorm2d) -> PreparedBatchNorm2d:
    """Return a batch norm with the same parameters, hooks and settings."""
    if isinstance(module, PreparedBatchNorm2d):
        return module
    return recast(module, PreparedBatchNorm2d)


def is_norm(module: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    """Say whether a module is torch's batch norm or ours, not what another made of it."""
    return type(module) in (nn.BatchNorm2d, PreparedBatchNorm2d)


def is_own_norm(module: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    """Say whether it is one with a momentum, scale and shift."""
    return is_norm(module) and module.affine and module.momentum is not None


def sum_in_cascades(module: nn.Module) -> int:
    """Replace every batch norm that has a momentum, scale and shift; return how many."""
    return replace_each(module, _in_cascades)


def _in_cascades(module: nn.Module) -> nn.Module | None:
    if not is_own_norm(module) or isinstance(module, PreparedBatchNorm2d):
        return None
    return prepared_norm(module)

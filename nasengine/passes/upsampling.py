"""Pass: on a GPU, bilinear interpolation is trained as two products of matrices.

Interpolation is linear along each axis, so it is a matrix of two numbers a row, and so is its
gradient. torch's own kernel for that gradient adds up in another order every time; the one that
it has where results must be reproducible sorts all pixels first, which took half of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasengine.passes.tracing import recast, replace_each

_TORCHS = (nn.Upsample, nn.UpsamplingBilinear2d)


class PreparedUpsample(nn.Upsample):
    """An `nn.Upsample` by bilinear interpolation, computed another way where a GPU trains it.

    Shape
    -----
    (N, C, H, W) to (N, C, H', W').
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Interpolate."""
        if input.is_cuda and torch.is_grad_enabled():
            return self.by_products(input)
        return super().forward(input)

    def by_products(self, x: Tensor) -> Tensor:
        """Interpolate along each axis by a matrix."""
        rows, columns = (self._matrix(x, axis) for axis in (0, 1))
        found: Tensor = rows @ x @ columns.T
        return found

    def _matrix(self, x: Tensor, axis: int) -> Tensor:
        """Return what interpolates along an axis: (pixels after, pixels before)."""
        each = torch.eye(x.shape[2 + axis], device=x.device, dtype=x.dtype)
        found = F.interpolate(
            each[None],
            _along(self.size, axis),
            _along(self.scale_factor, axis),
            "linear",
            self.align_corners,
            self.recompute_scale_factor,
        )
        return found[0].T


def _along(setting: Any, axis: int) -> Any:
    return setting[axis] if isinstance(setting, Sequence) else setting


def interpolate_by_products(module: nn.Module) -> int:
    """Replace every bilinear `nn.Upsample`; return how many."""
    return replace_each(module, _by_products)


def _by_products(module: nn.Module) -> nn.Module | None:
    is_one = type(module) in _TORCHS and module.mode == "bilinear"
    return recast(module, PreparedUpsample) if is_one else None

"""Pass: slots forget what they computed and compute it again in the backward pass.

It halves the memory of a step and costs a third more time (Chen et al. 2016, Training deep nets
with sublinear memory cost); gradients stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nasengine.supernet import MixedOperation, Mixture


class RecomputedOperation(nn.Module):
    """A mixed operation that keeps its inputs alone for the backward pass.

    Parameters
    ----------
    mixed
        What is computed, and computed again.
    """

    def __init__(self, mixed: MixedOperation) -> None:
        super().__init__()
        self.candidates = mixed.candidates
        self._mixed = [mixed]  # In a list: a second registration would double every name.

    def forward(
        self, *inputs: Tensor, mixture: Mixture, widths: Mapping[str, Mixture] | None = None
    ) -> Tensor:
        """Return what the mixed operation returns."""
        mixed = self._mixed[0]
        if not self.training:
            return mixed(*inputs, mixture=mixture, widths=widths)  # type: ignore[no-any-return]
        before = [buffer.clone() for buffer in mixed.buffers()]
        return checkpoint(  # type: ignore[no-any-return]
            mixed,
            *inputs,
            mixture=mixture,
            widths=widths,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _with_buffers(mixed, before)),
        )


def recompute_slots(module: nn.Module, names: Collection[str] | None = None) -> int:
    """Recompute mixed operations, all or those of the given names; return how many."""
    count = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, MixedOperation) and (names is None or name in names):
                setattr(parent, name, RecomputedOperation(child))
                count += 1
    return count


@contextmanager
def _with_buffers(module: nn.Module, before: list[Tensor]) -> Iterator[None]:
    """Give a module the buffers of its first pass, and those of now back after.

    So statistics count a batch once, and the vectors of a spectral norm are the same both times.
    """
    now = [buffer.clone() for buffer in module.buffers()]
    _copy(before, module)
    try:
        yield
    finally:
        _copy(now, module)


def _copy(values: list[Tensor], module: nn.Module) -> None:
    with torch.no_grad():
        for buffer, value in zip(module.buffers(), values, strict=True):
            buffer.copy_(value)

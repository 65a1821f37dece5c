"""Pass: slots forget what they computed and compute it again in the backward pass.

It halves the memory of a step and costs a third more time (Chen et al. 2016, Training deep nets
with sublinear memory cost); gradients stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from nasengine.supernet import MixedOperation


class RecomputedOperation(nn.Module):
    """A mixed operation that keeps its input alone for the backward pass.

    Parameters
    ----------
    mixed
        What is computed, and computed again.
    """

    def __init__(self, mixed: MixedOperation) -> None:
        super().__init__()
        self.candidates = mixed.candidates
        self._mixed = [mixed]  # In a list: a second registration would double every name.

    def forward(self, x: Tensor, mixture: Any) -> Tensor:
        """Return what the mixed operation returns."""
        mixed = self._mixed[0]
        if not self.training:
            return mixed(x, mixture)  # type: ignore[no-any-return]
        return checkpoint(  # type: ignore[no-any-return]
            mixed,
            x,
            mixture,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _statistics_kept(mixed)),
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
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Keep batch norms from counting a batch twice."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    kept = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, kept, counts, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked = count

"""Pass: the candidate that cuts a connection is not computed, as it adds nothing to a mixture."""

from __future__ import annotations

from torch import nn

from nasengine.operations import Zero
from nasengine.supernet import MixedOperation


def skip_zeros(module: nn.Module) -> int:
    """Skip every `Zero` in every `MixedOperation` inside; return how many."""
    count = 0
    for mixed in module.modules():
        if isinstance(mixed, MixedOperation):
            zeros = {name for name, part in mixed.candidates.items() if isinstance(part, Zero)}
            count += len(zeros - mixed.skipped)
            mixed.skipped |= zeros
    return count

"""Randomness: every stream is derived from the spec's seed and what it is for."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *labels: str | int) -> int:
    """Return a seed of 63 bits for one purpose.

    Examples
    --------
    >>> derive_seed(0, "proposal", 3) == derive_seed(0, "proposal", 3)
    True
    >>> derive_seed(0, "proposal", 3) == derive_seed(0, "proposal", 4)
    False
    """
    text = "/".join(str(part) for part in (seed, *labels))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, *labels: str | int) -> random.Random:
    """Return a generator of Python's `random` for one purpose."""
    return random.Random(derive_seed(seed, *labels))


@contextmanager
def torch_seed(seed: int, *labels: str | int) -> Iterator[torch.Generator]:
    """Seed torch's global generators inside, and put them back after.

    Module initialisation and dropout draw from the global generator; what can take a generator
    takes the one that is yielded.
    """
    import torch

    derived = derive_seed(seed, *labels)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derived)
        yield torch.Generator().manual_seed(derived)

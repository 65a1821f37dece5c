"""Randomness: every stream is derived from the spec's seed and what it is for."""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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
    >>> derive_seed(0, "a/b") == derive_seed(0, "a", "b")
    False
    """
    text = "/".join(str(p).replace("\\", r"\\").replace("/", r"\/") for p in (seed, *labels))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, *labels: str | int) -> random.Random:
    """Return a generator of Python's `random` for one purpose."""
    return random.Random(derive_seed(seed, *labels))


@contextmanager
def torch_seed(seed: int, *labels: str | int) -> Iterator[torch.Generator]:
    """Seed the global generators of torch, NumPy and `random` inside, and put them back after.

    Module initialisation and dropout draw from torch's global generator, and anyone's blocks from
    the others; what can take a generator takes the one that is yielded.
    """
    import numpy as np
    import torch

    derived = derive_seed(seed, *labels)
    with kept_generators():
        random.seed(derived)
        np.random.seed(derived % 2**32)
        torch.manual_seed(derived)
        yield torch.Generator().manual_seed(derived)


@contextmanager
def reproducible(device: str) -> Iterator[None]:
    """Let a GPU sum in the same order every time inside, as a CPU does anyway.

    What it has no such kernel for is warned of by torch, once.
    """
    if not device.startswith("cuda"):
        yield
        return
    import torch

    deterministic: Any = torch.utils.deterministic
    # Read when cuBLAS is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    kept = torch.get_deterministic_debug_mode(), deterministic.fill_uninitialized_memory
    torch.set_deterministic_debug_mode(max(kept[0], 1))
    deterministic.fill_uninitialized_memory = False  # A kernel more for every tensor.
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(kept[0])
        deterministic.fill_uninitialized_memory = kept[1]


@contextmanager
def kept_generators() -> Iterator[None]:
    """Put the process's global generators back, afterwards, to where they were."""
    before = [(read(), put) for read, put in _generators()]
    try:
        yield
    finally:
        for state, put in before:
            put(state)


def _generators() -> list[tuple[Callable[[], Any], Callable[[Any], object]]]:
    """Return how each is read and put back: of what is imported, of GPUs only if they are used."""
    found: list[tuple[Callable[[], Any], Callable[[Any], object]]]
    found = [(random.getstate, random.setstate)]
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        found.append((numpy.random.get_state, numpy.random.set_state))
    if torch is not None:
        found.append((torch.get_rng_state, torch.set_rng_state))
        if torch.cuda.is_initialized():
            found.append((torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
    return found


def random_state(device: str) -> dict[str, Any]:
    """Return the state of the global generators, the device's own included.

    What can be checkpointed: numbers, text, tuples and tensors.
    """
    import numpy as np
    import torch

    state: Any = np.random.get_state(legacy=True)
    name, keys, *rest = state
    return {
        "cpu": torch.get_rng_state(),
        # Of this one alone: to ask for all would open a context on every GPU.
        "cuda": torch.cuda.get_rng_state(device) if device.startswith("cuda") else None,
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
    }


def set_random_state(state: Mapping[str, Any], device: str, warn: Callable[[str], object]) -> None:
    """Put the global generators where they were; warn where the device was another kind."""
    import numpy as np
    import torch

    torch.set_rng_state(state["cpu"])
    if (state["cuda"] is not None) != device.startswith("cuda"):
        warn(f"resumed on another kind of device ({device}): dropout draws something else")
    elif state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))

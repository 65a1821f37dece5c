"""The machine's cores: how many torch runs on, and what else they have to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run torch on so many CPU threads inside; None leaves it as it is."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def busy() -> str:
    """Say that the machine has more to do than it has cores, where it has; else nothing.

    Whatever is timed takes as long as that makes it.

    Returns
    -------
    Such as ``" under a load of 3.1 on 2 cores"``, to stand behind what was timed.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = os.cpu_count() or 1
    return f" under a load of {load:.1f} on {cores} cores" if load > cores else ""

"""The machine's cores: what they are, how many torch runs on, and what else they have to do."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def model_name(cpuinfo: Path = _CPUINFO) -> str:
    """Return the processor's name as Linux tells it, of which ``platform`` knows nothing; or ""."""
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, name = line.partition(":")
            if key.strip() == "model name" and name.strip():
                return name.strip()
    return ""


def processor(cpuinfo: Path = _CPUINFO) -> str:
    """Return the processor's name, so that a latency is told with what it was measured on."""
    name = model_name(cpuinfo)
    return f"{name} ({platform.machine()})" if name else platform.processor() or platform.machine()


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

"""What the machine does beside: whatever is timed takes as long as that makes it."""

from __future__ import annotations

import os


def busy() -> str:
    """Say that the machine has more to do than it has cores, where it has; else nothing.

    Returns
    -------
    Such as ``" under a load of 3.1 on 2 cores"``, to stand behind what was timed.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = os.cpu_count() or 1
    return f" under a load of {load:.1f} on {cores} cores" if load > cores else ""

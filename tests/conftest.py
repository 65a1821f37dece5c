"""What every test shares: one thread, quiet hypothesis, the real data where it is given."""

import os
import random
import re
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

# Before torch is imported: two test processes on two cores, and results that do not depend on it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings


class Unsynced(sqlite3.Connection):
    """Leaves what it writes to the system."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return super().execute(re.sub(r"(?<=PRAGMA synchronous = )\w+", "OFF", sql), *values)


# What a test writes need not outlive the machine, and a disk takes 8 ms to promise that it does: a
# run asks for that forty times. What is synced, and when, test_files.py and test_storage.py hold.
os.fsync = lambda _: None
sqlite3.connect = partial(sqlite3.connect, factory=Unsynced)

settings.register_profile(
    "default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed what a test may draw from unseeded, so that its failure comes again."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that NASENGINE_DATA names; without it the test is skipped."""
    given = os.environ.get("NASENGINE_DATA")
    if not given:
        pytest.skip("NASENGINE_DATA is not set: it names the folder of neu_seg/ and tables/")
    return Path(given)

"""Where candidates are measured: in this process, or each in a worker process of its own.

A worker process protects the search from what a candidate can do to a process (a segmentation
fault, `sys.exit`, a hang, memory that is never given back), and several work side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nasengine.architecture import Architecture
from nasengine.trial import Measurement, Status, measurements_from, measurements_to


@dataclass(frozen=True)
class Job:
    """One architecture to be measured.

    Parameters
    ----------
    label
        ``trial-7`` or ``reference-unet``: names the candidate's folder and seeds its randomness.
    architecture
        What to measure.
    stop_early
        Whether a broken limit, or the failure of what an objective names, ends the measuring, a
        screen interrupts it, and what is recorded beside may be missing; else the other estimators
        go on, and all must work.
    final
        Whether the final estimators measure as well.
    known
        Measurements that need not be made again.
    spent
        Seconds that these took: an executor with a timeout allows so much less.
    failed
        Estimators that failed meanwhile, with why: they are not asked again.
    """

    label: str
    architecture: Architecture
    stop_early: bool = True
    final: bool = False
    known: Mapping[str, Measurement] = field(default_factory=dict)
    spent: float = 0.0
    failed: Mapping[str, str] = field(default_factory=dict)

    def after(self, measured: Measured) -> Job:
        """Return what is left of it where it was measured in part."""
        return replace(
            self, known=measured.measurements, spent=measured.seconds, failed=measured.failed
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        known = measurements_to(self.known)
        return {**vars(self), "architecture": dict(self.architecture), "known": known}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Job:
        """Read what `to_json` gave."""
        architecture = Architecture(told["architecture"])
        known = measurements_from(told["known"])
        return cls(**{**told, "architecture": architecture, "known": known})


@dataclass(frozen=True)
class Measured:
    """How a job ended.

    Parameters
    ----------
    status
        It is still ``running`` where a screen has to say whether it is measured further, or what
        it has so far is to be kept first.
    measurements
        What was measured, and the job's `known`.
    reason
        Why it is not complete; empty otherwise.
    seconds
        Wall time of measuring, and what the job had `spent`.
    failed
        Estimators that failed, the job's `failed` among them, with why.
    """

    status: Status
    measurements: Mapping[str, Measurement]
    reason: str
    seconds: float
    failed: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        found = measurements_to(self.measurements)
        return {**vars(self), "status": self.status.value, "measurements": found}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Measured:
        """Read what `to_json` gave."""
        found = measurements_from(told["measurements"])
        return cls(**{**told, "status": Status(told["status"]), "measurements": found})


class Executor(ABC):
    """Measures jobs, one or several at a time."""

    @property
    @abstractmethod
    def free(self) -> int:
        """How many more jobs can be begun now."""

    @abstractmethod
    def begin(self, job: Job) -> None:
        """Take a job."""

    @abstractmethod
    def wait(self) -> tuple[Job, Measured]:
        """Return the next job to end.

        Raises
        ------
        Interrupted
            If a signal asked the run to stop.
        InputError, StorageError
            What is nobody's fault but the user's or the disk's.
        SearchFailed
            If nothing can be measured: no worker starts.
        """

    def close(self) -> None:  # noqa: B027 most hold nothing
        """Give back what it holds; jobs under way are left."""

    def measure(self, job: Job) -> Measured:
        """Measure one job and wait for it."""
        self.begin(job)
        return self.wait()[1]


class InProcess(Executor):
    """Measures one job at a time, in this process.

    Parameters
    ----------
    measure
        Does the work.
    """

    def __init__(self, measure: Callable[[Job], Measured]) -> None:
        self._measure = measure
        self._jobs: deque[Job] = deque()

    @property
    def free(self) -> int:
        """One job at a time."""
        return 1 - len(self._jobs)

    def begin(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(job)

    def wait(self) -> tuple[Job, Measured]:
        """Do it."""
        job = self._jobs.popleft()
        return job, self._measure(job)

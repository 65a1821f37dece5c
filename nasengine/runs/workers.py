"""Worker processes: they get jobs and answer by lines of JSON, and may die without harm."""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from nasengine import errors
from nasengine.errors import Interrupted, SearchFailed
from nasengine.reporter import Progress, Reporter
from nasengine.runs.execution import Executor, Job, Measured
from nasengine.trial import Status

MAX_LOSSES = 3
"""How often a job is begun, in all, whose workers are killed from outside."""

_GRACE = 60.0
"""Seconds that a worker is given to reach a safe point when the run is asked to stop."""

_FOREIGN = {"SIGKILL", "SIGTERM", "SIGHUP"}
"""Signals that come from the machine (out of memory, a shutdown), not from the candidate."""


class Workers(Executor):
    """Measures jobs in worker processes.

    Parameters
    ----------
    folder
        The run's folder; workers build the experiment from its ``spec.toml``.
    count
        How many work side by side.
    timeout
        Seconds for one job and what it had spent before; None for no limit.
    reporter
        Told what workers tell.
    stop
        Set to ask for a stop.
    devices
        What they run on: a new one on that with the fewest.
    """

    def __init__(
        self,
        folder: Path,
        count: int,
        timeout: float | None,
        reporter: Reporter,
        stop: threading.Event,
        devices: Sequence[str],
    ) -> None:
        self._folder = folder
        self._devices = devices
        self._timeout = timeout
        self._reporter = reporter
        self._stop = stop
        self._events: queue.Queue[tuple[_Worker, dict[str, Any]]] = queue.Queue()
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        self._count = count

    @property
    def free(self) -> int:
        """Workers without a job."""
        return self._count - len(self._busy)

    def begin(self, job: Job) -> None:
        """Give a job to an idle worker, starting one if need be."""
        alive = [worker for worker in self._idle if worker.alive]
        self._give(alive[-1] if alive else self._start(), job)

    def wait(self) -> tuple[Job, Measured]:
        """Return the next job to end; one whose worker was killed from outside is begun again."""
        while True:
            if self._stop.is_set():
                self._stop_workers()
                raise Interrupted
            # Who has answered is not overdue, however long the answer lay here.
            for _ in range(max(1, self._events.qsize())):
                with suppress(queue.Empty):
                    ended = self._handle(*self._events.get(timeout=0.1))
                    if ended is not None:
                        return ended
            self._end_overdue()

    def close(self) -> None:
        """End every worker."""
        for worker in [*self._idle, *self._busy]:
            worker.close()
        self._idle, self._busy = [], []

    def _start(self) -> _Worker:
        busy = Counter(worker.device for worker in [*self._idle, *self._busy] if worker.alive)
        device = min(self._devices, key=busy.__getitem__)
        return _Worker(self._folder, device, self._events)

    def _give(self, worker: _Worker, job: Job, losses: int = 0) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
        worker.give(job, self._timeout, losses)
        self._busy.append(worker)

    def _end_overdue(self) -> None:
        for worker in self._busy:
            if time.monotonic() > worker.deadline:
                worker.overdue = True
                worker.kill()

    def _handle(self, worker: _Worker, event: dict[str, Any]) -> tuple[Job, Measured] | None:
        kind = event.pop("event")
        if kind == "ended":
            return self._died(worker)
        if kind == "taken":
            worker.begin_time()
            return None
        if kind == "measured":
            worker.deadline = math.inf
            worker.used = True
            self._busy.remove(worker)
            if not worker.overdue:  # One that is was killed as its answer came.
                self._idle.append(worker)
            return worker.job, Measured.from_json(event)
        if kind == "error":
            raise getattr(errors, event["type"])(event["text"])
        worker.tell(self._reporter, kind, event)
        return None

    def _died(self, worker: _Worker) -> tuple[Job, Measured] | None:
        worker.close()
        busy = worker in self._busy
        for workers in (self._idle, self._busy):
            if worker in workers:
                workers.remove(worker)
        # Where the run is to stop, `wait` says so next: a resume measures the job again.
        return self._left_by(worker) if busy and not self._stop.is_set() else None

    def _left_by(self, worker: _Worker) -> tuple[Job, Measured] | None:
        """Return how the job of a worker that died has ended; begin it again where it has not."""
        if worker.overdue:
            return worker.ended(Status.FAILED, f"not measured within {self._timeout:g} s: ended")
        if worker.used and worker.taken is None:  # It died of an earlier job, if of any.
            self._give(self._start(), worker.job, worker.losses)
            return None
        name, losses = worker.cause(), worker.losses + 1
        if name not in _FOREIGN:
            if worker.taken is None:
                log = self._folder / "workers.log"
                raise SearchFailed(f"a worker ended before it began to measure: {name}; see {log}")
            return worker.ended(Status.FAILED, f"its process ended: {name}")
        if losses >= MAX_LOSSES:
            return worker.ended(Status.LOST, f"its process was killed {losses} times: {name}")
        self._reporter.warn(f"{worker.job.label}: its process was killed ({name}); begun again")
        self._give(self._start(), worker.job, losses)
        return None

    def _stop_workers(self) -> None:
        """Let workers reach a safe point, then end them."""
        for worker in self._busy:
            worker.terminate()
        until = time.monotonic() + _GRACE
        for worker in self._busy:
            worker.join(max(0.0, until - time.monotonic()))
        self.close()


class _Worker:
    """One worker process, its current job, and a thread that reads what it says."""

    def __init__(
        self, folder: Path, device: str, events: queue.Queue[tuple[_Worker, dict[str, Any]]]
    ) -> None:
        self.device = device
        self.deadline = math.inf
        self.overdue = False
        self.used = False
        self.taken: float | None = None
        self.losses = 0
        self.job: Job
        self._progress: dict[int, tuple[AbstractContextManager[Progress], Progress]] = {}
        with (folder / "workers.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nasengine.runs.worker", str(folder), device],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # A Ctrl-C at the terminal reaches the parent alone.
            )
        self._reader = threading.Thread(target=self._read, args=(events,), daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether its end has not been seen."""
        return self._reader.is_alive()

    def give(self, job: Job, timeout: float | None, losses: int) -> None:
        """Send a job, which was lost so many times before."""
        self.job, self.losses, self.taken = job, losses, None
        self._allowed = math.inf if timeout is None else timeout - job.spent
        line = json.dumps(job.to_json())
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # Its death is told by the reader.
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _read(self, events: queue.Queue[tuple[_Worker, dict[str, Any]]]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError):  # A line cut short by the worker's death.
                events.put((self, json.loads(line)))
        self._process.wait()
        events.put((self, {"event": "ended"}))

    def begin_time(self) -> None:
        """Let the time of its job begin: starting a process and loading torch is not its own."""
        self.taken = time.monotonic()
        self.deadline = self.taken + self._allowed

    def tell(self, reporter: Reporter, kind: str, event: dict[str, Any]) -> None:
        """Pass on what the worker tells."""
        if kind == "note":
            reporter.note(event["text"])
        elif kind == "warning":
            reporter.warn(event["text"])
        elif kind == "record":
            reporter.record(event["kind"], event["facts"])
        elif kind == "progress":
            shown = reporter.progress(event["description"], event["total"], event["done"])
            self._progress[event["id"]] = (shown, shown.__enter__())
        elif kind == "advance" and event["id"] in self._progress:
            self._progress[event["id"]][1].advance(event["steps"], **event["facts"])
        elif kind == "progressed" and event["id"] in self._progress:
            self._progress.pop(event["id"])[0].__exit__(None, None, None)

    def ended(self, status: Status, reason: str) -> tuple[Job, Measured]:
        """Return how its job ended without an answer: it has what it had before."""
        took = 0.0 if self.taken is None else time.monotonic() - self.taken
        job = self.job
        return job, Measured(status, job.known, reason, job.spent + took, job.failed)

    def finish_progress(self) -> None:
        """Close what a dead worker left open."""
        while self._progress:
            self._progress.popitem()[1][0].__exit__(None, None, None)

    def cause(self) -> str:
        """Say how the process ended."""
        code = self._process.returncode
        if code >= 0:
            return f"exit status {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:  # Real-time signals have no names.
            return f"signal {-code}"

    def kill(self) -> None:
        """End it at once, with whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.finish_progress()

    def close(self) -> None:
        """End it and give back its pipes."""
        self.kill()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def terminate(self) -> None:
        """Ask it to stop at its next safe point."""
        self._process.terminate()

    def join(self, seconds: float) -> None:
        """Wait for its end."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

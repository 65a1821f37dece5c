"""A worker process: builds the experiment from a run's folder, measures what it is given.

Started by `nasengine.runs.workers` as ``python -m nasengine.runs.worker RUN DEVICE``. Jobs come as
lines of JSON, answers go as lines of JSON on a descriptor of their own: what a candidate prints
goes to the run's ``workers.log``.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nasengine import errors
from nasengine.errors import InputError, Interrupted, StorageError
from nasengine.guard import describe
from nasengine.reporter import Progress, Reporter
from nasengine.runs.execution import Job

Send = Callable[[dict[str, Any]], None]


class _Telling(Reporter):
    """Sends what happens to the parent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._numbers = itertools.count()

    def note(self, text: str) -> None:
        self._send({"event": "note", "text": text})

    def warn(self, text: str) -> None:
        self._send({"event": "warning", "text": text})

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        self._send({"event": "record", "kind": kind, "facts": dict(facts)})

    @contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Progress]:
        number = next(self._numbers)
        about = {"id": number, "description": description, "total": total, "done": done}
        self._send({"event": "progress", **about})
        try:
            yield _Steps(self._send, number)
        finally:
            self._send({"event": "progressed", "id": number})


class _Steps(Progress):
    def __init__(self, send: Send, number: int) -> None:
        self._send = send
        self._number = number

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        self._send({"event": "advance", "id": self._number, "steps": steps, "facts": facts})


def main() -> None:
    """Measure jobs until the parent closes the pipe."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    jobs = _jobs()
    lock = threading.Lock()

    def send(event: dict[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(event) + "\n")
            answers.flush()

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        _measure_all(Path(sys.argv[1]), sys.argv[2], jobs, send, stop)
    except (InputError, StorageError) as error:
        send({"event": "error", "type": _known(error), "text": describe(error)})
    except Interrupted:
        # Whoever asked for it, this run or the machine, sees by what it ended.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)


def _known(error: InputError | StorageError) -> str:
    """Name the nearest of the engine's own errors that it is: a plugin's may be one of its own."""
    return next(c.__name__ for c in type(error).__mro__ if c.__module__ == errors.__name__)


def _measure_all(
    folder: Path,
    device: str,
    jobs: queue.Queue[Job],
    send: Send,
    stop: threading.Event,
) -> None:
    # What a worker begins with is no garbage: looking through it takes a tenth of its start.
    gc.disable()
    from nasengine.machine import threads
    from nasengine.objectives import Objectives
    from nasengine.runs.experiment import Experiment
    from nasengine.runs.goals import not_yet_measured
    from nasengine.runs.identity import check_code
    from nasengine.runs.run import measurer
    from nasengine.runs.run_files import read_objectives

    check_code(folder)
    # What the strategy agrees to, the parent has asked it.
    experiment = Experiment.load(folder / "spec.toml", [f"device={device}"])
    experiment = replace(experiment, searches=False)
    search = experiment.search(folder, _Telling(send), stop, not_yet_measured)
    search = replace(search, objectives=Objectives(read_objectives(folder)))
    measure = measurer(experiment, search)
    gc.freeze()
    gc.enable()
    with threads(experiment.spec.threads):
        while True:
            job = jobs.get()
            send({"event": "taken"})
            send({"event": "measured", **measure(job).to_json()})


def _jobs() -> queue.Queue[Job]:
    """Read jobs in a thread; when the parent is gone, so is this process."""
    jobs: queue.Queue[Job] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            jobs.put(Job.from_json(json.loads(line)))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return jobs


if __name__ == "__main__":
    main()

"""Worker processes: what a candidate does to its process is its own failure, and no one else's."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w
from test_spec import tables

from nasengine.architecture import Architecture
from nasengine.errors import DataError, Interrupted, RunFolderError, SearchFailed, SpecError
from nasengine.files import write_json
from nasengine.reporter import Reporter
from nasengine.runs import session
from nasengine.runs.execution import Job, Measured
from nasengine.runs.experiment import Experiment
from nasengine.runs.run import run
from nasengine.runs.run_folder import RunFolder
from nasengine.runs.workers import Workers
from nasengine.trial import Measurement, Status, Trial

MISBEHAVING = '''
import os, random, signal, sys, threading, time
from nasengine import DataError, Estimator, Measurement, Metric

class TruncatedError(DataError):
    """An error of its own, of a kind of the engine's."""

def exit_when(path):
    while not path.exists():
        time.sleep(0.01)
    os._exit(9)

class Misbehaving(Estimator):
    """Does what the slot `first` being `conv` makes it do."""

    behaviour: str

    def metrics(self, search):
        return (Metric("quality", "", "max"),)

    def check(self, search):
        if self.behaviour == "no start" and sys.argv[0].endswith("worker.py"):
            os._exit(5)

    def measure(self, candidate):
        print("noise on stdout")
        if candidate.architecture["first"] == "conv":
            if self.behaviour == "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif self.behaviour == "exit":
                os._exit(7)
            elif self.behaviour == "real-time signal":
                os.kill(os.getpid(), 40)
            elif self.behaviour == "hang":
                time.sleep(600)
            elif self.behaviour == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.behaviour.endswith("once"):
                marker = candidate.folder / "killed"
                if not marker.exists():
                    marker.touch()
                    asked = self.behaviour == "stopped once"
                    os.kill(os.getpid(), signal.SIGTERM if asked else signal.SIGKILL)
                    candidate.search.pause_point()
            elif self.behaviour == "stopped with the run":
                time.sleep(0.5)  # The run waits for an answer by then.
                os.kill(os.getppid(), signal.SIGTERM)
                os._exit(0)
            elif self.behaviour == "data":
                raise TruncatedError("image.png: truncated")
        if self.behaviour == "late exit" and candidate.label == "trial-0":
            threading.Thread(target=exit_when, args=(candidate.search.folder / "heard",)).start()
        with candidate.search.reporter.progress("measuring", 2) as progress:
            progress.advance(2, done=1.0)
        network = candidate.network()
        value = sum(float(p.detach().double().sum()) for p in network.parameters())
        return {"quality": Measurement(value)}
'''


class Heard(Reporter):
    """Keeps warnings and trials."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.trials: list[Trial] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def trial(self, trial: Trial) -> None:
        self.trials.append(trial)


def spec_with(folder: Path, behaviour: str, **execution: Any) -> Path:
    (folder / "misbehaving.py").write_text(MISBEHAVING)
    table = tables()
    table["estimators"] = {
        "quality": {"name": "misbehaving.py:Misbehaving", "behaviour": behaviour}
    }
    table["objectives"] = {"quality": "max"}
    # One that does as it should, then one that may not.
    table["start"] = [{"first": first, "second": "conv"} for first in ("pointwise", "conv")]
    table["budget"] = {"trials": 2}
    table["execution"] = execution
    table["references"] = []
    path = folder / "spec.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def run_with(
    folder: Path, behaviour: str, heard: Heard | None = None, **execution: Any
) -> tuple[RunFolder, Heard]:
    experiment = Experiment.load(spec_with(folder, behaviour, **execution))
    heard = heard or Heard()
    run_folder = RunFolder.create(folder / "runs", experiment, ["test"])
    try:
        run(experiment, run_folder, heard)
    finally:
        run_folder.close()
    return run_folder, heard


@pytest.mark.parametrize(
    ("behaviour", "status", "reason"),
    [
        ("segfault", Status.FAILED, "its process ended: SIGSEGV"),
        ("exit", Status.FAILED, "its process ended: exit status 7"),
        ("real-time signal", Status.FAILED, "its process ended: signal 40"),
        ("hang", Status.FAILED, "not measured within 8 s: ended"),
        ("killed", Status.LOST, "its process was killed 3 times: SIGKILL"),
    ],
)
def test_a_worker_that_dies_costs_one_trial(
    tmp_path: Path, behaviour: str, status: Status, reason: str
) -> None:
    # Generous enough for the good candidates on a busy machine; a hang is for ever.
    timeout = 8.0 if behaviour == "hang" else 120.0
    _, heard = run_with(tmp_path, behaviour, isolate=True, timeout=timeout)
    good, bad = heard.trials
    assert good.status is Status.COMPLETE
    assert (bad.status, bad.reason) == (status, reason)


def test_what_workers_are_given_and_answer_is_read_as_it_was_written() -> None:
    known = {"other": Measurement(1.0, {"std": 0.1}), "bare": Measurement(2.0)}
    job = Job("trial-7", Architecture({"first": "conv"}), False, True, known, 3.5, {"bad": "why"})
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
    measured = Measured(Status.FAILED, known, "why", 4.5, {"bad": "why"})
    assert Measured.from_json(json.loads(json.dumps(measured.to_json()))) == measured


def test_a_job_has_the_timeout_less_what_it_had_spent(tmp_path: Path) -> None:
    experiment = Experiment.load(spec_with(tmp_path, "hang", isolate=True))
    known = {"other": Measurement(1.0)}
    with RunFolder.create(tmp_path / "runs", experiment, ["test"]) as folder:
        write_json(folder.path / "objectives.json", [])
        executor = Workers(folder.path, 1, 1000.0, Heard(), threading.Event(), ["cpu"])
        try:
            good = Architecture({"first": "pointwise", "second": "conv"})
            fine = executor.measure(Job("trial-0", good, known=known))
            hanging = Architecture({"first": "conv", "second": "conv"})
            late = executor.measure(Job("trial-1", hanging, known=known, spent=1000.0))
        finally:
            executor.close()
    assert fine.status is Status.COMPLETE
    assert 0 < fine.seconds < 1000
    assert (late.status, late.reason) == (Status.FAILED, "not measured within 1000 s: ended")
    assert late.measurements == known
    assert late.seconds >= 1000


@pytest.mark.parametrize(
    ("behaviour", "name"), [("killed once", "SIGKILL"), ("stopped once", "SIGTERM")]
)
def test_a_worker_ended_once_by_the_machine_is_begun_again(
    tmp_path: Path, behaviour: str, name: str
) -> None:
    _, heard = run_with(tmp_path, behaviour, isolate=True)
    assert [t.status for t in heard.trials] == [Status.COMPLETE] * 2
    assert sum(f"was killed ({name}); begun again" in text for text in heard.warnings) == 1


def test_a_stop_that_reaches_the_workers_too_fails_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Patient(queue.Queue[Any]):
        """Hears of a worker's end before it is looked whether the run is to stop."""

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            return super().get(block, 60.0)

    monkeypatch.setattr("nasengine.runs.workers.queue.Queue", Patient)
    experiment = Experiment.load(spec_with(tmp_path, "stopped with the run", isolate=True))
    stop, heard = threading.Event(), Heard()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        with (
            RunFolder.create(tmp_path / "runs", experiment, ["test"]) as folder,
            pytest.raises(Interrupted),
        ):
            run(experiment, folder, heard, stop)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [t.status for t in heard.trials] == [Status.COMPLETE]
    assert heard.warnings == []


def test_a_worker_that_cannot_start_ends_the_search_and_fails_no_trial(tmp_path: Path) -> None:
    heard = Heard()
    with pytest.raises(
        SearchFailed, match=r"before it began to measure: exit status 5; see .*\.log"
    ):
        run_with(tmp_path, "no start", heard, isolate=True)
    assert heard.trials == []


class SlowToHear(Heard):
    """Takes its time over the first trial, as a slow disk does: until something has happened."""

    def __init__(self, wait: Callable[[], None]) -> None:
        super().__init__()
        self.wait = wait

    def trial(self, trial: Trial) -> None:
        super().trial(trial)
        if len(self.trials) == 1:
            self.wait()


def until_the_worker_dies(folder: Path) -> Callable[[], None]:
    def wait() -> None:
        run_folder = folder / "runs" / "tiny-1"
        (run_folder / "heard").touch()
        assert _until(lambda: not _workers_of(str(run_folder)))

    return wait


def test_a_worker_that_dies_idle_costs_no_trial(tmp_path: Path) -> None:
    slow = SlowToHear(until_the_worker_dies(tmp_path))
    _, heard = run_with(tmp_path, "late exit", slow, isolate=True)
    assert [t.status for t in heard.trials] == [Status.COMPLETE] * 2


def test_a_worker_that_dies_before_it_takes_a_job_costs_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dead, but its end is not yet seen as the next job is given.
    monkeypatch.setattr("nasengine.runs.workers._Worker.alive", True)
    slow = SlowToHear(until_the_worker_dies(tmp_path))
    _, heard = run_with(tmp_path, "late exit", slow, isolate=True)
    assert [t.status for t in heard.trials] == [Status.COMPLETE] * 2
    assert not any("begun again" in text for text in heard.warnings)


def test_an_answer_that_waits_to_be_read_is_not_overdue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[str] = []
    late = 0.0

    class Watched(queue.Queue[Any]):
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            kind = item[1]["event"]
            super().put(item, block, timeout)
            answers.extend([kind] * (kind == "measured"))

    def until_the_other_answered() -> None:
        nonlocal late
        assert _until(lambda: len(answers) == 2)
        late = 1000.0

    real = time.monotonic
    monkeypatch.setattr("nasengine.runs.workers.queue.Queue", Watched)
    monkeypatch.setattr(
        "nasengine.runs.workers.time", SimpleNamespace(monotonic=lambda: real() + late)
    )
    slow = SlowToHear(until_the_other_answered)
    _, heard = run_with(tmp_path, "nothing", slow, workers=2, timeout=500.0)
    assert [t.status for t in heard.trials] == [Status.COMPLETE] * 2


def test_the_users_own_mistake_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image\.png: truncated"):
        run_with(tmp_path, "data", isolate=True)


def test_workers_measure_what_one_process_measures(tmp_path: Path) -> None:
    values = []
    for name, execution in [("one", {}), ("isolated", {"isolate": True}), ("two", {"workers": 2})]:
        (tmp_path / name).mkdir()
        run_folder, heard = run_with(tmp_path / name, "nothing", **execution)
        values.append({t.architecture: t.value("quality") for t in heard.trials})
        log = run_folder.path / "workers.log"
        assert ("noise on stdout" in log.read_text()) if execution else not log.exists()
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        ({"workers": 2, "isolate": False}, "need isolate = true"),
        ({"timeout": "5 MB"}, "execution.timeout: '5 MB' is no value in s"),
        ({"timeout": -1.0}, "execution.timeout: input should be greater than 0"),
        ({"workers": 0}, "execution.workers"),
    ],
)
def test_what_cannot_be_executed_is_refused(
    tmp_path: Path, execution: dict[str, Any], message: str
) -> None:
    table = tables()
    table["execution"] = execution
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(table))
    with pytest.raises(SpecError, match=message):
        Experiment.load(path)


def test_a_stop_reaches_workers_and_the_run_goes_on_later(tmp_path: Path) -> None:
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    table = tables()
    table["execution"] = {"isolate": True}
    table["references"] = []
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(table))
    experiment = Experiment.load(path)
    stop = threading.Event()

    class Stopping(Heard):
        def trial(self, trial: Trial) -> None:
            super().trial(trial)
            stop.set()

    with RunFolder.create(tmp_path / "runs", experiment, ["test"]) as run_folder:
        with pytest.raises(Interrupted):
            run(experiment, run_folder, Stopping(), stop)
        heard = Heard()
        run(experiment, run_folder, heard)
    assert [t.number for t in heard.trials] == [1, 2]


def interrupted(spec: Path) -> Path:
    """Run a spec until its first trial has ended; return the run's folder."""
    experiment = Experiment.load(spec)
    stop = threading.Event()

    class Stopping(Heard):
        def trial(self, trial: Trial) -> None:
            stop.set()

    with RunFolder.create(spec.parent / "runs", experiment, ["test"]) as run_folder:
        with pytest.raises(Interrupted):
            run(experiment, run_folder, Stopping(), stop)
        return run_folder.path


def test_workers_run_the_file_that_a_resume_is_given_and_no_other(tmp_path: Path) -> None:
    folder = interrupted(spec_with(tmp_path, "nothing", isolate=True))
    trap, sprung = tmp_path / "misbehaving.py", tmp_path / "sprung"
    moved = tmp_path / "moved"
    moved.mkdir()
    trap.rename(moved / "misbehaving.py")
    trap.write_text(f"open({str(sprung)!r}, 'w').close()\n{MISBEHAVING}")
    code = ["nasengine.testing.stubs", str(moved / "misbehaving.py")]
    outcome = session.resume(folder, code=code)
    assert len(outcome.history.complete) == 2
    assert not sprung.exists()


def test_a_worker_imports_no_file_that_changed_since_the_run_began(tmp_path: Path) -> None:
    spec = spec_with(tmp_path, "nothing", isolate=True)
    sprung = tmp_path / "sprung"
    experiment = Experiment.load(spec)
    with RunFolder.create(tmp_path / "runs", experiment, ["test"]) as run_folder:
        changed = f"open({str(sprung)!r}, 'w').close()\n{MISBEHAVING}"
        (tmp_path / "misbehaving.py").write_text(changed)
        with pytest.raises(
            RunFolderError, match=r"code\.estimators\.quality\.misbehaving\.py: was"
        ):
            run(experiment, run_folder, Heard())
    assert not sprung.exists()


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    table = tables()
    table["estimators"] = {"quality": {"name": "misbehaving.py:Misbehaving", "behaviour": "hang"}}
    table["objectives"] = {"quality": "max"}
    table["execution"] = {"isolate": True}
    table["references"] = []
    (tmp_path / "spec.toml").write_text(tomli_w.dumps(table))
    command = [sys.executable, "-m", "nasengine.cli.main", "run", str(tmp_path / "spec.toml")]
    command += ["--runs", str(tmp_path / "runs")]
    folder = str(tmp_path / "runs" / "tiny-1")
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        assert _until(lambda: bool(_workers_of(folder)))
    finally:
        parent.kill()
        parent.wait()
    assert _until(lambda: not _workers_of(folder))


def _workers_of(folder: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"nasengine.runs.worker" in command and os.fsencode(folder) in b"".join(command):
                found.append(int(entry.name))
    return found


def _until(condition: Any, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("execution", "told"),
    [
        ({"devices": ["cuda:0", "cuda:1"]}, "2 devices need as many workers; got 1"),
        ({"devices": [], "workers": 2}, "devices: one or more are needed"),
        ({"devices": ["cpu", "cpu"], "workers": 2}, "devices: one stands twice: cpu, cpu"),
        ({"devices": ["cpu"], "isolate": False}, "devices are for worker processes"),
        ({"devices": ["gpu:0"], "workers": 2}, "cpu, cuda or cuda:N"),
        ({"devices": ["cuda:9"], "workers": 2}, "execution.devices: 'cuda:9' is asked for"),
    ],
)
def test_devices_that_workers_cannot_have_are_refused(
    execution: dict[str, Any], told: str, tmp_path: Path
) -> None:
    given = {**tables(), "device": "cpu", "execution": execution}
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(given))
    with pytest.raises(SpecError) as caught:
        Experiment.load(path).search(tmp_path)
    assert told in str(caught.value)


def test_what_is_measured_on_two_kinds_of_devices_does_not_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    given = {**tables(), "device": "cpu"}
    given["execution"] = {"workers": 2, "devices": ["cpu", "cuda:1"]}
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(given))
    with pytest.raises(SpecError, match=r"execution\.devices: cuda:1 beside device cpu"):
        Experiment.load(path).search(tmp_path)


def test_one_card_under_two_names_is_refused_and_unlike_cards_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"a card as {device}")

    def given(*devices: str) -> Experiment:
        execution = {"workers": 2, "devices": list(devices)}
        return Experiment.from_table({**tables(), "device": "cuda", "execution": execution}, Path())

    with pytest.raises(SpecError, match=r"execution\.devices: one stands twice: cuda, cuda:0"):
        given("cuda", "cuda:0").search(tmp_path)
    experiment = given("cuda:0", "cuda:1")
    notes = experiment.check_ahead(experiment.search(tmp_path))
    assert any("cuda:1 is a card as cuda:1: times measured on them" in note for note in notes)


def test_workers_are_spread_over_the_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new one goes where the fewest are; what ended counts no more."""
    started: list[Any] = []

    def start(_folder: Path, device: str, _events: object) -> Any:
        started.append(SimpleNamespace(device=device, alive=True, give=lambda *_: None))
        return started[-1]

    monkeypatch.setattr("nasengine.runs.workers._Worker", start)
    devices = ("cuda:0", "cuda:1", "cuda:2")
    workers = Workers(tmp_path, 5, None, Reporter(), threading.Event(), devices)
    for number in range(5):
        workers.begin(Job(f"trial-{number}", Architecture({})))
    assert [w.device for w in started] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    started[2].alive = False
    workers.begin(Job("trial-5", Architecture({})))
    assert started[-1].device == "cuda:2"


def test_a_worker_measures_on_its_device(tmp_path: Path) -> None:
    (tmp_path / "where.py").write_text(
        "from nasengine import Estimator, Measurement, Metric\n"
        "class Where(Estimator):\n"
        "    def metrics(self, search):\n"
        "        return (Metric('where', '', 'max'),)\n"
        "    def measure(self, candidate):\n"
        "        return {'where': Measurement(1.0, {'device': candidate.search.device})}\n"
    )
    given = {**tables(), "device": "cpu", "execution": {"workers": 2, "devices": ["cpu"]}}
    given["estimators"] = {"where": {"name": "where.py:Where"}, "parameters": {}}
    given["objectives"] = {"where": "max"}
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(given))
    finished = session.run(path, runs=tmp_path / "runs")
    devices = {trial.measurements["where"].details["device"] for trial in finished.history}
    assert devices == {"cpu"}

"""The latency estimator: readings one can trust, tables that add up, tables from elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import time

import pytest
import torch
from pydantic import ValidationError

from nasengine.architecture import Architecture
from nasengine.errors import (
    DataError,
    EstimationFailed,
    Interrupted,
    NasengineError,
    PluginError,
    RunFolderError,
    SpecError,
    StorageError,
)
from nasengine.estimator import Estimator
from nasengine.estimators import _engines, _timing, _turns
from nasengine.estimators._engines import Setup, measuring, prepare
from nasengine.estimators.latency import Latency
from nasengine.estimators.latency_table import (
    PROBES,
    LatencyTable,
    measure_latency_table,
    read_latency_table,
    write_latency_table,
)
from nasengine.files import machine_folder
from nasengine.plugin import build
from nasengine.reporter import Progress, Reporter
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.statistics import agreement
from nasengine.testing.stubs import TinySpace, tiny_candidate, tiny_search

QUICK = {"repeats": 3, "seconds": 0.0, "max_spread": 1e6, "threads": 1}
ERRATIC = random.Random(0).choices((0.001, 1.0, 10.0), k=997)
EAGER = Setup("eager", "cpu", 1, 1, fold_batch_norm=False, channels_last=False)


@pytest.fixture
def search(tmp_path):
    return tiny_search(estimators={}, folder=tmp_path)


def fake_clock(monkeypatch, values):
    """Let the clock read what is given."""
    ticks = iter(values)
    monkeypatch.setattr(_timing, "clock", lambda device: lambda: next(ticks))


def test_what_is_measured(search):
    found = Latency(**QUICK).measure(tiny_candidate(search))
    latency, details = found["latency"].value, found["latency"].details
    assert list(found) == ["latency", "p90", "spread", "fps"]
    samples = [t / slow for t, slow in zip(details["samples"], details["slowness"], strict=True)]
    assert 0 < min(samples) <= latency <= found["p90"].value <= max(samples)
    assert found["fps"].value == pytest.approx(1e3 / latency)
    assert len(samples) >= 3 and found["spread"].value >= 0
    assert details["threads"] == 1


class Machine:
    """A clock, and calls whose times it slows as its pace has it."""

    def __init__(self, *paces):
        self.now, self.paces = 0.0, itertools.chain(paces, itertools.repeat(paces[-1]))

    def __call__(self):
        return self.now

    def call(self, milliseconds):
        def run():
            self.now += milliseconds * next(self.paces) / 1e3

        return run


def test_what_slows_the_machine_is_taken_out_of_a_reading():
    paces = [1.0 + (number // 40) % 3 for number in range(1000)]
    machine = Machine(*paces)
    unit = _timing.Yardstick(machine.call(5.0), 5.0)
    reading = _timing.beside(machine.call(2.0), unit, machine, 60, 0.0)
    assert max(reading.raw) > 2.9 * min(reading.raw)
    assert reading.median == pytest.approx(2.0)
    assert reading.spread < 0.01 < _timing.Reading(reading.raw).spread


def test_readings_of_a_run_are_at_the_pace_that_it_began_with(search, monkeypatch):
    latency, candidate = Latency(**QUICK), tiny_candidate(search)
    latency.measure(candidate)
    path = search.checkpoints / "latency_pace.json"
    ((name, pace),) = json.loads(path.read_text()).items()
    latency.measure(candidate)
    assert json.loads(path.read_text()) == {name: pace}
    path.write_text(json.dumps({name: 1e3 * pace}))
    slow = latency.measure(candidate)["latency"]
    assert slow.value > 100 * statistics.median(slow.details["samples"])
    Latency(**{**QUICK, "batch": 2}).measure(candidate)
    assert len(json.loads(path.read_text())) == 2
    path.write_text("[")
    with pytest.raises(RunFolderError, match=r"latency_pace\.json: damaged"):
        latency.measure(candidate)


def test_without_a_yardstick_readings_are_told_as_timed(search):
    latency = Latency(**QUICK, yardstick=False)
    found = latency.measure(tiny_candidate(search))["latency"]
    assert found.value == statistics.median(found.details["samples"])
    assert found.details["slowness"] == ()
    latency.table(search)
    assert not (search.checkpoints / "latency_pace.json").exists()


def test_a_table_and_readings_of_a_run_are_at_one_pace(search, tmp_path):
    latency = Latency(**QUICK)
    table = latency.table(search)
    path = search.checkpoints / "latency_pace.json"
    ((name, pace),) = json.loads(path.read_text()).items()
    path.write_text(json.dumps({name: 1e3 * pace}))
    again = latency.table(search)
    assert again.fixed + sum(map(sum, (row.values() for row in again.costs.values()))) > 100 * (
        table.fixed + sum(map(sum, (row.values() for row in table.costs.values())))
    )
    elsewhere = tiny_search(estimators={}, folder=tmp_path / "elsewhere")
    latency.write_table(elsewhere, tmp_path / "table.json")
    assert not (elsewhere.folder / "checkpoints" / "latency_pace.json").exists()


def test_a_batch_is_counted_in_frames(search):
    found = Latency(**QUICK, batch=4).measure(tiny_candidate(search))
    assert found["fps"].value == pytest.approx(4e3 / found["latency"].value)


def test_threads_and_modes_are_put_back(search, monkeypatch):
    before, seen = torch.get_num_threads(), []
    wanted = before + 1
    real = _timing.read

    def spying(*args):
        seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return real(*args)

    monkeypatch.setattr(_timing, "read", spying)
    Latency(**{**QUICK, "threads": wanted}).measure(tiny_candidate(search))
    assert set(seen) == {(wanted, True)}
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()


def test_the_heap_keeps_its_memory_while_latency_is_measured(search):
    resource = pytest.importorskip("resource")
    from nasengine.estimators._heap import heap

    if heap() != "kept":
        pytest.skip("not glibc")

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        _ = [torch.empty(30 << 20, dtype=torch.uint8).fill_(1) for _ in range(3)]
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with measuring(search, EAGER):
        # The first rounds find out how the blocks lie best; without, each takes 23,040.
        *_, kept = [faults() for _ in range(10)]
    assert kept < 1000


MEASURING = """
import os, sys, time
from pathlib import Path
from nasengine.estimators import _timing
from nasengine.estimators.latency import Latency
from nasengine.testing.stubs import tiny_candidate, tiny_search

folder, log = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
real = _timing.read

def reading(*args):
    os.write(log, f"{os.getpid()} begins\\n".encode())
    time.sleep(float(sys.argv[3]))
    found = real(*args)
    os.write(log, f"{os.getpid()} ends\\n".encode())
    return found

_timing.read = reading
folder.mkdir()
candidate = tiny_candidate(tiny_search(estimators={}, folder=folder))
latency = Latency(repeats=2, seconds=0.0, max_spread=1e6, threads=1)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[4])):
    latency.measure(candidate)
"""


def measuring_process(folder, name, seconds, times):
    """Start a process of another run that measures when it is told to."""
    arguments = [str(folder / name), str(folder / "log"), str(seconds), str(times)]
    process = subprocess.Popen(
        [sys.executable, "-c", MEASURING, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert process.stdout.readline() == "ready\n"
    return process


def tell(process):
    process.stdin.write("\n")
    process.stdin.flush()


def wait_for(path, count):
    """Wait until a process has written so many lines."""
    for _ in range(1000):
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return lines
        time.sleep(0.02)
    raise AssertionError(lines)


def test_two_processes_of_two_runs_never_measure_at_once(tmp_path):
    processes = [measuring_process(tmp_path, name, 0.2, 6) for name in ("one", "two")]
    for process in processes:
        tell(process)
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    lines = wait_for(tmp_path / "log", 24)
    for begins, ends in zip(lines[::2], lines[1::2], strict=True):
        assert (begins, ends) == (begins, begins.replace("begins", "ends"))
    # They came together, and neither overtook the other again and again.
    assert {line.split()[0] for line in lines[:8]} == {str(p.pid) for p in processes}


class Noting(Reporter):
    """Keeps the notes; stops the search at the first, if it is given one."""

    def __init__(self, search=None):
        self.notes, self.search = [], search

    def note(self, text):
        self.notes.append(text)
        if self.search:
            self.search.stop.set()


def test_who_waits_says_for_what_and_stops_when_asked(search, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(_turns, "SAID", 0.3)
    holder = measuring_process(tmp_path, "holder", 60, 1)
    tell(holder)
    wait_for(tmp_path / "log", 1)
    reporter = Noting(search)
    waiting = dataclasses.replace(search, reporter=reporter)
    with pytest.raises(Interrupted), measuring(waiting, EAGER):
        pass
    lock = machine_folder() / "latency.lock"
    assert reporter.notes == [f"latency: waits for another process, which holds {lock}"]
    # One that is killed holds nothing any more.
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=60)
    search.stop.clear()
    silent = Noting()
    with measuring(dataclasses.replace(search, reporter=silent), EAGER):
        pass
    assert not silent.notes


@pytest.mark.skipif(os.name != "posix", reason="folders of users")
def test_a_folder_for_the_lock_that_another_could_write_to_is_not_used(
    search, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = tmp_path / f"nasengine-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="no folder that this user alone writes to"):
        Latency(**QUICK).measure(tiny_candidate(search))
    assert not list((tmp_path / "elsewhere").iterdir())
    path.unlink()
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(StorageError, match="TMPDIR"):
        machine_folder()
    path.rmdir()
    assert machine_folder() == machine_folder() == path
    assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "changes",
    [
        {"fold_batch_norm": True},
        {"channels_last": True},
        {"fold_batch_norm": True, "channels_last": True, "batch": 2},
        {"engine": "onnxruntime"},
        {"engine": "onnxruntime", "fold_batch_norm": True},
    ],
    ids=str,
)
def test_every_way_of_running_gives_the_same_output(search, changes):
    if changes.get("engine") == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    network = tiny_candidate(search).network().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # else folding changes next to nothing
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 2)
    setup = dataclasses.replace(EAGER, **changes)
    with measuring(search, EAGER):
        plain = dataclasses.replace(EAGER, batch=setup.batch)
        expected = prepare(network, plain, (3, 16, 16))()
    with measuring(search, setup):
        got = prepare(network, setup, (3, 16, 16))()
    got = torch.from_numpy(got[0]) if isinstance(got, list) else got
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_folding_takes_the_batch_norms_away(search):
    network = tiny_candidate(search).network().eval()
    folded = _engines.fold(network)
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_compile_runs_what_torch_compiles_and_reports_why_it_cannot(search, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: network)
    latency = Latency(**QUICK, engine="compile")
    assert latency.measure(tiny_candidate(search))["latency"].value > 0

    def broken(network, dynamic):
        def run(x):
            raise RuntimeError("no C++ compiler\nwas found")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(EstimationFailed, match=r"torch\.compile failed: RuntimeError: no C"):
        latency.measure(tiny_candidate(search))


def test_an_onnx_export_that_fails_says_what_it_comes_from(search, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def export(*args, **kwargs):
        try:
            raise AssertionError("only 4D query, key, and value are supported")
        except AssertionError as error:
            raise RuntimeError("Failed. Next steps:\n- create an issue") from error

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(EstimationFailed, match=r"as ONNX: torch cannot export it: Assert.*only 4D"):
        Latency(**QUICK, engine="onnxruntime").measure(tiny_candidate(search))


def test_a_missing_onnxruntime_says_what_to_install(search, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(PluginError, match=r"pip install 'nasengine\[onnx\]'"):
        Latency(engine="onnxruntime").check(search)


def test_an_untraceable_network_cannot_be_folded():
    class Branching(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(EstimationFailed, match="fold_batch_norm cannot trace"):
        _engines.fold(Branching())


@pytest.mark.parametrize(
    ("ticks", "reason"),
    [
        (itertools.repeat(1.0), "saw no time pass"),
        (itertools.repeat(math.nan), "not finite"),
        (itertools.accumulate(itertools.cycle(ERRATIC)), "spans .* median"),
    ],
    ids=["zero", "nan", "unstable"],
)
def test_readings_that_cannot_be_trusted_fail_with_the_reason(search, monkeypatch, ticks, reason):
    fake_clock(monkeypatch, ticks)
    with pytest.raises(EstimationFailed, match=f"^not measured in 3 attempts: .*{reason}"):
        Latency(repeats=8, seconds=0.0, threads=1, max_spread=0.1).measure(tiny_candidate(search))


def test_a_bad_reading_is_taken_again():
    bad = [math.nan] * 12
    good = itertools.accumulate(itertools.repeat(0.01))
    ticks = iter(itertools.chain(bad, good))
    reading = _timing.read(lambda: None, None, lambda: next(ticks), 4, 0.0, 0.5)
    assert reading.median == pytest.approx(10.0)


def test_warm_up_goes_on_until_runs_take_the_same():
    durations = itertools.chain([0.9, 0.5, 0.3, 0.2, 0.15, 0.1, 0.1, 0.1], itertools.repeat(0.1))
    state = {"now": 0.0, "runs": 0}

    def run():
        state["now"] += next(durations)
        state["runs"] += 1

    _timing.warm_up(run, lambda: state["now"], seconds=100)
    assert 9 <= state["runs"] <= 15


def test_runs_are_interleaved():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    taken = list(_timing.rounds(runs, iter(range(1000)).__next__, [1, 2]))
    assert order == ["a", "a", "b", "b", "a", "a", "a", "b", "b", "b"]
    assert [len(part["a"]) for part in taken] == [1, 2]


def test_the_table_covers_the_space_and_whole_networks_set_the_fixed_part(search):
    measured = Latency(**QUICK).measured_table(search)
    table = measured.cost_table(search.space)
    assert {slot: set(row) for slot, row in table.costs.items()} == {
        "first": {"pointwise", "conv", "double"},
        "second": {"pointwise", "conv", "double"},
    }
    assert all(cost >= 0 for row in table.costs.values() for cost in row.values())
    assert table.unit == "ms" and table.decisions == {"first": "first", "second": "second"}
    assert len(measured.probes) == 5
    assert all(len(taken) == 3 for _, taken in measured.probes)


def test_unsteady_readings_of_a_table_are_one_warning(search, monkeypatch):
    told = []
    monkeypatch.setattr(search.reporter, "warn", told.append)
    ticks = itertools.accumulate(itertools.cycle(ERRATIC))
    fake_clock(monkeypatch, ticks)
    Latency(repeats=8, seconds=0.0, threads=1, max_spread=0.1).measured_table(search)
    (warning,) = told
    assert "candidates have readings that spread too much (most: " in warning


def test_the_cost_of_the_call_is_taken_off_and_the_fixed_part_added():
    space = TinySpace()
    table = LatencyTable({}, decisions={"first": "first", "second": "second"})
    for slot, name in itertools.product(table.decisions, ("pointwise", "conv")):
        table.cells[slot, name] = [1.0] if name == "pointwise" else [2.0, 2.0, 90.0]
    architecture = Architecture({"first": "conv", "second": "pointwise"})
    table.probes = [(architecture, [3.5, 3.5, 70.0])]
    costs = table.cost_table(space)
    assert costs.fixed == pytest.approx(0.5)
    assert costs.predict({"first": "conv", "second": "conv"}) == pytest.approx(4.5)


def test_equal_cells_are_measured_once_and_cut_ones_not_at_all(tmp_path):
    from nasengine.estimators import _latency_cells

    search = tiny_search(NASBench201(width=2, cells_per_stage=2), folder=tmp_path)
    table = LatencyTable({})
    work = _latency_cells.work(search, table)
    assert len(table.cells) == 6 * 6 * 5
    # Per stage: two convolutions, a pool, and the skip; nothing for the 36 that are cut.
    assert len(work.cells) == 3 * 4
    table = Latency(**{**QUICK, "repeats": 2}).table(search)
    zeros = [row["none"] for row in table.costs.values()]
    assert len(zeros) == 36 and not any(zeros)


def test_a_table_is_resumed_where_it_stopped(search, tmp_path, monkeypatch):
    path = tmp_path / "tables" / "device.json"
    counted = []
    real = _timing.rounds

    def counting(runs, now, counts):
        for number, taken in enumerate(real(runs, now, counts), start=1):
            counted.append(number)
            if len(counted) == 2:
                search.stop.set()
            yield taken

    monkeypatch.setattr(_timing, "rounds", counting)
    with pytest.raises(Interrupted):
        write_latency_table(search, EAGER, 6, path)
    first = read_latency_table(path)
    search.stop.clear()
    write_latency_table(search, EAGER, 6, path)
    last = read_latency_table(path)
    assert len(counted) == 6
    for cell, readings in last.cells.items():
        assert len(readings) == 6 and readings[:2] == first.cells[cell]
    write_latency_table(search, EAGER, 6, path)
    assert len(counted) == 6


def test_a_table_of_another_device_is_not_overwritten(search, tmp_path):
    path = tmp_path / "device.json"
    write_latency_table(search, EAGER, 2, path)
    with pytest.raises(DataError, match="holds a table with threads = 1, and this one has 2"):
        write_latency_table(search, dataclasses.replace(EAGER, threads=2), 2, path)


def test_a_place_that_a_table_cannot_be_written_to_is_named(search, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot make .*file"):
        write_latency_table(search, EAGER, 2, tmp_path / "file" / "device.json")


def test_a_table_from_before_the_heap_was_kept_is_read_but_not_gone_on_with(search, tmp_path):
    path = tmp_path / "device.json"
    write_latency_table(search, EAGER, 2, path)
    content = json.loads(path.read_text())
    del content["heap"]
    path.write_text(json.dumps(content))
    Latency(table=path).check(search)
    with pytest.raises(DataError, match="holds a table with heap = None, and this one has"):
        write_latency_table(search, EAGER, 4, path)


@pytest.fixture
def made_elsewhere(search, tmp_path):
    path = tmp_path / "device.json"
    write_latency_table(search, EAGER, 2, path)
    return path


def test_a_table_from_elsewhere_predicts_and_says_so(search, made_elsewhere):
    settings = {"name": "latency", "table": made_elsewhere.name}
    latency = build(Estimator, settings, where="estimators.latency", folder=made_elsewhere.parent)
    latency.check(search)
    table = latency.table(search)
    candidate = tiny_candidate(search, search.space.reference("big"))
    found = latency.measure(candidate)
    assert list(found) == [metric.name for metric in latency.metrics(search)] == ["latency", "fps"]
    assert found["latency"].value == pytest.approx(table.predict(candidate.architecture))
    assert found["latency"].details["predicted"] is True
    assert found["latency"].details["threads"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 4}, r"threads: the table .*device\.json was measured with 1, .* says 4"),
        ({"engine": "compile"}, "engine: .* with 'eager', and the spec says 'compile'"),
        ({"fold_batch_norm": True}, "fold_batch_norm: .* with False, and the spec says True"),
        ({"channels_last": True, "repeats": 9}, "channels_last: .*; repeats: .* nothing is timed"),
        ({"seconds": 1.0}, "seconds: with a table nothing is timed"),
        ({"yardstick": False}, "yardstick: with"),
        ({"max_spread": 0.1}, "max_spread: with"),
    ],
)
def test_settings_that_a_table_contradicts_or_ignores_are_refused(
    search, made_elsewhere, settings, message
):
    with pytest.raises(SpecError, match=message):
        Latency(table=made_elsewhere, **settings).check(search)


@pytest.mark.parametrize("name", ["seconds", "max_spread"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_settings_are_finite(name, value):
    with pytest.raises(ValidationError):
        Latency(**{name: value})


def test_settings_that_agree_with_a_table_are_not_refused(search, made_elsewhere):
    latency = Latency(table=made_elsewhere, threads=1)
    # As a resolved spec has it, with every default.
    Latency(**latency.model_dump(by_alias=True)).check(search)


def _without(content, slot, name):
    del content["readings"][slot][name]


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda c: c.update(format="other"), DataError, "is no 'nasengine latency table 1'"),
        (lambda c: c.pop("probes"), DataError, "damaged: probes: Field required"),
        (
            lambda c: c["readings"]["first"].update(conv=["x"]),
            DataError,
            "damaged: readings.first.conv.0: ",
        ),
        (
            lambda c: c["readings"]["first"].update(conv=[1e400]),
            DataError,
            "a finite number, got inf",
        ),
        (lambda c: c["readings"].pop("first"), DataError, "different slots"),
        (lambda c: _without(c, "first", "conv"), SpecError, "slot 'first' lacks 'conv'"),
        (lambda c: c["space"].update(width=9), SpecError, "for width = 9, the space has 4"),
        (lambda c: c.update(input=[3, 8, 8]), SpecError, r"inputs of \[3, 8, 8\]"),
        (lambda c: c.update(batch=2), SpecError, r"batch of 2, and latency\.batch = 1"),
        (lambda c: c["probes"][0].update(readings=[]), SpecError, "unfinished"),
        (
            lambda c: (
                c["readings"].update(frist=c["readings"].pop("first")),
                c["decisions"].update(frist=c["decisions"].pop("first")),
            ),
            SpecError,
            "no slot 'frist'; did you mean 'first'.*'first' is missing; did you mean 'frist'",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(search, made_elsewhere, damage, error, message):
    content = json.loads(made_elsewhere.read_text())
    damage(content)
    made_elsewhere.write_text(json.dumps(content))
    with pytest.raises(error, match=message) as caught:
        Latency(table=made_elsewhere).check(search)
    assert str(made_elsewhere) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 50_000, '{"format": 1}'])
def test_a_file_that_is_no_table(search, tmp_path, text):
    path = tmp_path / "device.json"
    path.write_text(text)
    with pytest.raises(NasengineError, match=r"device\.json"):
        Latency(table=path).check(search)


def test_a_missing_file_is_named(search, tmp_path):
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        Latency(table=tmp_path / "none.json").check(search)


def test_a_reference_block_that_the_table_lacks_fails_that_candidate(search, made_elsewhere):
    content = json.loads(made_elsewhere.read_text())
    for row in content["readings"].values():
        del row["double"]
    made_elsewhere.write_text(json.dumps(content))
    latency = Latency(table=made_elsewhere)
    latency.check(search)
    with pytest.raises(EstimationFailed, match="no candidate 'double' in slot"):
        latency.measure(tiny_candidate(search, search.space.reference("big")))


def test_steady_machines_predict_whole_networks():
    """A network of known times: a table of them adds up to the whole."""
    predicted, measured = [3.0, 4.0, 5.0, 6.0], [3.1, 3.9, 5.0, 6.3]
    quality = agreement(predicted, measured)
    assert quality["spearman"] == pytest.approx(1.0)
    assert quality["mean_relative_error"] == pytest.approx(0.0263, abs=1e-3)


class Steps(Reporter, Progress):
    """Keeps what progress it is told, step by step."""

    def __init__(self):
        self.steps = []

    @contextlib.contextmanager
    def progress(self, description, total, done=0):
        self.steps.append((description, total, done))
        yield self

    def advance(self, steps=1, **facts):
        self.steps.append(steps)


def test_the_table_tells_its_rounds_apart_from_what_goes_before(search):
    """Preparing may take longer than all rounds: the time that is left is told of these alone."""
    reporter = Steps()
    measure_latency_table(dataclasses.replace(search, reporter=reporter), EAGER, 2)
    calls = 2 * 3 + 2 + PROBES  # Candidates, empty calls, whole networks.
    preparing = [("preparing the latency table", calls, 0), *[1] * calls]
    assert reporter.steps == [*preparing, ("latency table", 2, 0), 1, 1]

"""Terminals that are closed, hang-ups, readers that end: a run loses nothing by any of them."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_run_folder import OFTEN, command, trained, training, until, write

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


OWN_TERMINAL = """
import fcntl, termios

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
"""
NOHUP = """
import signal

signal.signal(signal.SIGHUP, signal.SIG_IGN)
"""


def in_terminal(folder: Path, before: str, *words: str) -> tuple[subprocess.Popen[bytes], int]:
    """Begin a command in a terminal of its own; closing what is returned with it closes that."""
    terminal, within = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", OWN_TERMINAL + before + OFTEN, *words],
        cwd=folder,
        stdin=within,
        stdout=within,
        stderr=within,
        start_new_session=True,
        env=ENVIRONMENT,
    )
    os.close(within)
    return process, terminal


def test_a_closed_terminal_leaves_a_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, trained(100_000, budget={"trials": 1}))
    process, terminal = in_terminal(tmp_path, "", "run", "spec.toml")
    until(lambda: training(tmp_path / "runs") or process.poll() is not None)
    os.close(terminal)
    assert process.wait(timeout=60) == 129
    assert any((tmp_path / "runs" / "tiny-1" / "trials" / "trial-0").iterdir())


def test_a_hang_up_of_shell_and_system_stops_as_one_does(tmp_path: Path) -> None:
    write(tmp_path, trained(100_000, budget={"trials": 1}))
    process = command(tmp_path, "run", "spec.toml", "--quiet")
    until(lambda: training(tmp_path / "runs") or process.poll() is not None)
    for _ in range(20):
        process.send_signal(signal.SIGHUP)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 129, told
    assert "interrupted; to go on: nasengine resume runs/tiny-1" in told
    assert "Traceback" not in told
    assert any((tmp_path / "runs" / "tiny-1" / "trials" / "trial-0").iterdir())


def test_nohup_goes_on_without_its_terminal(tmp_path: Path) -> None:
    write(tmp_path, trained(60))
    process, terminal = in_terminal(tmp_path, NOHUP, "run", "spec.toml")
    until(lambda: training(tmp_path / "runs") or process.poll() is not None)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "runs" / "tiny-1" / "best" / "weights.safetensors").is_file()


@pytest.mark.parametrize("wanted", [0, 143], ids=["to the end", "stopped"])
def test_a_reader_that_ends_ends_no_run(wanted: int, tmp_path: Path) -> None:
    """As of ``nasengine run spec.toml | tee log``, of which a Ctrl-C ends the second at once."""
    write(tmp_path, trained(60) if wanted == 0 else trained(100_000))
    process = command(tmp_path, "run", "spec.toml")
    assert process.stdout is not None
    process.stdout.close()
    until(lambda: training(tmp_path / "runs") or process.poll() is not None)
    if wanted:
        process.terminate()
    assert process.stderr is not None
    with process.stderr:
        told = process.stderr.read()
    assert process.wait(timeout=120) == wanted, told
    assert ("to go on: nasengine resume runs/tiny-1" in told) == bool(wanted)
    assert "Traceback" not in told
    assert "Exception ignored" not in told


def shell(line: str, **environment: str) -> tuple[int, str]:
    """Run a command in a shell; return its status and what it says on standard error."""
    done = subprocess.run(
        ["sh", "-c", line.replace("nasengine", f"{shlex.quote(sys.executable)} -m nasengine")],
        capture_output=True,
        text=True,
        check=False,
        env={**ENVIRONMENT, **environment},
    )
    return done.returncode, done.stderr


FULL = "error: [Errno 28] No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_disk_that_refuses_output_is_an_error(unbuffered: str) -> None:
    refused = [
        shell(line, PYTHONUNBUFFERED=unbuffered)
        for line in ("nasengine example > /dev/full", "nasengine example no 2> /dev/full")
    ]
    assert refused == [(1, FULL), (2, "")]


def test_a_process_without_output_does_its_work() -> None:
    assert shell("nasengine list >&-") == (0, "")
    assert shell("nasengine list no 2>&-")[0] == 2
    assert shell("nasengine list | head -n 1 >&2") == (0, "spaces\n")

"""The command line: what to do, and the exit status.

0 done, 1 failed, 2 bad input, 129, 130 and 143 interrupted by SIGHUP, SIGINT and SIGTERM. Nothing
heavy is imported before it is known to be needed.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module

from nasengine.cli.output import lasting_output
from nasengine.cli.parser import BAD_INPUT, make_parser
from nasengine.errors import InputError, Interrupted, NasengineError

FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    with lasting_output():
        parser = make_parser()
        options = parser.parse_args(arguments)
        if options.command is None:
            parser.print_help(sys.stderr)
            return BAD_INPUT
        return _status(options)


def _status(options: argparse.Namespace) -> int:
    stop = threading.Event()
    signals = _Signals(stop)
    try:
        with signals, _imported(options.command) as command:
            status = command(options, stop)
        sys.stdout.flush()  # Here a disk that refuses is told.
        return status
    except InputError as error:
        _say(error)
        return BAD_INPUT
    except NasengineError as error:
        _say(error)
        return FAILED
    except (Interrupted, KeyboardInterrupt):
        return 128 + (signals.received or signal.SIGINT)
    except OSError as error:  # A disk or a system that refuses, where nothing better can be said.
        _say(error)
        return FAILED


@contextmanager
def _imported(name: str) -> Iterator[Command]:
    """Import a command without the garbage collector, and keep it from what was imported.

    Modules are no garbage: looking through torch's again and again took a seventh of `check`.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        command = _command(name)
        gc.freeze()
    finally:
        if enabled:
            gc.enable()
    try:
        yield command
    finally:
        gc.unfreeze()


def _say(error: Exception) -> None:
    from nasengine.cli.plain import plain

    lines = [plain(line) for line in str(error).split("\n")] if str(error) else [repr(error)]
    with suppress(OSError):  # What cannot be told has its exit status.
        for line in lines:
            print(f"error: {line}" if line is lines[0] else f"       {line}", file=sys.stderr)


class _Signals:
    """The first SIGINT, SIGTERM or SIGHUP asks the run to stop at the next safe point.

    Another SIGINT or SIGTERM ends it at once. A SIGHUP does not: of a terminal that is closed, the
    shell and the system each send one. Where SIGHUP is ignored (nohup), it is left so.
    """

    def __init__(self, stop: threading.Event) -> None:
        self.received: int | None = None
        self._stderr = sys.stderr
        self._asked = False
        self._stop = stop
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
            for number in (signal.SIGINT, signal.SIGTERM, *hangup):
                self._before[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _: object) -> None:
        if number != signal.SIGHUP:
            if self._asked:
                os._exit(128 + number)
            self._asked = True
        if self.received is None:
            self.received = number
            self._stop.set()
            # Not through the stream, which may be in the middle of writing.
            with suppress(OSError):
                told = self._stderr.fileno()
                os.write(told, b"\nstopping at the next safe point; once more to stop at once\n")


Command = Callable[[argparse.Namespace, threading.Event], int]

_COMMANDS = {
    "ablate": "compare:ablate",
    "check": "commands:check",
    "compare": "compare:compare",
    "correlate": "studies:correlate",
    "example": "examples:example",
    "export": "export:export",
    "latency-table": "studies:write_table",
    "list": "catalog:list_plugins",
    "measure": "commands:measure",
    "report": "report:report",
    "resume": "commands:resume",
    "run": "commands:run",
    "schema": "catalog:print_schema",
}
"""Command to the module here and its function; imported only when it is asked for."""


def _command(name: str) -> Command:
    module, _, function = _COMMANDS[name].partition(":")
    found: Command = getattr(import_module(f"nasengine.cli.{module}"), function)
    return found


if __name__ == "__main__":
    sys.exit(main())

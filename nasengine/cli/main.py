"""The command line: what to do, and the exit status.

0 done, 1 failed, 2 bad input, 130 and 143 interrupted by SIGINT and SIGTERM. Nothing heavy is
imported before it is known to be needed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from nasengine.errors import InputError, Interrupted, NasengineError

FAILED, BAD_INPUT = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    signals = _Signals(stop)
    try:
        with signals:
            return _command(options.command)(options, stop)
    except InputError as error:
        _say(error)
        return BAD_INPUT
    except NasengineError as error:
        _say(error)
        return FAILED
    except (Interrupted, KeyboardInterrupt):
        return 128 + (signals.received or signal.SIGINT)
    except BrokenPipeError:
        sys.stderr.close()  # The reader has gone; Python would complain at exit.
        return FAILED


def _say(error: Exception) -> None:
    lines = str(error).splitlines() or [type(error).__name__]
    for line in lines:
        print(f"error: {line}" if line is lines[0] else f"       {line}", file=sys.stderr)


class _Signals:
    """The first SIGINT or SIGTERM asks the run to stop at the next safe point; a second ends it."""

    def __init__(self, stop: threading.Event) -> None:
        self.received: int | None = None
        self._stop = stop
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _: object) -> None:
        if self.received is not None:
            import os

            os._exit(128 + number)
        self.received = number
        self._stop.set()
        print("\nstopping at the next safe point; once more to stop at once", file=sys.stderr)


Command = Callable[[argparse.Namespace, threading.Event], int]


def _command(name: str) -> Command:
    if name in ("list", "schema"):
        from nasengine.cli import catalog

        return {"list": catalog.list_plugins, "schema": catalog.print_schema}[name]
    if name in ("ablate", "compare"):
        from nasengine.cli import compare

        return {"ablate": compare.ablate, "compare": compare.compare}[name]
    if name == "report":
        from nasengine.cli.report import report

        return report
    if name in ("latency-table", "correlate"):
        from nasengine.cli import studies

        return {"latency-table": studies.write_table, "correlate": studies.correlate}[name]
    from nasengine.cli import commands

    found: Command = {
        "run": commands.run,
        "resume": commands.resume,
        "check": commands.check,
        "measure": commands.measure,
    }[name]
    return found


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(BAD_INPUT, f"error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nasengine",
        description="Neural architecture search from one TOML file.",
        epilog="Exit status: 0 done, 1 failed, 2 bad input, 130/143 interrupted.",
    )
    from nasengine import __version__

    parser.add_argument("--version", action="version", version=f"nasengine {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run", help="search, measure, train and deliver what a spec describes"
    )
    _takes_spec(run)
    run.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run folders")
    _shows(run)

    resume = commands.add_parser("resume", help="go on with an interrupted run")
    resume.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    _sets(resume, "only budget.* and execution.* may change")
    resume.add_argument(
        "--code",
        action="append",
        default=[],
        metavar="FILE_OR_MODULE",
        help="your own code that the spec names; a run folder alone never makes code run",
    )
    _shows(resume)

    check = commands.add_parser("check", help="everything but the work: shapes, costs, estimates")
    _takes_spec(check)
    check.add_argument("--json", action="store_true", help="print JSON")

    measure = commands.add_parser("measure", help="measure one architecture by a spec's estimators")
    _takes_spec(measure)
    measure.add_argument(
        "--architecture",
        required=True,
        metavar="NAME_OR_FILE",
        help="a reference network, the space's own architecture string, or a JSON file",
    )
    measure.add_argument("--estimators", metavar="A,B", help="only these of the spec's estimators")
    measure.add_argument("--json", action="store_true", help="print JSON")
    _shows(measure)

    ablate = commands.add_parser("ablate", help="a grid of overrides and seeds, in one table")
    _takes_spec(ablate)
    ablate.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=A,B,C",
        help="values of a key, as in strategy.name=darts,optuna or seed=0..4; may be repeated",
    )
    ablate.add_argument("--into", type=Path, help="the parent of the cells' run folders")
    _baseline(ablate)
    _shows(ablate)

    compare = commands.add_parser("compare", help="compare finished runs, over their seeds")
    compare.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="run folders")
    compare.add_argument("-o", "--output", type=Path, help="folder for CSV, Markdown and plot")
    _baseline(compare)

    report = commands.add_parser("report", help="write a run's report.html, from its folder alone")
    report.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    report.add_argument("-o", "--output", type=Path, help="the file (report.html in the folder)")

    table = commands.add_parser("latency-table", help="measure this device's table, to search with")
    _takes_spec(table)
    table.add_argument("-o", "--output", type=Path, required=True, help="the JSON file")
    table.add_argument("--estimator", metavar="KEY", help="which of the spec's estimators")
    _shows(table)

    correlate = commands.add_parser("correlate", help="how well one estimator ranks another")
    _takes_spec(correlate)
    correlate.add_argument("--estimators", required=True, metavar="A,B", help="the two")
    correlate.add_argument("--samples", type=int, default=50, help="random architectures (50)")
    correlate.add_argument("-o", "--output", type=Path, help="folder for values and scatter plot")
    correlate.add_argument("--json", action="store_true", help="print JSON")
    _shows(correlate)

    listing = commands.add_parser("list", help="the installed plugins and their settings")
    listing.add_argument(
        "kind", nargs="?", help="only spaces, strategies, estimators, tasks or data"
    )
    listing.add_argument("--json", action="store_true", help="print JSON")
    commands.add_parser("schema", help="the spec's JSON Schema, for completion in editors")
    return parser


def _takes_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", type=Path, metavar="SPEC", help="the TOML file")
    _sets(parser, "as in strategy.name=optuna")


def _sets(parser: argparse.ArgumentParser, note: str) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="assignments",
        help=f"override a key of the spec, {note}; may be repeated",
    )


def _baseline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--baseline", metavar="ROW", help="the row to compare with (random search)")


def _shows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="show results and errors only")


if __name__ == "__main__":
    sys.exit(main())

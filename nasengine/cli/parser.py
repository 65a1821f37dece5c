"""The command line's grammar: commands, arguments, help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from nasengine.errors import did_you_mean

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]

BAD_INPUT = 2


class Parser(argparse.ArgumentParser):
    """A parser whose errors end with the exit status of bad input."""

    def error(self, message: str) -> NoReturn:
        """Print how the command is used, and what is wrong."""
        self.print_usage(sys.stderr)
        if message.startswith("unrecognized arguments: --"):
            message += "; a key of the spec is set by --set KEY=VALUE"
        self.exit(BAD_INPUT, f"error: {message}\n")

    def _check_value(self, action: argparse.Action, value: str) -> None:
        """Refuse a word that is none of those allowed, with the nearest that is."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(
                action, f"{value!r}: {did_you_mean(value, action.choices)}"
            )


def make_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="nasengine",
        description="Neural architecture search from one TOML file.",
        epilog="Exit status: 0 done, 1 failed, 2 bad input, 129/130/143 interrupted.",
    )
    from nasengine import __version__

    parser.add_argument("--version", action="version", version=f"nasengine {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    _add_runs(commands)
    _add_export(commands)
    _add_studies(commands)
    _add_catalog(commands)
    return parser


def _add_runs(commands: Commands) -> None:
    run = commands.add_parser(
        "run", help="search, measure, train and deliver what a spec describes"
    )
    _takes_spec(run)
    run.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="FOLDER",
        help="where the run's folder is made (runs)",
    )
    _shows(run)

    resume = commands.add_parser("resume", help="go on with an interrupted run")
    resume.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    _sets(resume, "only budget.* and execution.* may change")
    _takes_code(resume)
    resume.add_argument(
        "--accept-changes",
        action="store_true",
        help="go on although your code or packages changed: you say that no result does; "
        "the log and the report keep what changed",
    )
    _shows(resume)

    check = commands.add_parser("check", help="everything but the work: shapes, costs, estimates")
    _takes_spec(check)
    check.add_argument(
        "--data",
        nargs="?",
        const=True,
        metavar="PNG",
        help="read the data too, count its classes, and draw some samples with their masks",
    )
    check.add_argument("--json", action="store_true", help="print JSON")

    measure = commands.add_parser("measure", help="measure one architecture by a spec's estimators")
    _takes_spec(measure)
    measure.add_argument(
        "--architecture",
        required=True,
        metavar="ARCHITECTURE",
        help="a reference network, choices (decision=choice,...), a JSON file of them, or the "
        "space's own architecture string",
    )
    measure.add_argument(
        "--estimators", metavar="A,B", help="only these of the spec's estimators, final ones too"
    )
    measure.add_argument("--json", action="store_true", help="print JSON")
    _shows(measure)


def _add_export(commands: Commands) -> None:
    export = commands.add_parser("export", help="deliver another network of a run than its best")
    export.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    which = export.add_mutually_exclusive_group()
    which.add_argument(
        "--trial", type=int, metavar="N", help="a trial's network, as of a front (the best one)"
    )
    which.add_argument("--reference", metavar="NAME", help="a reference network, as unet")
    export.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="a new or empty folder (RUN/exported/trial-N)",
    )
    _takes_code(export)


def _add_studies(commands: Commands) -> None:
    ablate = commands.add_parser("ablate", help="a grid of overrides and seeds, in one table")
    _takes_spec(ablate)
    ablate.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=A,B,C",
        help="values of a key, as in strategy.name=darts,optuna or seed=0..4; may be repeated",
    )
    ablate.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="the parent of the cells' run folders (runs/NAME-ablation)",
    )
    _baseline(ablate)
    _shows(ablate)

    compare = commands.add_parser("compare", help="compare finished runs, over their seeds")
    compare.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="run folders; an ablation's: all its cells",
    )
    compare.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="folder for CSV, Markdown and plot"
    )
    _baseline(compare)

    report = commands.add_parser("report", help="write a run's report.html, from its folder alone")
    report.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    report.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the file (report.html in the folder)"
    )

    table = commands.add_parser("latency-table", help="measure this device's table, to search with")
    _takes_spec(table)
    table.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the JSON file"
    )
    table.add_argument("--estimator", metavar="KEY", help="which of the spec's estimators")
    _shows(table)

    correlate = commands.add_parser("correlate", help="how well one estimator ranks another")
    _takes_spec(correlate)
    correlate.add_argument("--estimators", required=True, metavar="A,B", help="the two")
    correlate.add_argument(
        "--samples", type=int, default=50, metavar="N", help="random architectures (50)"
    )
    correlate.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="folder for values and scatter plot"
    )
    correlate.add_argument("--json", action="store_true", help="print JSON")
    _shows(correlate)


def _add_catalog(commands: Commands) -> None:
    listing = commands.add_parser("list", help="the installed plugins and their settings")
    listing.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="some of them, your own (my_space.py:MySpace), or all spaces, strategies, estimators, "
        "tasks, data: with their settings",
    )
    listing.add_argument("--json", action="store_true", help="print JSON")
    commands.add_parser("schema", help="the spec's JSON Schema, for completion in editors")

    example = commands.add_parser("example", help="the examples: a list, or one copied to here")
    example.add_argument("name", nargs="?", metavar="NAME", help="which one to copy")
    example.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="the folder to copy it to (this one)",
    )


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


def _takes_code(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--code",
        action="append",
        default=[],
        metavar="FILE_OR_MODULE",
        help="your own code that the spec names; a run folder alone never makes code run",
    )


def _baseline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--baseline", metavar="ROW", help="the row to compare with (random search)")


def _shows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="show results and errors only")

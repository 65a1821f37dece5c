"""The commands that compare runs: ablate and compare."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from nasengine.cli.columns import print_columns
from nasengine.cli.plain import PlainConsole
from nasengine.cli.terminal import TerminalReporter
from nasengine.errors import Interrupted, SearchFailed
from nasengine.runs.spec import check_spec, override, read_toml
from nasengine.studies.ablation import cells, parse_vary, run_ablation, write_description
from nasengine.studies.comparison import (
    SPARE,
    Row,
    baseline_of,
    header,
    lines,
    rows,
    write_comparison,
)
from nasengine.studies.summary import settings_of, summarise


def ablate(options: argparse.Namespace, stop: threading.Event) -> int:
    """Run a grid of overrides and seeds, and compare."""
    table, _ = override(read_toml(options.spec), options.assignments)
    spec = check_spec(table)
    grid = cells(table, {**spec.ablation.vary, **parse_vary(options.vary)})
    parent: Path = options.into or Path("runs") / f"{spec.name}-ablation"

    def reporter(folder: Path) -> TerminalReporter:
        folder.mkdir(parents=True, exist_ok=True)
        return TerminalReporter(quiet=options.quiet, log=folder / "log.jsonl")

    try:
        summaries = run_ablation(options.spec, options.assignments, grid, parent, reporter, stop)
    except Interrupted:
        print("interrupted; to go on, run the same command again", file=sys.stderr)
        raise
    if not summaries:
        raise SearchFailed(f"{parent}: no cell of the ablation could be completed")
    write_description(parent, grid, sys.argv)
    found = rows(summaries)
    baseline = baseline_of(found, options.baseline or spec.ablation.baseline)
    write_comparison(found, baseline, parent)
    _show(found, baseline)
    print(f"written to {parent}: comparison.csv, comparison.md, comparison.png")
    return 0


def compare(options: argparse.Namespace, _: threading.Event) -> int:
    """Compare finished runs."""
    settings = settings_of(options.folders)
    found = rows([summarise(f, said) for f, said in zip(options.folders, settings, strict=True)])
    baseline = baseline_of(found, options.baseline)
    _show(found, baseline)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        write_comparison(found, baseline, options.output)
    return 0


def _show(found: Sequence[Row], baseline: Row) -> None:
    print_columns(PlainConsole(), header(found, baseline), lines(found, baseline), SPARE)

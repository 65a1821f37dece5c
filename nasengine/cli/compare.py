"""The commands that compare runs: ablate and compare."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from nasengine.cli.columns import print_columns
from nasengine.cli.plain import PlainConsole
from nasengine.cli.terminal import CellReporter, TerminalReporter
from nasengine.errors import Interrupted, SearchFailed
from nasengine.files import make_folder
from nasengine.runs.spec import check_spec, override, read_toml
from nasengine.studies.ablation import Ablation, runs_of
from nasengine.studies.ablation_run import run_ablation
from nasengine.studies.comparison import Baseline, Row, baseline_of, rows
from nasengine.studies.comparison_notes import notes
from nasengine.studies.comparison_table import FILES, SPARE, header, lines, write_comparison
from nasengine.studies.grid import parse_vary
from nasengine.studies.settings import settings_of
from nasengine.studies.summary import summarise


def ablate(options: argparse.Namespace, stop: threading.Event) -> int:
    """Run a grid of overrides and seeds, and compare."""
    table, _ = override(read_toml(options.spec), options.assignments)
    spec = check_spec(table)
    asked_by = "--baseline" if options.baseline else "ablation.baseline"
    baseline = options.baseline or spec.ablation.baseline
    varied = {**spec.ablation.vary, **parse_vary(options.vary)}
    parent: Path = options.into or Path("runs") / f"{spec.name}-ablation"
    ablation = Ablation.load(options.spec, options.assignments, varied, parent)
    baseline_of(ablation.planned_rows, baseline, asked_by)  # Before all cells have run.

    screen = TerminalReporter(quiet=options.quiet)

    def reporter(folder: Path) -> CellReporter:
        return CellReporter(screen, make_folder(folder) / "log.jsonl")

    try:
        found = rows(run_ablation(ablation, reporter, stop, sys.argv, screen))
    except Interrupted:
        print("interrupted; to go on, run the same command again", file=sys.stderr)
        raise
    if not any(run.values for row in found for run in row.runs.values() if run.trials):
        raise SearchFailed(f"{parent}: no cell of the ablation could be completed")
    compared = baseline_of(found, baseline, asked_by)
    write_comparison(found, compared, parent)
    _show(found, compared)
    print(f"written to {parent}: {', '.join(FILES)}")
    return 0


def compare(options: argparse.Namespace, _: threading.Event) -> int:
    """Compare finished runs."""
    folders = [run for folder in options.folders for run in runs_of(folder)]
    settings = settings_of(folders)
    found = rows([summarise(f, said) for f, said in zip(folders, settings, strict=True)])
    baseline = baseline_of(found, options.baseline)
    _show(found, baseline)
    if options.output:
        write_comparison(found, baseline, make_folder(options.output))
    return 0


def _show(found: Sequence[Row], baseline: Baseline) -> None:
    console = PlainConsole()
    print_columns(console, header(found, baseline), lines(found, baseline), SPARE)
    for note in notes(found, baseline):
        console.print(f"- {note}", highlight=False, soft_wrap=True)

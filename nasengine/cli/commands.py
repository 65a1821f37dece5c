"""The commands that work: run, resume, check, measure."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasengine.architecture import Architecture, given_architecture
from nasengine.cli import tables
from nasengine.cli.plain import PlainConsole
from nasengine.cli.terminal import TerminalReporter
from nasengine.errors import (
    EstimationFailed,
    InputError,
    Interrupted,
    SpecError,
    did_you_mean,
)
from nasengine.estimator import Estimator
from nasengine.machine import threads
from nasengine.plugin import build, installed
from nasengine.runs import session
from nasengine.runs.execution import Job
from nasengine.runs.experiment import Experiment
from nasengine.runs.goals import known_metrics, not_yet_measured
from nasengine.runs.measuring import measure as measure_architecture
from nasengine.runs.own_code import command_on
from nasengine.runs.run_folder import RunFolder
from nasengine.trial import Status


def run(options: argparse.Namespace, stop: threading.Event) -> int:
    """Run a spec in a new folder."""
    experiment = Experiment.load(options.spec, options.assignments)
    reporter = TerminalReporter(quiet=options.quiet)
    with session.begin(experiment, options.runs, reporter, stop) as run_folder:
        return _go_on(experiment, run_folder, reporter, stop)


def resume(options: argparse.Namespace, stop: threading.Event) -> int:
    """Go on with a run."""
    folder: Path = options.folder
    with RunFolder(folder) as run_folder:
        reporter = TerminalReporter(quiet=options.quiet)
        accepting = reporter if options.accept_changes else None
        experiment = session.reopened(run_folder, options.assignments, options.code, accepting)
        if run_folder.storage.fact("finished", bool, False) and not options.assignments:
            print(f"{folder} is finished: see {folder / 'best'}")
            return 0
        return _go_on(experiment, run_folder, reporter, stop)


def _go_on(
    experiment: Experiment,
    run_folder: RunFolder,
    reporter: TerminalReporter,
    stop: threading.Event,
) -> int:
    try:
        outcome = session.go_on(experiment, run_folder, reporter, stop)
    except Interrupted:
        command = command_on(run_folder.path, "resume")
        print(f"interrupted; to go on: {command}", file=sys.stderr)
        raise
    tables.show_outcome(PlainConsole(), outcome, run_folder.path)
    return 0


def check(options: argparse.Namespace, stop: threading.Event) -> int:
    """Check a spec: everything but the work."""
    from nasengine.census import telling
    from nasengine.delivery.writable import not_writable
    from nasengine.tasks.contact_sheet import draw_samples

    if isinstance(options.data, str) and Path(options.data).suffix.lower() != ".png":
        raise InputError(f"--data {options.data}: the picture is a .png")
    experiment = Experiment.load(options.spec, options.assignments)
    with tempfile.TemporaryDirectory() as folder, threads(experiment.spec.threads):
        reporter = TerminalReporter(PlainConsole(stderr=True), quiet=options.json)
        search = experiment.search(Path(folder), reporter, stop, not_yet_measured)
        limits = experiment.check_ahead(search)
        notes = [*experiment.notes, *limits, *not_writable(search.space.graph)]
        search.pause_point()
        facts = tables.check_facts(experiment, search)
        for text in tables.beyond(facts, search):
            reporter.warn(text)
        search.pause_point()
        if options.data:
            facts["data"] = tables.data_facts(search)
            facts["files"] = list(search.splits.facts)
            facts["doubts"] = list(search.splits.doubts)  # Shown as warnings already.
        if isinstance(options.data, str):
            if len(search.task.input_shape) != 3:
                raise InputError(f"--data {options.data}: samples that are no images; --data alone")
            drawn = telling(search.splits.train)
            draw_samples(drawn, Path(options.data), classes=search.task.usage.classes)
            facts["picture"] = {"path": options.data, "samples": len(drawn)}
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        tables.show_check(PlainConsole(), facts, notes, reporter.warned)
    return 0


def measure(options: argparse.Namespace, stop: threading.Event) -> int:
    """Measure one architecture by a spec's estimators."""
    experiment = Experiment.load(options.spec, options.assignments)
    estimators = experiment.estimators
    if options.estimators:
        estimators = chosen_estimators(experiment, options.estimators)
    experiment = experiment.for_measuring(estimators)
    architecture = given_architecture(
        options.architecture, experiment.space, where="--architecture"
    )
    reporter = TerminalReporter(PlainConsole(stderr=True), quiet=options.quiet or options.json)
    with tempfile.TemporaryDirectory() as folder, threads(experiment.spec.threads):
        search = experiment.search(Path(folder), reporter, stop)
        job = Job("measured", architecture, stop_early=False)
        measured = measure_architecture(search, job)
        units = {name: metric.unit for name, metric in known_metrics(search).items()}
    found = measured.measurements
    if options.json:
        facts = {**_as_json(architecture, found, units), "failed": measured.failed}
        print(json.dumps(facts, indent=2))
    elif found:
        tables.show_measured(PlainConsole(), options.architecture, found, units)
    if measured.status is not Status.COMPLETE:
        raise EstimationFailed(f"{options.architecture}: {measured.reason}")
    return 0


def chosen_estimators(experiment: Experiment, names: str) -> Mapping[str, Estimator]:
    """Return the named estimators: of the spec, final ones too, or installed ones by default.

    Raises
    ------
    SpecError
        If there is no such estimator, in the spec or installed.
    """
    own = experiment.all_estimators
    known = {**dict.fromkeys(installed("estimator")), **own}
    chosen = {}
    for name in names.split(","):
        if name not in known:
            raise SpecError(f"--estimators: no estimator {name!r}; {did_you_mean(name, known)}")
        chosen[name] = own.get(name) or build(Estimator, {"name": name}, where=f"estimators.{name}")
    return chosen


def _as_json(
    architecture: Architecture, found: Mapping[str, Any], units: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "architecture": dict(architecture),
        "measurements": {
            name: {"value": m.value, "unit": units[name], "details": m.details}
            for name, m in found.items()
        },
    }

"""The commands that study estimators: latency-table and correlate."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from nasengine.cli.commands import chosen_estimators
from nasengine.cli.plain import PlainConsole
from nasengine.cli.terminal import TerminalReporter
from nasengine.errors import SpecError, did_you_mean
from nasengine.estimator import Estimator
from nasengine.files import make_folder
from nasengine.machine import threads
from nasengine.runs.experiment import Experiment
from nasengine.runs.goals import known_metrics
from nasengine.statistics import spearman_interval
from nasengine.studies.correlation import correlate as correlate_estimators
from nasengine.studies.correlation import measured_under, plot

FEW = 10
"""Architectures under which a rank correlation says next to nothing, unless they are all."""


def write_table(options: argparse.Namespace, stop: threading.Event) -> int:
    """Measure this device's cost table into a file."""
    experiment = Experiment.load(options.spec, options.assignments)
    able = {
        key: estimator
        for key, estimator in experiment.all_estimators.items()
        if type(estimator).write_table is not Estimator.write_table
    }
    key = options.estimator or next(iter(able), "")
    if not able:
        raise SpecError(f"{options.spec}: no estimator that writes a table file, as latency does")
    if key not in able:
        near = did_you_mean(key, able)
        raise SpecError(f"{options.spec}: no estimator {key!r} that writes a table file; {near}")
    experiment = experiment.for_measuring({key: able[key]})
    reporter = TerminalReporter(quiet=options.quiet)
    with tempfile.TemporaryDirectory() as folder, threads(experiment.spec.threads):
        search = experiment.search(Path(folder), reporter, stop)
        able[key].write_table(search, options.output)
    print(f"{options.output}: to search for this device from anywhere, set")
    print(f'  [estimators.{key}]\n  table = "{options.output}"')
    return 0


def correlate(options: argparse.Namespace, stop: threading.Event) -> int:
    """Say how well one estimator ranks what another measures."""
    experiment = Experiment.load(options.spec, options.assignments)
    estimators = chosen_estimators(experiment, options.estimators)
    if len(estimators) != 2:
        raise SpecError(
            f"--estimators: two are needed, as in parameters,iou; got {options.estimators}"
        )
    if options.samples < 3:
        raise SpecError(f"--samples: at least 3 are needed; got {options.samples}")
    under = measured_under(experiment, estimators)
    experiment = experiment.for_measuring(estimators)
    reporter = TerminalReporter(PlainConsole(stderr=True), quiet=options.quiet or options.json)
    output: Path | None = options.output
    if output is not None:
        make_folder(output)
    with tempfile.TemporaryDirectory() as folder, threads(experiment.spec.threads):
        search = experiment.search(Path(folder), reporter, stop)
        kept = output / "values.json" if output else None
        first, second = estimators
        found = correlate_estimators(search, first, second, options.samples, kept, under)
        units = [known_metrics(search)[key].unit for key in estimators]
    said = found.agreement()
    for reason, count in found.failed.items():
        reporter.warn(f"{count} not measured: {reason}")
    if len(found.values) < min(FEW, search.space.size):
        reporter.warn(
            f"{len(found.values)} architectures are too few to judge a ranking by: "
            f"take --samples {FEW} or more"
        )
    if output is not None:
        plot(found, units, output / "scatter.png")
    if options.json:
        interval = spearman_interval(said["spearman"], len(found.values))
        told = {**said, **dict(zip(("spearman_low", "spearman_high"), interval, strict=True))}
        known = {name: None if math.isnan(value) else value for name, value in told.items()}
        print(json.dumps({"architectures": len(found.values), **known}, indent=2))
    else:
        _print_agreement(first, second, len(found.values), said)
    return 0


def _print_agreement(first: str, second: str, count: int, said: Mapping[str, float]) -> None:
    print(f"{first} ranks what {second} measures, on {count} architectures:")
    if math.isnan(said["spearman"]):
        print("  no ranking: one of the two gives all of them the same value")
        return
    low, high = spearman_interval(said["spearman"], count)
    sure = "" if math.isnan(low) else f" [95% interval {low:.3f} to {high:.3f}]"
    print(f"  Spearman {said['spearman']:.3f}{sure}, Kendall {said['kendall']:.3f}, n = {count}")

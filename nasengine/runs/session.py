"""A run from its beginning, or from where it was: what the command line and Python both call."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nasengine.errors import SpecError
from nasengine.log import LogReporter
from nasengine.machine import threads
from nasengine.reporter import Reporter
from nasengine.runs import run as whole_run
from nasengine.runs.experiment import Experiment
from nasengine.runs.export import chosen, export_network, make_place
from nasengine.runs.goals import not_yet_measured
from nasengine.runs.own_code import passed_again
from nasengine.runs.run import Outcome
from nasengine.runs.run_folder import RunFolder


def run(
    spec: str | Path | Mapping[str, Any],
    *assignments: str,
    runs: str | Path = "runs",
    reporter: LogReporter | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Run a spec in a new folder: search, measure the references, deliver.

    Parameters
    ----------
    spec
        A TOML file, or the tables that one would hold.
    assignments
        Overrides, ``"strategy.name=random"``.
    runs
        Where the run's folder is made; `Outcome.folder` tells it.
    reporter
        Told what happens; by default it is only kept in the folder's ``log.jsonl``.
    stop
        Set from elsewhere to ask it to stop.

    Raises
    ------
    SpecError, PluginError, SpaceError, DataError
        If the spec or the data cannot be used; before there is a folder, where it can be known.
    SearchFailed
        If no trial could be measured in full.
    Interrupted
        If `stop` was set: `resume` goes on.
    """
    experiment = (
        Experiment.from_table(spec, Path.cwd(), assignments)
        if isinstance(spec, Mapping)
        else Experiment.load(Path(spec), assignments)
    )
    with begin(experiment, Path(runs), reporter, stop) as folder:
        return go_on(experiment, folder, reporter, stop)


def resume(
    folder: str | Path,
    *assignments: str,
    code: Sequence[str] = (),
    accept_changes: bool = False,
    reporter: LogReporter | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Go on with a run; a finished one is read, and delivers what it did.

    Parameters
    ----------
    folder
        The run's folder.
    assignments
        Overrides of ``budget.*`` and ``execution.*``.
    code
        Your own files with plugins that the run uses: a folder alone never makes code run.
    accept_changes
        Go on although your own code or packages changed since the run began: you say that it
        changes no result. What changed is kept in the log, and told in the report.
    reporter, stop
        As of `run`.

    Raises
    ------
    RunFolderError
        If it holds no run, is damaged, or spec, space, data or packages have changed.
    SpecError
        If something else is overridden.
    SearchFailed, Interrupted
        As of `run`.
    """
    with RunFolder(Path(folder)) as held:
        log = _logging(held, reporter)
        accepting = log if accept_changes else None
        return go_on(reopened(held, assignments, code, accepting), held, log, stop)


def export(
    folder: str | Path,
    into: str | Path | None = None,
    *,
    trial: int | None = None,
    reference: str | None = None,
    code: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> Path:
    """Deliver a network of a run as ``best/`` holds the best one: weights, ONNX, PyTorch.

    Parameters
    ----------
    folder
        The run's folder.
    into
        Where to: a new or an empty folder; by default one below the run's folder.
    trial, reference
        Which network, by a trial's number or a reference's name; by default the one in ``best/``.
    code
        As of `resume`.
    reporter
        Told how far it is, and what could not be delivered, and why.

    Returns
    -------
    Where it is.

    Raises
    ------
    RunFolderError
        If there is no such network, its weights were not kept, or `into` holds something.
    """
    with RunFolder(Path(folder)) as held:
        experiment = Experiment.load(held.path / "spec.toml", passed_again(held.path, code))
        # What is written is held against the network itself, whatever the packages' versions.
        held.check_identity(experiment, but=("packages",))
        network = chosen(held, trial, reference)
        place = make_place(held, network, None if into is None else Path(into))
        told = reporter or Reporter()
        for problem in export_network(experiment, held, network, place, told):
            told.warn(problem)
        return place


def begin(
    experiment: Experiment,
    runs: Path,
    reporter: Reporter | None = None,
    stop: threading.Event | None = None,
) -> RunFolder:
    """Make a run's folder, once all that can be refused before there is one is refused."""
    with tempfile.TemporaryDirectory() as scratch:
        check_first(experiment, Path(scratch), reporter, stop)
        return RunFolder.create(runs, experiment, sys.argv, Path(scratch))


def check_first(
    experiment: Experiment,
    folder: Path,
    reporter: Reporter | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Refuse all that can be refused before anything runs, as it would be measured in the run.

    What the search measures for it (a latency table, where there is a target) lies in `folder`.
    """
    with threads(experiment.spec.threads):
        search = experiment.search(folder, reporter, stop, not_yet_measured)
        experiment.check_ahead(search)
        search.pause_point()


def reopened(
    folder: RunFolder,
    assignments: Sequence[str],
    code: Sequence[str],
    accepting: LogReporter | None = None,
) -> Experiment:
    """Return the experiment of a run, held to what it began with.

    Own code and packages that changed are taken up where there is a log to tell it (`accepting`).
    """
    for assignment in assignments:
        if not assignment.startswith(("budget.", "execution.")):
            raise SpecError(
                f"--set {assignment!r}: a resume may change budget.* and execution.* alone"
            )
    overrides = [*passed_again(folder.path, code), *assignments]
    experiment = Experiment.load(folder.path / "spec.toml", overrides)
    if accepting is not None:
        folder.accept_changes(experiment, _logging(folder, accepting))
    folder.check_identity(experiment)
    if overrides:  # Workers read the kept spec: where code lies now is part of it.
        folder.write_spec(experiment)
    return experiment


def go_on(
    experiment: Experiment,
    folder: RunFolder,
    reporter: LogReporter | None,
    stop: threading.Event | None,
) -> Outcome:
    """Run in a folder from wherever it is, and keep its log there."""
    reporter = _logging(folder, reporter)
    for note in experiment.notes:
        reporter.note(note)
    reporter.note(f"run folder: {folder.path}")
    return whole_run.run(experiment, folder, reporter, stop)


def _logging(folder: RunFolder, reporter: LogReporter | None) -> LogReporter:
    """Return a reporter that keeps its log in a run's folder."""
    reporter = reporter or LogReporter()
    reporter.log = folder.path / "log.jsonl"
    return reporter

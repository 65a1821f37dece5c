"""Any network of a run that has weights, delivered as the best one is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nasengine.architecture import check_architecture
from nasengine.errors import RunFolderError, did_you_mean
from nasengine.files import make_folder, write_json
from nasengine.objectives import Objectives
from nasengine.reporter import Reporter
from nasengine.runs.delivered import deliver_network, measured_facts, usage, weights_of
from nasengine.runs.experiment import Experiment
from nasengine.runs.goals import known_metrics
from nasengine.runs.run_files import read_result
from nasengine.runs.run_folder import RunFolder
from nasengine.search import Search
from nasengine.trial import Status, Trial


def chosen(run: RunFolder, number: int | None, reference: str | None) -> Trial:
    """Return a network of a run, with all that was measured of it; by default the best one.

    Raises
    ------
    RunFolderError
        If there is none of that number or name, both are given, or it left no weights: with what
        to do about it.
    """
    if number is not None and reference is not None:
        raise RunFolderError(f"{run.path}: a trial and a reference are named; name one of them")
    if reference is not None:
        found = _reference(run, reference)
    else:
        found = _trial(run, _delivered(run.path) if number is None else number)
    if not weights_of(run.path, found).is_file():
        raise RunFolderError(f"{run.path}: {found.said} has no weights: {_why(found)}")
    return found


def _reference(run: RunFolder, name: str) -> Trial:
    known = run.storage.references()
    if name not in known:
        near = did_you_mean(name, known) if known else "the run has measured none"
        raise RunFolderError(f"{run.path}: no reference {name!r}; {near}")
    return known[name]


def _trial(run: RunFolder, number: int) -> Trial:
    history = run.storage.history()
    found = next((trial for trial in history if trial.number == number), None)
    if found is None:
        there = f"there are 0 to {len(history) - 1}" if len(history) else "there is none yet"
        raise RunFolderError(f"{run.path}: no trial {number}; {there}")
    return replace(found, measurements={**found.measurements, **run.storage.final(number)})


def _delivered(folder: Path) -> int:
    """Return the number of the trial that ``best/`` holds."""
    if not (folder / "best" / "metrics.json").is_file():
        raise RunFolderError(f"{folder}: nothing is delivered yet: name a trial or a reference")
    return read_result(folder).searched.trial


def _why(trial: Trial) -> str:
    """Say why a network was not trained, and what to do."""
    if trial.reason.startswith("as trial"):
        return f"it is the same network {trial.reason}: export that one"
    ended = f"{trial.status.value}: {trial.reason}" if trial.reason else trial.status.value
    return (
        f"no estimator has trained it ({ended}); an estimator named 'trained' in [estimators] "
        f"trains every trial, in [final.estimators] the best one and the references"
    )


def make_place(run: RunFolder, trial: Trial, into: Path | None) -> Path:
    """Return the folder to write to, which is empty.

    Raises
    ------
    RunFolderError
        If it holds something already, or is no folder.
    """
    place = into or run.path / "exported" / trial.label
    if place.exists() and not place.is_dir():
        raise RunFolderError(f"{place}: is a file; a folder is needed")
    if place.is_dir() and any(place.iterdir()):
        raise RunFolderError(f"{place}: holds files already; name another folder with -o")
    return make_folder(place)


def export_network(
    experiment: Experiment, run: RunFolder, trial: Trial, place: Path, reporter: Reporter
) -> list[str]:
    """Write what ``best/`` holds of its network, of this one.

    Returns
    -------
    What could not be delivered, and why, a line each; and that it was not measured in full.
    """
    # Nothing is measured: neither the run's device nor its limits are needed.
    search = Search(
        experiment.space,
        experiment.task,
        experiment.all_estimators,
        Objectives(()),
        experiment.spec.seed,
        "cpu",
        run.path,
        reporter=reporter,
    )
    # A trial's choices, or a reference's, which may be baselines.
    where = f"{run.storage.path}: damaged: {trial.said}"
    architecture = check_architecture(trial.architecture, search.space.fillings, where=where)
    use = usage(search, architecture)
    problems = deliver_network(search, architecture, weights_of(run.path, trial), place, use)
    measured = measured_facts(trial, known_metrics(search))
    write_json(place / "metrics.json", {"network": trial.said, "usage": use, **measured})
    if trial.status is not Status.COMPLETE:
        ended = f"{trial.said} is {trial.status.value}: {trial.reason}"
        problems.append(f"{ended}; its weights are those of its last training until then")
    return problems

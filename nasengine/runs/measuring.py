"""Measuring one architecture: estimator by estimator, and whose fault it is where one fails."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nasengine.errors import EstimationFailed, InputError, SpaceError, StorageError
from nasengine.estimator import Candidate, Estimator, by_effort
from nasengine.files import parse_json
from nasengine.guard import describe, free_memory, guarded
from nasengine.metric_names import estimator_of, full_name
from nasengine.reporter import Reporter, Within
from nasengine.runs.execution import Job, Measured
from nasengine.runs.failures import said
from nasengine.runs.going_on import say_broken
from nasengine.search import Search
from nasengine.trial import Measurement, Status, check_details


def measure(search: Search, job: Job) -> Measured:
    """Measure one architecture with every estimator, the cheap ones first.

    No screen holds it back; see `measure_on`.
    """
    measured = measure_on(search, job)
    while measured.status is Status.RUNNING:
        measured = measure_on(search, job.after(measured))
    return measured


def measure_on(search: Search, job: Job) -> Measured:
    """Measure one architecture with the next estimators, the cheap ones first.

    Up to the end, or to where the engine has something to do: to ask a screen, or to keep what took
    a training while another one is to come. Then it is still running.

    A trial fails with an estimator that an objective names. What is recorded beside costs no
    trial where it cannot be measured: the reason is told, and the winner is measured again.

    Parameters
    ----------
    search
        The search.
    job
        What to measure.

    Raises
    ------
    InputError, StorageError
        What is nobody's fault but the user's or the disk's is not a candidate's failure.
    Interrupted
        If the search was asked to stop; between two estimators, or where one allows it.
    """
    began, found, failed = time.monotonic(), dict(job.known), dict(job.failed)
    status, reason = _measure_into(found, failed, search, job)
    return Measured(status, found, reason, job.spent + time.monotonic() - began, failed)


def _measure_into(
    found: dict[str, Measurement], failed: dict[str, str], search: Search, job: Job
) -> tuple[Status, str]:
    """Add what is found to what was before, and what fails; return how it stands, and why."""
    needed = {*search.estimators}
    if job.stop_early:
        needed = {estimator_of(objective.metric) for objective in search.objectives.items}
    for key, estimator in by_effort(search.estimators):
        if key in found or key in failed:
            continue
        search.pause_point()
        telling = replace(search, reporter=_telling_of(search, job, key))
        reason = _failure(key, estimator, Candidate(job.architecture, telling, job.label, found))
        if reason:
            failed[key] = reason
            if not estimator.counts:  # What only counts holds nothing, and this takes 0.1 s.
                free_memory()
        if job.stop_early and (told := say_broken(search, found)):
            return Status.INFEASIBLE, told
        if reason and job.stop_early and key in needed:
            break
        if not reason and _is_break(search, job, key, found):
            return Status.RUNNING, ""
    told = "; ".join(f"{key}: {reason}" for key, reason in failed.items())
    return (Status.FAILED if failed.keys() & needed else Status.COMPLETE), told


def _is_break(search: Search, job: Job, key: str, found: Mapping[str, Measurement]) -> bool:
    """Say whether the engine has something to do when an estimator has measured."""
    if job.stop_early and key in map(estimator_of, search.objectives.screens):
        return True
    order = [name for name, _ in by_effort(search.estimators)]
    to_come = order[order.index(key) + 1 :]
    return search.estimators[key].trains and any(name not in found for name in to_come)


def _telling_of(search: Search, job: Job, key: str) -> Reporter:
    """Return a reporter that says what is measured, by which estimator."""
    about = f"{job.label.replace('-', ' ', 1)}, {key}"
    return Within(search.reporter, about, {"estimator": key})


def _failure(key: str, estimator: Estimator, candidate: Candidate) -> str:
    """Measure by one estimator, into the candidate's measurements; return why it failed."""
    try:
        with guarded(candidate.search.seed, candidate.label, key):
            measured = _measured_by(key, estimator, candidate)
    except (EstimationFailed, SpaceError) as error:
        return describe(error)
    except (InputError, StorageError):
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 a candidate may raise anything
        return said(error, candidate.search, estimator)
    candidate.measurements.update(measured)
    return ""


def _measured_by(key: str, estimator: Estimator, candidate: Candidate) -> dict[str, Measurement]:
    primary, *others = (metric.name for metric in estimator.metrics(candidate.search))
    measured = estimator.measure(candidate)
    _check_answer(measured)
    if primary not in measured:
        raise EstimationFailed(f"{primary} is not among what was measured")
    for name in measured:
        if name not in (primary, *others):
            raise EstimationFailed(f"{name!r} was measured, which is none of its metrics")
    found = {full_name(key, name, primary): _kept(name, m) for name, m in measured.items()}
    for objective in candidate.search.objectives.items:
        if estimator_of(objective.metric) == key and objective.metric not in found:
            raise EstimationFailed(f"{objective.metric}, an objective, is not among what it gave")
    return found


def _check_answer(measured: object) -> None:
    """Refuse what is no mapping from a metric's name to its measurement."""
    if not isinstance(measured, Mapping):
        found = type(measured).__name__
    elif wrong := [m for m in measured.values() if not isinstance(m, Measurement)]:
        found = f"a mapping with {type(wrong[0]).__name__}"
    else:
        return
    raise EstimationFailed(
        f"measure has to return a mapping from each metric's name to a Measurement, not {found}"
    )


def _kept(name: str, measurement: Measurement) -> Measurement:
    """Return a measurement as it can be stored, equal now and when it is read again."""
    value = float(measurement.value)
    if not math.isfinite(value):
        raise EstimationFailed(f"{name} is {value}")
    return Measurement(value, _as_kept(name, measurement.details))


def _as_kept(name: str, details: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return details as they are when the history is read again."""
    try:
        text = json.dumps(dict(details), allow_nan=False)
        found = parse_json(text, dict[str, Any])
    except (TypeError, ValueError, RecursionError) as error:
        raise EstimationFailed(f"the details of {name} are no JSON: {error}") from error
    try:
        return check_details(found)
    except ValueError as error:
        raise EstimationFailed(f"{name}: {error}") from error

"""What a run was: its spec, its machine, its time, and how to run it again."""

from __future__ import annotations

import shlex

from nasengine.quantities import format_duration
from nasengine.runs.own_code import command_on

from .html import Html, details, facts, section, tag
from .record import Record


def setting(record: Record) -> Html | None:
    """Return spec, environment, time and command."""
    environment = record.environment
    machine = facts(
        [
            ("processor", environment.processor),
            ("device", environment.device_name or environment.device),
            ("threads", environment.threads),
            ("system", environment.system),
            ("Python", environment.python),
            *sorted(environment.packages.items()),
        ]
    )
    spec = record.file("spec.toml") or b""
    return section(
        "How to run it again",
        *_going_on(record),
        tag("p", "The resolved spec, with every default filled in, lies in the run's folder:"),
        tag("pre", f"nasengine run {shlex.quote(str(record.folder / 'spec.toml'))}"),
        *_began(record),
        tag("h3", "Time"),
        _times(record),
        tag("h3", "Machine and versions"),
        machine,
        details("spec.toml", tag("pre", spec.decode("utf-8", "replace"))),
    )


def _going_on(record: Record) -> list[Html]:
    if record.finished:
        return []
    command = command_on(record.folder, "resume")
    return [tag("p", "Where it was interrupted, it goes on with:"), tag("pre", command)]


def _began(record: Record) -> list[Html]:
    command = record.environment.command
    if not command:
        return []
    said = shlex.join(["nasengine", *command[1:]])
    return [tag("p", "It began with:"), tag("pre", said)]


def _times(record: Record) -> Html:
    supernet = [event.seconds for event in record.log.iterations]
    references = sum(trial.seconds for trial in record.references.values())
    measuring = sum(trial.seconds for trial in record.history)
    return facts(
        [
            ("search in all", format_duration(record.seconds)),
            ("of it, the supernet", format_duration(supernet[-1]) if supernet else None),
            ("of it, measuring trials", format_duration(measuring)),
            ("references", format_duration(references) if references else None),
        ]
    )

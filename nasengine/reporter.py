"""How the engine tells what it does; the command line shows it, a library user may ignore it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nasengine.trial import Metric, Trial


class Progress:
    """The progress of one piece of work; this one shows nothing."""

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        """Say that steps were done, with facts to show beside the bar (``loss=0.31``)."""


class Reporter:
    """Receives what happens; this one keeps nothing and shows nothing."""

    def begin(self, metrics: Mapping[str, Metric]) -> None:
        """Tell which metrics the trials to come will have, by full name."""

    def note(self, text: str) -> None:
        """Tell something worth a line."""

    def warn(self, text: str) -> None:
        """Tell something that the user should act on or know when judging the result."""

    def trial(self, trial: Trial) -> None:
        """Tell that a trial has ended and is durable."""

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Keep facts (JSON values) that explain the run: one line in its log."""

    @contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Progress]:  # noqa: ARG002
        """Show the progress of a piece of work of so many steps."""
        yield Progress()


class Within(Reporter):
    """Tells another reporter what is told within one piece of work, and which work that is.

    Parameters
    ----------
    reporter
        Who is told.
    about
        The work: stands before the description of every part of it.
    facts
        The same for records.
    """

    def __init__(self, reporter: Reporter, about: str, facts: Mapping[str, Any]) -> None:
        self._reporter, self._about, self._facts = reporter, about, facts

    def note(self, text: str) -> None:
        """Pass on a note."""
        self._reporter.note(text)

    def warn(self, text: str) -> None:
        """Pass on a warning."""
        self._reporter.warn(text)

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Pass on facts, with those of the work."""
        self._reporter.record(kind, {**self._facts, **facts})

    @contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Progress]:
        """Show the progress of a part of the work."""
        with self._reporter.progress(f"{self._about}: {description}", total, done) as shown:
            yield shown

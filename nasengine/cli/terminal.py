"""What a search looks like in a terminal: bars with the time left, trial lines, warnings.

Without a terminal the same facts come as plain lines, one in ten seconds at most. Either way the
run's log is kept (`nasengine.log`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nasengine.cli.plain import PlainConsole
from nasengine.log import LogReporter
from nasengine.metric_names import is_primary
from nasengine.quantities import format_count, format_duration, format_quantity
from nasengine.reporter import Progress
from nasengine.trial import Metric, Status, Trial

SHOW_AFTER = 2.0
"""Seconds after which work gets a bar; what is quicker would only flicker."""

WIDE = 100
"""Columns of a terminal in which bars are long."""

LINE_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""


@dataclass
class Work:
    """One piece of work in progress.

    Parameters
    ----------
    description
        What it is.
    total, done
        Steps in all, and so far; `done` is the first estimate's start after a resume.
    started
        When, by the reporter's clock.
    """

    description: str
    total: int
    done: int
    started: float
    facts: str = ""

    def __post_init__(self) -> None:
        self.first = self.done

    def left(self, now: float) -> float:
        """Return the seconds left at the mean pace so far; NaN before the first step."""
        steps = self.done - self.first
        if steps <= 0:
            return math.nan
        return (now - self.started) / steps * max(0, self.total - self.done)

    def cells(self, now: float) -> tuple[str, str, str]:
        """Return steps, time left and facts as text."""
        left = self.left(now)
        remaining = "" if math.isnan(left) else f"{format_duration(max(left, 1.0))} left"
        return f"{self.done}/{self.total}", remaining, self.facts

    def line(self, now: float) -> str:
        """Return it all as text."""
        return "  ".join(filter(None, [self.description, *self.cells(now)]))


class TerminalReporter(LogReporter):
    """Shows a search on a console and keeps its log.

    Parameters
    ----------
    console
        Where notes, trials and progress go; with `stderr=True` standard output is left
        to what a script reads.
    errors
        Where warnings go; standard error by default.
    quiet
        Show warnings alone.
    log
        The file of JSON lines; None for none. It may be set later, when the folder is known.
    units
        Metric to unit, so that trials show ``1.97M``; may be filled later.
    clock
        Seconds, for tests.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        errors: Console | None = None,
        quiet: bool = False,
        log: Path | None = None,
        units: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(log)
        self.console = console or PlainConsole()
        self.errors = errors or PlainConsole(stderr=True)
        self.quiet = quiet
        self.units = dict(units or {})
        self._clock = clock
        self._warned: set[str] = set()
        self._works: list[Work] = []
        self._live: Live | None = None
        self._last_line = clock()

    def begin(self, metrics: Mapping[str, Metric]) -> None:
        """Show the metrics of trials in their units from now on."""
        self.units = {name: metric.unit for name, metric in metrics.items()}

    @property
    def warned(self) -> int:
        """How many warnings were shown."""
        return len(self._warned)

    def note(self, text: str) -> None:
        """Show a line."""
        self._say(text)
        super().note(text)

    def warn(self, text: str) -> None:
        """Show a warning once, in yellow on standard error, also when quiet; the log has all."""
        super().warn(text)
        if text in self._warned:
            return
        self._warned.add(text)
        message = Text(f"warning: {text}", style="yellow")
        # Bars and a warning on one screen go through one console, or they overwrite each other.
        same_screen = self._live is not None and self.errors.is_terminal
        console = self.console if same_screen else self.errors
        console.print(message, soft_wrap=True, highlight=False)

    def trial(self, trial: Trial) -> None:
        """Show a trial's line."""
        self._say(trial_line(trial, self.units), style=_STYLES.get(trial.status, ""))
        super().trial(trial)

    @contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Progress]:
        """Show a piece of work: a bar under the ones it is part of, or lines now and then."""
        if self.quiet:
            yield Progress()
            return
        work = Work(description, total, done, self._clock())
        self._begin(work)
        try:
            yield _Shown(work, self)
        finally:
            self._end(work)
        took = self._clock() - work.started
        # What is part of other work is told by that work's own lines (the trial's, mostly).
        if not self._works and took >= SHOW_AFTER:
            parts = [description, f"{work.done}/{total}", f"in {format_duration(took)}"]
            self._say("  ".join(filter(None, [*parts, work.facts])))

    def advanced(self, work: Work, steps: int, facts: Mapping[str, float | str]) -> None:
        """Take note of steps done; without a terminal, write a line when one is due."""
        with self._lock:
            work.done += steps
            if facts:
                work.facts = "  ".join(f"{name} {_fact(value)}" for name, value in facts.items())
            now = self._clock()
            if self._live is None and now - self._last_line >= LINE_EVERY:
                self._say(" > ".join(each.line(now) for each in self._works))

    def _begin(self, work: Work) -> None:
        with self._lock:
            if not self._works:
                self._last_line = self._clock()
            self._works.append(work)
            if self._live is None and self.console.is_terminal:
                self._live = Live(
                    get_renderable=self._bars,
                    console=self.console,
                    refresh_per_second=4,
                    transient=True,
                )
                self._live.start()

    def _end(self, work: Work) -> None:
        with self._lock:
            # By identity: two pieces of work may look the same.
            self._works = [each for each in self._works if each is not work]
            live = self._live if not self._works else None
            if live is not None:
                self._live = None
        # Outside the lock: stopping waits for the thread that draws, and that one takes it.
        if live is not None:
            live.stop()

    def _bars(self) -> Text | Table:
        """Draw the work that has lasted long enough, outermost first."""
        with self._lock:
            works, now = list(self._works), self._clock()
        shown = [work for work in works if now - work.started >= SHOW_AFTER]
        if not shown:
            return Text()
        table = Table.grid(padding=(0, 2, 0, 0))
        width = 24 if self.console.width >= WIDE else 8  # What is under way is worth more.
        for depth, work in enumerate(shown):
            bar = ProgressBar(total=max(work.total, 1), completed=work.done, width=width)
            steps, left, facts = work.cells(now)
            name = Text("  " * depth + work.description, overflow="ellipsis", no_wrap=True)
            columns = (Text(steps), Text(left), Text(facts, overflow="ellipsis", no_wrap=True))
            table.add_row(name, bar, *columns)
        return table

    def _say(self, text: str, style: str = "") -> None:
        self._last_line = self._clock()
        if not self.quiet:
            self.console.print(Text(text, style=style), soft_wrap=True, highlight=False)


class CellReporter(LogReporter):
    """Keeps what an ablation's cell tells in its log; the screen has its progress and warnings.

    Parameters
    ----------
    screen
        Where all cells are shown.
    log
        The cell's file of JSON lines.
    """

    def __init__(self, screen: TerminalReporter, log: Path) -> None:
        super().__init__(log)
        self.screen = screen

    def warn(self, text: str) -> None:
        """Keep a warning, and show it if no cell before had it."""
        super().warn(text)
        self.screen.warn(text)

    @contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Progress]:
        """Show the progress under that of all cells."""
        with self.screen.progress(description, total, done) as shown:
            yield shown


class _Shown(Progress):
    def __init__(self, work: Work, reporter: TerminalReporter) -> None:
        self._work, self._reporter = work, reporter

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        self._reporter.advanced(self._work, steps, facts)


_STYLES = {
    Status.INFEASIBLE: "dim",
    Status.SCREENED: "dim",
    Status.FAILED: "red",
    Status.LOST: "red",
}


def trial_line(trial: Trial, units: Mapping[str, str]) -> str:
    """Return a trial in one line: its primary metrics, or why it has none.

    Examples
    --------
    >>> from nasengine.architecture import Architecture
    >>> from nasengine.trial import Measurement
    >>> found = {"iou": Measurement(0.712), "parameters": Measurement(980_000)}
    >>> trial = Trial(3, Architecture({}), "", Status.COMPLETE, found, seconds=72)
    >>> trial_line(trial, {"parameters": "parameters"})
    'trial 3  iou 0.712  parameters 980.00k  1.2 min'
    """
    values = [
        f"{metric} {_value(found.value, units.get(metric))}"
        for metric, found in trial.measurements.items()
        if is_primary(metric)
    ]
    status = "" if trial.status is Status.COMPLETE else trial.status.value
    status = ": ".join(filter(None, [status, trial.reason]))
    took = format_duration(trial.seconds) if trial.seconds >= 0.1 else ""
    return "  ".join(filter(None, [trial.said, *values, status, took]))


def _value(value: float, unit: str | None) -> str:
    if unit is not None:
        return format_quantity(value, unit)
    return format_count(value) if abs(value) >= 1000 else f"{value:.4g}"


def _fact(value: float | str) -> str:
    with suppress(ValueError, TypeError):
        return f"{value:.4g}"
    return str(value)

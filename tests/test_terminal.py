"""The terminal display: what is shown where, and what the log keeps."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from nasengine.architecture import Architecture
from nasengine.cli.terminal import TerminalReporter, trial_line
from nasengine.errors import StorageError
from nasengine.reporter import Within
from nasengine.trial import Measurement, Status, Trial


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Screen:
    """A reporter with its two outputs."""

    def __init__(
        self,
        *,
        terminal: bool = False,
        quiet: bool = False,
        log: Path | None = None,
        width: int = 100,
    ):
        self.out, self.err, self.clock = io.StringIO(), io.StringIO(), Clock()
        self.reporter = TerminalReporter(
            Console(file=self.out, force_terminal=terminal, width=width, color_system=None),
            errors=Console(file=self.err, force_terminal=terminal, width=100, color_system=None),
            quiet=quiet,
            log=log,
            clock=self.clock,
        )

    @property
    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()


def test_without_a_terminal_progress_is_a_line_in_ten_seconds() -> None:
    screen = Screen()
    with screen.reporter.progress("search", 400, done=100) as work:
        for _ in range(60):
            screen.clock.now += 1.0
            work.advance(loss=0.31234)
    assert screen.lines[0] == "search  110/400  4.8 min left  loss 0.3123"
    assert len(screen.lines) == 7
    assert screen.lines[-1] == "search  160/400  in 1.0 min  loss 0.3123"


def test_nested_work_is_shown_with_what_it_is_part_of() -> None:
    screen = Screen()
    with screen.reporter.progress("trials", 3) as trials:
        for _ in range(2):
            with screen.reporter.progress("train", 10) as train:
                for _ in range(10):
                    screen.clock.now += 1.5
                    train.advance()
            trials.advance()
    assert screen.lines[0] == "trials  0/3 > train  7/10  4.5 s left"
    assert screen.lines[-1].startswith("trials  2/3  in 30 s")
    assert not any(line.startswith("train") for line in screen.lines)


def test_progress_within_a_trial_says_of_which_and_by_which_estimator() -> None:
    screen = Screen()
    within = Within(screen.reporter, "trial 3, iou", {"estimator": "iou"})
    with within.progress("training 2 of 3", 10) as work:
        screen.clock.now += 11.0
        work.advance(4)
    assert screen.lines[0] == "trial 3, iou: training 2 of 3  4/10  16 s left"


def test_quick_work_leaves_no_trace() -> None:
    screen = Screen()
    with screen.reporter.progress("count", 5) as work:
        work.advance(5)
    assert screen.lines == []


def test_a_terminal_shows_bars_after_two_seconds_and_wipes_them() -> None:
    screen = Screen(terminal=True)
    reporter = screen.reporter
    with reporter.progress("trials", 3), reporter.progress("train", 10) as train:
        assert "trials" not in screen.out.getvalue()
        screen.clock.now += 5.0
        train.advance(5, loss=0.25)
        assert reporter._live is not None
        reporter._live.refresh()
        shown = screen.out.getvalue()
    assert "trials" in shown and "5/10" in shown
    assert "5.0 s left" in shown and "loss 0.25" in shown and "━" in shown
    assert reporter._live is None
    # The cursor is back where the bars began, and visible.
    assert "\x1b[?25h" in screen.out.getvalue()[len(shown) :]


def test_a_narrow_terminal_shows_what_is_under_way_and_short_bars() -> None:
    screen = Screen(terminal=True, width=80)
    with screen.reporter.progress("reference unet, full: training 2 of 3", 2000) as work:
        screen.clock.now += 9.0
        work.advance(999, loss=0.25)
        assert screen.reporter._live is not None
        screen.reporter._live.refresh()
    assert "reference unet, full: training 2 of 3" in screen.out.getvalue()
    assert "9.0 s left" in screen.out.getvalue()


def test_bars_go_when_the_work_fails() -> None:
    screen = Screen(terminal=True)
    with pytest.raises(RuntimeError), screen.reporter.progress("train", 3):
        raise RuntimeError("x")
    assert screen.reporter._live is None
    with screen.reporter.progress("train", 3):
        pass


def test_warnings_go_to_standard_error_also_when_quiet() -> None:
    screen = Screen(quiet=True)
    screen.reporter.note("a note")
    screen.reporter.trial(Trial(0, Architecture({}), "", Status.COMPLETE))
    screen.reporter.warn("margins are [within] noise")
    with screen.reporter.progress("train", 2) as work:
        screen.clock.now += 100
        work.advance(2)
    assert screen.out.getvalue() == ""
    assert screen.err.getvalue() == "warning: margins are [within] noise\n"


def test_a_warning_is_shown_once_and_kept_each_time(tmp_path: Path) -> None:
    screen = Screen(log=tmp_path / "log.jsonl")
    for text in ("few trials", "busy", "few trials"):
        screen.reporter.warn(text)
    assert screen.err.getvalue() == "warning: few trials\nwarning: busy\n"
    assert (tmp_path / "log.jsonl").read_text().count("few trials") == 2


def test_warnings_are_yellow() -> None:
    err = io.StringIO()
    console = Console(file=err, force_terminal=True, color_system="standard")
    TerminalReporter(Console(file=io.StringIO()), errors=console).warn("careful")
    assert err.getvalue().startswith("\x1b[33mwarning: careful")


def test_markup_of_users_is_text() -> None:
    screen = Screen()
    screen.reporter.note("choices [red]a[/red] and [b")
    assert screen.lines == ["choices [red]a[/red] and [b"]


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        (
            Trial(
                3,
                Architecture({}),
                "k",
                Status.COMPLETE,
                {
                    "iou": Measurement(0.7123),
                    "iou.precision": Measurement(0.9),
                    "parameters": Measurement(1_970_000),
                    "latency": Measurement(4.312),
                },
                seconds=72,
            ),
            "trial 3  iou 0.712  parameters 1.97M  latency 4.31 ms  1.2 min",
        ),
        (
            Trial(4, Architecture({}), "k", Status.INFEASIBLE, reason="parameters over 1.00M"),
            "trial 4  infeasible: parameters over 1.00M",
        ),
        (
            Trial(0, Architecture({}), "k", Status.FAILED, {}, "NaN loss", 2.0, "unet"),
            "reference unet  failed: NaN loss  2.0 s",
        ),
    ],
)
def test_trial_lines(trial: Trial, expected: str) -> None:
    units = {"iou": "", "parameters": "parameters", "latency": "ms"}
    assert trial_line(trial, units) == expected


def test_the_log_keeps_every_fact_as_json(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    screen = Screen(log=log, quiet=True)
    screen.reporter.record("alphas", {"step": 10, "loss": math.nan, "alphas": [[0.1, 0.2]]})
    screen.reporter.warn("Grüße")
    screen.reporter.trial(
        Trial(1, Architecture({}), "k", Status.COMPLETE, {"iou": Measurement(0.5)})
    )
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [line["kind"] for line in lines] == ["alphas", "warning", "trial"]
    assert lines[0]["loss"] == "nan" and lines[0]["alphas"] == [[0.1, 0.2]]
    assert lines[1]["text"] == "Grüße"
    assert lines[2]["measurements"] == {"iou": 0.5}
    assert all(line["time"].endswith("+00:00") for line in lines)


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    screen = Screen(log=tmp_path / "absent" / "log.jsonl")
    with pytest.raises(StorageError, match=r"cannot write .*log\.jsonl"):
        screen.reporter.record("x", {})

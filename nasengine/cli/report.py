"""The command that reports on a run."""

from __future__ import annotations

import argparse
import threading

from nasengine.report import write_report


def report(options: argparse.Namespace, _: threading.Event) -> int:
    """Write a run's report, from its folder alone."""
    print(write_report(options.folder, options.output))
    return 0

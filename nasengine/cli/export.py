"""The command that delivers any network of a run."""

from __future__ import annotations

import argparse
import threading

from nasengine.cli.plain import PlainConsole
from nasengine.cli.terminal import TerminalReporter
from nasengine.runs.session import export as export_network


def export(options: argparse.Namespace, _: threading.Event) -> int:
    """Deliver a network of a run as its best one is."""
    place = export_network(
        options.folder,
        options.output,
        trial=options.trial,
        reference=options.reference,
        code=options.code,
        reporter=TerminalReporter(PlainConsole(stderr=True)),
    )
    print(place)
    return 0

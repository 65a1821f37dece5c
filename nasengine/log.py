"""A run's log: what was reported along the way, one JSON object a line."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nasengine.errors import StorageError
from nasengine.files import storable
from nasengine.reporter import Reporter
from nasengine.trial import Trial


class LogReporter(Reporter):
    """Shows nothing, and keeps every note, warning, trial and record in a file.

    Parameters
    ----------
    log
        The file of JSON lines; None for none. It may be set later, when the folder is known.
    """

    def __init__(self, log: Path | None = None) -> None:
        self.log = log
        self._lock = threading.RLock()

    def note(self, text: str) -> None:
        """Keep a note."""
        self.record("note", {"text": text})

    def warn(self, text: str) -> None:
        """Keep a warning."""
        self.record("warning", {"text": text})

    def trial(self, trial: Trial) -> None:
        """Keep how a trial ended."""
        facts = {"number": trial.number, "status": trial.status.value, "seconds": trial.seconds}
        if trial.reference:
            facts["reference"] = trial.reference
        if trial.reason:
            facts["reason"] = trial.reason
        values = {name: found.value for name, found in trial.measurements.items()}
        self.record("trial", {**facts, "measurements": values})

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Append a line to the log.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        if self.log is None:
            return
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps(_finite({"time": now, "kind": kind, **facts}), allow_nan=False)
        try:
            with self._lock, self.log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise StorageError(f"cannot write {self.log}: {error.strerror or error}") from error


def _finite(value: Any) -> Any:
    """Replace the numbers that JSON does not have by their names, and text that UTF-8 has not."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {storable(str(key)): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value

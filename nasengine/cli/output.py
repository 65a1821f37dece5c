"""Standard output and error that outlive their reader: what nobody reads any more is dropped.

A terminal that was closed and a pipe whose reader has ended refuse whatever is written to them.
Neither is a reason to end a run, which keeps all that it tells in its log.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let standard output and error last as long as what is done inside."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_lasting, before)
    lasting = sys.stdout, sys.stderr
    try:
        yield
    finally:
        for stream in filter(None, lasting):
            stream.flush()  # What fails when the interpreter exits would change the exit status.
        sys.stdout, sys.stderr = before


def _lasting(stream: TextIO | None) -> Any:
    """Return a stream that lasts; none where the process was begun without one."""
    return None if stream is None else _Lasting(stream)


class _Lasting:
    """A stream that leads nowhere once its reader has gone; a disk that refuses is an error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()  # One that was closed says that it is none.

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        closed = self._is_terminal and error.errno == errno.EIO
        if not (closed or isinstance(error, BrokenPipeError)):
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # What the stream still holds goes there too.
        os.close(nowhere)

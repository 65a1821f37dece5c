"""Standard output and error that outlive their reader: what nobody reads any more is dropped.

A terminal that was closed and a pipe whose reader has ended refuse whatever is written to them.
Neither is a reason to end a run, which keeps all that it tells in its log.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let standard output and error last as long as what is done inside."""
    before = sys.stdout, sys.stderr
    with ExitStack() as opened:
        # A process may be begun without them.
        there = [s or opened.enter_context(Path(os.devnull).open("w")) for s in before]
        lasting: list[Any] = [_Lasting(stream) for stream in there]
        sys.stdout, sys.stderr = lasting
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            for stream in lasting:
                # What fails when the interpreter exits would change the exit status.
                with suppress(OSError):
                    stream.flush()


class _Lasting:
    """A stream that leads nowhere once it was refused; a disk that refuses is an error, once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()  # One that was closed says that it is none.

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._while_read():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._while_read():
            self._stream.flush()

    @contextmanager
    def _while_read(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # What the stream still holds goes there too.
            os.close(nowhere)
            closed = self._is_terminal and error.errno == errno.EIO
            if not (closed or isinstance(error, BrokenPipeError)):
                raise

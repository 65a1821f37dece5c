"""Keeping a library's log to itself, for a moment."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_NOWHERE = logging.NullHandler()


@contextmanager
def silenced(library: str) -> Iterator[None]:
    """Let nothing that a library logs be seen; its logger is as it was after.

    Its level is left alone: to change that empties a cache of every logger there is, which costs
    more than a proposal.
    """
    logger = logging.getLogger(library)
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [_NOWHERE], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate

"""Keeping what a library logs and warns of to itself, for a moment."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

_NOWHERE = logging.NullHandler()

_OF_NNI_DARTS = ("nni", "pytorch_lightning", "lightning_fabric", "lightning_utilities")


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


@contextmanager
def silent_nni_darts() -> Iterator[None]:
    """Import and run NNI's one-shot part and PyTorch Lightning without a word.

    The global generators are as they were after.
    """
    generators = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # Importing them sets the loggers up: they are silenced after.
        import nni.nas.evaluator.pytorch
        import nni.nas.oneshot.pytorch.strategy  # noqa: F401

        for library in _OF_NNI_DARTS:
            stack.enter_context(silenced(library))
        try:
            yield
        finally:
            random.setstate(generators[0])
            np.random.set_state(generators[1])

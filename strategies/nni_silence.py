"""NNI's one-shot part and PyTorch Lightning, imported and run without a word."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_LOGGERS = ("nni", "pytorch_lightning", "lightning_fabric", "lightning_utilities")


@contextmanager
def silent() -> Iterator[None]:
    """Keep logs, tips and warnings of both away, and the global generators as they were."""
    generators = random.getstate(), np.random.get_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Importing them sets the loggers up: they are turned down after.
        import nni.nas.evaluator.pytorch
        import nni.nas.oneshot.pytorch.strategy  # noqa: F401

        loggers = [logging.getLogger(name) for name in _LOGGERS]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            random.setstate(generators[0])
            np.random.set_state(generators[1])

"""NNI's one-shot part and PyTorch Lightning, imported and run without a word."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from .silence import silenced

_LIBRARIES = ("nni", "pytorch_lightning", "lightning_fabric", "lightning_utilities")


@contextmanager
def silent() -> Iterator[None]:
    """Keep logs, tips and warnings of both away, and the global generators as they were."""
    generators = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # Importing them sets the loggers up: they are silenced after.
        import nni.nas.evaluator.pytorch
        import nni.nas.oneshot.pytorch.strategy  # noqa: F401

        for library in _LIBRARIES:
            stack.enter_context(silenced(library))
        try:
            yield
        finally:
            random.setstate(generators[0])
            np.random.set_state(generators[1])

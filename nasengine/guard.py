"""What a candidate does to the process is undone before the next one is measured.

Blocks, tasks and estimators may be anyone's code. What they leave behind in the process (a reseeded
generator, another default dtype, another working folder) would change the trials that follow, and
a resumed run would differ from one that was never interrupted.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from nasengine.files import storable
from nasengine.randomness import derive_seed, kept_generators

MAX_REASON = 1000
"""Characters of a failure's reason that are kept."""

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Setting = tuple[Callable[[], Any], Callable[[Any], object]]
"""How something of the process is read, and how it is put back."""


@contextmanager
def guarded(seed: int, *labels: str | int) -> Iterator[None]:
    """Seed the process's global generators inside; put back all that can be put back after.

    Restored: the generators of `random`, NumPy and torch, torch's gradient mode, default dtype,
    default device, threads and determinism, the working folder, the environment, the warning
    filters, standard output and error, the recursion limit, and what SIGINT, SIGTERM and SIGHUP do.

    Parameters
    ----------
    seed, labels
        Where the generators' seeds come from, as in `nasengine.randomness.derive_seed`: what is
        drawn inside from a global generator is the same in every run.
    """
    settings = [*_of_the_interpreter(), *_of_torch()]
    before = [read() for read, _ in settings]
    try:
        with kept_generators():
            _seed_globals(derive_seed(seed, *labels, "globals"))
            yield
    finally:
        for (read, put), value in zip(settings, before, strict=True):
            # What is gone (a removed working folder) cannot be put back; the rest is.
            with suppress(OSError):
                if read() != value:
                    put(value)


def free_memory() -> None:
    """Free what a failed candidate held, on the device too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def describe(error: BaseException) -> str:
    """Return what an error says, whatever it is: text that can be stored, not too long.

    Examples
    --------
    >>> describe(ValueError("the block is broken"))
    'the block is broken'
    >>> len(describe(ValueError("x" * 10_000_000)))
    1003
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 a candidate's own error may be broken too
        text = "(without a message)"
    text = storable(text)
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."


def _of_the_interpreter() -> list[Setting]:
    settings: list[Setting] = [
        (lambda: dict(os.environ), _put_environment),
        (lambda: list(warnings.filters), _put_filters),
        (lambda: sys.stdout, lambda value: setattr(sys, "stdout", value)),
        (lambda: sys.stderr, lambda value: setattr(sys, "stderr", value)),
        (sys.getrecursionlimit, sys.setrecursionlimit),
        (_working_folder, os.chdir),
    ]
    if threading.current_thread() is threading.main_thread():
        settings += [_of_signal(number) for number in _STOPPING]
    return settings


def _working_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 a Path would not tell a removed folder from another
    except OSError:
        return ""


def _put_environment(before: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)


def _put_filters(before: list[Any]) -> None:
    warnings.resetwarnings()  # Tells the interpreter that what it remembers of them is stale.
    warnings.filters[:] = before  # type: ignore[index]


def _of_signal(number: int) -> Setting:
    def put(before: Any) -> None:
        if before is not None:  # One that was not set from Python cannot be put back from it.
            signal.signal(number, before)

    return (lambda: signal.getsignal(number)), put


def _of_torch() -> list[Setting]:
    """Return torch's settings; what has not been imported has none."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []

    def put_determinism(before: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])

    return [
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.get_default_device, torch.set_default_device),
        (torch.get_num_threads, torch.set_num_threads),
        (
            lambda: (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            put_determinism,
        ),
    ]


def _seed_globals(seed: int) -> None:
    random.seed(seed)
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
    if torch is not None:
        # Not torch.manual_seed, which takes a third of a millisecond for devices that are not used.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)

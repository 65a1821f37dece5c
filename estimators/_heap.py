"""The C library's heap, which keeps its memory while latency is measured."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MIB = 1 << 20


@contextlib.contextmanager
def kept_heap() -> Iterator[None]:
    """Have glibc keep freed memory inside, instead of giving it back to the kernel at once.

    Given back, it is fetched again page by page in the next run: up to a tenth of a small network's
    time in eager mode, or nothing, by where in the heap its tensors happen to lie. That is no
    property of an architecture. Runtimes with an arena (onnxruntime, CUDA) keep theirs anyway.
    """
    library = _glibc()
    if library is None:
        yield
        return
    # 32 MiB where glibc allows no more for the second.
    library.mallopt(_M_TRIM_THRESHOLD, 2047 * _MIB)
    library.mallopt(_M_MMAP_THRESHOLD, 1024 * _MIB) or library.mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
    try:
        yield
    finally:
        # Where its own adjustment ends at most; what is set by hand is adjusted no more.
        library.mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
        library.mallopt(_M_TRIM_THRESHOLD, 64 * _MIB)
        library.malloc_trim(0)


def heap() -> str:
    """Say what the heap does while latency is measured, for a table's facts."""
    return "as it is" if _glibc() is None else "kept"


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 other C libraries lack it
    except (OSError, TypeError, AttributeError):
        return None
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return library

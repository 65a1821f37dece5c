"""Pass: what a batch norm (and its ReLU) gives is forgotten, and computed again when needed.

A batch norm keeps its input for the backward pass. Its output, which its ReLU and the convolution
behind keep, is that input scaled and shifted: one pass over memory, a hundredth of what a
convolution costs, so that half of the activations need not be kept (as in Rota Bulo et al. 2018,
In-place activated BatchNorm).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


@dataclass
class Source:
    """How a forgotten tensor is computed again.

    Parameters
    ----------
    compute
        Computes it, from nothing or from another forgotten tensor.
    of
        That other one.
    """

    compute: Callable[..., Tensor]
    of: Source | None = None
    version: int = 0
    _kept: int = 0
    _again: Tensor | None = None

    def keep(self) -> Source:
        """Count one more that will ask for it."""
        if not self._kept and self.of is not None:
            self.of.keep()
        self._kept += 1
        return self

    def tensor(self) -> Tensor:
        """Compute it; hold it until all that forgot it have asked."""
        found = self._again
        if found is None:
            found = self.compute() if self.of is None else self.compute(self.of.tensor())
        self._kept -= 1
        self._again = found if self._kept > 0 else None
        return found


_Known = dict[int, tuple["weakref.ref[Tensor]", Source]]
_known: ContextVar[_Known | None] = ContextVar("forgotten", default=None)
"""By storage: tensors that can be computed again, in the forward pass that runs."""


def remember(output: Tensor, compute: Callable[..., Tensor], *reads: Tensor) -> None:
    """Say how a tensor can be computed again from others, which are kept anyway."""
    kept = [_versioned(tensor.detach()) for tensor in reads]
    _put(output, Source(lambda: compute(*map(_unchanged, kept))))


def remember_copy(output: Tensor, of: Tensor, compute: Callable[[Tensor], Tensor]) -> None:
    """Say how a tensor that a forgotten one was laid out anew to can be computed from that one."""
    source = _source(of)
    # What is not forgotten itself may be overwritten before the backward pass.
    if source is not None:
        _put(output, Source(compute, source))


def _put(output: Tensor, source: Source) -> None:
    known = _known.get()
    if known is not None:
        source.version = output._version
        known[output.untyped_storage()._cdata] = (weakref.ref(output), source)


class ForgottenReLU(nn.ReLU):
    """A ReLU that overwrites a batch norm's output, which is computed again with it.

    Shape
    -----
    Any to the same.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Overwrite what is below zero."""
        source = _source(input)
        if source is not None:
            # The ReLU keeps its output, which is the next version of its input.
            source.compute, source.version = _then_relu(source.compute), input._version + 1
        return super().forward(input)


def _then_relu(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *of: compute(*of).relu_()


@contextmanager
def forgetting() -> Iterator[None]:
    """Keep nothing inside that `remember` has said how to compute again."""
    outer = _outer_hooks()

    def pack(tensor: Tensor) -> Any:
        source = _source(tensor)
        if source is None:
            return outer[0](tensor)
        return source.keep()

    def unpack(packed: Any) -> Tensor:
        found: Tensor = packed.tensor() if isinstance(packed, Source) else outer[1](packed)
        return found

    token = _known.set({})
    try:
        with saved_tensors_hooks(pack, unpack):
            yield
    finally:
        _known.reset(token)


def _source(tensor: Tensor) -> Source | None:
    known = _known.get()
    if known is None:
        return None
    reference, source = known.get(tensor.untyped_storage()._cdata, (lambda: None, None))
    output = reference()
    # An output that is gone may have left its address to another tensor.
    if output is None or source is None or tensor._version != source.version:
        return None
    return source if _layout(tensor) == _layout(output) else None


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    """Return what tells a tensor from the views of it."""
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype


def _outer_hooks() -> Any:
    """Return the hooks that are in force already, which inner ones would replace.

    Where there are none, what is kept is checked as torch does where it has no hooks.
    """
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return (top(True) if top is not None else None) or (_versioned, _unchanged)


def _versioned(tensor: Tensor) -> tuple[Tensor, int]:
    return tensor, tensor._version


def _unchanged(kept: tuple[Tensor, int]) -> Tensor:
    """Return what was kept.

    Raises
    ------
    RuntimeError
        If it was overwritten since: gradients would be wrong.
    """
    tensor, version = kept
    if tensor._version != version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace "
            f"operation: [{tensor.type()} {list(tensor.shape)}] is at version {tensor._version}; "
            f"expected version {version} instead"
        )
    return tensor

"""Normalisations, whichever module or function runs them, for proxies that must know of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def _of_batch(x: Tensor, _: Any) -> Tensor:
    return x.transpose(0, 1).flatten(1)


def _of_instance(x: Tensor, _: Any) -> Tensor:
    return x.flatten(2)


def _of_group(x: Tensor, groups: int) -> Tensor:
    return x.reshape(len(x), groups, -1)


def _of_layer(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.flatten(-len(shape))


_BY_NAME: Mapping[str, tuple[Callable[[Tensor, Any], Tensor], str]] = {
    "batch_norm": (_of_batch, ""),
    "instance_norm": (_of_instance, ""),
    "group_norm": (_of_group, "num_groups"),
    "layer_norm": (_of_layer, "normalized_shape"),
    "rms_norm": (_of_layer, "normalized_shape"),
}
"""What lays those values into the last axis that are normalised together, from the input and the
argument after it."""

_NAMES = {getattr(module, name): name for module in (F, torch) for name in _BY_NAME}


class _Norms(TorchFunctionMode):
    """Sees every normalisation that runs inside it; a mean and a division by hand it does not."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func not in _NAMES:
            return func(*args, **given)
        x = args[0] if args else given["input"]
        further = args[1] if len(args) > 1 else given.get(_BY_NAME[_NAMES[func]][1])
        return self.normalise(_NAMES[func], x, further, lambda: func(*args, **given))

    def normalise(self, name: str, x: Tensor, further: Any, run: Callable[[], Tensor]) -> Tensor:
        """Return what is to stand for the normalised values."""
        raise NotImplementedError


class WithoutNorms(_Norms):
    """Runs networks as if nothing in them normalised."""

    def normalise(self, name: str, x: Tensor, further: Any, run: Callable[[], Tensor]) -> Tensor:  # noqa: ARG002
        """Return the values as they came."""
        return x


class Deviations(_Norms):
    """Keeps what normalisations divide by.

    Attributes
    ----------
    found
        In order, the root of the mean over all groups of values that are normalised together of
        their variance; of an RMS norm, of their mean square.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def normalise(self, name: str, x: Tensor, further: Any, run: Callable[[], Tensor]) -> Tensor:
        """Keep the deviation, and normalise."""
        together = _BY_NAME[name][0](x.double(), further)
        if name != "rms_norm":
            together = together - together.mean(dim=-1, keepdim=True)
        self.found.append(together.square().mean().sqrt().item())
        return run()

"""Peak memory of a network, from the lifetimes of its tensors on the meta device.

Every storage is followed from its making to its release, as reference counting has it: views and
in-place operations cost nothing, what waits for a skip connection or for the backward pass stays.
Allocators that round up and scratch memory of libraries are not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are alive, among those made inside it.

    Attributes
    ----------
    now, peak
        Bytes now, and the most so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and follow what it made."""
        output = func(*args, **(kwargs or {}))
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                self._follow(value)
        return output

    def leave_out(self, tensors: Sequence[Tensor]) -> None:
        """Count these nowhere: the parameters, which are added apart."""
        self._sizes.update({tensor.untyped_storage()._cdata: 0 for tensor in tensors})

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += self._sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def inference_peak(network: nn.Module, shape: Sequence[int], device: str = "meta") -> int:
    """Return the most bytes of activations, the input among them, in one forward pass.

    Parameters
    ----------
    network
        On the device.
    shape
        (N, C, H, W) of the input.
    """
    ledger = Ledger()
    ledger.leave_out(_weights(network))
    network.eval()
    with torch.no_grad(), ledger:
        network(torch.empty(tuple(shape), device=device))
    return ledger.peak


def training_peak(network: nn.Module, shape: Sequence[int], device: str = "meta") -> int:
    """Return the most bytes of activations and gradients in one forward and backward pass.

    The loss is the mean square of the outputs: one more tensor of their size.
    """
    ledger = Ledger()
    ledger.leave_out(_weights(network))
    network.train()
    with torch.enable_grad(), ledger:
        outputs = network(torch.empty(tuple(shape), device=device))
        loss = outputs.square().mean()
        del outputs
        loss.backward()
    network.zero_grad(set_to_none=True)
    return ledger.peak


def weight_bytes(network: nn.Module) -> tuple[int, int]:
    """Return the bytes of all parameters and buffers, and of the trainable parameters."""
    everything = sum(tensor.nbytes for tensor in _weights(network))
    trainable = sum(p.nbytes for p in network.parameters() if p.requires_grad)
    return everything, trainable


def _weights(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]

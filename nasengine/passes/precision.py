"""The arithmetic of a step: float32, or bfloat16 where the machine is quick at it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nasengine.errors import SpecError
from nasengine.passes.channels_last import memory_format
from nasengine.passes.forgotten import forgetting
from nasengine.recipe import PrecisionName


@dataclass(frozen=True)
class Precision:
    """In which arithmetic a step runs on a device.

    Parameters
    ----------
    name
        ``fp32``, on GPUs too, where torch's own default for convolutions is TF32; or ``bf16``:
        convolutions in bfloat16 by autocast, parameters, statistics and losses in float32.
    device
        ``cpu`` or ``cuda...``.
    channels_last
        Whether images are laid out channels last where convolutions are quicker with it.
    prepared
        Whether the passes are applied.
    sparing
        Whether a CPU forgets what `forget_norms` lets it forget in float32 too, which keeps a fifth
        less and takes 4% of the time; in bfloat16 it always does.
    """

    name: Literal["fp32", "bf16"]
    device: str
    channels_last: bool = True
    prepared: bool = True
    sparing: bool = False

    def context(self) -> AbstractContextManager[object]:
        """Return the context that a forward pass runs in."""
        if self.name == "fp32":
            return _exact() if self.device.startswith("cuda") else nullcontext()
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16)

    def lay_out(self, inputs: Tensor) -> Tensor:
        """Return inputs, (N, C, H, W) or of other shapes, in the layout of a step."""
        if self.channels_last:
            return inputs.contiguous(memory_format=memory_format(inputs))
        return inputs

    def run(self, module: nn.Module, inputs: Tensor, *further: Any) -> Tensor:
        """Return a module's outputs in float32, its forward pass run in this arithmetic."""
        forgets = self.device == "cpu" and (self.sparing or self.name == "bf16")
        with self.context(), forgetting() if forgets else nullcontext():
            outputs: Tensor = module(self.lay_out(inputs), *further)
        if self.name == "fp32" and self.device.startswith("cuda") and outputs.requires_grad:
            outputs.register_hook(_exact_backward)  # type: ignore[no-untyped-call]
        return outputs.float() if outputs.dtype is torch.bfloat16 else outputs


@contextmanager
def _exact() -> Iterator[None]:
    """Keep cuDNN from TF32 inside."""
    kept, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = kept


def _exact_backward(_: Tensor) -> None:
    """Keep cuDNN from TF32 for the rest of the backward pass that has begun."""
    if torch.backends.cudnn.allow_tf32:
        torch.backends.cudnn.allow_tf32 = False
        torch.autograd.Variable._execution_engine.queue_callback(_allow_tf32)


def _allow_tf32() -> None:
    torch.backends.cudnn.allow_tf32 = True


def choose_precision(name: PrecisionName, device: str, *, sparing: bool = False) -> Precision:
    """Return the precision that a setting stands for on a device.

    Parameters
    ----------
    name, device, sparing
        As of `Precision`; ``auto`` is what the device is quick at.

    Raises
    ------
    SpecError
        If bfloat16 is asked for where the device has none.
    """
    quick = has_quick_bfloat16(device)
    if name == "bf16" and device.startswith("cuda") and not quick:
        raise SpecError(f"precision: 'bf16' is asked for, and {device} has no bfloat16")
    chosen: Literal["fp32", "bf16"] = (
        "bf16" if name == "bf16" or (name == "auto" and quick) else "fp32"
    )
    return Precision(chosen, device, sparing=sparing)


def has_quick_bfloat16(device: str) -> bool:
    """Say whether a device computes bfloat16 faster than float32."""
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            return False
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in capabilities)


@contextmanager
def frozen(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Train none of the parameters inside: nothing is computed or kept for their gradients.

    To be held over the backward pass too, which may compute slots again.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()

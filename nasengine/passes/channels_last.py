"""Pass: weights and images lie channels last, which convolutions on CPUs are quickest with.

On a GPU they stay as they are: cuDNN's kernels for channels last are no quicker at a supernet's
small batches, and those of depthwise convolutions take twenty seconds to load.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def memory_format(tensor: Tensor) -> torch.memory_format:
    """Return the format that a tensor is best kept in: channels last for (N, C, H, W) on a CPU."""
    is_image = tensor.ndim == 4 and tensor.device.type != "cuda"
    return torch.channels_last if is_image else torch.contiguous_format


def lay_channels_last(module: nn.Module) -> int:
    """Lay the weights of convolutions on a CPU out channels last; return how many."""
    weights = [
        part._parameters.get("weight")
        for part in module.modules()
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    found = [weight for weight in weights if weight is not None and not weight.is_cuda]
    for weight in found:
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return len(found)

"""Counts multiply-accumulates of any module, operation by operation, on the meta device.

ptflops counts a fixed list of modules; what is written as a function, or is of another class, it
passes over (or counts twice: a ReLU is a module and a function). Here every ATen operation that a
forward pass runs is seen once, whoever calls it. Convolutions and matrix products are counted by
ptflops' own formulas (`ptflops.aten_ops`), the rest as its modules are: see `FORMULAS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ptflops.aten_ops import ATEN_OPS_MAPPING
from torch import Tensor, nn

from nasengine.meta_shapes import MetaShapes, UncompiledMode

Formula = Callable[[Sequence[Any], Tensor], int]
"""Gives the count from an operation's arguments and its (first) output."""


def _per_input(arguments: Sequence[Any], _: Tensor) -> int:
    return int(arguments[0].numel())


def _per_output(_: Sequence[Any], output: Tensor) -> int:
    return output.numel()


def _normalised(arguments: Sequence[Any], _: Tensor) -> int:
    affine = any(isinstance(argument, Tensor) for argument in arguments[1:3])
    return int(arguments[0].numel()) * (2 if affine else 1)


def _layer_norm(arguments: Sequence[Any], output: Tensor) -> int:
    return _normalised([arguments[0], *arguments[2:4]], output)


def _baddbmm(arguments: Sequence[Any], output: Tensor) -> int:
    return output.numel() * (int(arguments[1].shape[-1]) + 1)


def _attention(arguments: Sequence[Any], _: Tensor) -> int:
    query, key, value = arguments[:3]
    scores = int(query.numel() // query.shape[-1] * key.shape[-2])
    return scores * (int(query.shape[-1]) + 1 + int(value.shape[-1]))


FORMULAS: Mapping[str, Formula] = {
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
        _normalised,
    ),
    **dict.fromkeys(
        ("cudnn_batch_norm", "_batch_norm_no_update", "native_group_norm"), _normalised
    ),
    "native_layer_norm": _layer_norm,
    "_fused_rms_norm": _layer_norm,
    "baddbmm": _baddbmm,
    **dict.fromkeys(
        (
            "max_pool2d_with_indices",
            "max_pool3d_with_indices",
            "avg_pool2d",
            "avg_pool3d",
            "_adaptive_avg_pool2d",
            "_adaptive_avg_pool3d",
            "adaptive_max_pool2d",
            "adaptive_max_pool3d",
            "_softmax",
            "_safe_softmax",
            "_log_softmax",
            "_prelu_kernel",
            "linalg_vector_norm",
            "cumsum",
            "fractional_max_pool2d",
            "_weight_norm_interface",
            "glu",
            "hardswish",
            "log_sigmoid_forward",
            "rrelu_with_noise",
        ),
        _per_input,
    ),
    **dict.fromkeys(
        (
            "upsample_nearest1d",
            "upsample_nearest2d",
            "upsample_nearest3d",
            "_upsample_nearest_exact2d",
            "upsample_linear1d",
            "upsample_bilinear2d",
            "upsample_bicubic2d",
            "upsample_trilinear3d",
            "_upsample_bilinear2d_aa",
            "_upsample_bicubic2d_aa",
            "grid_sampler_2d",
        ),
        _per_output,
    ),
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
}
"""What ptflops' ATen table lacks: pools count what they read, interpolation what it gives, a
normalisation two an element (one without scale and shift), attention two products and a softmax.
Pointwise operations (ReLU, sums, products) count one an element, reductions what they read."""

_REDUCTIONS = frozenset(
    (
        "sum",
        "mean",
        "amax",
        "amin",
        "max",
        "min",
        "var",
        "std",
        "var_mean",
        "norm",
        "prod",
        "logsumexp",
        "argmax",
        "argmin",
        "topk",
        "all",
        "any",
    )
)

# fmt: off
_FREE = frozenset((
    "view", "_unsafe_view", "reshape", "_reshape_alias", "alias", "detach", "t", "transpose",
    "transpose_",
    "permute", "numpy_T", "expand", "unsqueeze", "squeeze", "select", "slice", "split",
    "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unbind", "unfold",
    "as_strided", "diagonal", "view_as_real", "view_as_complex", "clone", "copy", "copy_",
    "_to_copy", "contiguous", "lift_fresh", "cat", "stack", "constant_pad_nd",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
    "replication_pad2d", "replication_pad3d", "im2col", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "native_channel_shuffle", "roll", "flip", "repeat", "index",
    "index_select", "gather", "embedding", "where", "masked_fill", "tril", "triu", "empty",
    "empty_like", "empty_strided", "new_empty", "new_empty_strided", "zeros", "zeros_like",
    "new_zeros", "ones", "ones_like", "new_ones", "full", "full_like", "new_full", "fill",
    "fill_", "zero_", "arange", "linspace", "eye", "scalar_tensor", "native_dropout", "dropout",
    "bernoulli_", "rand", "rand_like", "randn", "randn_like", "normal_", "uniform_",
    "exponential_",
))
# fmt: on
"""Moves or makes data, or is not there at inference: no arithmetic to count."""


class MacCounter(UncompiledMode):  # type: ignore[no-untyped-call]
    """Counts what runs inside it; on this thread only, and leaving no hooks behind.

    Attributes
    ----------
    macs
        Operation to its multiply-accumulates.
    uncounted
        Operation to how often it ran, where no formula is known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count it."""
        output = func(*args, **(kwargs or {}))
        self._count(func, args, output)
        return output

    def _count(self, func: Any, arguments: Sequence[Any], output: Any) -> None:
        name = func._overloadpacket.__name__
        first = output[0] if isinstance(output, (tuple, list)) else output
        if func._overloadpacket in ATEN_OPS_MAPPING:
            self.macs[name] += int(ATEN_OPS_MAPPING[func._overloadpacket](arguments, (first,)))
        elif (formula := FORMULAS.get(name.removesuffix("_"))) is not None:
            self.macs[name.removesuffix("_")] += formula(arguments, first)
        elif name in _FREE:
            return
        elif name in _REDUCTIONS:
            self.macs[name] += _per_input(arguments, first)
        elif torch.Tag.pointwise in func.tags and isinstance(first, Tensor):
            self.macs[name.rstrip("_")] += first.numel()
        else:
            self.uncounted[str(func)] += 1


def count_macs(module: nn.Module, *shapes: Sequence[int]) -> MacCounter:
    """Count one forward pass of one sample.

    Parameters
    ----------
    module
        A module on the meta device, in eval mode.
    *shapes
        (C, H, W) of the sample, or of each of several that the module is called with.
    """
    inputs = [torch.empty((1, *shape), device="meta") for shape in shapes]
    counter = MacCounter()
    with torch.no_grad(), MetaShapes(), counter:
        module(*inputs)
    return counter

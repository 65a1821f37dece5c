"""Passes that make training faster and compute the same: each a small file with its own test.

A pass rewrites modules in place, keeps every parameter, buffer and name, and knows no search
space. `prepare` applies them; `precision` says in which arithmetic a step runs, and `self_check`
whether that is right on this machine.
"""

from nasengine.passes.batch_norms import sum_in_cascades
from nasengine.passes.channels_last import lay_channels_last, memory_format
from nasengine.passes.conv_bias import drop_conv_biases
from nasengine.passes.dilated_depthwise import has_faulty_convolution, interleave_dilated_depthwise
from nasengine.passes.fold_weights import fold_mixture_weights
from nasengine.passes.forget_norms import forget_norms
from nasengine.passes.forgotten import forgetting
from nasengine.passes.inplace_relu import overwrite_batch_norms
from nasengine.passes.pointwise import take_rows_for_samples
from nasengine.passes.precision import Precision, choose_precision, frozen
from nasengine.passes.prepare import PASSES, prepare
from nasengine.passes.recompute import recompute_slots
from nasengine.passes.self_check import disagreements, prepare_checked
from nasengine.passes.skip_zeros import skip_zeros
from nasengine.passes.upsampling import interpolate_by_products

__all__ = [
    "PASSES",
    "Precision",
    "choose_precision",
    "disagreements",
    "drop_conv_biases",
    "fold_mixture_weights",
    "forget_norms",
    "forgetting",
    "frozen",
    "has_faulty_convolution",
    "interleave_dilated_depthwise",
    "interpolate_by_products",
    "lay_channels_last",
    "memory_format",
    "overwrite_batch_norms",
    "prepare",
    "prepare_checked",
    "recompute_slots",
    "skip_zeros",
    "sum_in_cascades",
    "take_rows_for_samples",
]

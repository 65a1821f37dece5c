"""The check at the start of a training in bfloat16: its gradients against float32's.

bfloat16 rounds to 8 bits, and a gradient in it still points where float32's does; a faulty kernel
gives one that points anywhere. So the check is coarse on purpose: it is there for what is broken.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasengine.passes.dilated_depthwise import has_faulty_convolution
from nasengine.passes.precision import Precision
from nasengine.passes.prepare import prepare
from nasengine.randomness import torch_seed

Loss = Callable[[nn.Module, Precision], Tensor]
"""The loss of one step on some samples, from the module and the precision to run it in."""

LEAST_COSINE = 0.5
"""Measured on healthy supernets: 0.84 and more for every candidate of Light SDI, 0.75 for those of
NAS-Bench-201's 15 cells. torch 2.13's fault is found by the norms: it gives 1e17 times as much
at some place, in whatever direction."""
GREATEST_RATIO = 2.0
"""Of the norms; measured on healthy supernets: up to 1.16. The fault gives 1e17 and more."""

M = TypeVar("M", bound=nn.Module)


def prepare_checked(
    module: M,
    wanted: Precision,
    loss: Loss,
    warn: Callable[[str], None],
    *,
    without: Collection[str] = (),
) -> Precision:
    """Prepare a module in place, and return the precision that it can be trained in.

    In bfloat16 one step's gradients are compared, slot by slot, with those of float32 without any
    pass, on a copy; where they disagree, or where torch's kernel is known to be wrong and no pass
    could replace it, float32 is returned, with a warning.

    Parameters
    ----------
    module
        A supernet or a network, in training mode, before its optimiser is made.
    wanted
        What to train in if it is right.
    loss
        Of one step on some samples.
    warn
        Told why not.
    without
        Names of passes to leave out.
    """
    wanted = replace(wanted, channels_last="channels_last" not in without)
    if wanted.name == "fp32":
        prepare(module, without=without)
        return wanted
    reference = _reference(module, wanted, loss)
    trial = prepare(copy.deepcopy(module), without=without)
    faulty = wanted.device == "cpu" and has_faulty_convolution(trial)
    wrong = {} if faulty else _differences(reference, trial, wanted, loss)
    del trial, reference
    gc.collect()  # Modules refer to one another: a copy of the weights would stay for long.
    _give_back()
    if faulty:
        warn(
            "precision: a dilated depthwise convolution cannot be computed on sub-grids, and "
            "torch's own bfloat16 kernel gives wrong gradients: training in float32"
        )
        prepare(module, without=without)
        return replace(wanted, name="fp32")
    if wrong:
        worst = "; ".join(f"{name}: {text}" for name, text in list(wrong.items())[:3])
        warn(
            f"precision: gradients in bfloat16 disagree with float32 at {len(wrong)} places "
            f"({worst}): training in float32, without any pass"
        )
        return Precision("fp32", wanted.device, channels_last=False, prepared=False)
    prepare(module, without=without)
    return wanted


def _give_back() -> None:
    """Give the memory of the check back to the system, which glibc keeps in pieces otherwise."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def disagreements(
    plain: nn.Module, fast: nn.Module, precision: Precision, loss: Loss
) -> dict[str, str]:
    """Compare the gradients of two modules of the same parameters; return where they differ.

    Parameters
    ----------
    plain
        Run in float32, in torch's default layout. Its buffers and modes are put back.
    fast
        Run in the precision; its buffers change.
    precision
        To be checked.
    loss
        Of one step.

    Returns
    -------
    Slot (or other part of the network) to what differs; empty where all is well.
    """
    return _differences(_reference(plain, precision, loss), fast, precision, loss)


def _reference(plain: nn.Module, precision: Precision, loss: Loss) -> dict[str, Tensor | None]:
    """Return the gradients of float32 in torch's default layout, by parameter.

    They are kept in bfloat16: three digits do for a cosine, and take half the memory.
    """
    found: dict[str, Tensor | None] = {}

    def keep(name: str, gradient: Tensor | None) -> None:
        found[name] = None if gradient is None else gradient.to(torch.bfloat16)

    _each_gradient(plain, replace(precision, name="fp32", channels_last=False), loss, keep)
    return found


def _differences(
    reference: dict[str, Tensor | None], fast: nn.Module, precision: Precision, loss: Loss
) -> dict[str, str]:
    """Compare each gradient as soon as it is there, and keep neither; `reference` is used up."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    def compare(name: str, gradient: Tensor | None) -> None:
        pair = (gradient, reference.pop(name, None))
        for index, (first, second) in enumerate(_PAIRS):
            one, other = pair[first], pair[second]
            if one is not None and other is not None:
                sums[_place(name)][index] += float((one.double() * other.double()).sum())

    _each_gradient(fast, precision, loss, compare)
    return _told(sums)


_PAIRS = ((0, 1), (0, 0), (1, 1))
"""Of the found and the expected gradient: their inner product, and the square of each norm."""


def _told(sums: Mapping[str, Sequence[float]]) -> dict[str, str]:
    # What is zero but for rounding, beside the rest, is not judged.
    floor = 1e-6 * math.sqrt(sum(expected for _, _, expected in sums.values()))
    wrong = {}
    for place, (product, *squares) in sums.items():
        norm, expected = (math.sqrt(square) for square in squares)
        if max(norm, expected) <= floor:
            continue
        cosine = product / (norm * expected) if norm * expected else 0.0
        ratio = norm / expected if expected else math.inf
        if not (cosine >= LEAST_COSINE and 1 / GREATEST_RATIO <= ratio <= GREATEST_RATIO):
            wrong[place] = f"cosine {cosine:.2f}, norm {ratio:.2g} of float32's"
    return wrong


def _each_gradient(
    module: nn.Module,
    precision: Precision,
    loss: Loss,
    take: Callable[[str, Tensor | None], None],
) -> None:
    """Hand each parameter's gradient over as soon as it is there, and let it go.

    At the end come the parameters that got none, such as a bias that a norm takes out.
    """
    left = {name: p for name, p in module.named_parameters() if p.requires_grad}

    def hand_over(name: str, parameter: Tensor) -> None:
        take(name, parameter.grad)
        parameter.grad = None
        del left[name]

    hooks = [
        parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            partial(hand_over, name)
        )
        for name, parameter in left.items()
    ]
    try:
        _backward(module, precision, loss)
    finally:
        for hook in hooks:
            hook.remove()
    for name in left:
        take(name, None)


def _backward(module: nn.Module, precision: Precision, loss: Loss) -> None:
    """Compute the gradients of a step; leave the rest of the module as it was."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    modes = [(part, part.training) for part in module.modules()]
    for part in module.modules():
        # What draws in training draws by the layout: the sides would differ by chance.
        part.training = part.training and isinstance(part, _BatchNorm)
    module.zero_grad(set_to_none=True)
    with torch.enable_grad(), torch_seed(0, "self check"):
        loss(module, precision).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
    for part, mode in modes:
        part.training = mode


def _place(name: str) -> str:
    """Return the slot and candidate, or the node, that a parameter belongs to."""
    node, *rest = name.removeprefix("network.").split(".")
    return f"{node} {rest[1]}" if rest[:1] == ["candidates"] else node

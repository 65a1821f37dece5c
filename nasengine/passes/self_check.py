"""The check at the start of a training in bfloat16: its gradients against float32's.

bfloat16 rounds to 8 bits, and a gradient in it still points where float32's does; a faulty kernel
gives one that points anywhere. So the check is coarse on purpose: it is there for what is broken.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from nasengine.passes.dilated_depthwise import has_faulty_convolution
from nasengine.passes.precision import Precision
from nasengine.passes.prepare import prepare

Loss = Callable[[nn.Module, Precision], Tensor]
"""The loss of one step on some samples, from the module and the precision to run it in."""

LEAST_COSINE = 0.5
"""Measured on healthy supernets: 0.84 and more for every candidate of Light SDI, 0.75 for those of
NAS-Bench-201's 15 cells; torch 2.13's fault gives 0.2 and less."""
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
    trial = prepare(copy.deepcopy(module), without=without)
    if wanted.device == "cpu" and has_faulty_convolution(trial):
        warn(
            "precision: a dilated depthwise convolution cannot be computed on sub-grids, and "
            "torch's own bfloat16 kernel gives wrong gradients: training in float32"
        )
        prepare(module, without=without)
        return replace(wanted, name="fp32")
    wrong = disagreements(module, trial, wanted, loss)
    if wrong:
        worst = "; ".join(f"{name}: {text}" for name, text in list(wrong.items())[:3])
        warn(
            f"precision: gradients in bfloat16 disagree with float32 at {len(wrong)} places "
            f"({worst}): training in float32, without any pass"
        )
        return Precision("fp32", wanted.device, channels_last=False)
    prepare(module, without=without)
    return wanted


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
    reference = _gradients(plain, replace(precision, name="fp32", channels_last=False), loss)
    found = _gradients(fast, precision, loss)
    compared = {place: _compare(found[place], own) for place, own in reference.items()}
    # What is zero but for rounding, beside the rest, is not judged.
    floor = 1e-6 * math.sqrt(sum(expected**2 for _, _, expected in compared.values()))
    wrong = {}
    for place, (product, norm, expected) in compared.items():
        if max(norm, expected) <= floor:
            continue
        cosine = product / (norm * expected) if norm * expected else 0.0
        ratio = norm / expected if expected else math.inf
        if not (cosine >= LEAST_COSINE and 1 / GREATEST_RATIO <= ratio <= GREATEST_RATIO):
            wrong[place] = f"cosine {cosine:.2f}, norm {ratio:.2g} of float32's"
    return wrong


def _compare(found: list[Tensor], expected: list[Tensor]) -> tuple[float, float, float]:
    """Return the inner product of two gradients, and the norm of each."""
    product = norm = expected_norm = 0.0
    for one, other in zip(found, expected, strict=True):
        own, reference = one.double(), other.double()
        product += float((own * reference).sum())
        norm += float(own.square().sum())
        expected_norm += float(reference.square().sum())
    return product, math.sqrt(norm), math.sqrt(expected_norm)


def _gradients(module: nn.Module, precision: Precision, loss: Loss) -> dict[str, list[Tensor]]:
    """Return the gradients of every slot's parameters; leave the module as it was."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    modes = [(part, part.training) for part in module.modules()]
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.eval()  # Its draws depend on the layout.
    module.zero_grad(set_to_none=True)
    with torch.enable_grad():
        loss(module, precision).backward()  # type: ignore[no-untyped-call]
    places: dict[str, list[Tensor]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            # A bias that a batch norm takes out has none, or nothing but rounding.
            gradient = parameter.new_zeros(()) if parameter.grad is None else parameter.grad
            places[_place(name)].append(gradient)
    module.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
    for part, mode in modes:
        part.training = mode
    return places


def _place(name: str) -> str:
    """Return the slot and candidate, or the node, that a parameter belongs to."""
    node, *rest = name.removeprefix("network.").split(".")
    return f"{node} {rest[1]}" if rest[:1] == ["candidates"] else node

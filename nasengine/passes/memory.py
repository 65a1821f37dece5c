"""What a step of a supernet holds in memory, and which slots to compute again so that it fits.

The step is run on fake tensors: they have shapes and no memory, and what each operation keeps for
the backward pass is counted, in the step's own precision, after the passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from nasengine.errors import SpecError
from nasengine.optimisers import LARGE
from nasengine.passes.precision import Precision
from nasengine.passes.prepare import prepare
from nasengine.quantities import format_bytes
from nasengine.supernet import MixedOperation, Mixture, Supernet


@dataclass(frozen=True)
class SlotMemory:
    """What one slot adds to a step.

    Parameters
    ----------
    kept
        Bytes that it keeps for the backward pass, beside its inputs.
    gradients
        Bytes of its weights' gradients that are held until the step is taken: `StepsInBackward`
        lets those of large weights go at once.
    """

    kept: int
    gradients: int


@dataclass(frozen=True)
class StepMemory:
    """What a step of the weights holds.

    Parameters
    ----------
    fixed
        Bytes of weights, buffers, the optimiser's state, and what is kept outside of slots.
    slots
        By name, in the order in which they run.
    working
        Bytes that the largest operation works with.
    """

    fixed: int
    slots: Mapping[str, SlotMemory]
    working: int

    def peak(self, recomputed: Collection[str] = ()) -> int:
        """Return the most bytes that are held at once, some slots being computed again."""
        live = self.fixed + sum(s.kept for name, s in self.slots.items() if name not in recomputed)
        peak = live + self.working
        for name, slot in reversed(list(self.slots.items())):
            again = slot.kept if name in recomputed else 0
            peak = max(peak, live + again + slot.gradients + self.working)
            live += slot.gradients - (slot.kept - again)
        return peak


@dataclass(frozen=True)
class MemoryPlan:
    """How a step fits into its budget.

    Parameters
    ----------
    recomputed
        Slots that are computed again in the backward pass.
    peak, without
        Bytes of a step, and what they were if nothing was computed again.
    """

    recomputed: tuple[str, ...]
    peak: int
    without: int

    def text(self) -> str:
        """Say it in a line."""
        if not self.recomputed:
            return f"memory: a step holds {format_bytes(self.peak)}"
        return (
            f"memory: a step holds {format_bytes(self.peak)} instead of "
            f"{format_bytes(self.without)}: {len(self.recomputed)} slots are computed again in "
            f"the backward pass"
        )


def plan(memory: StepMemory, budget: float, *, where: str) -> MemoryPlan:
    """Compute as few slots again as the budget allows, those that keep most first.

    Parameters
    ----------
    memory
        Of the step.
    budget
        Bytes.
    where
        The key path, for errors.

    Raises
    ------
    SpecError
        If nothing fits, with the least that is needed.
    """
    order = sorted(memory.slots, key=lambda name: -memory.slots[name].kept)
    peaks = [memory.peak(order[:count]) for count in range(len(order) + 1)]
    for count, peak in enumerate(peaks):
        if peak <= budget:
            return MemoryPlan(tuple(order[:count]), peak, peaks[0])
    # Micro-batches would change the statistics of batch norms, and with them what is trained.
    raise SpecError(
        f"{where}: {format_bytes(budget)} is not enough: with every slot computed again a step "
        f"holds {format_bytes(min(peaks))}; raise it, or lower the batch"
    )


def step_memory(
    build: Callable[[], Supernet],
    shape: tuple[int, ...],
    precision: Precision,
    *,
    optimiser_states: int,
) -> StepMemory:
    """Count what a step of a supernet's weights holds, by running it on fake tensors.

    Parameters
    ----------
    build
        Makes the supernet; called where tensors have no memory.
    shape
        (N, C, H, W) of a batch.
    precision
        Of the step.
    optimiser_states
        Numbers that the optimiser keeps for each weight: SGD's momentum 1, Adam 2.
    """
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode(), torch.device(precision.device):
        supernet = build().train()
        if precision.prepared:
            # The layout of weights changes no size, and fake ones cannot be laid out anew.
            prepare(supernet, without=["channels_last"])
        mixtures = {
            name: Mixture(torch.ones(len(choices), requires_grad=True), positive=True)
            for name, choices in supernet.decisions.items()
        }
        count = _Count(supernet)
        with saved_tensors_hooks(count.keep, lambda kept: kept):
            outputs = precision.run(supernet, torch.empty(shape), mixtures)
        count.keep(outputs)
    weights = sum(_bytes(p) for p in supernet.parameters())
    gradients = sum(_held_gradient(p) for p in supernet.parameters())
    buffers = sum(_bytes(b) for b in supernet.buffers())
    fixed = weights * (1 + optimiser_states) + buffers + count.kept.pop("", 0)
    in_slots = sum(count.gradients.values())
    slots = {n: SlotMemory(count.kept.get(n, 0), size) for n, size in count.gradients.items()}
    # A gradient of the largest tensor, its operation's result, and the library's own copy.
    working = 3 * count.largest
    # A gradient of the largest weight, and the library's own copy.
    working += 2 * max(map(_bytes, supernet.parameters()), default=0)
    return StepMemory(fixed + gradients - in_slots, slots, working)


class _Count:
    """Counts storages that are kept for the backward pass, by the slot that keeps them first."""

    def __init__(self, supernet: Supernet) -> None:
        self.kept: dict[str, int] = {}
        self.gradients: dict[str, int] = {}
        self.largest = 0
        self._slot = ""
        self._seen: dict[int, Any] = {}
        for tensor in (*supernet.parameters(), *supernet.buffers()):
            self._is_new(tensor)
        for name, part in supernet.network.named_modules():
            if isinstance(part, MixedOperation):
                part.register_forward_pre_hook(self._entering(name))
                part.register_forward_hook(self._leaving)

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor."""
        if self._is_new(tensor):
            size = tensor.untyped_storage().nbytes()
            self.kept[self._slot] = self.kept.get(self._slot, 0) + size
            self.largest = max(self.largest, size)
        return tensor

    def _is_new(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage()
        new = storage._cdata not in self._seen
        self._seen[storage._cdata] = storage  # Held, so that its number stays its own.
        return new

    def _entering(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            for tensor in inputs:  # Kept also where the slot is computed again.
                self.keep(tensor)
            self.gradients[name] = sum(_held_gradient(p) for p in module.parameters())
            self._slot = name

        return enter

    def _leaving(self, *_: Any) -> None:
        self._slot = ""


def _held_gradient(parameter: Tensor) -> int:
    return 0 if parameter.numel() >= LARGE else _bytes(parameter)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()

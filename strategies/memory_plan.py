"""From the setting ``memory`` to the precision of a search and the slots it computes again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nasengine.passes import Precision, choose_precision
from nasengine.passes.memory import MemoryPlan, plan, step_memory
from nasengine.quantities import parse_quantity
from nasengine.supernet import Supernet

if TYPE_CHECKING:
    from nasengine.search import Search

    from .darts import Darts


def choose(settings: Darts, device: str) -> Precision:
    """Return the precision that the settings ask for, sparing where memory is bounded."""
    return choose_precision(settings.precision, device, sparing=settings.memory is not None)


def plan_memory(settings: Darts, search: Search, precision: Precision) -> MemoryPlan:
    """Return how a step of the weights fits into ``memory``.

    Raises
    ------
    SpecError
        If it does not, with the least that is needed; if the setting is no size.
    """
    where = "strategy.memory"
    budget = parse_quantity(settings.memory, where=where).to("bytes", where=where)
    optimiser = settings.weights
    states = (1 if optimiser.first_moment else 0) if optimiser.optimiser == "sgd" else 2
    memory = step_memory(
        lambda: Supernet(search.space.graph, settings.partial_channels),
        (settings.batch, *search.task.input_shape),
        precision,
        optimiser_states=states,
    )
    return plan(memory, budget, where=where)

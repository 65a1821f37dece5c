"""The loop of a gradient search: batches, steps, penalties, early stopping."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .alpha_search import AlphaSearch
from .alphas import derive, flat
from .architecture_loss import ArchitectureLoss
from .cost_goals import resolve_costs
from .darts import Darts
from .draws import make_draws
from .search_steps import SearchSteps

if TYPE_CHECKING:
    from nasengine.architecture import Architecture
    from nasengine.search import Search


class GradientSearch(AlphaSearch[Darts]):
    """One search by the engine's own steps of weights and alphas.

    Parameters
    ----------
    settings
        The strategy.
    search
        Space, task, estimators, seed, device, folder.
    """

    file = "darts"
    rate = "alphas.learning_rate"

    def __init__(self, settings: Darts, search: Search) -> None:
        super().__init__(settings, search)
        self.costs = resolve_costs(settings.cost, search)
        self._unchanged = 0

    @property
    def alphas(self) -> Mapping[str, Tensor]:
        """The alphas by decision: (choices,)."""
        return self.steps.alphas

    def search_on(self) -> None:
        """Search to the end, from where the last checkpoint is."""
        self._prepare()
        bar = self.search.reporter.progress(
            "gradient search", self.settings.iterations, self.iteration
        )
        with bar as progress:
            while not self.ended:
                started = time.perf_counter()
                loss = self._advance()
                self.end_iteration(time.perf_counter() - started)
                progress.advance(1, loss=loss)
                self.save_if_due()

    def _prepare(self) -> None:
        search, settings = self.search, self.settings
        loss = ArchitectureLoss(self.costs, settings.reading, search.device)
        self.steps = SearchSteps(settings, search, loss)
        self._weight_batches, self._alpha_batches = make_draws(settings, search)
        self._cheapest = self._find_cheapest()
        state = self.begin()
        if state is None:
            self._tell_of_costs()
            return
        self._unchanged = state["unchanged"]
        self.steps.load_state_dict(state["steps"])
        self._weight_batches.batches.load_state_dict(state["weight_batches"])
        self._alpha_batches.batches.load_state_dict(state["alpha_batches"])

    def _advance(self) -> float:
        """Do one iteration; return the task's loss."""
        t = self.iteration
        batch = self._weight_batches.draw(t)
        if (t + 1) % self.settings.arch_every == 0:
            alpha_batch = self._alpha_batches.draw(t)
            self.note_loss(self.steps.step_alphas(alpha_batch, batch, t), of_alphas=True)
            self._follow_alphas()
        loss = self.steps.step_weights(batch, t)
        self.note_loss(loss, of_alphas=False)
        return loss

    def _follow_alphas(self) -> None:
        """After a step of the alphas: penalties, trajectory, early stopping."""
        decisions = self.search.space.decisions
        before = self._last_derived()
        self.trajectory.append(flat(self.steps.alphas))
        now = self._last_derived()
        self.steps.loss.update({c.key: c.predict(now, decisions) for c in self.costs})
        self._unchanged = self._unchanged + 1 if now == before else 0
        collapsed = len(self._collapsed(now))
        if 0 < self.settings.stop_when_stable <= self._unchanged:
            self.reason = f"no arg-max changed in {self._unchanged} steps of the alphas"
        elif 0 < self.settings.stop_when_collapsed <= collapsed:
            self.reason = f"{collapsed} decisions took their cheapest choice"

    def _last_derived(self) -> Architecture:
        decisions = self.search.space.decisions
        sizes = [len(choices) for choices in decisions.values()]
        parts = torch.split(self.trajectory[-1], sizes)
        return derive(dict(zip(decisions, parts, strict=True)), decisions)

    def facts_to_log(self) -> dict[str, Any]:
        """Return what the log says of the iterations since its last entry, and of the costs."""
        steps, decisions = self.steps, self.search.space.decisions
        last = self.iteration - 1
        now = derive(steps.alphas, decisions)
        costs = steps.loss.facts(steps.probabilities(last))
        for cost in self.costs:
            costs[cost.key]["derived"] = cost.predict(now, decisions)
        return {**super().facts_to_log(), "temperature": steps.temperature(last), "costs": costs}

    def _find_cheapest(self) -> dict[str, set[str]]:
        """Return every decision's cheapest choices, where some are dearer: by cost or weights."""
        decisions = self.search.space.decisions
        rows = self.costs[0].rows if self.costs else _weights_of_choices(self.steps)
        return {
            name: {
                c for c, cost in zip(choices, rows[name], strict=True) if cost == min(rows[name])
            }
            for name, choices in decisions.items()
            if len(set(rows[name])) > 1
        }

    def _collapsed(self, architecture: Mapping[str, str]) -> list[str]:
        return [name for name, cheap in self._cheapest.items() if architecture[name] in cheap]

    def _tell_of_costs(self) -> None:
        for cost in self.costs:
            if cost.aim is not None and cost.aim < cost.range[0]:
                self.search.reporter.warn(
                    f"{cost.key}: {cost.text(cost.aim)} is below every network as the table was "
                    f"measured, from {cost.text(cost.range[0])} on: is the machine busy? What is "
                    f"derived will be the cheapest, and measured itself"
                )
            if cost.free:
                names = ", ".join(cost.free)
                self.search.reporter.note(f"{cost.key}: every choice costs nothing at {names}")

    def tell_doubts(self) -> None:
        """Say why the search ended early, whether it collapsed, and which choices are in doubt."""
        decisions = self.search.space.decisions
        super().tell_doubts()
        collapsed = self._collapsed(derive(self.steps.alphas, decisions))
        # What is derived spends a target, whatever the arg-max: a penalty alone may have led there.
        is_spent = any(cost.targets and cost.tolerance < 1 for cost in self.costs)
        if len(collapsed) * 2 > len(decisions) and not is_spent:
            self.search.reporter.warn(
                f"collapse: {len(collapsed)} of {len(decisions)} decisions took their cheapest "
                f"choice ({', '.join(collapsed)}); {self._way_out()}"
            )

    def _way_out(self) -> str:
        weighed = [f"strategy.cost.{cost.key}" for cost in self.costs if cost.beta]
        smaller = f"a smaller {' and '.join(weighed)}, a target instead of it, or " * bool(weighed)
        return f"{smaller}strategy.stop_when_collapsed"

    def state_dict(self) -> dict[str, Any]:
        """Return what the steps need to go on, besides what every search keeps."""
        return {
            "steps": self.steps.state_dict(),
            "unchanged": self._unchanged,
            "weight_batches": self._weight_batches.batches.state_dict(),
            "alpha_batches": self._alpha_batches.batches.state_dict(),
        }


def _weights_of_choices(steps: SearchSteps) -> dict[str, tuple[float, ...]]:
    """Return the number of weights of each choice, over the slots that share a decision.

    Of a width its channels, which go with them.
    """
    graph = steps.search.space.graph
    rows = {
        name: [float(count) for _, count in graph.widths[name].options]
        if name in graph.widths
        else [0.0] * len(choices)
        for name, choices in graph.decisions.items()
    }
    for slot in graph.slots:
        mixed: Any = steps.supernet.network.get_submodule(slot.name)
        for index, module in enumerate(mixed.candidates.values()):
            rows[slot.decision][index] += sum(p.numel() for p in module.parameters())
    return {name: tuple(row) for name, row in rows.items()}

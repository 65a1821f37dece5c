"""The loop of a gradient search: batches, steps, log, checkpoints; and its result.

A search that was killed and called again goes on from its last checkpoint and ends with the same
alphas, bit for bit on the CPU.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nasengine.checkpoint import SavePace, load_checkpoint, remove_checkpoint, save_checkpoint
from nasengine.files import write_json

from .alphas import derive, entropies, flat, margins, unsure
from .architecture_loss import ArchitectureLoss
from .costs import resolve_costs
from .draws import make_draws
from .gradient_result import Result, fingerprint_of, read_result, refuse_other
from .search_steps import SearchSteps

if TYPE_CHECKING:
    from pathlib import Path

    from nasengine.architecture import Architecture
    from nasengine.search import Search

    from .darts import Darts


class GradientSearch:
    """One gradient search, from its last checkpoint if there is one.

    Parameters
    ----------
    settings
        The strategy.
    search
        Space, task, estimators, seed, device, folder.
    """

    def __init__(self, settings: Darts, search: Search) -> None:
        self.settings = settings
        self.search = search
        self.costs = resolve_costs(settings.cost, search)
        self.iteration = 0
        self.seconds = 0.0
        self.reason = ""
        self._trajectory: list[Tensor] = []
        self._losses: list[float] = []
        self._alpha_loss: float | None = None
        self._unchanged = 0

    def run(self) -> Result:
        """Return the result: at once if the search has ended before.

        Raises
        ------
        SearchFailed
            If a loss is NaN or infinite.
        SpecError
            If the batch does not fit the data.
        RunFolderError
            If the checkpoint is of other settings.
        Interrupted
            If the run was asked to stop, after a checkpoint.
        """
        finished = read_result(self._result_path, self._fingerprint)
        if finished is not None:
            return finished
        self._prepare()
        self._loop()
        self._tell_doubts()
        result = self._write_result()
        remove_checkpoint(self._checkpoint_path)
        return result

    @property
    def _result_path(self) -> Path:
        return self.search.checkpoints / "darts.json"

    @property
    def _checkpoint_path(self) -> Path:
        return self.search.checkpoints / "darts.safetensors"

    @property
    def _fingerprint(self) -> dict[str, Any]:
        return fingerprint_of(self.settings, self.search)

    def _prepare(self) -> None:
        search, settings = self.search, self.settings
        loss = ArchitectureLoss(self.costs, settings.reading, search.device)
        self.steps = SearchSteps(settings, search, loss)
        self._weight_batches, self._alpha_batches = make_draws(settings, search)
        self._trajectory = [flat(self.steps.alphas)]
        self._cheapest = self._find_cheapest()
        state = load_checkpoint(self._checkpoint_path, search.reporter.warn)
        if state is not None:
            self._restore(state)
        else:
            choices = {name: list(names) for name, names in search.space.decisions.items()}
            search.reporter.record("darts_choices", {"choices": choices})
            self._tell_free_slots()

    def _loop(self) -> None:
        settings = self.settings
        pace = SavePace(settings.save_seconds)
        bar = self.search.reporter.progress("gradient search", settings.iterations, self.iteration)
        with bar as progress:
            while self.iteration < settings.iterations and not self.reason:
                started = time.perf_counter()
                loss = self._advance()
                self.seconds += time.perf_counter() - started
                self._mind_budget()
                progress.advance(1, loss=loss)
                if pace.save_if_due(self._save, at_once=self.search.stop.is_set()):
                    self.search.pause_point()

    def _mind_budget(self) -> None:
        seconds = self.search.budget.seconds
        if not self.reason and seconds is not None and self.seconds >= seconds:
            self.reason = f"the budget of {seconds:g} s is spent"

    def _advance(self) -> float:
        """Do one iteration; return the task's loss."""
        t, settings = self.iteration, self.settings
        batch = self._weight_batches.draw(t)
        if (t + 1) % settings.arch_every == 0:
            self._alpha_loss = self.steps.step_alphas(self._alpha_batches.draw(t), batch, t)
            self._follow_alphas()
        loss = self.steps.step_weights(batch, t)
        self._losses.append(loss)
        self.iteration += 1
        if self.iteration % settings.log_every == 0 or self.iteration == settings.iterations:
            self._log()
        return loss

    def _follow_alphas(self) -> None:
        """After a step of the alphas: penalties, trajectory, early stopping."""
        decisions = self.search.space.decisions
        before = self._last_derived()
        self._trajectory.append(flat(self.steps.alphas))
        now = self._last_derived()
        self.steps.loss.update({c.key: c.predict(now, decisions) for c in self.costs})
        self._unchanged = self._unchanged + 1 if now == before else 0
        collapsed = len(self._collapsed(now))
        if 0 < self.settings.stop_when_stable <= self._unchanged:
            self.reason = f"no arg-max changed in {self._unchanged} steps of the alphas"
        elif 0 < self.settings.stop_when_collapsed <= collapsed:
            self.reason = f"{collapsed} slots chose their cheapest candidate"

    def _last_derived(self) -> Architecture:
        decisions = self.search.space.decisions
        sizes = [len(choices) for choices in decisions.values()]
        parts = torch.split(self._trajectory[-1], sizes)
        return derive(dict(zip(decisions, parts, strict=True)), decisions)

    def _log(self) -> None:
        steps, decisions = self.steps, self.search.space.decisions
        probabilities = steps.probabilities(self.iteration - 1)
        now = derive(steps.alphas, decisions)
        costs = steps.loss.facts(probabilities)
        for cost in self.costs:
            costs[cost.key]["derived"] = cost.predict(now, decisions)
        facts = {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "task_loss": sum(self._losses) / len(self._losses),
            "alpha_loss": self._alpha_loss,
            "temperature": steps.temperature(self.iteration - 1),
            "costs": costs,
            "alphas": {name: alpha.tolist() for name, alpha in steps.alphas.items()},
            "margins": margins(steps.alphas),
            "entropy": entropies(steps.alphas),
            "derived": dict(now),
        }
        self._losses = []
        self.search.reporter.record("darts", facts)

    def _find_cheapest(self) -> dict[str, set[str]]:
        """Return every decision's cheapest choices, where some are dearer: by cost or weights."""
        decisions = self.search.space.decisions
        rows = self.costs[0].rows if self.costs else _weights_of_choices(self.steps)
        return {
            name: {c for c, cost in zip(decisions[name], row, strict=True) if cost == min(row)}
            for name, row in rows.items()
            if len(set(row)) > 1
        }

    def _collapsed(self, architecture: Mapping[str, str]) -> list[str]:
        return [name for name, cheap in self._cheapest.items() if architecture[name] in cheap]

    def _tell_free_slots(self) -> None:
        for cost in self.costs:
            if cost.free:
                names = ", ".join(cost.free)
                self.search.reporter.note(f"{cost.key}: every choice costs nothing at {names}")

    def _tell_doubts(self) -> None:
        decisions, warn = self.search.space.decisions, self.search.reporter.warn
        if self.reason:
            self.search.reporter.note(f"ended after {self.iteration} iterations: {self.reason}")
        collapsed = self._collapsed(derive(self.steps.alphas, decisions))
        if len(collapsed) * 2 > len(decisions):
            warn(
                f"collapse: {len(collapsed)} of {len(decisions)} slots chose their cheapest "
                f"candidate ({', '.join(collapsed)}); a smaller beta, or stop_when_collapsed"
            )
        doubtful = unsure(torch.stack(self._trajectory), decisions)
        if doubtful:
            warn(
                f"within noise: at {len(doubtful)} of {len(decisions)} slots the best alpha leads "
                f"the second by less than two standard errors of its updates "
                f"({', '.join(doubtful)}); more iterations, or a larger alphas.learning_rate"
            )

    def _save(self) -> None:
        state = {
            "fingerprint": self._fingerprint,
            "iteration": self.iteration,
            "seconds": self.seconds,
            "reason": self.reason,
            "steps": self.steps.state_dict(),
            "trajectory": torch.stack(self._trajectory),
            "losses": self._losses,
            "alpha_loss": self._alpha_loss,
            "unchanged": self._unchanged,
            "weight_batches": self._weight_batches.batches.state_dict(),
            "alpha_batches": self._alpha_batches.batches.state_dict(),
        }
        save_checkpoint(self._checkpoint_path, state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        refuse_other(state["fingerprint"], self._fingerprint, self._checkpoint_path)
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.reason, self._unchanged = state["reason"], state["unchanged"]
        self._losses, self._alpha_loss = list(state["losses"]), state["alpha_loss"]
        self._trajectory = list(state["trajectory"].unbind())
        self.steps.load_state_dict(state["steps"])
        self._weight_batches.batches.load_state_dict(state["weight_batches"])
        self._alpha_batches.batches.load_state_dict(state["alpha_batches"])

    def _write_result(self) -> Result:
        alphas = {name: alpha.detach().cpu() for name, alpha in self.steps.alphas.items()}
        facts = {
            "fingerprint": self._fingerprint,
            "alphas": {name: alpha.tolist() for name, alpha in alphas.items()},
            "iterations": self.iteration,
            "seconds": self.seconds,
            "reason": self.reason,
            "trajectory": torch.stack(self._trajectory).tolist(),
        }
        write_json(self._result_path, facts)
        return Result(alphas, self.iteration, self.reason)


def _weights_of_choices(steps: SearchSteps) -> dict[str, tuple[float, ...]]:
    """Return the number of weights of each choice, over the slots that share a decision."""
    graph = steps.search.space.graph
    rows = {name: [0.0] * len(choices) for name, choices in graph.decisions.items()}
    for slot in graph.slots:
        mixed: Any = steps.supernet.network.get_submodule(slot.name)
        for index, module in enumerate(mixed.candidates.values()):
            rows[slot.decision][index] += sum(p.numel() for p in module.parameters())
    return {name: tuple(row) for name, row in rows.items()}

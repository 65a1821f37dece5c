"""What the gradient searches share, whoever takes their steps: log, checkpoints, doubts, result.

A search that was killed and called again goes on from its last checkpoint and ends with the same
alphas, bit for bit on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from nasengine.checkpoint import SavePace, load_checkpoint, remove_checkpoint, save_checkpoint
from nasengine.files import write_json
from nasengine.randomness import reproducible

from .alphas import derive, entropies, flat, margins, unsure
from .gradient_result import Result, fingerprint_of, read_result, refuse_other

if TYPE_CHECKING:
    from pathlib import Path

    from nasengine.search import Search

    from .darts import Darts
    from .nni_darts import NniDarts

Settings = TypeVar("Settings", bound="Darts | NniDarts")


class AlphaSearch(ABC, Generic[Settings]):
    """One search by gradient, from its last checkpoint if there is one.

    Parameters
    ----------
    settings
        The strategy.
    search
        Space, task, estimators, seed, device, folder.
    """

    file: ClassVar[str]
    """What its checkpoint and its result are called, before the suffix."""
    rate: ClassVar[str]
    """The setting that the alphas' learning rate is."""

    def __init__(self, settings: Settings, search: Search) -> None:
        self.settings = settings
        self.search = search
        self.iteration = 0
        self.seconds = 0.0
        self.reason = ""
        self.trajectory: list[Tensor] = []
        self._losses: list[float] = []
        self._alpha_loss: float | None = None

    @property
    @abstractmethod
    def alphas(self) -> Mapping[str, Tensor]:
        """The alphas by decision: (choices,)."""

    @abstractmethod
    def search_on(self) -> None:
        """Search to the end, from where the last checkpoint is."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what the steps need to go on, besides what every search keeps."""

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
        with reproducible(self.search.device):
            self.search_on()
        self.tell_doubts()
        write_json(self._result_path, self._facts_of_result())
        remove_checkpoint(self._checkpoint_path)
        return Result(self._alphas_at_rest(), self.iteration, self.reason)

    def begin(self) -> dict[str, Any] | None:
        """Return the state of the last checkpoint, what every search keeps already taken up.

        Where there is none the choices are logged, and the trajectory starts at these alphas.
        """
        self._pace = SavePace(self.settings.save_seconds)
        state: dict[str, Any] | None = load_checkpoint(
            self._checkpoint_path, self.search.reporter.warn
        )
        if state is None:
            self.trajectory = [flat(self.alphas)]
            choices = {name: list(names) for name, names in self.search.space.decisions.items()}
            self.search.reporter.record("darts_choices", {"choices": choices})
            return None
        refuse_other(state["fingerprint"], self._fingerprint, self._checkpoint_path)
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.reason = state["reason"]
        self._losses, self._alpha_loss = list(state["losses"]), state["alpha_loss"]
        self.trajectory = list(state["trajectory"].unbind())
        return state

    def note_loss(self, value: float, of_alphas: bool) -> None:
        """Keep a step's loss for the log."""
        if of_alphas:
            self._alpha_loss = value
        else:
            self._losses.append(value)

    def end_iteration(self, seconds: float) -> None:
        """Count an iteration and its time, end the search where the budget is spent, and log."""
        self.iteration += 1
        self.seconds += seconds
        budget = self.search.budget.seconds
        if not self.reason and budget is not None and self.seconds >= budget:
            self.reason = f"the budget of {budget:g} s is spent"
        if self.iteration % self.settings.log_every == 0 or self.ended:
            self.search.reporter.record("darts", self.facts_to_log())
            self._losses = []

    @property
    def ended(self) -> bool:
        """Whether this was the last iteration."""
        return bool(self.reason) or self.iteration == self.settings.iterations

    def facts_to_log(self) -> dict[str, Any]:
        """Return what the log says of the iterations since its last entry."""
        return {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "task_loss": sum(self._losses) / len(self._losses),
            "alpha_loss": self._alpha_loss,
            "alphas": {name: alpha.tolist() for name, alpha in self.alphas.items()},
            "margins": margins(self.alphas),
            "entropy": entropies(self.alphas),
            "derived": dict(derive(self.alphas, self.search.space.decisions)),
        }

    def save_if_due(self) -> None:
        """Save a checkpoint when it is time to, and end there if the run was asked to stop."""
        if self._pace.save_if_due(self.save, at_once=self.search.stop.is_set()):
            self.search.pause_point()

    def save(self) -> None:
        """Save a checkpoint."""
        state = {
            "fingerprint": self._fingerprint,
            "iteration": self.iteration,
            "seconds": self.seconds,
            "reason": self.reason,
            "trajectory": torch.stack(self.trajectory),
            "losses": self._losses,
            "alpha_loss": self._alpha_loss,
        }
        save_checkpoint(self._checkpoint_path, {**state, **self.state_dict()})

    def tell_doubts(self) -> None:
        """Say why the search ended early, and which choices are within noise."""
        decisions, reporter = self.search.space.decisions, self.search.reporter
        if self.reason:
            reporter.note(f"ended after {self.iteration} iterations: {self.reason}")
        doubtful = unsure(torch.stack(self.trajectory), decisions)
        if doubtful:
            reporter.warn(
                f"within noise: at {len(doubtful)} of {len(decisions)} decisions the best alpha "
                f"leads the second by less than two standard errors of its updates "
                f"({', '.join(doubtful)}); more iterations, or a larger {self.rate}"
            )

    def _facts_of_result(self) -> dict[str, Any]:
        """Return what the result's file says."""
        return {
            "fingerprint": self._fingerprint,
            "alphas": {name: alpha.tolist() for name, alpha in self._alphas_at_rest().items()},
            "iterations": self.iteration,
            "seconds": self.seconds,
            "reason": self.reason,
            "trajectory": torch.stack(self.trajectory).tolist(),
        }

    def _alphas_at_rest(self) -> dict[str, Tensor]:
        return {name: alpha.detach().cpu() for name, alpha in self.alphas.items()}

    @property
    def _fingerprint(self) -> dict[str, Any]:
        return fingerprint_of(self.settings, self.search)

    @property
    def _result_path(self) -> Path:
        return self.search.checkpoints / f"{self.file}.json"

    @property
    def _checkpoint_path(self) -> Path:
        return self.search.checkpoints / f"{self.file}.safetensors"

"""One search by NNI's DARTS: what the engine does around its steps, and the result.

A search that was killed and called again goes on from its last checkpoint and ends with the same
alphas, bit for bit on the CPU: PyTorch Lightning begins anew with the iterations that are left,
and weights, alphas, optimisers and batches are put where they were. Its own checkpoints, which
are pickles, are off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nasengine.checkpoint import SavePace, load_checkpoint, remove_checkpoint, save_checkpoint
from nasengine.errors import SearchFailed
from nasengine.files import write_json
from nasengine.randomness import torch_seed
from nasengine.training import keep_strides

from .alphas import derive, entropies, flat, margins, unsure
from .draws import Batch, make_draws
from .gradient_result import Result, fingerprint_of, read_result, refuse_other
from .nni_silence import silent
from .search_steps import make_optimiser

if TYPE_CHECKING:
    from pathlib import Path

    from nasengine.search import Search

    from .nni_darts import NniDarts


class NniSearch:
    """One search by NNI's DARTS, from its last checkpoint if there is one.

    Parameters
    ----------
    settings
        The strategy.
    search
        Space, task, seed, device, folder.
    """

    def __init__(self, settings: NniDarts, search: Search) -> None:
        self.settings = settings
        self.search = search
        self.iteration = 0
        self.seconds = 0.0
        self.reason = ""
        self._first = 0
        self._trajectory: list[Tensor] = []
        self._losses: list[float] = []
        self._alpha_loss: float | None = None

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
        self._draws = make_draws(self.settings, self.search)
        with silent(), torch_seed(self.search.seed, "nni_darts"):
            exported = self._train()
        self._tell_doubts()
        result = self._write_result(exported)
        remove_checkpoint(self._checkpoint_path)
        return result

    @property
    def _result_path(self) -> Path:
        return self.search.checkpoints / "nni_darts.json"

    @property
    def _checkpoint_path(self) -> Path:
        return self.search.checkpoints / "nni_darts.safetensors"

    @property
    def _fingerprint(self) -> dict[str, Any]:
        return fingerprint_of(self.settings, self.search)

    def _train(self) -> dict[str, int]:
        """Let NNI train from the last checkpoint to the end; return its export."""
        from .nni_supernet import Loader, make_supernet, train

        search, total = self.search, self.settings.iterations
        self.supernet = make_supernet(search.space.graph, self.settings.alpha_learning_rate)
        self._trajectory = [flat(self.supernet.alphas)]
        self._state = load_checkpoint(self._checkpoint_path, search.reporter.warn)
        if self._state is None:
            choices = {name: list(names) for name, names in search.space.decisions.items()}
            search.reporter.record("darts_choices", {"choices": choices})
        else:
            refuse_other(self._state["fingerprint"], self._fingerprint, self._checkpoint_path)
            self._first = self.iteration = self._state["iteration"]
            for draws, batches in zip(self._draws, self._state["batches"], strict=True):
                draws.batches.load_state_dict(batches)
        loaders = [Loader(draws, self._first, total - self._first) for draws in self._draws]
        title = "gradient search (NNI)"
        with search.reporter.progress(title, total, self.iteration) as self._progress:
            try:
                return train(
                    self.supernet, self, loaders[0], loaders[1], search.device, search.checkpoints
                )
            except SystemExit as error:
                # What PyTorch Lightning makes of Ctrl-C, and of SIGTERM between two iterations.
                if isinstance(error.__context__, KeyboardInterrupt):
                    raise KeyboardInterrupt from error
                self._save()
                search.pause_point()
                raise

    # What NNI's training asks for, in this order: see `nni_supernet.Steps`.

    def optimiser(self) -> torch.optim.Optimizer:
        """Return what trains the weights."""
        self._of_weights = make_optimiser(self.supernet.weights, self.settings.weights)
        return self._of_weights

    def begin(self, of_alphas: torch.optim.Optimizer) -> None:
        """Go on from the checkpoint, if there is one."""
        self._of_alphas = of_alphas
        self._pace = SavePace(self.settings.save_seconds)
        if self._state is not None:
            self._restore(self._state)
            self._state = None

    def before(self) -> None:
        """Set the learning rate of the weights."""
        self._started = time.perf_counter()
        rate = self.settings.weights.rate(self.iteration, self.settings.iterations)
        for group in self._of_weights.param_groups:
            group["lr"] = rate

    def loss(self, network: nn.Module, batch: Batch, of_alphas: bool) -> Tensor:
        """Return the task's loss of a step."""
        inputs, targets = batch
        step = "alphas" if of_alphas else "weights"
        with torch_seed(self.search.seed, "nni_darts", step, self.iteration):
            loss = self.search.task.loss(network(inputs), targets)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SearchFailed(
                f"strategy: the loss of the {step} is {value} at iteration {self.iteration + 1} of "
                f"{self.settings.iterations} (learning rate of the weights "
                f"{self.settings.weights.learning_rate:g}); the checkpoint before is kept"
            )
        if of_alphas:
            self._alpha_loss = value
        else:
            self._losses.append(value)
        return loss

    def after(self) -> bool:
        """Log and save; say whether to end before the last iteration."""
        self.iteration += 1
        self._trajectory.append(flat(self.supernet.alphas))
        self.seconds += time.perf_counter() - self._started
        budget = self.search.budget.seconds
        if budget is not None and self.seconds >= budget:
            self.reason = f"the budget of {budget:g} s is spent"
        loss = self._losses[-1]
        if self.iteration % self.settings.log_every == 0 or self._ended:
            self._log()
        self._progress.advance(1, loss=loss)
        if not self._ended and self._pace.save_if_due(
            self._save, at_once=self.search.stop.is_set()
        ):
            self.search.pause_point()
        return self._ended

    @property
    def _ended(self) -> bool:
        return bool(self.reason) or self.iteration == self.settings.iterations

    def _log(self) -> None:
        alphas = self.supernet.alphas
        facts = {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "task_loss": sum(self._losses) / len(self._losses),
            "alpha_loss": self._alpha_loss,
            "alphas": {name: alpha.tolist() for name, alpha in alphas.items()},
            "margins": margins(alphas),
            "entropy": entropies(alphas),
            "derived": dict(derive(alphas, self.search.space.decisions)),
        }
        self._losses = []
        self.search.reporter.record("darts", facts)

    def _save(self) -> None:
        # By decision: NNI hands its optimiser the alphas in the order of their addresses.
        moments = {n: self._of_alphas.state.get(a, {}) for n, a in self.supernet.alphas.items()}
        state = {
            "fingerprint": self._fingerprint,
            "iteration": self.iteration,
            "seconds": self.seconds,
            "supernet": self.supernet.space.state_dict(),
            "of_weights": self._of_weights.state_dict(),
            "of_alphas": moments,
            "trajectory": torch.stack(self._trajectory),
            "losses": self._losses,
            "alpha_loss": self._alpha_loss,
            "batches": [draws.batches.state_dict() for draws in self._draws],
        }
        save_checkpoint(self._checkpoint_path, state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.seconds, self._alpha_loss = state["seconds"], state["alpha_loss"]
        self._losses, self._trajectory = list(state["losses"]), list(state["trajectory"].unbind())
        self.supernet.space.load_state_dict(state["supernet"])
        self._of_weights.load_state_dict(state["of_weights"])
        keep_strides(self._of_weights)
        for name, alpha in self.supernet.alphas.items():
            self._of_alphas.state[alpha] = dict(state["of_alphas"][name])

    def _tell_doubts(self) -> None:
        decisions, reporter = self.search.space.decisions, self.search.reporter
        if self.reason:
            reporter.note(f"ended after {self.iteration} iterations: {self.reason}")
        doubtful = unsure(torch.stack(self._trajectory), decisions)
        if doubtful:
            reporter.warn(
                f"within noise: at {len(doubtful)} of {len(decisions)} slots the best alpha leads "
                f"the second by less than two standard errors of its updates "
                f"({', '.join(doubtful)}); more iterations, or a larger alpha_learning_rate"
            )

    def _write_result(self, exported: Mapping[str, int]) -> Result:
        decisions = self.search.space.decisions
        alphas = {name: alpha.detach().cpu() for name, alpha in self.supernet.alphas.items()}
        facts = {
            "fingerprint": self._fingerprint,
            "alphas": {name: alpha.tolist() for name, alpha in alphas.items()},
            "exported": {name: decisions[name][index] for name, index in exported.items()},
            "iterations": self.iteration,
            "seconds": self.seconds,
            "reason": self.reason,
            "trajectory": torch.stack(self._trajectory).tolist(),
        }
        write_json(self._result_path, facts)
        return Result(alphas, self.iteration, self.reason)

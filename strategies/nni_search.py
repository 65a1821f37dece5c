"""One search by NNI's DARTS: what the engine does around its steps.

A search that was killed goes on as every other: PyTorch Lightning begins anew with the iterations
that are left, and weights, alphas, optimisers and batches are put where they were. Its own
checkpoints, which are pickles, are off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nasengine.errors import SearchFailed
from nasengine.optimisers import keep_strides
from nasengine.randomness import torch_seed

from .alpha_search import AlphaSearch
from .alphas import flat
from .draws import Batch, make_draws
from .nni_darts import NniDarts
from .search_steps import make_optimiser
from .silence import silent_nni_darts


class NniSearch(AlphaSearch[NniDarts]):
    """One search by NNI's steps.

    Parameters
    ----------
    settings
        The strategy.
    search
        Space, task, seed, device, folder.
    """

    file = "nni_darts"
    rate = "alpha_learning_rate"

    @property
    def alphas(self) -> Mapping[str, Tensor]:
        """The alphas by decision: (choices,)."""
        return self.supernet.alphas

    def search_on(self) -> None:
        """Let NNI search to the end, from where the last checkpoint is."""
        self._draws = make_draws(self.settings, self.search)
        with silent_nni_darts(), torch_seed(self.search.seed, "nni_darts"):
            self._exported = self._train()

    def _facts_of_result(self) -> dict[str, Any]:
        decisions = self.search.space.decisions
        exported = {name: decisions[name][index] for name, index in self._exported.items()}
        return {**super()._facts_of_result(), "exported": exported}

    def _train(self) -> dict[str, int]:
        """Let NNI train from the last checkpoint to the end; return its export."""
        from .nni_supernet import Loader, make_supernet, train

        search, total = self.search, self.settings.iterations
        self.supernet = make_supernet(search.space.graph, self.settings.alpha_learning_rate)
        self._state = self.begin()
        if self._state is not None:
            for draws, batches in zip(self._draws, self._state["batches"], strict=True):
                draws.batches.load_state_dict(batches)
        first = self.iteration
        loaders = [Loader(draws, first, total - first) for draws in self._draws]
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
                self.save()
                search.pause_point()
                raise

    # What NNI's training asks for, in this order: see `nni_supernet.Steps`.

    def optimiser(self) -> torch.optim.Optimizer:
        """Return what trains the weights."""
        self._of_weights = make_optimiser(self.supernet.weights, self.settings.weights)
        return self._of_weights

    def prepare(self, of_alphas: torch.optim.Optimizer) -> None:
        """Go on from the checkpoint, if there is one."""
        self._of_alphas = of_alphas
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
        self.note_loss(value, of_alphas)
        if not of_alphas:
            self._loss = value
        return loss

    def after(self) -> bool:
        """Log and save; say whether to end before the last iteration."""
        self.trajectory.append(flat(self.alphas))
        self.end_iteration(time.perf_counter() - self._started)
        self._progress.advance(1, loss=self._loss)
        if not self.ended:
            self.save_if_due()
        return self.ended

    def state_dict(self) -> dict[str, Any]:
        """Return what the steps need to go on, besides what every search keeps."""
        # By decision: NNI hands its optimiser the alphas in the order of their addresses.
        moments = {n: self._of_alphas.state.get(a, {}) for n, a in self.supernet.alphas.items()}
        return {
            "supernet": self.supernet.space.state_dict(),
            "of_weights": self._of_weights.state_dict(),
            "of_alphas": moments,
            "batches": [draws.batches.state_dict() for draws in self._draws],
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.supernet.space.load_state_dict(state["supernet"])
        self._of_weights.load_state_dict(state["of_weights"])
        keep_strides(self._of_weights)
        for name, alpha in self.supernet.alphas.items():
            self._of_alphas.state[alpha] = dict(state["of_alphas"][name])

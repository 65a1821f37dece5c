"""NNI's own one-shot DARTS, on any space: the gradient baseline that others publish with.

Microsoft, Neural Network Intelligence 3.0, https://nni.readthedocs.io/en/stable/nas/strategies.html;
Liu, Simonyan, Yang: DARTS (ICLR 2019), first order.

NNI's are the supernet's mixed layers (`LayerChoice`, made `DifferentiableMixedLayer`), the alphas
(drawn at 0.001), both steps of `DartsLightningModule` under PyTorch Lightning's trainer, what
trains the alphas (Adam with betas 0.5 and 0.999 and weight decay 0.001; only its learning rate can
be set) and the export, the arg-max. The engine's are the graph that the layers stand in, the
task's loss, samples and augmentation, the optimiser of the weights, checkpoints, and, with
``top_k`` or with limits of the objectives, which further architectures are derived from the alphas.

Of NNI 3.0 this leaves out, as it does not do what it says:

- its cost penalty: the probabilities go through ``tolist()``, so that it has no gradient and the
  alphas are the same to the bit with or without; ``cost`` is refused here, `darts` has it
- its profilers, which fail on functional code (sums and concatenations of a graph)
- its Proxyless, which exports a random sample instead of the arg-max and runs every candidate;
  ``paths`` of `darts` is what it is meant to be
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from nasengine.architecture import Architecture
from nasengine.errors import PluginError
from nasengine.history import History
from nasengine.strategy import Strategy

from .darts import WeightOptimiser

if TYPE_CHECKING:
    from nasengine.search import Search
    from nasengine.workload import Workload

REFUSED = {
    "cost": "NNI's cost penalty has no gradient (the alphas are the same to the bit with it); "
    "the strategy darts has one",
    "alphas": "NNI trains the alphas by Adam; alpha_learning_rate sets its learning rate",
    "arch_every": "NNI takes a step of the alphas before every step of the weights",
    "order": "NNI has first-order DARTS only; the strategy darts has both",
    "paths": "NNI's Proxyless exports a random sample; the strategy darts has sampled paths",
}
"""Settings of `darts` that NNI's cannot have, with the reason."""


class NniDarts(Strategy):
    """NNI 3.0's own one-shot DARTS: weights and alphas in turn, then the arg-max (no costs)."""

    iterations: int = Field(200, gt=0)
    """Iterations, each a step of the alphas and one of the weights."""
    batch: int = Field(4, gt=0)
    """Samples in a step, of the weights as of the alphas."""
    weights: WeightOptimiser = WeightOptimiser()
    """What trains the weights."""
    alpha_learning_rate: float = Field(3e-4, gt=0, allow_inf_nan=False)
    """The learning rate of NNI's Adam, which trains the alphas; the default is NNI's."""
    alpha_share: float = Field(0.5, ge=0, lt=1)
    """Share of the training samples, drawn by the seed, on which the alphas alone are trained;
    0 trains alphas and weights on the same samples."""
    top_k: int = Field(1, gt=0)
    """How many architectures are proposed, best first; the first is NNI's export."""
    log_every: int = Field(10, gt=0)
    """Iterations between entries in the log."""
    save_seconds: float = Field(30.0, ge=0)
    """Seconds between checkpoints, more where saving takes longer than 2% of that; 0 saves after
    every iteration."""

    @model_validator(mode="before")
    @classmethod
    def _offered(cls, data: Any) -> Any:
        """Say why what `darts` has is missing here."""
        if isinstance(data, dict):
            reasons = [f"{key}: {why}" for key, why in REFUSED.items() if key in data]
            if reasons:
                raise ValueError("not offered: " + "; ".join(reasons))
        return data

    def check(self, search: Search) -> None:  # noqa: ARG002
        """Refuse to begin without NNI and PyTorch Lightning.

        Raises
        ------
        PluginError
            Saying what to install.
        """
        missing = [name for name in ("nni", "pytorch_lightning") if find_spec(name) is None]
        if missing:
            raise PluginError(
                f"the strategy nni_darts needs {' and '.join(missing)}: "
                f"pip install 'nasengine[nni-nas]'"
            )

    def workload(self, search: Search) -> Workload:  # noqa: ARG002
        """Return the steps of weights and alphas."""
        from nasengine.workload import Workload

        return Workload(2 * self.iterations, self.batch, whole=True)

    def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
        """Search, or read what an earlier call found; return what was derived and is not measured.

        The checkpoints lie in ``search.checkpoints``: an interrupted search goes on where it was.
        """
        from .derived import derive_all, propose_derived
        from .nni_search import NniSearch

        result = NniSearch(self, search).run()
        return propose_derived(
            derive_all({}, self.top_k, search, result.alphas), history, count, search
        )

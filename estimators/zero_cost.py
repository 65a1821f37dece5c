"""Scores of untrained networks: a ranking for the price of one batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from nasengine.errors import EstimationFailed
from nasengine.estimator import Candidate, Estimator
from nasengine.trial import Measurement, Metric

if TYPE_CHECKING:
    import torch

    from nasengine.search import Search

    from .zero_cost_proxies import Probe


class ZeroCost(Estimator):
    """A zero-cost proxy: the score of an untrained network from one batch; higher is better.

    ``grad_norm`` (Abdelfattah et al. 2021), ``snip`` (Lee et al. 2019), ``synflow`` (Tanaka et
    al. 2020), ``naswot`` (Mellor et al. 2021), ``jacob_cov`` (Mellor et al. 2020), ``zen`` (Lin
    et al. 2021).
    """

    effort: ClassVar[int] = 1

    proxy: Literal["grad_norm", "snip", "synflow", "naswot", "jacob_cov", "zen"] = "naswot"
    """Which one."""

    batch: int = Field(default=32, gt=1)
    """Training samples to probe with; all, if there are fewer."""

    def metrics(self, search: Search) -> tuple[Metric, ...]:  # noqa: ARG002
        """Return the proxy."""
        return (Metric(self.proxy, "", "max"),)

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Probe the network, initialised from the candidate's seed.

        Raises
        ------
        EstimationFailed
            If the score is not finite, or the proxy does not suit the network.
        """
        from torch import enable_grad

        from nasengine.randomness import torch_seed

        from .zero_cost_proxies import PROXIES

        search = candidate.search
        network = candidate.network("zero-cost").to(search.device)
        with (
            torch_seed(search.seed, candidate.label, "zero-cost") as generator,
            enable_grad(),
        ):
            try:
                value = PROXIES[self.proxy](network, self._probe(search, generator))
            except (ValueError, RuntimeError) as error:
                raise EstimationFailed(f"{self.proxy}: {error}") from error
        if not math.isfinite(value):
            raise EstimationFailed(f"{self.proxy}: the score is {value}")
        return {self.proxy: Measurement(value)}

    def _probe(self, search: Search, generator: torch.Generator) -> Probe:
        """Take the same samples for every candidate."""
        from .zero_cost_proxies import Probe

        samples = search.splits.train
        rng = search.stream("zero-cost", "batch")
        chosen = sorted(rng.sample(range(len(samples)), min(self.batch, len(samples))))
        inputs = samples.inputs[chosen].to(search.device)
        targets = samples.targets[chosen].to(search.device)
        return Probe(inputs, lambda outputs: search.task.loss(outputs, targets), generator)

"""Scores of untrained networks: a ranking for the price of one batch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from nasengine.errors import EstimationFailed, SpecError
from nasengine.estimator import Candidate, Estimator
from nasengine.plugin import changed
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
    """Training samples to probe with; all, if there are fewer. Of ``zen``, the random inputs;
    ``synflow`` looks at none."""

    seeds: int = Field(default=1, ge=1, le=100)
    """Initialisations whose scores are averaged; each value and the standard deviation are kept."""

    def metrics(self, search: Search) -> tuple[Metric, ...]:  # noqa: ARG002
        """Return the proxy."""
        return (Metric(self.proxy, "", "max"),)

    def check(self, search: Search) -> None:  # noqa: ARG002
        """Refuse a batch that nothing looks at.

        Raises
        ------
        SpecError
            Saying so.
        """
        if self.proxy == "synflow" and "batch" in changed(self):
            raise SpecError("batch: synflow looks at no samples; leave it out")

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Probe the network, initialised from the candidate's seed, and from further ones.

        Raises
        ------
        EstimationFailed
            If a score is not finite, or the proxy does not suit the network.
        """
        values = [self._score(candidate, seed) for seed in range(self.seeds)]
        details: dict[str, Any] = {"values": values}
        if len(values) > 1:
            details["std"] = statistics.stdev(values)
        return {self.proxy: Measurement(statistics.fmean(values), details)}

    def _score(self, candidate: Candidate, seed: int) -> float:
        from torch import enable_grad

        from nasengine.randomness import reproducible, torch_seed

        from .zero_cost_proxies import PROXIES

        search = candidate.search
        # The first seed is that of a single one.
        labels: tuple[str | int, ...] = ("zero-cost", seed) if seed else ("zero-cost",)
        network = candidate.network(*labels).to(search.device)
        seeded = torch_seed(search.seed, candidate.label, *labels)
        with seeded as generator, reproducible(search.device), enable_grad():
            try:
                value = PROXIES[self.proxy](network, self._probe(search, generator))
            except (ValueError, RuntimeError) as error:
                raise EstimationFailed(f"{self.proxy}: {error}") from error
        if not math.isfinite(value):
            raise EstimationFailed(f"{self.proxy}: the score is {value}")
        return value

    def _probe(self, search: Search, generator: torch.Generator) -> Probe:
        """Take the same samples for every candidate."""
        from .zero_cost_proxies import Probe

        samples = search.splits.train
        rng = search.stream("zero-cost", "batch")
        chosen = sorted(rng.sample(range(len(samples)), min(self.batch, len(samples))))
        inputs = samples.inputs[chosen].to(search.device)
        targets = samples.targets[chosen].to(search.device)
        return Probe(inputs, lambda outputs: search.task.loss(outputs, targets), generator)

"""Trains a network from scratch and measures it on held-out samples.

The default recipe (AdamW, one cycle of 300 steps) is the short finished schedule that ranks
networks best for its price; ``recipe = "paper"`` is the SGD of Chen et al. 2023.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nasengine.errors import SpecError
from nasengine.estimator import Candidate, Estimator
from nasengine.plugin import changed
from nasengine.recipe import RecipeSettings
from nasengine.trial import Measurement, Metric

if TYPE_CHECKING:
    from nasengine.search import Search
    from nasengine.workload import Workload

    from ._training_runs import Run


class Trained(RecipeSettings, Estimator):
    """Trains the network from scratch and validates it on held-out samples.

    Gives the task's metrics and ``loss`` on the validation split, ``test_<metric>`` where the
    data have a test split, and the ``seconds`` of training: means over the seeds, with each value
    and the standard deviation in the details. The weights of the seed with the best validation
    are left to be delivered.
    """

    effort: ClassVar[int] = 2

    metric: str | None = None
    """The primary metric; by default the task's first one (such as `iou`)."""
    seeds: int = Field(default=1, ge=1, le=100)
    """Trainings from different initial weights; a difference of one run each shows little."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many validations without a better primary metric, and keep the best weights.
    By default never: a one-cycle schedule pays off at its end."""
    validate_every: int = Field(default=50, ge=1)
    """Steps between validations, beside the last; only with `patience`."""
    resolution: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    """Fidelity: height and width of the samples, relative to the task's."""
    width_fraction: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    """Fidelity: channels of the networks, relative to the space's. What is delivered is as wide as
    the space says, and trained by another estimator, such as one of ``final.estimators``."""
    data_fraction: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    """Fidelity: the share of the training samples that is used, drawn once a run."""

    @property
    def leaves_weights(self) -> bool:
        """Whether what it trains is as wide as the space says."""
        return self.width_fraction == 1

    def metrics(self, search: Search) -> tuple[Metric, ...]:
        """Return the primary metric, the task's others, the loss, the same on test, seconds.

        The test metrics are measured only where the data have a test split, which is not known
        before the data are read.
        """
        from ._held_out import held_out_metrics

        return (*held_out_metrics(search, self.metric), Metric("seconds", "s", "min"))

    def primary(self, search: Search) -> Metric:
        """Return the primary metric."""
        return search.task.metrics_from(self.metric)[0]

    def check(self, search: Search) -> None:
        """Refuse an unknown metric, an unused setting, a misfit fidelity.

        Raises
        ------
        SpecError
            Naming the setting and what is possible.
        """
        search.task.metrics_from(self.metric)
        if "validate_every" in changed(self) and self.patience is None:
            raise SpecError("validate_every: only with patience, which is not set")
        steps = self.resolved().iterations
        if self.patience is not None and self.validate_every >= steps:
            raise SpecError(
                f"patience: a training of {steps} steps is validated at its end alone, with "
                f"validate_every = {self.validate_every}; lower that below {steps}"
            )
        from nasengine.passes import choose_precision

        from ._training_runs import check_fidelity

        choose_precision(self.precision, search.device)
        check_fidelity(self, search)

    def workload(self, search: Search) -> Workload:  # noqa: ARG002
        """Return the training of all seeds; lower fidelities have fewer pixels and channels."""
        from nasengine.workload import Workload

        recipe = self.resolved()
        share = self.resolution**2 * self.width_fraction
        steps = round(self.seeds * recipe.iterations * share)
        return Workload(max(1, steps), recipe.batch)

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Train with every seed, and measure.

        Raises
        ------
        EstimationFailed
            If the loss, or an output after training, is NaN or infinite.
        """
        from ._training_runs import deliver, remove_checkpoints, train_once

        search = candidate.search
        runs = [train_once(self, candidate, search, seed) for seed in range(self.seeds)]
        sign, primary = self.primary(search).sign, self.primary(search).name
        best = max(range(len(runs)), key=lambda index: (sign * runs[index].values[primary], -index))
        if self.leaves_weights:
            deliver(runs[best], candidate)
        remove_checkpoints(self, candidate)
        names = [m.name for m in self.metrics(search) if m.name in runs[0].values]
        found = {name: _summary(runs, name) for name in names}
        details = {**found[primary].details, "steps": [r.steps for r in runs]}
        if self.leaves_weights:
            details["delivered_seed"] = best
        found[primary] = Measurement(found[primary].value, details)
        return found


def _summary(runs: list[Run], name: str) -> Measurement:
    """Return the mean over the seeds; of each sample too, where its own figure is known."""
    values = [run.values[name] for run in runs]
    details: dict[str, Any] = {"values": values}
    if len(values) > 1:
        details["std"] = statistics.stdev(values)
    if name in runs[0].per_sample:
        columns = zip(*(run.per_sample[name] for run in runs), strict=True)
        details["per_sample"] = [_mean(column) for column in columns]
    return Measurement(statistics.fmean(values), details)


def _mean(values: tuple[float | None, ...]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.fmean(known), 6) if known else None

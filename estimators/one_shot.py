"""Scores networks by weights inherited from a supernet that is trained once a run.

Single path: Guo et al. 2020, "Single Path One-Shot Neural Architecture Search with Uniform
Sampling" (section 3.2; batch norms recalibrated, section 3.4). Fair sampling: Chu et al. 2021,
"FairNAS", algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from nasengine.errors import SpecError
from nasengine.estimator import Candidate, Estimator
from nasengine.recipe import RecipeSettings
from nasengine.trial import Measurement, Metric

if TYPE_CHECKING:
    from nasengine.search import Search
    from nasengine.workload import Workload


class OneShot(RecipeSettings, Estimator):
    """Scores a network by weights from a supernet, trained once a run; any strategy can use it.

    Gives the task's metrics and ``loss`` on the validation split. Such scores rank networks; they
    are not what a network reaches when it is trained alone. In each step only the candidates that
    were drawn run. Nothing is delivered: the winner is to be trained by an estimator `trained`.
    Reference networks with blocks that are no candidates have no weights in the supernet, and
    fail with that reason.
    """

    effort: ClassVar[int] = 2

    metric: str | None = None
    """The primary metric; by default the task's first one (such as `iou`)."""
    iterations: int | None = Field(default=1000, gt=0)
    """Steps of the supernet's optimiser."""
    sampling: Literal["uniform", "fair"] = "uniform"
    """`uniform`: one random path a step. `fair`: each candidate once a step (FairNAS), in as many
    passes as a decision has choices."""
    recalibration: int = Field(default=8, ge=1)
    """Training batches from which each network's batch norms take their statistics anew."""

    def metrics(self, search: Search) -> tuple[Metric, ...]:
        """Return the primary metric, the task's others, and the loss."""
        return (*search.task.metrics_from(self.metric), Metric("loss", "", "min"))

    def check(self, search: Search) -> None:
        """Refuse an unknown metric, a precision that the device lacks, a misfit sampling.

        Raises
        ------
        SpecError
            Naming the setting and what is possible.
        """
        from nasengine.passes import choose_precision

        search.task.metrics_from(self.metric)
        choose_precision(self.precision, search.device)
        sizes = {len(choices) for choices in search.space.decisions.values()}
        if self.sampling == "fair" and len(sizes) > 1:
            raise SpecError(
                f"sampling: 'fair' needs as many choices in every decision, and this space has "
                f"{', '.join(str(size) for size in sorted(sizes))}; take 'uniform'"
            )

    def shared_workload(self, search: Search) -> Workload:
        """Return the training of the supernet: one path a step, or each candidate in turn."""
        from nasengine.workload import Workload

        recipe = self.resolved()
        choices = max(len(choices) for choices in search.space.decisions.values())
        paths = choices if self.sampling == "fair" else 1
        return Workload(recipe.iterations * paths, recipe.batch)

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Train the supernet if it is not, inherit its weights, recalibrate, validate.

        Raises
        ------
        EstimationFailed
            If the network has a block that is no candidate, or its outputs are not finite.
        """
        from ._supernet_scores import inherited, recalibrate, trained_supernet

        search = candidate.search
        weights = trained_supernet(self, search)
        network = inherited(candidate.architecture, weights, search)
        recalibrate(network, self, search)
        from nasengine.evaluation import evaluate

        found = evaluate(network, search.splits.validation, search)
        return {name: Measurement(value) for name, value in found.items()}

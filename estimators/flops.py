"""FLOPs as the paper counts them: multiply-accumulates, by ptflops (Light SDI-NAS, Table 1).

One for each multiply-accumulate of a convolution or matrix product, one for each bias added, two
for each element of a batch norm, one for each element of an activation; for one sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from nasengine.errors import EstimationFailed, SpecError
from nasengine.estimator import Candidate, CostTable, Estimator
from nasengine.trial import Measurement, Metric

if TYPE_CHECKING:
    from torch import nn

    from nasengine.search import Search


class Flops(Estimator):
    """Multiply-accumulates of one forward pass of one sample (the paper's FLOPs)."""

    effort: ClassVar[int] = 0

    allow_uncounted: bool = False
    """Measure networks with operations that no formula is known for, and record which they are;
    otherwise such a candidate fails."""

    def metrics(self, search: Search) -> tuple[Metric, ...]:  # noqa: ARG002
        """Return the one metric."""
        return (Metric("flops", "MACs", "min"),)

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Count the derived network, with the share of each operation in the details.

        Raises
        ------
        EstimationFailed
            Naming the operations that cannot be counted.
        """
        from ._mac_counter import count_macs
        from ._tables import meta_network

        search = candidate.search
        network = meta_network(search, candidate.architecture)
        counter = count_macs(network, search.task.input_shape)
        if counter.uncounted and not self.allow_uncounted:
            raise EstimationFailed(_no_formula(counter.uncounted))
        details = {
            "operations": dict(counter.macs.most_common()),
            "uncounted": dict(counter.uncounted),
        }
        return {"flops": Measurement(float(counter.macs.total()), details)}

    def table(self, search: Search) -> CostTable:
        """Count each candidate in each slot.

        Raises
        ------
        SpecError
            Naming the operations that cannot be counted.
        """
        from ._tables import counted_table

        return counted_table(search, "MACs", self._count)

    def _count(self, module: nn.Module, *shapes: Sequence[int]) -> int:
        from ._mac_counter import count_macs

        counter = count_macs(module, *shapes)
        if counter.uncounted and not self.allow_uncounted:
            raise SpecError(_no_formula(counter.uncounted))
        return counter.macs.total()


def _no_formula(uncounted: Mapping[str, int]) -> str:
    return (
        f"flops: no count is known for {', '.join(sorted(uncounted))}; "
        "allow_uncounted = true leaves them out and records them"
    )

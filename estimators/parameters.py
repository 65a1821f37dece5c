"""Trainable parameters, the paper's measure of lightness (Light SDI-NAS, eq. 4 and Table 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from nasengine.estimator import Candidate, CostTable, Estimator
from nasengine.trial import Measurement, Metric

if TYPE_CHECKING:
    from torch import nn

    from nasengine.search import Search


def count_parameters(module: nn.Module) -> int:
    """Count the trainable parameters of a module; shared ones once.

    Examples
    --------
    >>> from torch import nn
    >>> count_parameters(nn.Conv2d(3, 8, kernel_size=3))
    224
    """
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


class Parameters(Estimator):
    """Number of trainable parameters."""

    effort: ClassVar[int] = 0

    def metrics(self, search: Search) -> tuple[Metric, ...]:  # noqa: ARG002
        """Return the one metric."""
        return (Metric("parameters", "parameters", "min"),)

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Count the parameters of the derived network."""
        from ._tables import meta_network

        count = count_parameters(meta_network(candidate.search, candidate.architecture))
        return {"parameters": Measurement(float(count))}

    def table(self, search: Search) -> CostTable:
        """Count the parameters of each candidate in each slot."""
        from ._tables import counted_table

        return counted_table(search, "parameters", lambda module, *_: count_parameters(module))

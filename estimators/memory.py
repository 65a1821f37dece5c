"""Memory that a network needs, to run and to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from nasengine.estimator import Candidate, Estimator
from nasengine.trial import Measurement, Metric

if TYPE_CHECKING:
    from nasengine.search import Search


class Memory(Estimator):
    """Bytes at the peak: weights and live activations, of inference and of a training step.

    `memory.weights` is the weights alone, and within some kilobytes the size of a file of them.

    Found on the meta device from the lifetimes of tensors, in fp32, eager. Memory that
    allocators round up to, and scratch memory of libraries, come on top.
    """

    effort: ClassVar[int] = 0

    batch: int = Field(default=1, gt=0)
    """Samples in a forward pass at inference."""

    training_batch: int = Field(default=16, gt=1)
    """Samples in a training step."""

    optimiser_states: int = Field(default=2, ge=0)
    """Tensors that the optimiser keeps for each parameter: 2 for Adam, 1 for momentum."""

    def metrics(self, search: Search) -> tuple[Metric, ...]:  # noqa: ARG002
        """Return the total of inference first."""
        names = ("memory", "weights", "activations", "training", "training_activations")
        return tuple(Metric(name, "bytes", "min") for name in names)

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Follow one forward pass, and one training step, of the derived network.

        Training holds the weights, the optimiser's states, and at its peak activations and
        gradients, those of the parameters among them.
        """
        from ._liveness import inference_peak, training_peak, weight_bytes
        from ._tables import meta_network

        search = candidate.search
        network, shape = meta_network(search, candidate.architecture), search.task.input_shape
        weights, trainable = weight_bytes(network)
        inference = inference_peak(network, (self.batch, *shape))
        training = training_peak(network, (self.training_batch, *shape))
        states = self.optimiser_states * trainable
        values = {
            "memory": weights + inference,
            "weights": weights,
            "activations": inference,
            "training": weights + states + training,
            "training_activations": training,
        }
        return {name: Measurement(float(value)) for name, value in values.items()}

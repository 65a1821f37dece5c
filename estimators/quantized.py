"""Quantises a trained network to integers of 8 bits, and measures what is left of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nasengine.errors import EstimationFailed, ExportFailed, SpecError
from nasengine.estimator import Candidate, Estimator
from nasengine.trial import Measurement, Metric

if TYPE_CHECKING:
    from torch import nn

    from nasengine.search import Search


class Quantized(Estimator):
    """Quantises the trained network to integers of 8 bits (int8), and validates that.

    After the training, by ONNX Runtime: weights with a scale for each channel, activations in the
    ranges that training samples show. Gives the task's metrics and ``loss`` on the validation
    split, ``test_<metric>`` where the data have a test split, and ``bytes``, the size of the ONNX
    file, all of the model in int8 as ONNX Runtime runs it on the CPU. It is left to be delivered
    as ``model_int8.onnx``. Its latency is that of `latency` with ``precision = "int8"``.

    Stands beside a `trained` at full width, whose network it takes: of several the last one's, of
    several ``seeds`` the one that is delivered, which is no mean. Needs the extra ``onnx``.
    """

    effort: ClassVar[int] = 3

    metric: str | None = None
    """The primary metric; by default the task's first one (such as `iou`)."""
    samples: int = Field(default=100, ge=1)
    """Training samples, drawn once a run, that show which ranges activations have."""

    def metrics(self, search: Search) -> tuple[Metric, ...]:
        """Return the primary metric, the task's others, the loss, the same on test, bytes."""
        from ._held_out import held_out_metrics

        return (*held_out_metrics(search, self.metric), Metric("bytes", "bytes", "min"))

    def check(self, search: Search) -> None:
        """Refuse an unknown metric, a search that trains nothing at full width, a missing extra.

        Raises
        ------
        SpecError
            Naming what is possible, or what is missing.
        PluginError
            Saying what to install.
        """
        from nasengine.exporting.onnx_model import require_onnxruntime

        search.task.metrics_from(self.metric)
        if not any(estimator.leaves_weights for estimator in search.estimators.values()):
            raise SpecError(
                "it quantises what an estimator beside it trains at full width, and none does: "
                "take a 'trained' too, without width_fraction"
            )
        require_onnxruntime("the estimator quantized")

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Quantise what was trained, and measure it.

        Raises
        ------
        EstimationFailed
            If nothing was trained at full width, or the network cannot be exported or quantised.
        """
        from nasengine.exporting.onnx_model import OnnxNetwork
        from nasengine.files import write_atomically

        from ._held_out import on_held_out

        search = candidate.search
        model = self._quantized(candidate)
        primary = self.metrics(search)[0].name
        splits = search.splits
        values, per_sample = on_held_out(
            OnnxNetwork(model), splits.validation, splits.test, search, primary, "cpu"
        )
        write_atomically(candidate.int8_path, model)
        values["bytes"] = float(len(model))
        details = {name: {"per_sample": [*each]} for name, each in per_sample.items()}
        return {name: Measurement(v, details.get(name, {})) for name, v in values.items()}

    def _quantized(self, candidate: Candidate) -> bytes:
        from nasengine.exporting.int8 import quantized
        from nasengine.exporting.onnx_model import exported_as_free

        search = candidate.search
        try:
            model, _, _ = exported_as_free(_trained(candidate), search.task.input_shape)
            return bytes(quantized(model, self._feeds(search)).SerializeToString())
        except ExportFailed as error:
            raise EstimationFailed(str(error)) from error

    def _feeds(self, search: Search) -> list[Mapping[str, Any]]:
        """Return batches of training samples, the same for all networks of a run."""
        import torch

        from nasengine.randomness import torch_seed

        inputs = search.splits.train.inputs
        with torch_seed(search.seed, "int8") as generator:
            drawn = torch.randperm(len(inputs), generator=generator)[: self.samples]
        return [{"input": inputs[part].numpy()} for part in torch.split(drawn, 16)]


def _trained(candidate: Candidate) -> nn.Module:
    from nasengine.network import trained_network

    if not candidate.weights_path.is_file():
        raise EstimationFailed(
            "nothing to quantise: no estimator beside it trained the network at its full width"
        )
    graph = candidate.search.space.graph
    return trained_network(graph, candidate.architecture, candidate.weights_path)

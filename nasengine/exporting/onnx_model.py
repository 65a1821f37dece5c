"""Networks as ONNX models: exported by torch, run by ONNX Runtime."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from nasengine.errors import ExportFailed, PluginError, origin
from nasengine.exporting.checked import checked_difference, example
from nasengine.exporting.quiet import quiet

_SIDES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""How the sides are called that are free, by their number."""


def missing(*packages: str) -> str:
    """Name which packages are not installed, and what installs them; empty where all are."""
    found = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{' and '.join(found)}: pip install 'nasengine[onnx]'" if found else ""


def require_onnxruntime(what: str, device: str = "cpu") -> None:
    """Refuse what needs ONNX Runtime where it, or what exports for it, is not installed.

    Parameters
    ----------
    what
        What needs it, for the error.
    device
        Where it is to run.

    Raises
    ------
    PluginError
        Saying what to install.
    """
    if absent := missing("onnx", "onnxruntime", "onnxscript"):
        raise PluginError(f"{what} needs {absent}")
    import onnxruntime

    if _provider(device) not in onnxruntime.get_available_providers():
        raise PluginError(
            f"{what}: this onnxruntime does not run on {device}: pip install onnxruntime-gpu"
        )


def _provider(device: str) -> str:
    return "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"


def exported(
    network: nn.Module, inputs: Sequence[Tensor], free: Mapping[int, str] | None = None
) -> Any:
    """Return a network, on the CPU and in evaluation mode, as an ONNX ``ModelProto``.

    Parameters
    ----------
    network
        Where it reads one tensor, the model's input is called ``input``; its output ``output``.
    inputs
        What it is called with, (N, C, H, W) each.
    free
        Dimensions that may be of any length, with their names; of one input.

    Raises
    ------
    ExportFailed
        If torch cannot export it, with the reason.
    """
    shape = {place: torch.export.Dim(name) for place, name in (free or {}).items()}
    # Tensors made under inference_mode cannot be exported.
    with torch.inference_mode(False), torch.no_grad(), quiet():
        try:
            program = torch.onnx.export(
                network,
                tuple(x.clone() for x in inputs),
                dynamo=True,
                verbose=False,
                input_names=["input"] if len(inputs) == 1 else None,
                output_names=["output"],
                dynamic_shapes=(shape,) if shape else None,
            )
        # The exporter raises a dozen types of its own, by release.
        except Exception as error:
            raise ExportFailed(f"torch cannot export it: {origin(error)}") from error
    assert program is not None
    return program.model_proto


def exported_as_free(network: nn.Module, input_shape: Sequence[int]) -> tuple[Any, bool, float]:
    """Return a network as a ``ModelProto`` that takes any batch and, where it can, any size.

    It was run beside torch, where onnxruntime is installed.

    Parameters
    ----------
    network
        On the CPU, in evaluation mode.
    input_shape
        (C, H, W) of one sample.

    Returns
    -------
    The model, whether height and width are free, and its largest difference to torch's outputs on
    random samples; nan where it was not run.

    Raises
    ------
    ExportFailed
        If the network has no ONNX form, or its outputs differ from torch's.
    """
    inputs, sides = example(input_shape), len(input_shape) - 1
    batch = {0: "batch"}
    named = _SIDES.get(sides, tuple(f"side_{n}" for n in range(sides)))
    # What fits once fits at twice the size, whatever the network's strides are.
    larger = inputs[:1].repeat(1, 1, *(2 for _ in input_shape[1:]))
    try:
        model = exported(network, [inputs], batch | dict(enumerate(named, 2)))
        return model, True, _difference(network, model, inputs, larger)
    except ExportFailed:
        model = exported(network, [inputs], batch)
        return model, False, _difference(network, model, inputs)


def _difference(network: nn.Module, model: Any, *samples: Tensor) -> float:
    """Return the largest difference on some samples; nan without onnxruntime."""
    if importlib.util.find_spec("onnxruntime") is None:
        return float("nan")
    try:
        runs = OnnxNetwork(model.SerializeToString())
        outputs = [runs(inputs) for inputs in samples]
        with torch.inference_mode():
            wanted = [network(inputs) for inputs in samples]
    # onnxruntime's errors have no type of their own, and a network may raise anything.
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ExportFailed(f"onnxruntime cannot run it: {first}") from error
    return max(map(checked_difference, outputs, wanted, repeat("the ONNX model")))


def session(model: bytes, *, threads: int | None = None, device: str = "cpu") -> Any:
    """Return an ``onnxruntime.InferenceSession`` that says nothing: what it cannot do is raised.

    Parameters
    ----------
    model
        An ONNX model.
    threads
        Of one operation; by default, as many as there are cores.
    device
        ``cpu`` or ``cuda``.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=[_provider(device)])


class OnnxNetwork(nn.Module):
    """An ONNX model of one input and one output, called as a network on the CPU is."""

    def __init__(self, model: bytes) -> None:
        super().__init__()
        self._session = session(model, threads=torch.get_num_threads())
        (self._input,) = (given.name for given in self._session.get_inputs())

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs for (N, C, H, W)."""
        (outputs,) = self._session.run(None, {self._input: x.numpy()})
        return torch.from_numpy(outputs)

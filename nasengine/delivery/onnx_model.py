"""What a run delivers of its network: ONNX, for any batch and, where it can be, any image size."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nasengine.delivery.checked import ExportFailed, checked_difference, example
from nasengine.errors import origin
from nasengine.files import write_atomically

_SIDES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""How the sides are called that are free, by their number."""


def export_onnx(
    network: nn.Module, input_shape: Sequence[int], path: Path, facts: Mapping[str, Any]
) -> str:
    """Write a network as ONNX; see `write_onnx`.

    Returns
    -------
    Why it could not be written; empty when it was.
    """
    try:
        write_onnx(network, input_shape, path, facts)
    except ExportFailed as error:
        return f"no {path.name}: {error}"
    return ""


def write_onnx(
    network: nn.Module, input_shape: Sequence[int], path: Path, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a network as ONNX, and run it beside torch.

    It takes any number of images, and images of any size that the network takes; of the size of
    `input_shape` alone where the network or the exporter has no other.

    Parameters
    ----------
    network
        Exported in evaluation mode, from where it is to the CPU.
    input_shape
        (C, H, W) of one sample.
    path
        The file to write.
    facts
        From `usage_facts`: how it is used, as the model's metadata.

    Returns
    -------
    ``opset``; ``any_size``: whether height and width are free; ``verified``: whether onnxruntime
    is installed and ran it; ``max_abs_difference`` to torch's outputs on random samples, None
    where not verified.

    Raises
    ------
    ExportFailed
        If the extra ``onnx`` is not installed, the network has no ONNX form, or its outputs
        differ from torch's.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportFailed(f"{' and '.join(missing)} not installed; pip install 'nasengine[onnx]'")
    network = network.cpu().eval()
    try:
        found, data = _checked_model(network, input_shape, facts, any_size=True)
    except ExportFailed:
        found, data = _checked_model(network, input_shape, facts, any_size=False)
    write_atomically(path, data)
    return found


def _checked_model(
    network: nn.Module, input_shape: Sequence[int], facts: Mapping[str, Any], *, any_size: bool
) -> tuple[dict[str, Any], bytes]:
    """Return what is to be known of a model, and the model."""
    inputs = example(input_shape)
    model = _onnx_program(network, inputs, any_size).model_proto
    for key, value in facts.items():
        if key == "sides_divisible_by" and not any_size:
            continue  # Of the network; this file of it takes one size.
        text = value if isinstance(value, str) else json.dumps(value)
        model.metadata_props.add(key=key, value=text)
    data = model.SerializeToString()
    # What fits once fits at twice the size, whatever the network's strides are.
    larger = inputs[:1].repeat(1, 1, *(2 for _ in input_shape[1:]))
    differences = [
        _onnx_difference(network, data, of) for of in ([inputs, larger] if any_size else [inputs])
    ]
    return {
        "opset": next(o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}),
        "any_size": any_size,
        "verified": differences[0] is not None,
        "max_abs_difference": differences[0],
    }, data


def _onnx_program(network: nn.Module, inputs: Tensor, any_size: bool) -> Any:
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    named = _SIDES.get(inputs.ndim - 2, tuple(f"side_{n}" for n in range(inputs.ndim - 2)))
    free = ("batch", None, *named) if any_size else ("batch",)
    shape = {place: torch.export.Dim(name) for place, name in enumerate(free) if name}
    with warnings.catch_warnings():
        # It says that torchvision is not installed, which nothing here needs.
        log.setLevel(logging.ERROR)
        # The exporter and onnxscript use deprecated parts of torch and Python themselves.
        for category in (DeprecationWarning, FutureWarning, UserWarning):
            for module in (r"torch\.", r"onnxscript", r"onnx_ir", r"copyreg", r"contextlib", r"<"):
                warnings.filterwarnings("ignore", category=category, module=module)
        try:
            return torch.onnx.export(
                network,
                (inputs,),
                dynamo=True,
                verbose=False,
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=(shape,),
            )
        # The exporter raises a dozen types of its own, by release.
        except Exception as error:
            raise ExportFailed(f"torch cannot export it: {origin(error)}") from error
        finally:
            log.setLevel(level)


def _onnx_difference(network: nn.Module, data: bytes, inputs: Tensor) -> float | None:
    """Return the largest difference to torch's outputs; None without onnxruntime."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # What it cannot do is raised, too.
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    try:
        (outputs,) = session.run(None, {"input": inputs.numpy()})
        with torch.inference_mode():
            wanted = network(inputs)
    # onnxruntime's errors have no type of their own, and a network may raise anything.
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ExportFailed(f"onnxruntime cannot run it: {first}") from error
    return checked_difference(torch.from_numpy(outputs), wanted, "the ONNX model")

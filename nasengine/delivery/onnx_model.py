"""What a run delivers of its network: ONNX, for any batch and, where it can be, any image size."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from nasengine.errors import ExportFailed
from nasengine.exporting.onnx_model import exported_as_free, missing
from nasengine.files import write_atomically


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
    if absent := missing("onnx", "onnxscript"):
        raise ExportFailed(f"it needs {absent}")
    model, any_size, difference = exported_as_free(network.cpu().eval(), input_shape)
    write_atomically(path, _told(model, facts))
    verified = not math.isnan(difference)
    return {
        "opset": next(o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}),
        "any_size": any_size,
        "verified": verified,
        "max_abs_difference": difference if verified else None,
    }


def copy_onnx(source: Path, path: Path, facts: Mapping[str, Any]) -> str:
    """Write an ONNX model that was measured, with how it is used; return why not, or nothing."""
    if absent := missing("onnx"):
        return f"no {path.name}: it needs {absent}"
    import onnx

    write_atomically(path, _told(onnx.load(source), facts))
    return ""


def _told(model: Any, facts: Mapping[str, Any]) -> bytes:
    """Return a model that says how it is used."""
    shape = model.graph.input[0].type.tensor_type.shape
    any_size = all(side.dim_param for side in shape.dim[2:])
    for key, value in facts.items():
        if key == "sides_divisible_by" and not any_size:
            continue  # Of the network; this file of it takes one size.
        text = value if isinstance(value, str) else json.dumps(value)
        model.metadata_props.add(key=key, value=text)
    data: bytes = model.SerializeToString()
    return data

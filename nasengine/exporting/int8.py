"""Networks in integers of 8 bits, after their training.

Static quantisation by ONNX Runtime: weights as int8, symmetric, with a scale for each channel;
activations as uint8, from ranges that calibration samples showed. Operations stand between pairs
of QuantizeLinear and DequantizeLinear, which runtimes fuse into integer kernels (Jacob et al. 2018;
Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasengine.errors import ExportFailed
from nasengine.exporting.quiet import quiet

Feed = Mapping[str, "np.ndarray[Any, Any]"]
"""A model's inputs by their names."""

_WARNINGS, _ERRORS = 2, 3
"""ONNX Runtime's severities: what it tells of by default, and what it is left to tell of."""


def quantized(model: Any, feeds: Sequence[Feed]) -> Any:
    """Return an ONNX model in integers of 8 bits.

    Parameters
    ----------
    model
        A ``ModelProto`` in float32.
    feeds
        What it is calibrated by: batches of inputs as they will come.

    Returns
    -------
    A ``ModelProto`` whose inputs and outputs are float32 still.

    Raises
    ------
    ExportFailed
        If ONNX Runtime cannot quantise it, with the reason.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as name, quiet():
        given, made = Path(name, "given.onnx"), Path(name, "made.onnx")
        onnx.save(model, given)
        onnxruntime.set_default_logger_severity(_ERRORS)  # For the session that calibrates.
        try:
            quantize_static(
                given,
                made,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        # It raises what it meets: of ONNX, of onnxruntime, of Python.
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise ExportFailed(f"it cannot be quantised: {first}") from error
        finally:
            onnxruntime.set_default_logger_severity(_WARNINGS)
        return onnx.load(made)

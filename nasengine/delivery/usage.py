"""How a delivered network is used: what goes in, what comes out, and what that means.

The same facts stand in ``metrics.json``, in the metadata of ``model.onnx`` and in ``model.py``,
which holds them as code too: `prepare` and `predict`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from nasengine.task import Usage

_COLOURS = {1: "grey", 3: "RGB"}
_DECISIONS = {
    "threshold": "class 1 where above 0 (a sigmoid above 0.5), else class 0",
    "argmax": "the class of the largest along dimension 1",
}


def usage_facts(
    usage: Usage, input_shape: Sequence[int], output_shape: Sequence[int]
) -> dict[str, Any]:
    """Return what is to be known of a network's inputs and outputs, as JSON values.

    Parameters
    ----------
    usage
        What the task says.
    input_shape, output_shape
        Of one sample: (C, H, W); (outputs, H, W) or (outputs,).

    Returns
    -------
    ``inputs`` and ``outputs`` in words, ``size`` (H, W); where the task says it also ``colours``,
    ``decision`` and ``classes``.

    Examples
    --------
    >>> facts = usage_facts(Usage("images", ("good", "crack"), "argmax"), (1, 64, 32), (2,))
    >>> facts["outputs"], facts["colours"]
    ('(N, 2), logits: the class of the largest along dimension 1', 'grey')
    """
    channels, *size = input_shape
    colours = _COLOURS.get(channels, "") if usage.inputs else ""
    inputs = f"{_batch(input_shape)}, float32 in 0 to 1"
    outputs = f"{_batch(output_shape)}, logits"
    if colours:
        inputs += (
            f": {colours} images, resized to {' x '.join(map(str, size))} (height x width; "
            f"bilinear, antialiased) and divided by 255"
        )
    if usage.decision:
        outputs += f": {_DECISIONS[usage.decision]}"
    found = {
        "inputs": inputs,
        "outputs": outputs,
        "size": size,
        "colours": colours,
        "decision": usage.decision,
        "classes": list(usage.classes),
    }
    return {key: value for key, value in found.items() if value}


def _batch(shape: Sequence[int]) -> str:
    return f"(N, {', '.join(map(str, shape))})"


def usage_docstring(facts: Mapping[str, Any]) -> str:
    """Return the lines of ``model.py`` that say how it is used."""
    calls = ["outputs = load()(inputs)"]
    if _predicts(facts):
        calls = [
            "# image: an array, (H, W, 3) RGB or (H, W) grey, in uint8; of a file, by Pillow:",
            "image = numpy.asarray(Image.open(path).convert('RGB'))",
            "predicted = predict(load(), image)",
        ]
    classes = ", ".join(f"{i} {name}" for i, name in enumerate(facts.get("classes", ())))
    said = {"inputs": facts["inputs"], "outputs": facts["outputs"], "classes": classes}
    escaped = {name: text.replace("\\", r"\\").replace('"', r"\"") for name, text in said.items()}
    lines = [f"{name:9} {text}" for name, text in escaped.items() if text]
    wrapped = [textwrap.fill(line, 96, subsequent_indent=" " * 10) for line in lines]
    names = "load, predict" if _predicts(facts) else "load"
    code = [f"    {line}" for line in (f"from model import {names}", *calls)]
    return "\n".join([*code, "", *wrapped])


def usage_constants(facts: Mapping[str, Any]) -> str:
    """Return the constants of ``model.py``, as far as they are known."""
    size = f"SIZE = {tuple(facts['size'])}  # height, width\n" if _predicts(facts) else ""
    classes = f"CLASSES = {tuple(facts['classes'])}\n" if "classes" in facts else ""
    return f"{size}{classes}\n" if size or classes else ""


def usage_functions(facts: Mapping[str, Any]) -> str:
    """Return the functions of ``model.py`` from image to classes; empty where not known."""
    if not _predicts(facts):
        return ""
    threshold = facts["decision"] == "threshold"
    return _PREDICT.format(
        channels=_GREY if facts["colours"] == "grey" else _RGB,
        decided="(outputs[0, 0] > 0).long()" if threshold else "outputs[0].argmax(0)",
    )


def _predicts(facts: Mapping[str, Any]) -> bool:
    return "colours" in facts and "decision" in facts


_RGB = "pixels = pixels.expand(3, -1, -1) if pixels.ndim == 2 else pixels.permute(2, 0, 1)"
_GREY = """if pixels.ndim == 3:  # ITU-R 601, as Pillow rounds it.
        weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)
        pixels = ((pixels.int() @ weights + 32768) >> 16).to(torch.uint8)
    pixels = pixels[None]"""

_PREDICT = '''

def prepare(image):
    """Return an image, (H, W, 3) RGB or (H, W) grey in uint8, as the network takes it."""
    pixels = torch.tensor(image)
    if pixels.dtype != torch.uint8:
        raise TypeError(f"an image is needed in uint8, 0 to 255; got {{pixels.dtype}}")
    {channels}
    pixels = nn.functional.interpolate(pixels[None], SIZE, mode="bilinear", antialias=True)
    return pixels / 255


def predict(network, image):
    """Return indices of CLASSES: one for every pixel, at SIZE, or one for the whole image."""
    with torch.inference_mode():
        outputs = network(prepare(image))
    return {decided}
'''

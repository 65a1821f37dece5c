"""How a delivered network is used: what goes in, what comes out, and what that means.

The same facts stand in ``metrics.json``, in the metadata of ``model.onnx`` and in ``model.py``,
which holds them as code too: `prepare` and `predict`. A network classifies every pixel at the size
that it was trained at; `predict` brings the logits, not the classes, to the image's own size, so
that edges stay smooth where an image is larger.
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
_AT_OWN_SIZE = (
    "for the image's own size, the logits are resized to it before (bilinear, antialiased)"
)


def usage_facts(
    usage: Usage, input_shape: Sequence[int], output_shape: Sequence[int], sides: int = 0
) -> dict[str, Any]:
    """Return what is to be known of a network's inputs and outputs, as JSON values.

    Parameters
    ----------
    usage
        What the task says.
    input_shape, output_shape
        Of one sample: (C, H, W); (outputs, H, W) or (outputs,).
    sides
        What other heights and widths (lengths, of signals) must be divisible by; 0 where no others
        are known to fit.

    Returns
    -------
    ``inputs`` and ``outputs`` in words, ``size`` (H, W); where known ``sides_divisible_by``; where
    the task says it also ``colours``, ``decision``, ``classifies`` (``pixels`` or ``images``; of
    what is no image, ``places`` or ``samples``) and ``classes``.

    Examples
    --------
    >>> facts = usage_facts(Usage("images", ("good", "crack"), "argmax"), (1, 64, 32), (2,))
    >>> facts["outputs"], facts["colours"]
    ('(N, 2), logits: the class of the largest along dimension 1', 'grey')
    """
    channels, *size = input_shape
    colours = _COLOURS.get(channels, "") if usage.inputs else ""
    inputs = f"{_batch(input_shape)}, float32{' in 0 to 1' * bool(usage.inputs)}"
    outputs = f"{_batch(output_shape)}, {'logits' if usage.decision else 'float32'}"
    if colours:
        inputs += (
            f": {colours} images, resized to {' x '.join(map(str, size))} (height x width; "
            f"bilinear, antialiased) and divided by 255"
        )
    of_images = len(size) == 2
    of_places = len(output_shape) == len(input_shape) > 1
    classified = (
        ("pixels" if of_images else "places")
        if of_places
        else ("images" if of_images else "samples")
    )
    if usage.decision:
        outputs += f": {_DECISIONS[usage.decision]}"
        outputs += f"; {_AT_OWN_SIZE}" if classified == "pixels" else ""
    found = {
        "inputs": inputs,
        "outputs": outputs,
        "size": size,
        "sides_divisible_by": sides,
        "colours": colours,
        "decision": usage.decision,
        "classifies": classified if usage.decision else "",
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
            "image = numpy.asarray(ImageOps.exif_transpose(Image.open(path)).convert('RGB'))",
            f"predicted = predict(load(), image)  # {_predicted(facts)}",
        ]
    classes = ", ".join(f"{i} {name}" for i, name in enumerate(facts.get("classes", ())))
    said = {
        "inputs": facts["inputs"],
        "outputs": facts["outputs"],
        "sizes": _sizes(facts),
        "classes": classes,
    }
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
    decided = "(outputs[0, 0] > 0).long()" if threshold else "outputs[0].argmax(0)"
    prepare = _PREPARE.format(channels=_GREY if facts["colours"] == "grey" else _RGB)
    predict = _PREDICT_PIXELS if facts["classifies"] == "pixels" else _PREDICT_IMAGE
    return prepare + predict.format(decided=decided)


def _predicts(facts: Mapping[str, Any]) -> bool:
    return "colours" in facts and "decision" in facts


def _sizes(facts: Mapping[str, Any]) -> str:
    """Say which sizes a network takes; empty where no other than its own is known to fit."""
    sides = facts.get("sides_divisible_by", 0)
    if not sides:
        return ""
    number = len(facts["size"])
    named = {1: "the length is", 2: "both sides are"}.get(number, "all sides are")
    free = {1: "length", 2: "height and width"}.get(number, "size")
    which = f"where {named} divisible by {sides}" if sides > 1 else f"of any {free}"
    trained = " x ".join(map(str, facts["size"]))
    return f"trained at {trained}; the network itself takes others too, {which}"


def _predicted(facts: Mapping[str, Any]) -> str:
    if facts["classifies"] == "pixels":
        return "(H, W), as high and wide as the image"
    return "a scalar"


_RGB = "pixels = pixels.expand(3, -1, -1) if pixels.ndim == 2 else pixels.permute(2, 0, 1)"
_GREY = """if pixels.ndim == 3:  # ITU-R 601, as Pillow rounds it.
        weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)
        pixels = ((pixels.int() @ weights + 32768) >> 16).to(torch.uint8)
    pixels = pixels[None]"""

_PREPARE = '''

def prepare(image):
    """Return an image, (H, W, 3) RGB or (H, W) grey, as the network takes it: (1, C, *SIZE).

    It is in uint8; grey may be in uint16, as 16-bit files are.
    """
    if not hasattr(image, "shape"):
        raise TypeError("an array is needed; numpy.asarray(image) makes one of Pillow's image")
    # A copy, for torch takes no mirrored view, such as OpenCV's image[..., ::-1].
    pixels = torch.tensor(image.copy() if hasattr(image, "copy") else image)
    if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] != 3):
        raise ValueError(f"an image is needed as (H, W, 3) or (H, W); got {{tuple(pixels.shape)}}")
    if pixels.dtype == torch.uint16 and pixels.ndim == 2:
        pixels = pixels.float() / 257
    elif pixels.dtype != torch.uint8:
        raise TypeError(f"an image is needed in uint8, 0 to 255; got {{pixels.dtype}}")
    {channels}
    pixels = nn.functional.interpolate(pixels[None], SIZE, mode="bilinear", antialias=True)
    return pixels / 255
'''

_PREDICT_PIXELS = '''

def predict(network, image):
    """Return the index in CLASSES of every pixel: (H, W), the image's own height and width.

    The network's logits, at SIZE, are resized to the image (bilinear, antialiased) before a class
    is decided. The logits as they come out: network(prepare(image)).
    """
    with torch.inference_mode():
        outputs = network(prepare(image))
        own = tuple(image.shape[:2])
        outputs = nn.functional.interpolate(outputs, own, mode="bilinear", antialias=True)
    return {decided}
'''

_PREDICT_IMAGE = '''

def predict(network, image):
    """Return the index in CLASSES of the image; the logits: network(prepare(image))."""
    with torch.inference_mode():
        outputs = network(prepare(image))
    return {decided}
'''

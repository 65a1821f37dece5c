"""A picture of samples, their masks and what a network made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nasengine.task import IGNORED, Samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_GAP = 4
_GREY = (128, 128, 128)  # what is ignored
_LEAST = 96  # pixels of a sample's longer side
_COLOURS = (
    (230, 60, 50),
    (60, 130, 240),
    (250, 180, 30),
    (60, 180, 90),
    (170, 80, 200),
    (20, 190, 190),
    (240, 120, 180),
)


def draw_samples(
    samples: Samples,
    path: Path,
    predictions: Tensor | None = None,
    count: int = 8,
    classes: Sequence[str] = (),
) -> None:
    """Write a PNG with one sample a column: image, mask and (where given) prediction.

    A class has the same colour in mask and prediction, and what is ignored is grey; values at each
    pixel are drawn as an image is, in 0 to 1. Labels of a classification are not drawn. Small
    samples are enlarged by a whole factor, to 96 pixels at least on their longer side.

    Parameters
    ----------
    samples
        Inputs (N, C, H, W) with C 1 or 3, targets (N, H, W), (N, C, H, W) or (N,).
    path
        Where the PNG goes; its folder exists.
    predictions
        (N, H, W), int64: class indices; or values as the targets are.
    count
        How many samples, the first ones.
    classes
        Their names, background first: where there are several beside it, a line below says which
        colour is which.
    """
    import io

    import numpy as np
    from PIL import Image

    from nasengine.files import write_atomically

    rows = [_pictures(samples.inputs[:count])]
    for told in (samples.targets, predictions):
        if told is not None and told.ndim > 2 and told.shape[-2:] == samples.inputs.shape[-2:]:
            rows.append(_row(told[:count]))
    factor = max(1, -(-_LEAST // max(rows[0].shape[1:3])))
    rows = [pictures.repeat(factor, axis=1).repeat(factor, axis=2) for pictures in rows]
    number, height, width, _ = rows[0].shape
    sheet = np.full(
        (len(rows) * (height + _GAP) + _GAP, number * (width + _GAP) + _GAP, 3), 255, np.uint8
    )
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            top, left = (_GAP + row * (height + _GAP), _GAP + column * (width + _GAP))
            sheet[top : top + height, left : left + width] = picture
    if len(classes) > 2 and len(rows) > 1:
        sheet = np.concatenate([sheet, _key(classes[1:], sheet.shape[1])])
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG")
    write_atomically(Path(path), buffer.getvalue())


def _key(names: Sequence[str], width: int) -> NDArray[np.uint8]:
    """Return (H, width, 3): each class's colour and name, in as many lines as it takes."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    font, line = ImageFont.load_default(size=13), 20
    places, x, y = [], _GAP, 0
    for name in names:
        taken = 16 + round(font.getlength(name)) + 12
        if x > _GAP and x + taken > width:
            x, y = _GAP, y + line
        places.append((x, y))
        x += taken
    picture = Image.new("RGB", (width, y + line), "white")
    pen = ImageDraw.Draw(picture)
    for index, (name, (left, top)) in enumerate(zip(names, places, strict=True)):
        pen.rectangle((left, top + 2, left + 11, top + 13), fill=_COLOURS[index % len(_COLOURS)])
        pen.text((left + 16, top), name, fill=(34, 48, 60), font=font)
    return np.asarray(picture)


def _row(told: Tensor) -> NDArray[np.uint8]:
    """Return (N, H, W, 3) from class indices (N, H, W), or values with or without channels."""
    if told.is_floating_point():
        return _pictures(told if told.ndim == 4 else told.unsqueeze(1))
    return _coloured(told.cpu().numpy())


def _pictures(inputs: Tensor) -> NDArray[np.uint8]:
    """Return (N, H, W, 3) from (N, C, H, W)."""
    import numpy as np

    pixels = (inputs.detach().float().cpu().clamp(0, 1) * 255).round().numpy().astype(np.uint8)
    if pixels.shape[1] != 3:
        pixels = pixels[:, :1].repeat(3, axis=1)
    return pixels.transpose(0, 2, 3, 1)


def _coloured(masks: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return (N, H, W, 3): background black, each class its colour, what is ignored grey."""
    import numpy as np

    classes = int(masks.max(initial=0))
    colours = [_COLOURS[index % len(_COLOURS)] for index in range(classes)]
    table = np.array([(0, 0, 0), *colours, _GREY], dtype=np.uint8)
    return table[np.where(masks == IGNORED, len(table) - 1, masks)]

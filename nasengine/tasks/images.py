"""Reading images and masks: checked from the header, converted by mode, never guessed.

Pillow's globals (`MAX_IMAGE_PIXELS`, `LOAD_TRUNCATED_IMAGES`) are left alone.
"""

from __future__ import annotations

import hashlib
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from nasengine.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm"})


def is_image(path: Path) -> bool:
    """Say whether a file is an image by its name; hidden ones, as macOS leaves them, are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


# What Pillow's decoders raise on damaged files, beside OSError.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError)
_BROKEN = (*_DAMAGE, struct.error, zlib.error, MemoryError)
_SIXTEEN = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})


_MOST_WRONG = 10
"""Files with something wrong after which no more are read."""

MaskResize = Literal["nearest", "cover"]
"""How a mask is brought to another size."""


@dataclass(frozen=True)
class Reader:
    """How the images of a data source become arrays.

    Parameters
    ----------
    size
        (H, W) that images (bilinear, antialiased) and masks are brought to.
    channels
        3 (RGB; grey is repeated) or 1 (grey).
    max_pixels
        Larger images are refused from their header, before anything is decoded.
    mask_resize
        ``nearest``: a pixel has the class at its middle; ``cover``: the class beside the
        background (or `IGNORED`) that covers most of it, however little.
    colours
        Whether a mask's values are its colours, 0xRRGGBB.
    """

    size: tuple[int, int]
    channels: int
    max_pixels: int
    mask_resize: MaskResize = "nearest"
    colours: bool = False

    def image(self, path: Path) -> tuple[NDArray[np.float32], tuple[int, int], str]:
        """Return the pixels (C, H, W) in 0 to 1, the size (H, W) in the file, and a digest.

        The digest is of the decoded pixels as they are used, before they are resized: equal for
        the same picture in another file.

        Raises
        ------
        DataError
            Naming the file and what is wrong with it.
        """
        with _opened(path, self.max_pixels) as image:
            picture = _picture(ImageOps.exif_transpose(image), image, path)
            original = (picture.height, picture.width)
            if self.channels == 1 and picture.mode == "RGB":
                picture = picture.convert("L")
            digest = _digest(picture)
            if original != self.size:
                picture = picture.resize(self.size[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(picture, dtype=np.float32) / np.float32(255)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[None], self.channels, axis=0)
        else:
            pixels = pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(pixels), original, digest

    def mask(self, path: Path) -> Mask:
        """Return a mask as it is in the file.

        Raises
        ------
        DataError
            Naming the file and what is wrong with it.
        """
        return read_mask(path, self.max_pixels, colours=self.colours)

    def resized(self, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return class indices (H, W) brought to the size."""
        if classes.shape == self.size:
            return classes
        if self.mask_resize == "nearest":
            return _scaled(classes.astype(np.int32), self.size, Image.Resampling.NEAREST).astype(
                np.int64
            )
        found = np.zeros(self.size, np.int64)
        most = np.zeros(self.size, np.float32)
        for index in np.unique(classes[classes != 0]).tolist():
            # A box around each target pixel: every source pixel counts in exactly one.
            share = _scaled((classes == index).astype(np.float32), self.size, Image.Resampling.BOX)
            found[share > most] = index
            most = np.maximum(most, share)
        return found


@dataclass(frozen=True)
class Mask:
    """A mask as it is in its file.

    Parameters
    ----------
    values
        (H, W): grey levels or the indices of a palette; or colours, 0xRRGGBB.
    blurred
        Whether it is saved lossily and was not black and white alone before it was cut at half.
    """

    values: NDArray[np.int32]
    blurred: bool


def read_mask(path: Path, max_pixels: int, *, colours: bool = False) -> Mask:
    """Return a mask as it is in its file; by its colours, where they are asked for.

    Raises
    ------
    DataError
        Naming the file and what is wrong with it.
    """
    with _opened(path, max_pixels) as image:
        if colours:
            return Mask(_colours(ImageOps.exif_transpose(image), path, image), blurred=False)
        values = _values(ImageOps.exif_transpose(image), path, lossy=_is_lossy(image))
        if not _is_lossy(image):
            return Mask(values, blurred=False)
        # A lossy mask has stray values around its edges; only black and white survive.
        return Mask(np.where(values >= 128, 255, 0).astype(np.int32), _is_blurred(values))


def _is_blurred(values: NDArray[np.int32]) -> bool:
    """Say whether there are more greys than those that compression leaves along edges."""
    grey = (values > 32) & (values < 223)
    return 0 < values.max() < 128 or bool(grey.mean() > 0.05)


def _scaled(values: NDArray[Any], size: tuple[int, int], how: Image.Resampling) -> NDArray[Any]:
    return np.asarray(Image.fromarray(values).resize(size[::-1], how))


def read_each(count: int, read: Callable[[int], None]) -> None:
    """Read files by their index; what is wrong with each is told at once.

    Raises
    ------
    DataError
        Of all that `read` raised, a line each, the first of them if they are many.
    """
    wrong: list[str] = []
    for index in range(count):
        try:
            read(index)
        except DataError as error:
            wrong.append(str(error))
        if len(wrong) == _MOST_WRONG:
            wrong.append(f"{index + 1} of {count} images were read; the rest was not tried")
            break
    if wrong:
        raise DataError("\n".join(wrong))


def sizes_text(sizes: Counter[tuple[int, int]], size: tuple[int, int]) -> str:
    """Say which sizes (H, W) files have, how many each, and what they are brought to.

    Examples
    --------
    >>> sizes_text(Counter({(32, 64): 3}), (32, 32))
    '3 of 64 x 32; brought to 32 x 32, squashed where the ratio differs'
    """
    height, width = size
    told = [f"{count} of {w} x {h}" for (h, w), count in sizes.most_common(5)]
    if len(sizes) > 5:
        told.append(f"{len(sizes) - 5} other sizes")
    text = ", ".join(told)
    if set(sizes) == {size}:
        return text
    squashed = any(h * width != w * height for h, w in sizes)
    text += f"; brought to {width} x {height}"
    return f"{text}, squashed where the ratio differs" if squashed else text


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata and of its own, fixed limit on pixels.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                pixels = image.width * image.height
                if pixels > max_pixels:
                    raise DataError(
                        f"{path}: {image.width} x {image.height} pixels are more than "
                        f"max_pixels = {max_pixels}; nothing was decoded"
                    )
                frames = getattr(image, "n_frames", 1)
                if frames > 1 and image.format != "MPO":
                    raise DataError(f"{path}: has {frames} frames; one image a file is needed")
                image.load()
                yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image, or damaged at its start") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: more pixels than Pillow opens; nothing was decoded") from error
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: corrupt or truncated image: {reason}") from error


def _picture(image: Image.Image, original: Image.Image, path: Path) -> Image.Image:
    """Return L, RGB or (from 16 bit, scaled to 0 to 255) F."""
    mode = image.mode
    if "transparency" in image.info and mode in {"1", "L", "P", "RGB"}:
        image = image.convert("LA" if mode in {"1", "L"} else "RGBA")
    elif mode in {"P", "CMYK", "YCbCr", "HSV"}:
        image = image.convert("RGB")
    elif mode == "1":
        image = image.convert("L")
    elif mode in _SIXTEEN or (mode == "I" and original.format == "PNG"):
        return Image.fromarray(np.asarray(image).astype(np.float32) / np.float32(257))
    if image.mode in {"LA", "PA", "RGBA"}:
        image = _without_alpha(image, path)
    if image.mode not in {"L", "RGB"}:
        raise DataError(
            f"{path}: images of mode {mode!r} are not read; "
            f"allowed: grey (8 or 16 bit), RGB, palette, CMYK"
        )
    return image


def _without_alpha(image: Image.Image, path: Path) -> Image.Image:
    lowest: Any = image.getchannel("A").getextrema()[0]
    if lowest < 255:
        raise DataError(
            f"{path}: has transparent pixels (mode {image.mode}), whose colour is not defined; "
            f"flatten it onto a background"
        )
    return image.convert("L" if image.mode == "LA" else "RGB")


def _digest(picture: Image.Image) -> str:
    """Return a digest of the pixels: the same whether grey is saved as one band or as three."""
    pixels = np.asarray(picture)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=16)
    digest.update(repr((pixels.shape, str(pixels.dtype))).encode())
    return digest.hexdigest()


def _is_lossy(image: Image.Image) -> bool:
    return image.format in {"JPEG", "MPO"} or image.info.get("compression") in {
        "jpeg",
        "tiff_jpeg",
    }


def _values(image: Image.Image, path: Path, *, lossy: bool) -> NDArray[np.int32]:
    """Return a mask's values: a palette's indices, grey levels, or RGB whose bands are equal."""
    mode = image.mode
    if mode in {"LA", "RGBA"}:
        image = _without_alpha(image, path)
    values: NDArray[Any] = np.asarray(image)
    if image.mode == "RGB":
        if not lossy and (values != values[..., :1]).any():
            raise DataError(
                f"{path}: a mask in colour (mode {mode}: {_named(_packed(values))}); a mask's "
                f"classes are grey values or the indices of a palette, and of a folder's masks "
                f'task.data.values may name colours, as {{ "#ff0000" = "defect" }}'
            )
        values = values[..., 0]
    elif image.mode not in {"1", "L", "P", "I", *_SIXTEEN}:
        raise DataError(
            f"{path}: masks of mode {mode!r} are not read; allowed: 1 bit, grey (8 or 16 bit), "
            f"palette"
        )
    return values.astype(np.int32)


def _colours(image: Image.Image, path: Path, original: Image.Image) -> NDArray[np.int32]:
    """Return a mask's colours, 0xRRGGBB: of a palette those it holds, of grey three equal bands."""
    if _is_lossy(original):
        raise DataError(f"{path}: colours of a mask that is saved lossily (JPEG); save it as PNG")
    if image.mode in {"LA", "RGBA"}:
        image = _without_alpha(image, path)
    if image.mode not in {"1", "L", "P", "RGB"}:
        raise DataError(
            f"{path}: masks of mode {image.mode!r} hold no colours; allowed: RGB, palette, grey"
        )
    return _packed(np.asarray(image.convert("RGB")))


def _packed(bands: NDArray[Any]) -> NDArray[np.int32]:
    red, green, blue = (bands[..., band].astype(np.int32) for band in range(3))
    return (red << 16) | (green << 8) | blue


def _named(values: NDArray[np.int32]) -> str:
    found = np.unique(values).tolist()
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return ", ".join(map(colour_name, found[:5])) + more


def colour_name(value: int) -> str:
    """Return how a colour is written in a spec.

    Examples
    --------
    >>> colour_name(0xFF8000)
    '#ff8000'
    """
    return f"#{value:06x}"

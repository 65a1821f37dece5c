"""Procedural defects, drawn into a surface; each gives the mask of the pixels that it covers.

Lengths are those of a 96 x 96 image and scale with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from .surfaces import Array, Generator, smooth

Mask = NDArray[np.bool_]


def add_defect(name: str, image: Array, generator: Generator, contrast: float) -> Mask:
    """Draw a defect into a surface, in place.

    Parameters
    ----------
    name
        Its kind, a name that `SurfaceDefects.defects` allows.
    image
        (H, W), changed.
    generator
        What it is drawn from.
    contrast
        Multiplies the change of grey.

    Returns
    -------
    ndarray
        (H, W), bool: the pixels that it covers; never empty.
    """
    change, cover = _DEFECTS[name](len(image), generator)
    # A defect is seen against its surface's texture: on a coarse one it has to be stronger.
    rough = float(np.clip(image.std() / 0.043, 0.95, 2.1))
    image += contrast * rough * change
    if not cover.any():
        cover[np.unravel_index(int(np.abs(change).argmax()), cover.shape)] = True
    return cover


def _grid(size: int) -> tuple[Array, Array]:
    rows, columns = np.mgrid[0:size, 0:size]
    return rows.astype(np.float64), columns.astype(np.float64)


def _soft(distance: Array, softness: float) -> Array:
    """Return 1 well inside (negative distance), 0 well outside, one half at the edge."""
    return 1 / (1 + np.exp(np.clip(distance / softness, -30, 30)))


def _scratches(size: int, generator: Generator) -> tuple[Array, Mask]:
    """One to three thin lines, mostly bright and nearly parallel, fading along their length."""
    unit = size / 96
    change, cover = np.zeros((size, size)), np.zeros((size, size), dtype=np.bool_)
    angle, bright = generator.uniform(0, np.pi), generator.random() < 0.75
    strength = generator.uniform(0.1, 0.24) * (1 if bright else -0.7)
    for _ in range(int(generator.integers(1, 4))):
        along, distance = _curve(size, angle + generator.normal(0, 0.08), generator)
        half = generator.uniform(0.5, 1.6) * unit
        inside = distance < half + 0.35
        fading = 0.75 + 0.35 * np.interp(
            along, np.linspace(0, 1, 12), generator.standard_normal(12)
        ).clip(-1, 1)
        profile = np.exp(-0.5 * (distance / (0.7 * half + 0.3)) ** 2)
        lip = np.exp(-0.5 * ((distance - 2.2 * half - 0.5) / (0.6 * unit + 0.3)) ** 2)
        change += strength * fading * (profile - 0.2 * lip)
        cover |= inside
    return change, cover


def _curve(size: int, angle: float, generator: Generator) -> tuple[Array, Array]:
    """Return for every pixel where along a random curve its nearest point is, and how far."""
    length = size * generator.uniform(0.3, 1.1)
    centre = size * generator.uniform(0.15, 0.85, 2)
    direction = np.array([np.sin(angle), np.cos(angle)])
    steps = np.linspace(-0.5, 0.5, max(size, 48))
    bend = length * generator.normal(0, 0.12) * (steps**2 - 0.08)
    points = centre + np.outer(steps * length, direction)
    points += np.outer(bend, [-direction[1], direction[0]])
    places = np.arange(size, dtype=np.float64)[:, None]
    down, across = (places - points[:, 0]) ** 2, (places - points[:, 1]) ** 2
    squared = down[:, None] + across
    nearest = squared.argmin(-1)
    least = np.take_along_axis(squared, nearest[..., None], -1)[..., 0]
    return nearest / (len(steps) - 1), np.sqrt(least)


def _inclusions(size: int, generator: Generator) -> tuple[Array, Mask]:
    """Dark, ragged slivers of slag, drawn out along the rolling direction."""
    unit = size / 96
    rows, columns = _grid(size)
    if generator.random() < 0.5:
        rows, columns = columns, rows
    ragged = smooth(size, generator, 3 * unit, 1.2 * unit)
    if rows[0, 0] == rows[1, 0]:
        ragged = ragged.T
    line = size * generator.uniform(0.1, 0.9)
    inside = np.full((size, size), np.inf)
    for _ in range(int(generator.integers(1, 6))):
        long, wide = generator.uniform(5, 22) * unit, generator.uniform(1.5, 4.0) * unit
        row, column = size * generator.uniform(0.05, 0.95), line + generator.normal(0, 7) * unit
        radius = np.hypot((rows - row) / long, (columns - column) / wide)
        inside = np.minimum(inside, (radius - 1 + 0.22 * ragged) * wide)
    alpha = _soft(inside, 0.5 * unit)
    mottle = 1 + 0.25 * smooth(size, generator, 1.5 * unit)
    return -generator.uniform(0.06, 0.14) * alpha * mottle, alpha > 0.5


def _patches(size: int, generator: Generator) -> tuple[Array, Mask]:
    """Large dark areas with a ragged, soft edge."""
    unit = size / 96
    inside = _blobs(size, generator, number=(1, 4), radius=(9, 24), ragged=0.5)
    alpha = _soft(inside, generator.uniform(0.8, 2.0) * unit)
    mottle = 1 + 0.2 * smooth(size, generator, 3 * unit)
    return -generator.uniform(0.1, 0.26) * alpha * mottle, alpha > 0.5


def _stains(size: int, generator: Generator) -> tuple[Array, Mask]:
    """Dried liquid: faint inside, stronger along its edge."""
    unit = size / 96
    inside = _blobs(size, generator, number=(1, 3), radius=(10, 22), ragged=0.25)
    alpha = _soft(inside, 0.8 * unit)
    rim = np.exp(-0.5 * ((inside + 2 * unit) / (1.5 * unit)) ** 2)
    sign = 1 if generator.random() < 0.35 else -1
    return sign * generator.uniform(0.08, 0.14) * (0.65 * alpha + 0.5 * rim), alpha > 0.5


def _blobs(
    size: int,
    generator: Generator,
    number: tuple[int, int],
    radius: tuple[float, float],
    ragged: float,
) -> Array:
    """Return about how far each pixel is outside (negative: inside) some ragged ellipses."""
    unit = size / 96
    rows, columns = _grid(size)
    edge = smooth(size, generator, 5 * unit) + 0.4 * smooth(size, generator, 1.8 * unit)
    inside = np.full((size, size), np.inf)
    for _ in range(int(generator.integers(*number))):
        row, column = size * generator.uniform(0, 1, 2)
        tall, wide = unit * generator.uniform(*radius, 2)
        distance = np.hypot((rows - row) / tall, (columns - column) / wide)
        inside = np.minimum(inside, (distance - 1 + 0.4 * ragged * edge) * min(tall, wide))
    return inside


def _pits(size: int, generator: Generator) -> tuple[Array, Mask]:
    """Small holes: a dark floor, and a bright edge on the side that the light meets."""
    unit = size / 96
    rows, columns = _grid(size)
    change, cover = np.zeros((size, size)), np.zeros((size, size), dtype=np.bool_)
    strength, light = generator.uniform(0.13, 0.26), generator.uniform(0, 2 * np.pi)
    spread = generator.uniform(0.1, 0.3) * size
    centre = size * generator.uniform(0.2, 0.8, 2)
    for _ in range(int(generator.integers(4, 16))):
        row, column = centre + generator.normal(0, spread, 2)
        radius = generator.uniform(1.0, 3.2) * unit
        down, across = rows - row, columns - column
        distance = np.hypot(down, across)
        rim = np.exp(-0.5 * ((distance - 1.25 * radius) / (0.45 * unit + 0.2)) ** 2)
        facing = (np.sin(light) * down + np.cos(light) * across) / np.maximum(distance, 0.5)
        change += strength * (0.5 * rim * facing.clip(0, 1) - _soft(distance - radius, 0.4))
        cover |= distance < radius
    return change, cover


_DEFECTS: Mapping[str, Callable[[int, Generator], tuple[Array, Mask]]] = {
    "scratches": _scratches,
    "inclusions": _inclusions,
    "patches": _patches,
    "pits": _pits,
    "stains": _stains,
}

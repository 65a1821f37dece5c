"""Procedural surfaces and their light, as arrays of numpy.

A surface is grey, (H, W), about 0.25 to 0.7, before the light and the camera.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Generator = np.random.Generator


def noise(size: int, generator: Generator, spectrum: Callable[[Array, Array], Array]) -> Array:
    """Return Gaussian noise, (size, size), of zero mean and unit variance, with a given spectrum.

    Parameters
    ----------
    size
        Height and width.
    generator
        What it is drawn from.
    spectrum
        Amplitude at (vertical, horizontal) frequencies in cycles a pixel.
    """
    vertical = np.fft.fftfreq(size).astype(np.float64)[:, None]
    horizontal = np.fft.rfftfreq(size).astype(np.float64)[None, :]
    white = np.fft.rfft2(generator.standard_normal((size, size)))
    field = np.fft.irfft2(white * spectrum(vertical, horizontal), s=(size, size))
    field -= field.mean()
    return field / max(float(field.std()), 1e-12)


def smooth(size: int, generator: Generator, length: float, across: float | None = None) -> Array:
    """Return noise whose features are `length` pixels long down and `across` pixels wide."""
    wide = length if across is None else across
    return noise(
        size, generator, lambda v, h: np.exp(-2 * np.pi**2 * ((v * length) ** 2 + (h * wide) ** 2))
    )


def fractal(size: int, generator: Generator, exponent: float) -> Array:
    """Return noise with amplitude 1 / frequency^exponent."""
    return noise(size, generator, lambda v, h: np.maximum(np.hypot(v, h), 1 / size) ** -exponent)


def _turned(field: Array, generator: Generator) -> Array:
    return field.T if generator.random() < 0.5 else field


def _brushed(size: int, generator: Generator) -> Array:
    """Lines of a brush: long along one direction, a pixel wide, slightly tilted."""
    tilt = generator.normal(0, 0.04)
    long, wide = generator.uniform(12, 40), generator.uniform(0.4, 0.8)
    lines = noise(
        size,
        generator,
        lambda v, h: np.exp(
            -2 * np.pi**2 * (((v + tilt * h) * long) ** 2 + ((h - tilt * v) * wide) ** 2)
        ),
    )
    bands = smooth(size, generator, size, size / generator.uniform(8, 20))
    return _turned(0.05 * lines + 0.025 * bands, generator)


def _rolled(size: int, generator: Generator) -> Array:
    """Hot-rolled steel: fine grain, faint streaks, uneven scale."""
    grain = 0.02 * smooth(size, generator, generator.uniform(0.4, 0.8))
    streaks = 0.018 * smooth(size, generator, size / 4, generator.uniform(1, 3))
    scale = 0.03 * fractal(size, generator, 1.6)
    return _turned(grain + streaks + scale, generator)


def _fabric(size: int, generator: Generator) -> Array:
    """A plain weave: threads over and under, each a little different."""
    pitch = generator.uniform(4, 7)
    warp, bend = 2 * np.pi / pitch, 0.5 * smooth(size, generator, size / 8)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float64)
    u, v = columns * warp + bend, rows * warp * generator.uniform(0.85, 1.15) + bend.T
    over = np.sin(u / 2) * np.sin(v / 2) > 0
    threads = np.where(over, np.abs(np.sin(u / 2)), np.abs(np.sin(v / 2)))
    uneven = smooth(size, generator, 2, size / 4) + smooth(size, generator, size / 4, 2)
    fibres = 0.015 * smooth(size, generator, 0.5)
    woven: Array = 0.16 * (threads - threads.mean()) + 0.03 * uneven + fibres
    return woven


def _plaster(size: int, generator: Generator) -> Array:
    """Plaster or cement: structure at every scale, and grains."""
    base = 0.05 * fractal(size, generator, generator.uniform(0.9, 1.3))
    grains = smooth(size, generator, 0.7)
    return base + 0.05 * np.where(grains > 2.0, -1.0, 0.0) + 0.015 * grains


def _leather(size: int, generator: Generator) -> Array:
    """Cells with dark creases between them."""
    number = int((size / generator.uniform(8, 12)) ** 2) + 4
    centres = generator.uniform(-4, size + 4, (number, 2))
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float64)
    warp = 1.5 * smooth(size, generator, 4)
    squared = (rows[..., None] + warp[..., None] - centres[:, 0]) ** 2
    squared += (columns[..., None] - warp[..., None] - centres[:, 1]) ** 2
    nearest = np.sqrt(np.partition(squared, 1, axis=-1)[..., :2])
    width = generator.uniform(2, 5)
    crease = np.clip((nearest[..., 1] - nearest[..., 0]) / width, 0, 1) ** 0.7
    tone = 0.02 * generator.standard_normal(number)[squared.argmin(-1)]
    depth = 0.1 * (1 + 0.3 * smooth(size, generator, size / 12))
    grain = 0.02 * smooth(size, generator, 0.8)
    cells: Array = depth * (crease - crease.mean()) + tone + grain
    return cells


def _cast(size: int, generator: Generator) -> Array:
    """Cast metal: bumps lit from one side."""
    bumps = smooth(size, generator, generator.uniform(1.2, 2.2))
    bumps += 1.5 * smooth(size, generator, generator.uniform(4, 7))
    down, across = np.gradient(bumps)
    angle = generator.uniform(0, 2 * np.pi)
    relief = np.cos(angle) * across + np.sin(angle) * down
    lit: Array = 0.055 * relief / relief.std() + 0.01 * smooth(size, generator, 0.5)
    return lit


def _checks(size: int, generator: Generator) -> Array:
    """Squares of two tones, turned and slightly bent."""
    u, v = _turned_grid(size, generator, generator.uniform(3.5, 8))
    squares: Array = np.sign(np.sin(u) * np.sin(v)) + 0.2 * smooth(size, generator, 0.6)
    return squares


def _rings(size: int, generator: Generator) -> Array:
    """Turning marks: rings around a centre that may be outside."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float64)
    row, column = generator.uniform(-0.3, 1.3, 2) * size
    bend = 0.8 * smooth(size, generator, size / 6)
    phase = 2 * np.pi * np.hypot(rows - row, columns - column) / generator.uniform(3.5, 8)
    marks: Array = np.sin(phase + bend) + 0.2 * smooth(size, generator, 0.6)
    return marks


def _turned_grid(size: int, generator: Generator, pitch: float) -> tuple[Array, Array]:
    """Return the phases of two crossed waves."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float64)
    angle, scale = generator.uniform(0, np.pi / 2), np.pi / pitch
    bend = 0.3 * smooth(size, generator, size / 6)
    shift = generator.uniform(0, 2 * np.pi, 2)
    u = scale * (np.cos(angle) * columns + np.sin(angle) * rows) + bend + shift[0]
    v = scale * (np.cos(angle) * rows - np.sin(angle) * columns) + bend + shift[1]
    return u, v


_SURFACES: Mapping[str, Callable[[int, Generator], Array]] = {
    "brushed": _brushed,
    "rolled": _rolled,
    "fabric": _fabric,
    "plaster": _plaster,
    "leather": _leather,
    "cast": _cast,
}

_TEXTURES: Mapping[str, Callable[[int, Generator], Array]] = {
    **_SURFACES,
    "checks": _checks,
    "rings": _rings,
}


def make_texture(name: str, size: int, generator: Generator) -> Array:
    """Return a texture of about zero mean, (size, size): a surface's, `checks` or `rings`."""
    return _TEXTURES[name](size, generator)


def make_surface(name: str, size: int, generator: Generator) -> Array:
    """Return a surface without defects, (size, size).

    Parameters
    ----------
    name
        Its kind, a name that `SurfaceDefects.surfaces` allows.
    size
        Height and width.
    generator
        What it is drawn from.
    """
    depth = generator.uniform(0.6, 1.2)
    texture = _SURFACES[name](size, generator)
    blotches = 0.025 * smooth(size, generator, size / generator.uniform(6, 16))
    surface: Array = generator.uniform(0.32, 0.62) + depth * texture + blotches
    return surface


def expose(surface: Array, lighting: str, generator: Generator) -> NDArray[np.float32]:
    """Return the surface as a camera sees it: lit, dusty, slightly noisy, in 256 grey levels.

    Parameters
    ----------
    surface
        (H, W).
    lighting
        A name that `SurfaceDefects.lighting` allows.
    generator
        What it is drawn from.
    """
    size = len(surface)
    image = surface * _light(lighting, size, generator)
    dust = generator.integers(0, size, (2, generator.poisson(4)))
    image[dust[0], dust[1]] += generator.normal(0, 0.12, dust.shape[1])
    image += generator.normal(0, generator.uniform(0.004, 0.015), image.shape)
    return (np.clip(image * 255, 0, 255).round() / 255).astype(np.float32)


def _light(lighting: str, size: int, generator: Generator) -> Array:
    """Return the factor of the light at every pixel, about 1."""
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    strength = generator.uniform(0.15, 0.4)
    factor: Array = np.ones((size, size))
    if lighting == "gradient":
        angle = generator.uniform(0, 2 * np.pi)
        factor = 1 + strength * (np.cos(angle) * columns + np.sin(angle) * rows)
    elif lighting == "spot":
        row, column = generator.uniform(-0.7, 0.7, 2)
        distance = (rows - row) ** 2 + (columns - column) ** 2
        spot = np.exp(-distance / generator.uniform(0.2, 0.8))
        factor = 1 + strength * (1.5 * spot - 0.5)
    elif lighting == "vignette":
        factor = 1.1 - strength * (rows**2 + columns**2) * 0.6
    return factor

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
    vertical = np.fft.fftfreq(size)[:, None]
    horizontal = np.fft.rfftfreq(size)[None, :]
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
    uneven = 0.03 * smooth(size, generator, 2, size / 4) + 0.03 * smooth(
        size, generator, size / 4, 2
    )
    return 0.16 * (threads - threads.mean()) + uneven + 0.015 * smooth(size, generator, 0.5)


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
    crease = np.clip((nearest[..., 1] - nearest[..., 0]) / 2.5, 0, 1)
    return 0.12 * (crease - crease.mean()) + 0.02 * smooth(size, generator, 0.8)


def _cast(size: int, generator: Generator) -> Array:
    """Cast metal: bumps lit from one side."""
    bumps = smooth(size, generator, generator.uniform(1.2, 2.2))
    bumps += 1.5 * smooth(size, generator, generator.uniform(4, 7))
    down, across = np.gradient(bumps)
    angle = generator.uniform(0, 2 * np.pi)
    relief = np.cos(angle) * across + np.sin(angle) * down
    return 0.055 * relief / relief.std() + 0.01 * smooth(size, generator, 0.5)


_SURFACES: Mapping[str, Callable[[int, Generator], Array]] = {
    "brushed": _brushed,
    "rolled": _rolled,
    "fabric": _fabric,
    "plaster": _plaster,
    "leather": _leather,
    "cast": _cast,
}


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
    return generator.uniform(0.32, 0.62) + depth * texture + blotches


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
    if lighting == "gradient":
        angle = generator.uniform(0, 2 * np.pi)
        return 1 + strength * (np.cos(angle) * columns + np.sin(angle) * rows)
    if lighting == "spot":
        row, column = generator.uniform(-0.7, 0.7, 2)
        distance = (rows - row) ** 2 + (columns - column) ** 2
        return 1 - 0.5 * strength + 1.5 * strength * np.exp(-distance / generator.uniform(0.2, 0.8))
    if lighting == "vignette":
        return 1.1 - strength * (rows**2 + columns**2) * 0.6
    return np.ones((size, size))

"""Procedural textures to classify: made from the seed, nothing to download."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from nasengine.randomness import derive_seed
from nasengine.task import DataSource, Samples, Splits, Targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TEXTURES = ("brushed", "rolled", "fabric", "plaster", "leather", "cast", "checks", "rings")


class Textures(DataSource):
    """Eight kinds of procedural texture: small images under changing light, scale and colour.

    Light, colour cast, turn, noise and contrast vary more within a class than between classes,
    so that mean and spread of the grey levels do not tell the classes apart.

    Examples
    --------
    >>> splits = Textures(train=4, validation=2).load(seed=0)
    >>> tuple(splits.train.inputs.shape), splits.validation.targets.tolist()
    ((4, 3, 32, 32), [0, 1])
    """

    targets: ClassVar[Targets] = "labels"
    inputs: ClassVar[Literal["images", ""]] = "images"

    size: int = Field(32, ge=16, le=256)
    """Height and width in pixels."""
    train: int = Field(400, ge=1)
    """How many images to train on; the classes take turns."""
    validation: int = Field(160, ge=1)
    """How many images to choose by."""
    test: int = Field(0, ge=0)
    """How many images to report on at the very end."""
    channels: Literal[1, 3] = 3
    """3 (with a colour cast) or 1 (grey)."""
    number: int = Field(8, ge=2, le=8)
    """How many of the classes: the first ones."""
    noise: float = Field(0.06, ge=0, le=1, allow_inf_nan=False)
    """Standard deviation of the noise at its strongest, of a range of 1: more is harder."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, self.size, self.size)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the textures."""
        return TEXTURES[: self.number]

    def load(self, seed: int) -> Splits:
        """Make the images; the first of a split are the same however many there are."""
        test = self._samples(seed, "test", self.test) if self.test else None
        return Splits(
            train=self._samples(seed, "train", self.train),
            validation=self._samples(seed, "validation", self.validation),
            test=test,
        )

    def _samples(self, seed: int, split: str, count: int) -> Samples:
        import numpy as np
        import torch

        inputs = np.empty((count, *self.shape), dtype=np.float32)
        labels = [index % self.number for index in range(count)]
        for index, label in enumerate(labels):
            inputs[index] = self._image(label, derive_seed(seed, "textures", split, index))
        return Samples(
            inputs=torch.from_numpy(inputs),
            targets=torch.tensor(labels),
            names=tuple(f"{split}-{i:04d}-{TEXTURES[label]}" for i, label in enumerate(labels)),
        )

    def _image(self, label: int, seed: int) -> NDArray[np.float32]:
        """Return one image, (C, H, W)."""
        import numpy as np

        from .surfaces import expose, make_texture

        generator = np.random.default_rng(seed)
        texture = make_texture(TEXTURES[label], self.size, generator)
        texture *= generator.uniform(0.06, 0.16) / max(float(texture.std()), 1e-6)
        light = str(generator.choice(("even", "gradient", "spot", "vignette")))
        grey = expose(generator.uniform(0.35, 0.65) + texture, light, generator)
        cast = generator.uniform(0.85, 1.15, (self.channels, 1, 1)) if self.channels == 3 else 1
        pixels = grey[None] * cast
        pixels = pixels + generator.normal(0, generator.uniform(0, self.noise), pixels.shape)
        return np.clip(pixels, 0, 1).astype(np.float32)

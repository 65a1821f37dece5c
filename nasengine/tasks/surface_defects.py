"""Procedural surfaces with defects: made from the seed, nothing to download."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from nasengine.randomness import derive_seed
from nasengine.task import DataSource, Samples, Splits, Targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Surface = Literal["brushed", "rolled", "fabric", "plaster", "leather", "cast"]
Lighting = Literal["even", "gradient", "spot", "vignette"]
Defect = Literal["scratches", "inclusions", "patches", "pits", "stains"]


class SurfaceDefects(DataSource):
    """Procedural surfaces (metal, fabric, plaster, leather) with defects and their masks.

    Every image has a surface, a light, and up to two kinds of defect; some have none. Contrast
    and coverage follow the NEU images: inclusions a few grey levels darker than their surface
    and 1 to 10% of it, scratches brighter, patches large and dark. Texture, dust and uneven
    light reach the same grey levels, so that no threshold finds the defects.

    Examples
    --------
    >>> source = SurfaceDefects(size=32, train=2, validation=1)
    >>> splits = source.load(seed=0)
    >>> tuple(splits.train.inputs.shape), tuple(splits.train.targets.shape)
    ((2, 3, 32, 32), (2, 32, 32))
    """

    targets: ClassVar[Targets] = "masks"
    inputs: ClassVar[Literal["images", ""]] = "images"

    size: int = Field(96, ge=16, le=1024)
    """Height and width in pixels."""
    train: int = Field(200, ge=1)
    """How many images to train on."""
    validation: int = Field(50, ge=1)
    """How many images to choose by."""
    test: int = Field(0, ge=0)
    """How many images to report on at the very end."""
    channels: Literal[1, 3] = 3
    """1, or 3 equal ones: the content is grey."""
    surfaces: tuple[Surface, ...] = ("brushed", "rolled", "fabric", "plaster", "leather", "cast")
    """Kinds of surface, equally likely."""
    lighting: tuple[Lighting, ...] = ("even", "gradient", "spot", "vignette")
    """Kinds of light, equally likely."""
    defects: tuple[Defect, ...] = ("scratches", "inclusions", "patches", "pits", "stains")
    """Kinds of defect, equally likely."""
    multiclass: bool = False
    """A class for each kind of defect, instead of one for all."""
    contrast: float = Field(1.0, gt=0, le=4, allow_inf_nan=False)
    """Multiplies the contrast of the defects: below 1 is harder."""
    clean: float = Field(0.1, ge=0, le=1)
    """Share of images without a defect."""

    @model_validator(mode="after")
    def _check(self) -> SurfaceDefects:
        for key in ("surfaces", "lighting", "defects"):
            names = getattr(self, key)
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{key} must name at least one kind, and each once")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, self.size, self.size)

    @property
    def classes(self) -> tuple[str, ...]:
        """Background, and the defects as one class or several."""
        return ("background", *(self.defects if self.multiclass else ("defect",)))

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

        inputs = np.empty((count, 1, self.size, self.size), dtype=np.float32)
        targets = np.empty((count, self.size, self.size), dtype=np.int64)
        names = []
        for index in range(count):
            inputs[index, 0], targets[index], kind = self._image(
                derive_seed(seed, "surface_defects", split, index)
            )
            names.append(f"{split}-{index:04d}-{kind}")
        tensor = torch.from_numpy(inputs).expand(-1, self.channels, -1, -1).contiguous()
        return Samples(tensor, torch.from_numpy(targets), tuple(names))

    def _image(self, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64], str]:
        """Return the grey image (H, W), the mask (H, W) and what it shows."""
        import numpy as np

        from .defects import add_defect
        from .surfaces import expose, make_surface

        generator = np.random.default_rng(seed)
        surface = str(generator.choice(self.surfaces))
        image = make_surface(surface, self.size, generator)
        mask = np.zeros((self.size, self.size), dtype=np.int64)
        drawn = self._drawn(generator)
        for defect in drawn:
            where = add_defect(defect, image, generator, self.contrast)
            mask[where] = self.defects.index(defect) + 1 if self.multiclass else 1
        light = str(generator.choice(self.lighting))
        return expose(image, light, generator), mask, "-".join([surface, *drawn])

    def _drawn(self, generator: np.random.Generator) -> list[Defect]:
        if generator.random() < self.clean:
            return []
        number = 2 if generator.random() < 0.15 and len(self.defects) > 1 else 1
        chosen = generator.choice(len(self.defects), size=number, replace=False)
        return [self.defects[index] for index in chosen]

"""DAGM 2007: ten artificial textures with weakly labelled defects, in the public layout.

Wieler and Hahn 2007, "Weakly supervised learning for industrial optical inspection", DAGM
symposium; conferences.mpi-inf.mpg.de/dagm/2007.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from nasengine.errors import DataError
from nasengine.plugin import SpecPath
from nasengine.randomness import derive_seed
from nasengine.task import DataSource, Splits, Targets

from .splits import Share, SomeShare, check_disjoint, joined, split_by_group

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .paired import Loaded, Pair


class Dagm(DataSource):
    """One texture of DAGM 2007: `ClassN/{Train,Test}/ID.PNG`, `.../Label/ID_label.PNG`.

    An image without a label file has no defect. With `defects_only` those are left out and the
    rest, of both folders, is divided at random: Chen et al. 2023 train on 125 and test on 25 of
    the 150 defective images of a texture (250 and 50 of the larger ones), which is the default
    share of one sixth. Otherwise `Train` is divided into train and validation, and `Test`, as
    the set's authors made it, is the test split.
    """

    targets: ClassVar[Targets] = "masks"
    inputs: ClassVar[Literal["images", ""]] = "images"

    root: SpecPath
    """Folder that holds `Class1`, `Class2`, ..."""
    class_id: int = Field(1, ge=1, le=10)
    """Which texture: 1 to 10."""
    defects_only: bool = True
    """Leave out the images without defect, and divide the rest of both folders."""
    size: int = Field(256, ge=8, le=4096)
    """Height and width in pixels that images are brought to."""
    channels: Literal[1, 3] = 3
    """1, or 3 equal ones: the images are grey."""
    mask_resize: Literal["nearest", "cover"] = "nearest"
    """How masks are brought to the size: `nearest` takes the class at a pixel's middle, so that
    small defects may vanish; `cover` keeps any class that covers part of a pixel."""
    validation: SomeShare = 1 / 6
    """Validation images: a share, or how many."""
    test: Share = 0
    """Test images with `defects_only`: a share, or how many."""
    split_seed: int | None = Field(None, ge=0)
    """Seed of the split; the run's by default."""
    max_pixels: int = Field(16_000_000, gt=0)
    """Larger images are refused before they are decoded."""

    @model_validator(mode="after")
    def _check(self) -> Dagm:
        if self.test and not self.defects_only:
            raise ValueError("test has no meaning without defects_only: the folder Test is it")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, self.size, self.size)

    @property
    def classes(self) -> tuple[str, ...]:
        """Background and defect."""
        return ("background", "defect")

    def check(self) -> None:
        """Refuse a folder without images, or with labels that have none.

        Raises
        ------
        DataError
            Naming the file or folder.
        """
        self._pairs()

    def load(self, seed: int) -> Splits:
        """Read the images and divide them.

        Raises
        ------
        DataError
            Naming the file and what is wrong with it.
        """
        from .images import Reader
        from .paired import read_pairs

        pairs = self._pairs()
        reader = Reader((self.size, self.size), self.channels, self.max_pixels, self.mask_resize)
        loaded = read_pairs(pairs, reader, _to_classes)
        splits = self._divide(loaded, seed if self.split_seed is None else self.split_seed)
        names = [str(pair.image) for pair in pairs]
        check_disjoint(splits, names, [pair.group for pair in pairs], loaded.digests)
        return loaded.splits(splits)

    def _pairs(self) -> list[Pair]:
        from .paired import Pair

        folder = self.root / f"Class{self.class_id}"
        pairs = []
        for part in ("Train", "Test"):
            labels = _labels(folder / part / "Label")
            images = _pngs(folder / part)
            alone = sorted(set(labels) - set(images))
            if alone:
                raise DataError(f"{labels[alone[0]]}: has no image {alone[0]}.PNG")
            for name in sorted(images):
                label = labels.get(name)
                if label is not None or not self.defects_only:
                    pairs.append(Pair(f"{part}/{name}", images[name], label, f"{part}/{name}"))
        if not pairs:
            what = "image with a label" if self.defects_only else "image"
            raise DataError(f"{folder}: no {what} found in Train or Test")
        return pairs

    def _divide(self, loaded: Loaded, seed: int) -> dict[str, list[int]]:
        pairs = loaded.pairs
        divided = [i for i, pair in enumerate(pairs) if self._is_divided(pair)]
        groups = joined([pair.group for pair in pairs], loaded.digests)
        parts = split_by_group(
            [groups[index] for index in divided],
            self.validation,
            self.test,
            derive_seed(seed, "dagm", self.class_id),
        )
        splits = {name: [divided[index] for index in part] for name, part in parts.items()}
        splits["test"] += sorted(set(range(len(pairs))) - set(divided))
        return splits

    def _is_divided(self, pair: Pair) -> bool:
        return self.defects_only or pair.name.startswith("Train/")


def _pngs(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return {path.stem: path for path in folder.iterdir() if path.suffix.lower() == ".png"}


def _labels(folder: Path) -> dict[str, Path]:
    """Return the label files by the name of their image."""
    return {name.removesuffix("_label"): path for name, path in _pngs(folder).items()}


def _to_classes(values: NDArray[np.int64], path: Path) -> NDArray[np.int64]:  # noqa: ARG001
    targets: NDArray[np.int64] = (values != 0).astype(values.dtype)
    return targets

"""The NEU_Seg set: hot-rolled steel with pixel masks, in the layout of its public repository.

Song and Yan 2013, "A noise robust method based on completed local binary patterns for hot-rolled
steel strip surface defects"; masks: github.com/DHW-Master/NEU_Seg.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from nasengine.errors import DataError, did_you_mean
from nasengine.plugin import SpecPath
from nasengine.randomness import derive_seed
from nasengine.task import DataSource, Splits, Targets

from .splits import Share, SomeShare, check_disjoint, joined, read_csv, split_by_kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .paired import Loaded, Pair

DEFECTS = ("inclusion", "patches", "scratches")


class NeuSeg(DataSource):
    """Hot-rolled steel of NEU_Seg: one defect as a binary problem, or all three as classes.

    The public folders `training` and `test` are **not** used as splits: nearly every public
    test image is a rotated copy of a training image. Images are divided by the column
    `source_group` of `manifest.csv` instead (columns split, id, defect, source_group), all
    copies of a picture into one split. Without that file, turned and mirrored copies are found
    by comparing the images.

    By default there are 50 validation images a defect, as the 50 that Chen et al. 2023 hold out,
    and all others are trained on. A search chooses by validation; set `test` to hold out images
    that nothing is chosen by.
    """

    targets: ClassVar[Targets] = "masks"
    inputs: ClassVar[Literal["images", ""]] = "images"

    root: SpecPath
    """Folder with `images/{training,test}/ID.jpg` and `annotations/{training,test}/ID.png`."""
    defect: Literal["inclusion", "patches", "scratches", "all"] = "all"
    """One defect (its images only, binary), or all three as classes."""
    size: int = Field(96, ge=8, le=4096)
    """Height and width in pixels that images are brought to."""
    channels: Literal[1, 3] = 3
    """1, or 3 equal ones: the images are grey."""
    mask_resize: Literal["nearest", "cover"] = "nearest"
    """How masks are brought to the size: `nearest` takes the class at a pixel's middle, so that
    small defects may vanish; `cover` keeps any class that covers part of a pixel."""
    validation: SomeShare = 50
    """Validation images a defect: how many, or a share."""
    test: Share = 0
    """Test images a defect, never used by a search: how many, or a share."""
    split_seed: int | None = Field(None, ge=0)
    """Seed of the split; the run's by default. Set it to keep the split while seeds vary."""
    max_pixels: int = Field(16_000_000, gt=0)
    """Larger images are refused before they are decoded."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, self.size, self.size)

    @property
    def classes(self) -> tuple[str, ...]:
        """Background, and the defect or all three."""
        return ("background", *(DEFECTS if self.defect == "all" else (self.defect,)))

    def check(self) -> None:
        """Refuse a root without images.

        Raises
        ------
        DataError
            Naming the file or folder.
        """
        self._check_root()
        if not any((self.root / "images").glob("*/*.jpg")):
            raise DataError(f"{self.root}: no images found in images/*/*.jpg")

    def load(self, seed: int) -> Splits:
        """Read the images and divide them.

        Raises
        ------
        DataError
            Naming the file and what is wrong with it.
        """
        from .images import Reader
        from .paired import read_pairs

        rows = self._rows()
        pairs = [row.pair(self.root) for row in rows]
        reader = Reader((self.size, self.size), self.channels, self.max_pixels, self.mask_resize)
        loaded = read_pairs(pairs, reader, self._to_classes)
        split_seed = seed if self.split_seed is None else self.split_seed
        splits = self._divide(rows, loaded, split_seed)
        names = [str(pair.image) for pair in pairs]
        check_disjoint(splits, names, [row.group for row in rows], loaded.digests)
        return loaded.splits(splits)

    def _check_root(self) -> None:
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; it should hold images/, annotations/")

    def _rows(self) -> list[_Row]:
        self._check_root()
        manifest = self.root / "manifest.csv"
        rows = _listed(manifest) if manifest.is_file() else _scanned(self.root, self.max_pixels)
        wanted = [row for row in rows if self.defect in {"all", row.defect}]
        if not wanted:
            raise DataError(f"{self.root}: no image of {self.defect!r} among {len(rows)} found")
        return wanted

    def _to_classes(self, values: NDArray[np.int64], path: Path) -> NDArray[np.int64]:
        _check_values(values, path)
        if self.defect == "all":
            return values
        chosen: NDArray[np.int64] = (values == DEFECTS.index(self.defect) + 1).astype(values.dtype)
        return chosen

    def _divide(self, rows: list[_Row], loaded: Loaded, seed: int) -> dict[str, list[int]]:
        """Split each defect on its own."""
        groups = self._groups(rows, loaded)
        # A group goes where its first image does, should it hold several defects.
        defects = [rows[group].defect for group in groups]
        seeds = {defect: derive_seed(seed, "neu_seg", defect) for defect in DEFECTS}
        try:
            return split_by_kind(defects, groups, self.validation, self.test, seeds)
        except DataError as error:
            raise DataError(f"{self.root}: {error}") from error

    def _groups(self, rows: list[_Row], loaded: Loaded) -> list[int]:
        keys = [[row.group for row in rows], list(loaded.digests)]
        if not (self.root / "manifest.csv").is_file():
            keys.append(_copies(rows, loaded))
        return joined(*keys)


def _copies(rows: list[_Row], loaded: Loaded) -> list[str]:
    """Return a key for each image, equal for copies; looked for within each defect."""
    import torch

    from .copies import copies

    keys = [""] * len(rows)
    for defect in DEFECTS:
        members = [index for index, row in enumerate(rows) if row.defect == defect]
        if members:
            found = copies(torch.from_numpy(loaded.inputs[members]))
            for index, key in zip(members, found, strict=True):
                keys[index] = f"{defect}/{key}"
    return keys


class _Row(NamedTuple):
    """One image as the manifest lists it."""

    split: str
    number: str
    defect: str
    group: str

    def pair(self, root: Path) -> Pair:
        from .paired import Pair

        return Pair(
            name=f"{self.split}/{self.number}",
            image=root / "images" / self.split / f"{self.number}.jpg",
            mask=root / "annotations" / self.split / f"{self.number}.png",
            group=self.group,
        )


def _listed(manifest: Path) -> list[_Row]:
    rows = [
        _Row(row["split"], row["id"], row["defect"], row["source_group"])
        for row in read_csv(manifest, ("split", "id", "defect", "source_group"))
    ]
    for row in rows:
        if row.defect not in DEFECTS:
            raise DataError(
                f"{manifest}: {row.split}/{row.number}: unknown defect {row.defect!r}; "
                f"{did_you_mean(row.defect, DEFECTS)}"
            )
        for part in (row.split, row.number):
            if Path(part).name != part or part in {"", ".."}:
                raise DataError(f"{manifest}: {part!r} is not a plain name of a folder or file")
    return sorted(rows)


def _scanned(root: Path, max_pixels: int) -> list[_Row]:
    """List the folders; an image's defect is the one that its mask holds most of."""
    import numpy as np

    from .images import read_mask

    for mask in sorted((root / "annotations").glob("*/*.png")):
        if not (root / "images" / mask.parent.name / f"{mask.stem}.jpg").is_file():
            raise DataError(f"{mask}: has no image {mask.parent.name}/{mask.stem}.jpg")
    rows = []
    for image in sorted((root / "images").glob("*/*.jpg")):
        mask = root / "annotations" / image.parent.name / f"{image.stem}.png"
        if not mask.is_file():
            raise DataError(f"{image}: has no mask {mask}")
        values = read_mask(mask, max_pixels).values
        _check_values(values, mask)
        counts = np.bincount(values.flatten(), minlength=len(DEFECTS) + 1)[1:]
        if not counts.any():
            raise DataError(f"{mask}: holds no defect, so its image belongs to none")
        name = f"{image.parent.name}/{image.stem}"
        rows.append(_Row(image.parent.name, image.stem, DEFECTS[int(counts.argmax())], name))
    return rows


def _check_values(values: NDArray[Any], path: Path) -> None:
    if values.min() < 0 or values.max() > len(DEFECTS):
        beyond = int(values.max() if values.max() > len(DEFECTS) else values.min())
        raise DataError(
            f"{path}: label {beyond} is beyond the classes 0 (background), "
            + ", ".join(f"{index} ({name})" for index, name in enumerate(DEFECTS, start=1))
        )

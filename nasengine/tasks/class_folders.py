"""Small images in one folder a class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from nasengine.errors import DataError
from nasengine.plugin import SpecPath
from nasengine.randomness import derive_seed
from nasengine.task import DataSource, Samples, Splits, Targets

from .splits import Share, SomeShare, check_disjoint, joined, split_by_kind

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "validation", "test")


class ClassFolders(DataSource):
    """Images in one folder a class: `root/CLASS/image.png`.

    Either all classes are directly below `root` and each is divided by `validation` and `test`
    (images with the same pixels stay in one split), or `root` holds `train/CLASS/...` and
    `validation/CLASS/...` (and `test`), which are then taken as they are.
    """

    targets: ClassVar[Targets] = "labels"
    inputs: ClassVar[Literal["images", ""]] = "images"

    root: SpecPath
    """Folder that holds a folder for each class, or `train`, `validation` (and `test`)."""
    names: tuple[str, ...]
    """The classes, which are the folders' names, in order of their index."""
    size: int = Field(32, ge=8, le=1024)
    """Height and width in pixels that images are brought to."""
    channels: Literal[1, 3] = 3
    """3 (RGB; grey is repeated) or 1 (grey)."""
    validation: SomeShare = 0.2
    """Validation images of a class: a share, or how many."""
    test: Share = 0
    """Test images of a class, never used by a search: a share, or how many."""
    split_seed: int | None = Field(None, ge=0)
    """Seed of the split; the run's by default."""
    max_pixels: int = Field(64_000_000, gt=0)
    """Larger images are refused before they are decoded."""

    @model_validator(mode="after")
    def _check(self) -> ClassFolders:
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise ValueError("names needs at least two classes, each once")
        for name in self.names:
            if Path(name).name != name or name in {".", ".."}:
                raise ValueError(f"names: {name!r} is not the name of a folder below root")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, self.size, self.size)

    @property
    def classes(self) -> tuple[str, ...]:
        """The folders' names."""
        return self.names

    def check(self) -> None:
        """Refuse classes without images.

        Raises
        ------
        DataError
            Naming the file or folder.
        """
        self._listed(SPLITS if self._is_divided else ("",))

    def load(self, seed: int) -> Splits:
        """Read the images and divide them.

        Raises
        ------
        DataError
            Naming the files and what is wrong with each, the first of them if they are many.
        """
        import torch

        listed = self._listed(SPLITS if self._is_divided else ("",))
        inputs, digests, fact = self._read([path for _, path, _ in listed])
        labels = torch.tensor([label for _, _, label in listed])
        if self._is_divided:
            stated = [split for split, _, _ in listed]
            splits = {name: [i for i, s in enumerate(stated) if s == name] for name in SPLITS}
        else:
            splits = self._divide(labels.tolist(), digests, seed)
        names = [str(path.relative_to(self.root)) for _, path, _ in listed]
        check_disjoint(splits, [str(path) for _, path, _ in listed], names, digests)

        every = Samples(inputs, labels, tuple(names))
        return Splits(
            train=every.take(splits["train"]),
            validation=every.take(splits["validation"]),
            test=every.take(splits["test"]) if splits["test"] else None,
            facts=(fact,),
        )

    def _read(self, paths: list[Path]) -> tuple[Tensor, list[str], str]:
        """Return the images (N, C, H, W), their digests, and what there is to say of them."""
        import numpy as np
        import torch

        from .images import Reader, read_each, sizes_text

        reader = Reader((self.size, self.size), self.channels, self.max_pixels)
        inputs = np.empty((len(paths), *self.shape), dtype=np.float32)
        digests, sizes = [""] * len(paths), Counter[tuple[int, int]]()

        def read(index: int) -> None:
            inputs[index], size, digests[index] = reader.image(paths[index])
            sizes[size] += 1

        read_each(len(paths), read)
        fact = f"images, width x height: {sizes_text(sizes, reader.size)}"
        return torch.from_numpy(inputs), digests, fact

    @property
    def _is_divided(self) -> bool:
        return (self.root / "train").is_dir() and "train" not in self.names

    def _listed(self, splits: tuple[str, ...]) -> list[tuple[str, Path, int]]:
        """Return split, file and class of every image; every class must have some."""
        from .images import is_image

        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder")
        listed = []
        for split in splits:
            top = self.root / split
            if split == "test" and not top.is_dir():
                continue
            self._check_folders(top)
            for label, name in enumerate(self.names):
                files = sorted(filter(is_image, (top / name).rglob("*")))
                if not files:
                    raise DataError(f"{top / name}: no images found for the class {name!r}")
                listed += [(split, path, label) for path in files]
        return listed

    def _check_folders(self, top: Path) -> None:
        if not top.is_dir():
            raise DataError(f"{top}: no such folder")
        unknown = sorted(p.name for p in top.iterdir() if p.is_dir() and p.name not in self.names)
        if unknown:
            raise DataError(
                f"{top / unknown[0]}: a folder that is no class; names = {', '.join(self.names)}"
            )

    def _divide(self, labels: list[int], digests: list[str], seed: int) -> dict[str, list[int]]:
        """Split each class on its own; the same pixels in two classes are refused later."""
        seed = seed if self.split_seed is None else self.split_seed
        classes = [self.names[label] for label in labels]
        groups = joined(
            [f"{label} {digest}" for label, digest in zip(labels, digests, strict=True)]
        )
        seeds = {name: derive_seed(seed, "class_folders", name) for name in self.names}
        try:
            return split_by_kind(classes, groups, self.validation, self.test, seeds)
        except DataError as error:
            raise DataError(f"{self.root}: {error}") from error

"""Images and masks of the user's own, in folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from nasengine.errors import DataError, did_you_mean
from nasengine.plugin import SpecPath
from nasengine.randomness import derive_seed
from nasengine.task import IGNORED, DataSource, Splits, Targets

from .splits import Share, SomeShare, check_disjoint, joined, read_csv, split_by_group

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .paired import Loaded, Pair

SPLITS = ("train", "validation", "test")


class Folder(DataSource):
    """Images and masks in two folders, paired by their names without suffix.

    Files may be in subfolders: `images/line_2/0001.jpg` belongs to `masks/line_2/0001.png`.
    They are divided in one of three ways:

    - by share (the default): `validation` and `test`, at random, whole groups at a time;
    - by file: `split_file`, a CSV with the columns `name` and `split`, or a text file with a name
      and a split a line;
    - by folder: where `images` holds the subfolders `train` and `validation` (and `test`), and
      `by_folder = true`.

    Images of one group (`groups`, a CSV with the columns `name` and `group`) never come into two
    splits, nor do images with the same pixels: dividing by share keeps them together, the other
    two are refused.

    Formats: PNG, JPEG, BMP, TIFF, WebP, GIF, PGM; grey (8 or 16 bit), RGB, palette, CMYK.
    Masks: grey values or the indices of a palette; or colours, where `values` names colours.
    Those saved as JPEG are cut at half, so they can only hold background and one class.
    """

    targets: ClassVar[Targets] = "masks"
    inputs: ClassVar[Literal["images", ""]] = "images"

    images: SpecPath
    """Folder of the images."""
    masks: SpecPath
    """Folder of the masks."""
    size: int | tuple[int, int] = 96
    """Height and width (or [height, width]) that images and masks are brought to."""
    channels: Literal[1, 3] = 3
    """3 (RGB; grey is repeated) or 1 (grey)."""
    mask_resize: Literal["nearest", "cover"] = "nearest"
    """How masks are brought to the size: `nearest` takes the class at a pixel's middle, so that
    small defects may vanish; `cover` keeps any class that covers part of a pixel."""
    names: tuple[str, ...] = ("background", "defect")
    """The classes in order of their index, background first."""
    values: Mapping[str, str] = Field(default_factory=dict)
    """Mask value to class, as { "0" = "background", "255" = "crack" }; of masks in colour, also of
    a palette, { "#000000" = "background", "#ff0000" = "crack" }.

    By default the value is the class's index; with one class beside the background, any value
    but 0 is that class."""
    ignore: tuple[Annotated[int, Field(ge=0)] | str, ...] = ()
    """Mask values whose pixels count for nothing, in loss and metrics alike, as [255] for borders
    that nobody could label; of masks in colour ["#ffffff"]."""
    mask_suffix: str = ""
    """What a mask's name has after its image's name: "_mask" for 0001_mask.png."""
    missing_masks: Literal["refuse", "background"] = "refuse"
    """An image without a mask: an error, or an image without defect."""
    validation: SomeShare = 0.2
    """Validation images: a share, or how many."""
    test: Share = 0
    """Test images, never used by a search: a share, or how many."""
    split_file: SpecPath | None = None
    """File that names each image's split."""
    by_folder: bool = False
    """Take the first subfolder (train, validation, test) as the split."""
    groups: SpecPath | None = None
    """CSV with the columns `name` and `group`."""
    split_seed: int | None = Field(None, ge=0)
    """Seed of the division by share; the run's by default."""
    max_pixels: int = Field(64_000_000, gt=0)
    """Larger images are refused before they are decoded."""

    @field_validator("values", mode="before")
    @classmethod
    def _check_values(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and not all(isinstance(c, str) for c in values.values()):
            raise ValueError(
                'each mask value needs its class, as in { "0" = "background", "255" = "crack" }'
            )
        return values

    @model_validator(mode="after")
    def _check(self) -> Folder:
        if min(self._size) < 8 or max(self._size) > 4096:
            raise ValueError("size is from 8 to 4096 pixels")
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise ValueError("names needs the background and at least one class, each once")
        self._check_forms()
        for value, name in self.values.items():
            if name not in self.names:
                raise ValueError(
                    f"values.{value}: unknown class {name!r}; {did_you_mean(name, self.names)}"
                )
        for ignored in self.ignore:
            known = {_number(value) for value in self.values} or {0}
            if _number(ignored) in known:
                raise ValueError(f"ignore: the mask value {ignored} is a class as well")
        if self.split_file is not None and self.by_folder:
            raise ValueError("split_file and by_folder both say how to divide; keep one")
        return self

    def _check_forms(self) -> None:
        """Hold mask values to numbers, or all of them to colours."""
        for what, given in (("values", [*self.values]), ("ignore", [*self.ignore])):
            for value in given:
                if not (_NUMBER.fullmatch(str(value)) or _COLOUR.fullmatch(str(value))):
                    raise ValueError(
                        f"{what}: {value!r} is not a mask's value (0, 1, ... or #rrggbb)"
                    )
        if self._colours and not all(_is_colour(value) for value in [*self.values, *self.ignore]):
            raise ValueError("values and ignore: either all are numbers or all are colours")

    @property
    def _colours(self) -> bool:
        """Whether masks are read by their colours."""
        return any(_is_colour(value) for value in [*self.values, *self.ignore])

    @property
    def _size(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, *self._size)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names, background first."""
        return self.names

    def check(self) -> None:
        """Refuse images and masks that are not there, or not in pairs.

        Raises
        ------
        DataError
            Naming the file or folder.
        """
        pairs = self._pairs()
        if self._stated(pairs) is None:
            self._divided(pairs, [pair.name for pair in pairs], seed=0)

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
        stated = self._stated(pairs)
        kept = [index for index, pair in enumerate(pairs) if stated is None or pair.name in stated]
        pairs = [pairs[index] for index in kept]
        loaded = read_pairs(
            pairs,
            Reader(self._size, self.channels, self.max_pixels, self.mask_resize, self._colours),
            self._to_classes,
        )
        if stated is None:
            splits = self._divided(pairs, loaded.digests, seed)
        else:
            splits = _gathered(pairs, stated)
        groups = [pair.group for pair in pairs]
        check_disjoint(splits, [str(pair.image) for pair in pairs], groups, loaded.digests)
        found = loaded.splits(splits)
        return replace(found, doubts=(*found.doubts, *self._doubts(loaded)))

    def _doubts(self, loaded: Loaded) -> list[str]:
        """Say what masks of one class beside the background, by no stated values, may not mean."""
        from .images import colour_name
        from .paired import listed

        if self.values or len(self.names) > 2:
            return []
        found, values = [], set(loaded.values) - set(map(_number, self.ignore))
        written = listed(values, colour_name if self._colours else str)
        if len(values) > 2:
            found.append(
                f"masks hold {written}, and every value but 0 counts as {self.names[1]!r}: "
                f"say what each is by task.data.values, what counts for nothing by "
                f"task.data.ignore, or check that they are masks"
            )
        share = float((loaded.targets == 1).mean())
        if share > 0.5:
            found.append(
                f"{self.names[1]!r} is {share:.0%} of all pixels, since every value but 0 counts "
                f"as it: are the masks inverted? task.data.values says what each value is"
            )
        return found

    def _pairs(self) -> list[Pair]:
        from .paired import Pair

        if not self.mask_suffix and self.images.resolve() == self.masks.resolve():
            raise DataError(
                f"{self.masks}: the folder of the images and of the masks, so that each image is "
                f"its own mask; task.data.mask_suffix tells them apart"
            )
        images, masks = _files(self.images, "images"), _files(self.masks, "masks")
        of_masks = {name.removesuffix(self.mask_suffix): path for name, path in masks.items()}
        if self.mask_suffix and self.images.resolve() == self.masks.resolve():
            images = {n: p for n, p in images.items() if not n.endswith(self.mask_suffix)}
            of_masks = {
                n.removesuffix(self.mask_suffix): p
                for n, p in masks.items()
                if n.endswith(self.mask_suffix)
            }
        self._check_paired(images, of_masks)
        groups = self._groups(images)
        return [
            Pair(name, path, of_masks.get(name), groups.get(name, name))
            for name, path in sorted(images.items())
        ]

    def _check_paired(self, images: Mapping[str, Path], masks: Mapping[str, Path]) -> None:
        if not images:
            raise DataError(f"{self.images}: no images found; nothing to train on")
        without = sorted(set(images) - set(masks))
        if without and self.missing_masks == "refuse":
            some = len(without) < len(images)
            background = 'missing_masks = "background" takes them as images without defect'
            raise DataError(
                f"{images[without[0]]}: no mask {without[0]}{self.mask_suffix}.* in {self.masks} "
                f"({len(without)} of {len(images)} images have none); "
                f"{background if some else _named_otherwise(without[0], masks)}"
            )
        alone = sorted(set(masks) - set(images))
        if alone:
            raise DataError(
                f"{masks[alone[0]]}: no image {alone[0]}.* in {self.images} "
                f"({len(alone)} of {len(masks)} masks have none)"
            )

    def _groups(self, images: Mapping[str, Path]) -> dict[str, str]:
        if self.groups is None:
            return {}
        rows = read_csv(self.groups, ("name", "group"))
        groups = {_key(row["name"]): row["group"] for row in rows}
        _check_named(self.groups, groups, images)
        ungrouped = sorted(set(images) - set(groups))
        if ungrouped:
            raise DataError(f"{self.groups}: no row for the image {ungrouped[0]!r}")
        return groups

    def _stated(self, pairs: Sequence[Pair]) -> dict[str, str] | None:
        """Return the split of each image, where the user states it."""
        images = {pair.name: pair.image for pair in pairs}
        if self.by_folder:
            return {name: _split_of(name, path) for name, path in images.items()}
        if self.split_file is None:
            return None
        stated = _read_split_file(self.split_file)
        _check_named(self.split_file, stated, images)
        return stated

    def _divided(
        self, pairs: Sequence[Pair], digests: Sequence[str], seed: int
    ) -> dict[str, list[int]]:
        groups = joined([pair.group for pair in pairs], digests)
        seed = derive_seed(seed if self.split_seed is None else self.split_seed, "folder")
        try:
            return split_by_group(groups, self.validation, self.test, seed)
        except DataError as error:
            raise DataError(f"{self.images}: {error}") from error

    def _to_classes(self, values: NDArray[np.int64], path: Path) -> NDArray[np.int64]:
        import numpy as np

        targets = np.zeros_like(values)
        ignored = [_number(value) for value in self.ignore]
        if not self.values and len(self.names) == 2:
            targets[values != 0] = 1
            targets[np.isin(values, ignored)] = IGNORED
            return targets
        known = {_number(value): self.names.index(name) for value, name in self.values.items()}
        known = known or {index: index for index in range(len(self.names))}
        known |= dict.fromkeys(ignored, IGNORED)
        for value in np.unique(values).tolist():
            if value not in known:
                self._refuse(value, known, path)
            targets[values == value] = known[value]
        return targets

    def _refuse(self, value: int, known: Mapping[int, int], path: Path) -> None:
        from .images import colour_name

        written = colour_name if self._colours else str
        called = {**dict(enumerate(self.names)), IGNORED: "ignored"}
        allowed = ", ".join(f"{written(v)} ({called[c]})" for v, c in sorted(known.items()))
        raise DataError(
            f"{path}: label {written(value)} is beyond the classes; allowed: {allowed}; "
            f"task.data.ignore takes values that are to count for nothing"
        )


_NUMBER, _COLOUR = re.compile(r"[0-9]+"), re.compile(r"#[0-9a-fA-F]{6}")


def _is_colour(value: int | str) -> bool:
    return str(value).startswith("#")


def _number(value: int | str) -> int:
    """Return a mask's value, as a spec writes it, as the number that its pixels have."""
    return int(str(value).removeprefix("#"), 16 if _is_colour(value) else 10)


def _named_otherwise(image: str, masks: Mapping[str, Path]) -> str:
    """Say what masks are called, where none is called as its image."""
    if not masks:
        return "there is no image file in that folder"
    near = min((name for name in masks if name.startswith(image)), default=None)
    if near is None:
        return f"masks are named as their images, and the first there is {min(masks.values()).name}"
    return f'did you mean task.data.mask_suffix = "{near.removeprefix(image)}"?'


def _files(folder: Path, what: str) -> dict[str, Path]:
    """Return the image files below a folder by their name: the path in it, without suffix."""
    from .images import is_image

    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (task.data.{what})")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if not is_image(path):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataError(f"{path}: same name as {found[name]}; names without suffix must differ")
        found[name] = path
    return found


def _key(name: str) -> str:
    """Return a name in a table as the files have it: with or without an image's suffix."""
    from .images import SUFFIXES

    path = Path(name.replace("\\", "/"))
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else path.as_posix()


def _check_named(table: Path, named: Mapping[str, Any], images: Mapping[str, Path]) -> None:
    unknown = sorted(set(named) - set(images))
    if unknown:
        near = did_you_mean(unknown[0], images).partition("Allowed:")[0].partition("allowed:")[0]
        raise DataError(f"{table}: names {unknown[0]!r}, which is no image; {near}".rstrip("; "))


def _split_of(name: str, path: Path) -> str:
    split = name.partition("/")[0]
    if split not in SPLITS or "/" not in name:
        raise DataError(
            f"{path}: by_folder needs every image in one of the folders {', '.join(SPLITS)}"
        )
    return split


def _read_split_file(path: Path) -> dict[str, str]:
    if path.suffix.lower() == ".csv":
        lines = [(row["name"], row["split"]) for row in read_csv(path, ("name", "split"))]
    else:
        lines = _read_lines(path)
    stated: dict[str, str] = {}
    for name, split in lines:
        if split not in SPLITS:
            raise DataError(
                f"{path}: {name!r}: unknown split {split!r}; {did_you_mean(split, SPLITS)}"
            )
        if stated.setdefault(_key(name), split) != split:
            raise DataError(f"{path}: {name!r} is in two splits, {stated[_key(name)]} and {split}")
    return stated


def _read_lines(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.rsplit(maxsplit=1)
        if len(words) == 1:
            raise DataError(f"{path}, line {number}: a name and a split are needed, got {line!r}")
        if words:
            lines.append((words[0].strip(), words[1]))
    return lines


def _gathered(pairs: Sequence[Pair], stated: Mapping[str, str]) -> dict[str, list[int]]:
    splits: dict[str, list[int]] = {name: [] for name in SPLITS}
    for index, pair in enumerate(pairs):
        splits[stated[pair.name]].append(index)
    for name in ("train", "validation"):
        if not splits[name]:
            raise DataError(f"{pairs[0].image.parent}: the {name} split is empty")
    return splits

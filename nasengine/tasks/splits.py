"""Dividing samples into splits, so that no source image is in two of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from nasengine.errors import DataError
from nasengine.randomness import stream


def _share(value: int | float) -> int | float:
    if isinstance(value, float) and not 0 <= value < 1:
        raise ValueError("a share is from 0 to below 1, or a whole number of images")
    if isinstance(value, int) and value < 0:
        raise ValueError("a number of images cannot be negative")
    return value


def _some(value: int | float) -> int | float:
    if value == 0:
        raise ValueError("networks are chosen by the validation images: there must be some")
    return value


Share = Annotated[int | float, AfterValidator(_share)]
"""A share of the images (0.2), or how many (50)."""
SomeShare = Annotated[Share, AfterValidator(_some)]
"""A share that is not 0."""


def count_of(share: int | float, total: int) -> int:
    """Return how many of `total` a share is.

    Examples
    --------
    >>> count_of(0.25, 10), count_of(0.29, 100), count_of(3, 10)
    (2, 29, 3)
    """
    return share if isinstance(share, int) else round(share * total)


def joined(*keys: Sequence[str]) -> list[int]:
    """Return the group of each sample, where any equal key puts two samples in one group.

    A group is called by the index of its first sample.

    Examples
    --------
    >>> joined(["a", "a", "b", "c"], ["1", "2", "2", "3"])
    [0, 0, 0, 3]
    >>> joined(["a", "b", "a"], ["1", "2", "2"])
    [0, 0, 0]
    """
    root = list(range(len(keys[0])))

    def find(index: int) -> int:
        while root[index] != index:
            root[index] = root[root[index]]
            index = root[index]
        return index

    for key in keys:
        first: dict[str, int] = {}
        for index, value in enumerate(key):
            one, other = find(index), find(first.setdefault(value, index))
            root[max(one, other)] = min(one, other)
    return [find(index) for index in range(len(root))]


def split_by_group(
    groups: Sequence[int], validation: int | float, test: int | float, seed: int
) -> dict[str, list[int]]:
    """Divide samples at random, each group whole.

    Parameters
    ----------
    groups
        The group of each sample.
    validation, test
        Their shares. A split is filled with whole groups until it has its number.
    seed
        Of the shuffle.

    Returns
    -------
    dict
        Split to the indices of its samples, in order.

    Raises
    ------
    DataError
        If nothing is left to train on or to validate by, or a wanted split stays short.

    Examples
    --------
    >>> splits = split_by_group([0, 0, 1, 2, 3], validation=1, test=1, seed=0)
    >>> sorted(index for split in splits.values() for index in split)
    [0, 1, 2, 3, 4]
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    order = list(members)
    stream(seed, "split").shuffle(order)
    splits: dict[str, list[int]] = {}
    for name, share in (("test", test), ("validation", validation)):
        wanted = count_of(share, len(groups))
        splits[name] = []
        while order and len(splits[name]) < wanted:
            splits[name] += members[order.pop()]
        needed = max(wanted, 1) if share or name == "validation" else 0
        if len(splits[name]) < needed:
            after = f", after test = {test}," if test and name == "validation" else ""
            raise DataError(
                f"{name} = {share}{after} of {len(groups)} images in {len(members)} groups leaves "
                f"the {name} split {'short' if splits[name] else 'empty'}"
            )
    splits["train"] = [index for group in order for index in members[group]]
    if not splits["train"]:
        raise DataError(
            f"validation = {validation} and test = {test} of {len(groups)} images in "
            f"{len(members)} groups leave none to train on"
        )
    return {name: sorted(indices) for name, indices in splits.items()}


def split_by_kind(
    kinds: Sequence[str],
    groups: Sequence[int],
    validation: int | float,
    test: int | float,
    seeds: Mapping[str, int],
) -> dict[str, list[int]]:
    """Divide the samples of each kind on their own, so that each has its share in every split.

    Parameters
    ----------
    kinds
        The kind of each sample, such as its class.
    groups, validation, test
        As of `split_by_group`; the shares are of each kind, and no group holds two kinds.
    seeds
        Kind to the seed of its shuffle, in the order in which the splits have them; a kind
        without samples is passed over.

    Raises
    ------
    DataError
        As of `split_by_group`, naming the kind.

    Examples
    --------
    >>> splits = split_by_kind("aabb", [0, 1, 2, 3], 0.5, 0, {"a": 0, "b": 0})
    >>> [sorted("aabb"[index] for index in splits[name]) for name in ("train", "validation")]
    [['a', 'b'], ['a', 'b']]
    """
    splits: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for kind, seed in seeds.items():
        members = [index for index, other in enumerate(kinds) if other == kind]
        if not members:
            continue
        try:
            parts = split_by_group([groups[index] for index in members], validation, test, seed)
        except DataError as error:
            raise DataError(f"{kind}: {error}") from error
        for split, part in parts.items():
            splits[split] += [members[index] for index in part]
    return splits


def check_disjoint(
    splits: Mapping[str, Sequence[int]],
    names: Sequence[str],
    groups: Sequence[str],
    digests: Sequence[str],
) -> None:
    """Refuse splits that share a source image, a group or a picture with the same pixels.

    Raises
    ------
    DataError
        Naming the two samples and their splits.
    """
    for what, keys in (("group", groups), ("same pixels", digests)):
        seen: dict[str, tuple[str, int]] = {}
        for split, indices in splits.items():
            for index in indices:
                other, first = seen.setdefault(keys[index], (split, index))
                if other != split:
                    why = f"the group {keys[index]!r}" if what == "group" else "the same pixels"
                    raise DataError(
                        f"{names[first]} ({other}) and {names[index]} ({split}) have {why}: what "
                        f"is trained on must not be measured on"
                    )


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a table that has at least these columns.

    Raises
    ------
    DataError
        Naming the file and the line or column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{path}: no column {missing[0]!r}; "
                    f"it has: {', '.join(reader.fieldnames or ()) or 'nothing'}"
                )
            rows = []
            for row in reader:
                if any(row[name] is None for name in columns):
                    raise DataError(f"{path}, line {reader.line_num}: fewer values than columns")
                rows.append({name: row[name].strip() for name in columns})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from error
    return rows

"""What samples hold: how many, and how much of each class, or what range of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nasengine.task import IGNORED, Samples, Splits, Task

if TYPE_CHECKING:
    from torch import Tensor


def census(
    splits: Splits, classes: Sequence[str] = (), *, values: bool = False
) -> dict[str, dict[str, Any]]:
    """Count the samples of each split and of each class.

    Parameters
    ----------
    splits
        The samples.
    classes
        Names of the classes in order of their index; one without a name is called by its index.
    values
        Whether the targets are values, no classes.

    Returns
    -------
    For each split its samples, and for each class the samples that hold it and its share of all
    targets (pixels or labels); what is ignored, where there is any, is told as a class of its own.
    Of values their shape, the least, the mean and the largest.

    Examples
    --------
    >>> import torch
    >>> masks = torch.tensor([[[0, 0], [0, 1]], [[0, 0], [0, 0]]])
    >>> half = Samples(torch.zeros(2, 1, 2, 2), masks, ("a", "b"))
    >>> found = census(Splits(half, half), ("background", "crack"))
    >>> found["train"]["classes"]["crack"]
    {'samples': 1, 'share': 0.125}
    """
    return {
        name: {
            "samples": len(samples),
            **({"values": _range(samples)} if values else {"classes": _classes(samples, classes)}),
        }
        for name, samples in splits.parts.items()
    }


def census_of(task: Task, splits: Splits) -> dict[str, dict[str, Any]]:
    """Count a task's samples, by the names that the task, or else its data, has for its classes."""
    names = task.usage.classes or getattr(getattr(task, "data", None), "classes", ())
    return census(splits, names, values=task.targets == "values")


def _range(samples: Samples) -> dict[str, Any]:
    held = samples.targets.double()
    return {
        "shape": list(held.shape[1:]),
        "least": float(held.min()),
        "mean": float(held.mean()),
        "largest": float(held.max()),
    }


def _classes(samples: Samples, names: Sequence[str]) -> dict[str, dict[str, float]]:
    targets = samples.targets.flatten(1) if samples.targets.ndim > 1 else samples.targets[:, None]
    count = max(len(names), int(targets.max()) + 1)
    called = {index: names[index] if index < len(names) else str(index) for index in range(count)}
    if bool((targets == IGNORED).any()):
        called[IGNORED] = "(ignored)"
    return {name: _share(targets == index) for index, name in called.items()}


def _share(here: Tensor) -> dict[str, float]:
    return {"samples": int(here.any(1).sum()), "share": float(here.double().mean())}


_FOR = {
    "train": "nothing can learn what it looks like",
    "validation": "no network is chosen by how well it finds it",
    "test": "no network is judged by how well it finds it",
}
_RESTS = {
    "validation": "a network is chosen by so little",
    "test": "networks are judged by so little",
}
_FEW = 3
"""Samples with a class, below which how well it is found says next to nothing."""


def lacking(splits: Splits, classes: Sequence[str]) -> list[str]:
    """Say which classes the samples of a split lack, or hold next to none of, and what follows.

    Examples
    --------
    >>> import torch
    >>> samples = Samples(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64), ("a",))
    >>> lacking(Splits(samples, samples), ("background", "crack"))[0]
    'no train sample holds the class crack: nothing can learn what it looks like'
    """
    found = []
    for split, counted in census(splits, classes).items():
        held = {name: counted["classes"][name]["samples"] for name in classes}
        missing = [name for name, count in held.items() if not count]
        if missing:
            called = "the class" if len(missing) == 1 else "any of the classes"
            found.append(f"no {split} sample holds {called} {', '.join(missing)}: {_FOR[split]}")
        of = counted["samples"]
        few = [f"{name} ({count} of {of})" for name, count in held.items() if 0 < count < _FEW]
        if few and split in _RESTS:
            found.append(f"few {split} samples hold {', '.join(few)}: {_RESTS[split]}")
    return found


def telling(samples: Samples, count: int = 8) -> Samples:
    """Return some samples to look at: those with something in their mask first."""
    order = list(range(len(samples)))
    if samples.targets.ndim == 3:
        marked = (samples.targets > 0).flatten(1).any(1)
        order.sort(key=lambda index: not bool(marked[index]))
    return samples.take(order[:count])

"""What a gradient search found, kept in a file: it is read, and not searched for again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nasengine.errors import RunFolderError
from nasengine.files import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from nasengine.search import Search

    from .darts import Darts
    from .nni_darts import NniDarts

_CADENCE = {"log_every", "save_seconds", "top_k"}
"""Settings that a finished or interrupted search may be gone on with differently."""


@dataclass(frozen=True)
class Result:
    """What a search found.

    Parameters
    ----------
    alphas
        By decision: (choices,).
    iterations
        How many it took.
    reason
        Why it ended before its last iteration; empty otherwise.
    """

    alphas: Mapping[str, Tensor]
    iterations: int
    reason: str


@dataclass(frozen=True)
class _Fingerprint:
    settings: dict[str, Any]
    decisions: dict[str, list[str]]
    seed: int


@dataclass(frozen=True)
class _ResultFile:
    """What the file of a result holds, as far as it is read."""

    fingerprint: _Fingerprint
    alphas: dict[str, list[float]]
    iterations: int
    reason: str


def fingerprint_of(settings: Darts | NniDarts, search: Search) -> dict[str, Any]:
    """Return what a checkpoint must have been made with to be gone on from."""
    return {
        "settings": settings.model_dump(mode="json", exclude=_CADENCE),
        "decisions": {name: list(c) for name, c in search.space.decisions.items()},
        "seed": search.seed,
    }


def read_result(path: Path, fingerprint: Mapping[str, Any]) -> Result | None:
    """Return the result of a search that has ended; None before.

    Raises
    ------
    RunFolderError
        If the file is damaged, or of a search with other settings.
    """
    if not path.is_file():
        return None
    kept = read_json(path, _ResultFile)
    refuse_other(vars(kept.fingerprint), fingerprint, path)
    alphas = {name: torch.tensor(row) for name, row in kept.alphas.items()}
    if {name: len(row) for name, row in alphas.items()} != {
        name: len(choices) for name, choices in fingerprint["decisions"].items()
    }:
        raise RunFolderError(f"{path}: damaged: its alphas are not of the space's choices")
    return Result(alphas, kept.iterations, kept.reason)


def refuse_other(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    """Refuse what was made with other settings, naming them."""
    before, now = found["settings"], wanted["settings"]
    changed = [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    changed += [key for key in ("decisions", "seed") if found[key] != wanted[key]]
    if changed:
        raise RunFolderError(
            f"{path}: of a search with other settings ({'; '.join(changed)}); start a new run"
        )

"""Checkpoints: nested state in one safetensors file, checked when it is read. No pickle.

Tensors are stored as safetensors; all else (numbers, text, lists, dictionaries) as JSON in the
file's own metadata, with a checksum over both. The checkpoint before is kept and serves when the
last one is damaged.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nasengine.errors import RunFolderError, StorageError
from nasengine.files import sync_folder, write_atomically

_DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    SafetensorError,
)
"""What reading a damaged file raises."""


class SavePace:
    """When a checkpoint is due, so that saving takes 2% of the time at most.

    Parameters
    ----------
    seconds
        Between checkpoints, more where saving takes longer than 2% of that; 0 saves always.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = self._pause = seconds
        self._saved = time.monotonic()

    def save_if_due(self, save: Callable[[], None], *, at_once: bool) -> bool:
        """Save if it is time, or at once; say whether it was done."""
        started = time.monotonic()
        if not at_once and started - self._saved < self._pause:
            return False
        save()
        self._saved = time.monotonic()
        self._pause = self._seconds and max(self._seconds, 50 * (self._saved - started))
        return True


_TENSOR = "__tensor__"
_PAIRS = "__pairs__"
_TUPLE = "__tuple__"


def save_checkpoint(path: Path, state: Any) -> None:
    """Write nested state atomically.

    Parameters
    ----------
    path
        The file; the one before becomes ``<name>.previous``.
    state
        Dictionaries, lists, tuples, numbers, text, booleans, None and tensors, nested.

    Raises
    ------
    TypeError
        If the state holds anything else.
    StorageError
        If the disk refuses.
    """
    tensors: dict[str, Tensor] = {}
    facts = json.dumps(_flatten(state, "", tensors))
    data = save(tensors, {"facts": facts, "checksum": _checksum(facts, tensors)})
    try:
        if path.exists():
            path.replace(_previous(path))
            sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    write_atomically(path, data)


def load_checkpoint(path: Path, warn: Callable[[str], object] = warnings.warn) -> Any:
    """Read nested state; None where there is none yet.

    A damaged file is passed over for the one before, and `warn` is told (`Reporter.warn`).

    Raises
    ------
    RunFolderError
        If every file there is damaged.
    """
    damage: list[str] = []
    for candidate in (path, _previous(path)):
        if not candidate.exists():
            continue
        try:
            state = _read(candidate)
        except _DAMAGE as error:
            damage.append(f"{candidate.name}: {error!s:.200}")
            continue
        if damage:
            warn(f"{damage[0]}; going on from {candidate.name}")
            # Put aside: saving must never replace the sound one by the damaged one.
            path.replace(path.with_name(f"{path.name}.damaged"))
        return state
    if damage:
        raise RunFolderError(f"{path.parent}: damaged checkpoint: {'; '.join(damage)}")
    return None


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and the one before it."""
    for candidate in (path, _previous(path), path.with_name(f"{path.name}.damaged")):
        candidate.unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def _read(path: Path) -> Any:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    facts = metadata["facts"]
    if metadata["checksum"] != _checksum(facts, tensors):
        raise ValueError("the checksum does not match")
    return _nest(json.loads(facts), tensors)


def _checksum(facts: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # By number: keys that hold a "/" or differ in their type alone would share a path.
        name = f"{len(tensors)}:{path}"
        # A copy of its own: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: name}
    if isinstance(value, dict):
        pairs = [[key, _flatten(item, f"{path}/{key}", tensors)] for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("__") for key in value):
            return dict(pairs)
        return {_PAIRS: pairs}
    if isinstance(value, (list, tuple)):
        items = [_flatten(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__} (at {path})")


def _nest(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_nest(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _PAIRS in value:
        return {key: _nest(item, tensors) for key, item in value[_PAIRS]}
    if _TUPLE in value:
        return tuple(_nest(item, tensors) for item in value[_TUPLE])
    return {key: _nest(item, tensors) for key, item in value.items()}

"""Checkpoints: what was saved comes back, damage is seen wherever it is, and no code runs."""

from __future__ import annotations

import json
import os
import struct
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasengine import files
from nasengine.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint
from nasengine.errors import RunFolderError, StorageError

STATE = {
    "step": 7,
    "name": "a name",
    "weights": torch.arange(6.0).reshape(2, 3),
    "groups": [{"params": [0, 1], "betas": (0.9, 0.95)}],
    "state": {0: {"exp_avg": torch.ones(2, dtype=torch.bfloat16)}, 1: {}},
    "flags": torch.tensor([True, False]),
    "scalar": torch.tensor(3),
    "none": None,
    "empty": torch.empty(0),
}

scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=6)
numbers = st.floats(allow_nan=False)
tensors = st.sampled_from(
    [torch.rand(2, 3), torch.zeros(0), torch.tensor(True), torch.arange(4).to(torch.int16)]
)
states = st.recursive(
    scalars | numbers | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


@settings(max_examples=60)
@given(states)
def test_what_was_saved_comes_back(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    path = tmp_path_factory.mktemp("checkpoint") / "state.safetensors"
    save_checkpoint(path, state)
    assert same(load_checkpoint(path), state)


def test_keys_that_read_alike_are_kept_apart(tmp_path: Path) -> None:
    one, two = torch.zeros(1), torch.ones(1)
    marks = {"__tensor__": one, "__tuple__": [1], "__pairs__": [["a", 2]]}
    for state in ({"a/b": one, "a": {"b": two}}, {1: one, "1": two}, marks):
        save_checkpoint(tmp_path / "state.safetensors", state)
        assert same(load_checkpoint(tmp_path / "state.safetensors"), state)


def saved(folder: Path) -> Path:
    path = folder / "state.safetensors"
    save_checkpoint(path, {**STATE, "step": 1})
    save_checkpoint(path, {**STATE, "step": 2})
    return path


def fell_back(path: Path) -> None:
    with pytest.warns(UserWarning, match=r"going on from state\.safetensors\.previous"):
        state = load_checkpoint(path)
    assert same(state, {**STATE, "step": 1})


def test_every_bit_counts(tmp_path: Path) -> None:
    """Flip one bit of every byte in turn: length, header, metadata, tensors, all of the file."""
    path = saved(tmp_path)
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(damaged))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            state = load_checkpoint(path)
        if same(state, {**STATE, "step": 2}):
            # A bit of white space that pads the header, or a letter's case in an escape.
            assert not told, place
        else:
            assert same(state, {**STATE, "step": 1}), place
            assert "going on from" in str(told[0].message)


@settings(max_examples=100)
@given(data=st.data())
def test_damage_of_any_kind_falls_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = saved(tmp_path_factory.mktemp("checkpoint"))
    content = path.read_bytes()
    kind = data.draw(st.sampled_from(["cut", "zeros", "noise", "longer", "swapped"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        content = content[:place]
    elif kind == "zeros":
        content = content[:place] + bytes(len(content) - place)
    elif kind == "noise":
        content = data.draw(st.binary(max_size=300)) + content[place:]
    elif kind == "longer":
        content += data.draw(st.binary(min_size=1, max_size=100))
    else:
        content = content[place:] + content[:place]
    if content == path.read_bytes() or (kind == "zeros" and not any(path.read_bytes()[place:])):
        return
    path.write_bytes(content)
    fell_back(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"[2,3]", b"[3,2]"), (b'"F32"', b'"I32"'), (b"a name", b"b name"), (b": 2,", b": 3,")],
)
def test_facts_shapes_and_types_are_under_the_checksum(
    tmp_path: Path, old: bytes, new: bytes
) -> None:
    path = saved(tmp_path)
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    fell_back(path)


def test_a_damaged_one_never_replaces_the_sound_one(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(b"damaged")
    fell_back(path)

    def crash(_: Path) -> Any:
        raise OSError(28, "No space left on device")

    before, files.durable_write = files.durable_write, crash  # type: ignore[assignment]
    try:
        with pytest.raises(StorageError, match="No space left"):
            save_checkpoint(path, {"step": 3})
    finally:
        files.durable_write = before
    assert same(load_checkpoint(path), {**STATE, "step": 1})


def test_when_both_are_damaged_both_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(b"")
    (tmp_path / "state.safetensors.previous").write_bytes(b"damaged, too")
    with pytest.raises(RunFolderError, match=r"damaged checkpoint: .*state.*; .*previous: "):
        load_checkpoint(path)


def test_no_checkpoint_is_none_and_removing_removes_all(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "state.safetensors") is None
    path = saved(tmp_path)
    path.write_bytes(b"damaged")
    fell_back(path)
    save_checkpoint(path, STATE)
    remove_checkpoint(path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_checkpoint_cannot_hold_is_refused_before_anything_is_replaced(
    tmp_path: Path,
) -> None:
    path = saved(tmp_path)
    with pytest.raises(TypeError, match=r"cannot hold object \(at /a/0\)"):
        save_checkpoint(path, {"a": [object()]})
    assert load_checkpoint(path)["step"] == 2


def crafted(path: Path, header: bytes, body: bytes = b"", length: int | None = None) -> None:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def hostile_files(path: Path, canary: Path) -> dict[str, Any]:
    def pickled() -> None:
        torch.save({"state": Trap(canary)}, path)

    def pickled_plainly() -> None:
        from importlib import import_module

        path.write_bytes(import_module("pickle").dumps(Trap(canary)))

    def deep() -> None:
        facts = "[" * 100_000 + "]" * 100_000
        header = json.dumps({"__metadata__": {"facts": facts, "checksum": "0"}})
        crafted(path, header.encode())

    def deep_with_its_checksum() -> None:
        from nasengine.checkpoint import _checksum

        facts = "[" * 100_000 + "]" * 100_000
        metadata = {"facts": facts, "checksum": _checksum(facts, {})}
        crafted(path, json.dumps({"__metadata__": metadata}).encode())

    def of(facts: str) -> Any:
        def write() -> None:
            from nasengine.checkpoint import _checksum

            metadata = {"facts": facts, "checksum": _checksum(facts, {})}
            crafted(path, json.dumps({"__metadata__": metadata}).encode())

        return write

    huge = {"w": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 2**64 - 1]}}
    overlap = {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    }
    return {
        "a torch pickle": pickled,
        "a pickle": pickled_plainly,
        "a header of 2^63 bytes": lambda: crafted(path, b"{}", length=2**63),
        "a header of 99 MB that is not there": lambda: crafted(path, b"{}", length=99_000_000),
        "a tensor of 2^64 bytes": lambda: crafted(path, json.dumps(huge).encode()),
        "tensors that overlap": lambda: crafted(path, json.dumps(overlap).encode(), bytes(4)),
        "no metadata": lambda: crafted(path, b"{}"),
        "metadata of numbers": lambda: crafted(path, b'{"__metadata__": {"facts": 3}}'),
        "deep nesting": deep,
        "deep nesting with its checksum": deep_with_its_checksum,
        "a tensor that is not there": of('{"__tensor__": "w"}'),
        "keys that are lists": of('{"__pairs__": [[[1], 2]]}'),
        "pairs that are no pairs": of('{"__pairs__": 3}'),
        "a huge number": of("9" * 5000),
        "a folder": path.mkdir,
    }


@pytest.mark.parametrize("kind", hostile_files(Path(), Path()))
def test_a_hostile_checkpoint_runs_nothing_and_is_named(kind: str, tmp_path: Path) -> None:
    path, canary = tmp_path / "state.safetensors", tmp_path / "canary"
    hostile_files(path, canary)[kind]()
    with pytest.raises(RunFolderError, match=r"damaged checkpoint: state\.safetensors: "):
        load_checkpoint(path)
    assert not canary.exists()

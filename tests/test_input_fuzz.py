"""Files that are not ours: architectures and tables, broken in thousands of ways."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasengine.architecture import Architecture, read_architecture, write_architecture
from nasengine.errors import ArchitectureError, EstimationFailed, InputError
from nasengine.testing.stubs import TinySpace, tiny_candidate, tiny_search

ROUNDS = 3000
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 1.5, 10**400, "", "conv", "double", "CONV", "\0", "../x", "é",
    "x" * 10_000, [], [1], ["conv"], {}, {"a": 1}, [[[[]]]], "\ud800",
]  # fmt: skip
TOKENS = [
    "NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 2000, "{" * 2000, '"', "'", "\\",
    "\\ud800", ",", ":", "\x00", "\ufeff", "//", "null", "true", '{"format": 1}', "\n", "é",
]  # fmt: skip


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Damage bytes in one to three places, or their encoding."""
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(content) + 1)
        kind = rng.randrange(6)
        if kind == 0 and content:
            flipped = bytearray(content)
            flipped[min(place, len(content) - 1)] ^= 1 << rng.randrange(8)
            content = bytes(flipped)
        elif kind == 1:
            content = content[:place]
        elif kind == 2:
            content = content[:place] + content[place + rng.randint(1, 20) :]
        elif kind == 3:
            token = rng.choice(TOKENS).encode("utf-8", "surrogatepass")
            content = content[:place] + token + content[place:]
        elif kind == 4:
            other = rng.randrange(len(content) + 1)
            content = content[:place] + content[min(place, other) : other] + content[place:]
        else:
            content = content[:place] + rng.randbytes(rng.randint(1, 8)) + content[place:]
    if rng.random() < 0.05:
        content = content.decode("latin-1").encode("utf-16")
    return content


def answers(
    read: Callable[[], Any], path: Path, allowed: tuple[type[Exception], ...], slow: list[float]
) -> bool:
    """Read; say whether it was refused, in words that name the file; note what took long."""
    started = time.process_time()
    try:
        read()
        refused = False
    except allowed as error:
        refused = True
        assert str(path) in str(error)
        assert len(str(error)) < 4000
    seconds = time.process_time() - started
    if seconds > 0.1:
        slow.append(seconds)
    return refused


def test_damaged_architectures_are_refused_by_name(tmp_path: Path) -> None:
    rng, space, slow = random.Random(0), TinySpace(), list[float]()
    path = tmp_path / "architecture.json"
    good = Architecture({"first": "conv", "second": "double"})
    write_architecture(path, good, space)
    content = path.read_bytes()
    refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(damaged(content, rng))
        refused += answers(lambda: read_architecture(path, space), path, (ArchitectureError,), slow)
    assert refused > 0.8 * ROUNDS
    assert len(slow) <= 3, slow


def test_architectures_of_other_values_are_refused_or_are_what_they_say(tmp_path: Path) -> None:
    """Every key, every slot, another value: what is taken is exactly a valid architecture."""
    rng, space = random.Random(1), TinySpace()
    path = tmp_path / "architecture.json"
    for number in range(ROUNDS):
        choices: dict[str, Any] = {"first": "conv", "second": "pointwise"}
        content: dict[str, Any] = {"format": 1, "space": "TinySpace", "choices": choices}
        for _ in range(rng.randint(1, 2)):
            into = rng.choice([content, choices])
            key = rng.choice([*into, "another", ""])
            into[key] = rng.choice(VALUES)
        if not isinstance(content["choices"], dict):
            content["choices"] = rng.choice([content["choices"], choices])
        path.write_text(json.dumps(content))
        try:
            found = read_architecture(path, space)
        except ArchitectureError as error:
            assert str(path) in str(error)
            assert len(str(error)) < 4000
        else:
            assert content["format"] == 1 and content["format"] is not True, number
            assert dict(found) == content["choices"]
            assert all(choice in ("conv", "pointwise", "double") for choice in found.values())


@pytest.mark.parametrize("written", [True, "1", [1], {"1": 1}, None, 2, 0, -1, 10**30])
def test_another_format_is_refused(written: Any, tmp_path: Path) -> None:
    path = tmp_path / "architecture.json"
    choices = {"first": "conv", "second": "conv"}
    path.write_text(json.dumps({"format": written, "space": "TinySpace", "choices": choices}))
    with pytest.raises(ArchitectureError, match="format"):
        read_architecture(path, TinySpace())


def table_of(suffix: str, path: Path) -> None:
    rows = [{"key": f"|k{n}|", "accuracy": 90 + n / 7, "latency": n + 0.5} for n in range(12)]
    if suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    else:
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        pandas.DataFrame(rows).to_parquet(path)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_damaged_tables_are_refused_by_name(suffix: str, tmp_path: Path) -> None:
    from nasengine.estimators._tabular_files import read_rows

    rng, slow = random.Random(2), list[float]()
    path = tmp_path / f"table{suffix}"
    table_of(suffix, path)
    content = path.read_bytes()

    def read() -> None:
        found = read_rows(path, "key", ("accuracy", "latency"))
        assert all(isinstance(value, float) for values in found.values() for value in values)

    read()
    rounds = ROUNDS if suffix != ".parquet" else ROUNDS // 3
    refused = 0
    for _ in range(rounds):
        path.write_bytes(damaged(content, rng))
        refused += answers(read, path, (InputError,), slow)
    # A digit more or less, or a bit of a value, is a sound table of other values.
    assert refused > 0.3 * rounds
    assert len(slow) <= 3, slow


def test_a_table_without_an_architecture_fails_that_trial_alone(tmp_path: Path) -> None:
    from nasengine.estimators.tabular import Tabular

    path = tmp_path / "table.csv"
    path.write_text("key,accuracy\nnothing,1.0\n")
    estimator = Tabular(file=path, key="key", column="accuracy")
    search = tiny_search(estimators={"accuracy": estimator}, folder=tmp_path)
    with pytest.raises((EstimationFailed, InputError)):
        estimator.measure(tiny_candidate(search))


@pytest.mark.parametrize(
    "content",
    [
        b"key,accuracy\n" + b"a" * 200_000 + b",1\n",
        b"\x00" * 1000,
        b"key,accuracy\n" + b'"' * 99_999,
    ],
    ids=["a long field", "zeros", "quotes"],
)
def test_csv_of_strange_sizes_is_refused_or_read(content: bytes, tmp_path: Path) -> None:
    from nasengine.estimators._tabular_files import read_rows

    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"table\.csv"):
        read_rows(path, "key", ("accuracy",))

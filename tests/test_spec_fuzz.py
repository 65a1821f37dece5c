"""Ten thousand broken specs: an error that names something, quickly, and never a traceback."""

from __future__ import annotations

import random
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from test_spec import tables

from nasengine.errors import InputError
from nasengine.runs.experiment import Experiment

ROUNDS = 10_000
TOKENS = [
    "nan", "inf", "-inf", "9" * 400, "-1", "0", "1e308", "true", '""', '"\\u0000"', "[]", "{}",
    "[[[[]]]]", "[1, 'a']", "1979-05-27", '"../x"', '"/etc/passwd"', "{ name = 3 }", "'''", '"""',
    "# ", "=", "\n[space]\n", "\n[[estimators]]\n", "\x00", "\ufeff", "é", "\U0001f600",
]  # fmt: skip


def base() -> dict[str, Any]:
    table = tables()
    table["device"] = "cpu"
    table["references"] = ["big"]
    table["strategy"] = {"name": "evolution", "population": 20, "sample": 5}
    table["final"] = {"estimators": {"flops": {}}}
    return table


def broken(text: str, rng: random.Random) -> bytes:
    """Damage a spec in one to three places, by bytes, tokens, lines or encodings."""
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(text) + 1)
        lines = text.split("\n")
        line = rng.randrange(len(lines))
        kind = rng.randrange(7)
        if kind == 0:
            text = text[:place] + rng.choice(string.printable) + text[place:]
        elif kind == 1:
            text = text[:place] + text[place + rng.randint(1, 9) :]
        elif kind == 2:
            text = text[:place] + rng.choice(TOKENS) + text[place:]
        elif kind == 3:
            key, equals, _ = lines[line].partition("=")
            lines[line] = f"{key}{equals} {rng.choice(TOKENS)}"
            text = "\n".join(lines)
        elif kind == 4:
            lines.insert(rng.randrange(len(lines)), lines[line])
            text = "\n".join(lines)
        elif kind == 5:
            lines[line] = lines[line][::-1]
            text = "\n".join(lines)
        else:
            text = text[:place] + "[" * rng.randint(1, 300) + text[place:]
    encoding = rng.choice(["utf-8"] * 8 + ["utf-16", "latin-1"])
    return text.encode(encoding, errors="replace")


@pytest.mark.timeout(240)
def test_no_damage_gives_a_traceback_and_every_answer_is_quick(tmp_path: Path) -> None:
    rng = random.Random(0)
    text = tomli_w.dumps(base())
    path = tmp_path / "spec.toml"
    path.write_text(text)
    Experiment.load(path)  # Imports are not what is timed.
    refused, slow = 0, []
    for number in range(ROUNDS):
        content = broken(text, rng)
        path.write_bytes(content)
        started = time.process_time()
        try:
            Experiment.load(path)
        except InputError as error:
            refused += 1
            assert str(path) in str(error)
        seconds = time.process_time() - started
        if seconds > 0.1:
            slow.append((number, seconds))
    assert refused > 0.8 * ROUNDS
    # A machine that pauses the process now and then is no defect of ours.
    assert len(slow) <= 3, slow[:5]


def typos(word: str, rng: random.Random) -> Iterator[str]:
    """Yield words one edit away: a letter more, less, other, or two swapped."""
    for place in range(len(word)):
        letter = rng.choice(string.ascii_lowercase)
        yield word[:place] + word[place + 1 :]
        yield word[:place] + letter + word[place:]
        yield word[:place] + letter + word[place + 1 :]
        yield (
            word[:place] + word[place + 1 : place + 2] + word[place : place + 1] + word[place + 2 :]
        )


def keys_of(table: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        # The user's own names (estimators' keys) and what they name are not ours to guess.
        if path != ("estimators",) and path != ("final", "estimators"):
            yield (*path, key)
        if isinstance(value, dict):
            yield from keys_of(value, (*path, key))


def renamed(table: dict[str, Any], path: tuple[str, ...], name: str) -> dict[str, Any]:
    if len(path) > 1:
        return {**table, path[0]: renamed(table[path[0]], path[1:], name)}
    return {name if key == path[0] else key: value for key, value in table.items()}


def test_one_edit_typos_are_answered_with_the_right_name(tmp_path: Path) -> None:
    rng = random.Random(1)
    right, wrong = 0, []
    path = tmp_path / "spec.toml"
    for keys in keys_of(base()):
        for typo in set(typos(keys[-1], rng)) - {keys[-1], ""}:
            path.write_text(tomli_w.dumps(renamed(base(), keys, typo)))
            with pytest.raises(InputError) as caught:
                experiment = Experiment.load(path)
                experiment.search(tmp_path)
            if f"did you mean {keys[-1]!r}" in str(caught.value):
                right += 1
            else:
                wrong.append((".".join(keys), typo, str(caught.value)))
    assert right >= 300
    assert right >= 0.95 * (right + len(wrong)), wrong[:10]

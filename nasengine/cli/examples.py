"""The command that hands out the examples: specs, and the Python that they name, to copy from."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import threading
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import nasengine
from nasengine.cli.catalog import print_wrapped
from nasengine.errors import InputError, did_you_mean


def example(options: argparse.Namespace, _: threading.Event) -> int:
    """List the examples, or copy one with what belongs to it."""
    if options.name is None:
        for name in names():
            print_wrapped(f"{name:18} ", summary(name))
        print("copy one: nasengine example NAME")
        return 0
    spec = copy(options.name, options.output)
    print_wrapped("", summary(options.name))
    print(f"\n{command(options.name, spec)}")
    return 0


def home() -> Path:
    """Return the folder of the examples: in the package, or beside it in a checkout."""
    package = Path(nasengine.__file__).parent
    inside = package / "examples"
    return inside if inside.is_dir() else package.parent / "examples"


def names() -> list[str]:
    """Return the examples' names."""
    found = [path.stem for path in home().glob("*.toml")]
    return sorted([*found, *(path.parent.name for path in home().glob("*/spec.toml"))])


def summary(name: str) -> str:
    """Return what an example's spec opens with: its comment, up to an empty line of it."""
    return " ".join(takewhile(bool, _comment(home() / _spec(name))))


def command(name: str, spec: Path) -> str:
    """Return the command that an example's comment says it is for, on a copy of its spec."""
    comment = "\n".join(_comment(home() / _spec(name)))
    said = re.search(r"^(nasengine (?:run|ablate)) \S+((?:.*\\\n)*.*)$", comment, re.MULTILINE)
    start, rest = said.groups() if said else ("nasengine run", "")
    return f"{start} {shlex.quote(str(spec))}" + rest.replace("\n", "\n    ")


def _spec(name: str) -> Path:
    """Return where an example's spec lies, in the folder of the examples or a copy's."""
    return Path(name, "spec.toml") if (home() / name).is_dir() else Path(f"{name}.toml")


def _comment(path: Path) -> Iterator[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    return (line.removeprefix("#").strip() for line in comment)


def copy(name: str, into: Path) -> Path:
    """Copy an example into a folder; return its spec there.

    Raises
    ------
    InputError
        If there is no such example, or something of it is there already.
    """
    known = names()
    if name not in known:
        raise InputError(f"no example {name!r}; {did_you_mean(name, known)}")
    parts = [path for end in ("", ".toml", ".py") if (path := home() / f"{name}{end}").exists()]
    there = [into / part.name for part in parts if (into / part.name).exists()]
    if there:
        raise InputError(f"{there[0]}: is there already; name another folder with -o")
    into.mkdir(parents=True, exist_ok=True)
    for part in parts:
        if part.is_dir():
            shutil.copytree(part, into / part.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(part, into / part.name)
    return into / _spec(name)

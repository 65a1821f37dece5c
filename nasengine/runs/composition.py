"""From a spec's tables to plugins: each problem told, all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from nasengine.errors import ArchitectureError, InputError, PluginError, SpaceError, SpecError
from nasengine.estimator import Estimator
from nasengine.plugin import Plugin, build, load_class
from nasengine.runs.spec import Table
from nasengine.space import SearchSpace
from nasengine.strategy import Strategy
from nasengine.task import DataSource, Task

_CONTRACTS: dict[str, type[Plugin]] = {
    "space": SearchSpace,
    "task": Task,
    "strategy": Strategy,
    "task.data": DataSource,
}


class Builder:
    """Builds plugins and collects what is wrong with them, to tell it all at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._problems: list[InputError] = []

    def __call__(self, contract: type[Any], settings: Mapping[str, Any], where: str) -> Any:
        """Build one; None if it cannot be, which is kept to be told."""
        try:
            return build(contract, settings, where=where, folder=self._folder)
        except (SpecError, PluginError) as error:
            self._problems.append(error)
            return None

    def estimators(self, given: Mapping[str, Table], where: str) -> dict[str, Estimator]:
        """Build estimators, each of the name that is its key where the spec says no other."""
        return {
            key: self(Estimator, {"name": key, **settings}, f"{where}.{key}")
            for key, settings in given.items()
        }

    def refuse(self, error: SpecError, tables: Mapping[str, Any]) -> NoReturn:
        """Raise what is wrong with the spec's own keys, and with its plugins' as far as named."""
        self._problems.append(error)
        for kind, contract in _CONTRACTS.items():
            table = tables.get(kind)
            if isinstance(table, Mapping) and "name" in table:
                self(contract, table, kind)
        self.raise_if_any()
        raise error

    def raise_if_any(self) -> None:
        """Raise every problem so far as one error, of the first one's class."""
        if self._problems:
            kind = type(self._problems[0])
            raise kind("\n".join(str(problem) for problem in self._problems))


def swap(tables: Table, path: str, paths: Sequence[str], folder: Path) -> list[str]:
    """Drop, after an overridden plugin name, the settings that only the old plugin had."""
    where, _, last = path.rpartition(".")
    estimates = where.rpartition(".")[0] in ("estimators", "final.estimators")
    contract = Estimator if estimates else _CONTRACTS.get(where)
    if last != "name" or contract is None:
        return []
    table: Any = tables
    for key in where.split("."):
        table = table[key]
    try:
        fields = load_class(contract, str(table["name"]), folder).model_fields
    except PluginError:
        return []  # Building it says what is wrong, with the key's path.
    dropped = [
        key
        for key in table
        if key != "name"
        and key not in fields
        and not any(f"{p}.".startswith(f"{where}.{key}.") for p in paths)
    ]
    for key in dropped:
        del table[key]
    if not dropped:
        return []
    return [f"{where} is now {table['name']!r}, which has no {', '.join(dropped)}: dropped"]


@contextmanager
def in_file(path: Path | None) -> Iterator[None]:
    """Put the file's name before every line of what is wrong with the spec."""
    try:
        yield
    except (SpecError, PluginError, SpaceError, ArchitectureError) as error:
        text = str(error)
        if path is None or text.startswith(f"{path}:"):
            raise
        raise type(error)(f"{path}: " + text.replace("\n", f"\n{path}: ")) from error


@contextmanager
def in_part(where: str) -> Iterator[None]:
    """Put the key of the part that refuses before what it says."""
    try:
        yield
    except SpecError as error:
        text = str(error)
        if text.startswith(where.partition(".")[0]):
            raise
        raise SpecError(f"{where}: {text}") from error

"""A user's own code in a run: which it is, and how it is passed again when the run goes on.

A run's folder alone never makes code run: it may be anyone's.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nasengine.errors import RunFolderError, did_you_mean
from nasengine.plugin_name import PluginName
from nasengine.runs.spec import read_toml


def named_in(tables: Mapping[str, Any], path: str = "") -> dict[str, PluginName]:
    """Return the plugins that tables name, by the table's path; the outermost names the run."""
    found: dict[str, PluginName] = {}
    for key, item in tables.items():
        if not isinstance(item, Mapping):
            continue
        where = f"{path}.{key}".lstrip(".")
        if isinstance(item.get("name"), str):
            found[where] = PluginName.parse(item["name"])
        found.update(named_in(item, where))
    return found


def command_on(folder: Path, command: str, *options: str) -> str:
    """Return a command on a run as it is typed, the run's own code passed again."""
    words = shlex.join(["nasengine", command, str(folder), *options])
    return " ".join(filter(None, [words, _code(folder)]))


def _code(folder: Path) -> str:
    """Return the options that pass a run's own code again; empty where it has none."""
    sources = dict.fromkeys(_from_here(name) for name in _own_plugins(folder).values())
    return shlex.join(word for source in sources for word in ("--code", source))


def _own_plugins(folder: Path) -> dict[str, PluginName]:
    """Return the plugins of your own that a run's spec names, by the table's path."""
    named = named_in(read_toml(folder / "spec.toml"))
    return {path: name for path, name in named.items() if name.is_own}


def _from_here(name: PluginName) -> str:
    here = Path.cwd()
    is_below = name.is_file and Path(name.source).is_relative_to(here)
    return str(Path(name.source).relative_to(here)) if is_below else name.source


def passed_again(folder: Path, given: Sequence[str]) -> list[str]:
    """Return overrides for plugins that are the user's own code, each passed again by the user.

    Raises
    ------
    RunFolderError
        If the run needs code that was not passed, or there is no such file: a folder alone never
        makes code run.
    """
    plugins = _own_plugins(folder)
    _check_given(folder, given, plugins.values())
    overrides = []
    for path, name in plugins.items():
        meant = [code for code in given if _means(code, name)]
        if not meant:
            raise RunFolderError(f"{folder}: {path}.name is {_asked_for(folder)}")
        same = [code for code in meant if str(Path(code).resolve()) == name.source]
        located = str(Path([*same, *meant][0]).resolve()) if name.is_file else name.source
        overrides.append(f"{path}.name={PluginName(located, name.attribute)}")
    return overrides


def _check_given(folder: Path, given: Sequence[str], own: Collection[PluginName]) -> None:
    for code in given:
        if code.endswith(".py") and not Path(code).is_file():
            raise RunFolderError(f"--code {code}: no such file: {Path(code).resolve()}")
        if not any(_means(code, name) for name in own):
            near = did_you_mean(code, dict.fromkeys(map(_from_here, own)))
            raise RunFolderError(f"--code {code}: no code of {folder}; {near}")


def _means(code: str, name: PluginName) -> bool:
    """Say whether passed code is a plugin's: a file may have moved, and has its name still."""
    return code == name.source or Path(code).name == Path(name.source).name


def _asked_for(folder: Path) -> str:
    """Say what to add to the command for a run's own code."""
    files = [name.source for name in _own_plugins(folder).values() if name.is_file]
    moved = not all(map(os.path.isfile, files))  # No name makes it raise, as a Path's may.
    return (
        "your own code, which a run's folder alone never makes run; if you trust it, add to the "
        f"command: {_code(folder)}{', each file from where it is now' if moved else ''}"
    )

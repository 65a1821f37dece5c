"""What makes runs different from one another, as their specs tell it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nasengine.runs.run_files import no_run, read_identity
from nasengine.runs.spec import read_toml
from nasengine.studies.summary import ABSENT

NO_SETTING = frozenset({"seed", "name", "references", "execution.isolate"})
"""Keys of a spec that change nothing of what a search finds, and the seed, which makes no row."""


def settings_of(folders: Sequence[Path]) -> list[dict[str, str]]:
    """Say of each run what makes it different from the others, seed and name apart.

    The budget is such a setting, and so are the files of own code.

    Raises
    ------
    RunFolderError, SpecError
        If a folder holds no run, or what it holds cannot be read.
    """
    specs = [{**_flat(_tables(folder)), **_code(folder)} for folder in folders]
    keys = {key for spec in specs for key in spec} - NO_SETTING
    differing = sorted(k for k in keys if len({repr(spec.get(k)) for spec in specs}) > 1)
    shown = [k for k in differing if all(k in spec for spec in specs)]
    # What not all have (a strategy's own settings, an estimator) mostly follows from a name:
    # it is shown where it tells apart what else would look the same.
    rest = [k for k in differing if k not in shown]
    for key in sorted(rest, key=lambda k: not k.endswith(".name")):
        if _kinds(specs, [*shown, key]) > _kinds(specs, shown):
            shown.append(key)
    return [{key: _value_text(spec, key) for key in shown or ["strategy.name"]} for spec in specs]


def _kinds(specs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> int:
    return len({tuple(repr(spec.get(key, ABSENT)) for key in keys) for spec in specs})


def _value_text(spec: Mapping[str, Any], key: str) -> str:
    return ABSENT if key not in spec else str(spec[key]) or "''"


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    return {
        k: v
        for key, item in value.items()
        for k, v in _flat(item, f"{path}.{key}".lstrip(".")).items()
    }


def _code(folder: Path) -> dict[str, str]:
    """Return the digests of own code by the key of what it is: it may change, its name kept."""
    kept = read_identity(folder)["code"] if (folder / "identity.json").is_file() else {}
    return {f"{key}.code": str(digest)[:8] for key, digest in _flat(kept).items() if key}


def _tables(folder: Path) -> dict[str, Any]:
    if not os.path.isfile(folder / "spec.toml"):  # noqa: PTH113 no name makes it raise
        raise no_run(folder, "no spec.toml")
    return read_toml(folder / "spec.toml")

"""What a run began with, and what a resume must find unchanged: spec, space, own code, packages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nasengine.errors import RunFolderError
from nasengine.plugin_name import PluginName
from nasengine.runs.experiment import Experiment
from nasengine.runs.own_code import named_in
from nasengine.runs.run_files import FORMAT, read_identity
from nasengine.runs.spec import read_toml
from nasengine.widths import Channels, Width, searched

PACKAGES = ("nasengine", "torch", "numpy", "networkx", "optuna", "nni", "scikit-learn", "ptflops")


def identity(experiment: Experiment) -> dict[str, Any]:
    """Return what must stay the same for a run to be gone on with."""
    spec = experiment.resolved()
    del spec["budget"], spec["execution"]
    return {
        "format": FORMAT,
        "spec": spec,
        "space": space_digest(experiment),
        "code": _code_digests(spec),
        "packages": packages(),
    }


def changes_since(before: Mapping[str, Any], experiment: Experiment) -> list[str]:
    """Say, a line each, what an experiment has otherwise than what a run began with."""
    began = {**before, "spec": experiment.completed(before.get("spec"))}
    return _changes(began, _as_kept(identity(experiment), before))


def check_code(path: Path) -> None:
    """Refuse code files that are not those that a run began with, before one is imported.

    Raises
    ------
    RunFolderError
        Naming each that is gone or changed.
    """
    before = read_identity(path)
    try:
        now = {"code": _code_digests(read_toml(path / "spec.toml"))}
    except OSError as error:
        raise RunFolderError(f"{error.filename}: cannot be read: {error.strerror}") from error
    changes = _changes(before.get("code"), _as_kept(now, before)["code"], "code")
    if changes:
        listed = "\n  ".join(changes)
        raise RunFolderError(f"{path}: changed since the run began:\n  {listed}")


def space_digest(experiment: Experiment) -> str:
    """Return a digest of the space's graph: nodes, wiring, channels, choices."""
    graph = experiment.space.graph
    text = json.dumps(
        [
            [
                *(n.name, n.kind, n.inputs, graph.channels[n.name], [*n.candidates], n.decision),
                # Said of searched channels alone: runs that began without any go on.
                *(_parts(graph.out[n.name]) if any(searched(graph.out[n.name])) else ()),
            ]
            for n in graph.nodes
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _parts(channels: Channels) -> list[int | list[Any]]:
    """Return what channels are made of, as JSON values."""
    return [[part.decision, part.options] if isinstance(part, Width) else part for part in channels]


def packages() -> dict[str, str]:
    """Return the versions of the packages that results depend on, as far as installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _code_digests(spec: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the code files that a spec names: the table's path to the file's name and digest."""
    files = {path: Path(name.source) for path, name in named_in(spec).items() if name.is_file}
    return {
        path: {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
        for path, file in files.items()
    }


def _as_kept(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity as a run's folder has it: earlier ones named a code file by name alone."""
    kept = before.get("code")
    if not isinstance(kept, Mapping) or not any(isinstance(d, str) for d in kept.values()):
        return dict(now)
    by_name = {file: digest for files in now["code"].values() for file, digest in files.items()}
    return {**now, "code": by_name}


def _changes(before: Any, after: Any, path: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            change
            for key in sorted({*before, *after})
            for change in _changes(before.get(key), after.get(key), f"{path}.{key}".lstrip("."))
        ]
    same = before == after or (path.endswith(".name") and _file(before) == _file(after))
    return [] if same else [f"{path}: was {_said(before)}, is {_said(after)}"]


def _file(name: Any) -> Any:
    """A code file may have moved: its name and its content count."""
    return PluginName.parse(name).short if isinstance(name, str) else name


def _said(value: Any) -> str:
    return "not there" if value is None else f"{value!r:.80}"

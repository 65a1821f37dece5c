"""The run folder of a cell: made or gone on with, held to the cell's spec and to its budget."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nasengine.errors import RunFolderError
from nasengine.runs.experiment import Experiment
from nasengine.runs.run_folder import RunFolder
from nasengine.runs.spec import read_toml


def has_begun(path: Path) -> bool:
    """Say whether a cell's folder holds a run."""
    return (path / "identity.json").is_file()


def held(path: Path, experiment: Experiment) -> RunFolder:
    """Return a cell's folder, made where there is none.

    Raises
    ------
    RunFolderError
        If it holds a run of something else.
    """
    if not has_begun(path):
        return RunFolder.create_at(path, experiment, ["nasengine", "ablate"])
    with ExitStack() as opened:
        folder = opened.enter_context(RunFolder(path))
        try:
            folder.check_identity(experiment)
        except RunFolderError as error:
            raise RunFolderError(f"{error}\nto begin anew: another folder, by --into") from error
        opened.pop_all()
    return folder


def check_budget(folder: RunFolder, experiment: Experiment) -> None:
    """Refuse a run that had another budget, unless going on with it makes the budgets equal.

    More trials go on where fewer ended; what a gradient search did with its seconds is done.

    Raises
    ------
    RunFolderError
        Naming both budgets.
    """
    kept, asked = _kept_budget(folder), _budget(experiment)
    used, most = len(folder.storage.history()), asked.get("trials")
    goes_on = kept.get("seconds") == asked.get("seconds") and (most is None or used <= most)
    if kept == asked or goes_on:
        return
    was, now = (", ".join(f"{k} = {v}" for k, v in b.items()) for b in (kept, asked))
    raise RunFolderError(
        f"{folder.path}: has had a budget of {was} (trials so far: {used}), now {now} is "
        f"asked; only runs at equal budget are compared: give the same, or another folder by "
        f"--into"
    )


def is_complete(folder: RunFolder, experiment: Experiment) -> bool:
    """Say whether a run is finished at the budget that is asked."""
    finished = folder.storage.fact("finished", bool, False)
    return finished and _kept_budget(folder) == _budget(experiment)


def _budget(experiment: Experiment) -> dict[str, Any]:
    return experiment.spec.budget.model_dump(exclude_none=True)


def _kept_budget(folder: RunFolder) -> Mapping[str, Any]:
    budget: Mapping[str, Any] = read_toml(folder.path / "spec.toml").get("budget", {})
    return budget

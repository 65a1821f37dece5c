"""Neural architecture search from one TOML file.

The names below are the public ones; each is imported when it is first used, so that
``import nasengine`` is quick and torch is loaded by what needs it alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasengine.architecture import Architecture
    from nasengine.errors import (
        ArchitectureError,
        DataError,
        EstimationFailed,
        InputError,
        Interrupted,
        NasengineError,
        PluginError,
        RunFolderError,
        SearchFailed,
        SpaceError,
        SpecError,
        StorageError,
    )
    from nasengine.estimator import Candidate, CostTable, Estimator
    from nasengine.factories import Factory
    from nasengine.graph import Node, SpaceGraph
    from nasengine.history import History
    from nasengine.network import build_network
    from nasengine.objectives import Objective, Objectives
    from nasengine.operations import Zero
    from nasengine.plugin import Nested, Plugin, SpecPath
    from nasengine.reporter import Progress, Reporter
    from nasengine.runs.experiment import Experiment
    from nasengine.runs.run import Outcome
    from nasengine.runs.session import export, resume, run
    from nasengine.search import Budget, Search
    from nasengine.space import SearchSpace
    from nasengine.strategy import Strategy
    from nasengine.supernet import MixedOperation, Mixture, Supernet
    from nasengine.task import IGNORED, DataSource, Samples, Splits, Task, Usage
    from nasengine.tasks.sourced import SourcedTask
    from nasengine.trial import Measurement, Metric, Status, Trial
    from nasengine.unseen import Unseen
    from nasengine.widths import Width

__all__ = [  # noqa: RUF022
    "IGNORED",
    "Architecture",
    "ArchitectureError",
    "Budget",
    "Candidate",
    "CostTable",
    "DataError",
    "DataSource",
    "EstimationFailed",
    "Estimator",
    "Experiment",
    "Factory",
    "History",
    "InputError",
    "Interrupted",
    "Measurement",
    "Metric",
    "MixedOperation",
    "Mixture",
    "NasengineError",
    "Nested",
    "Node",
    "Objective",
    "Objectives",
    "Outcome",
    "Plugin",
    "PluginError",
    "Progress",
    "Reporter",
    "RunFolderError",
    "Samples",
    "Search",
    "SearchFailed",
    "SearchSpace",
    "SourcedTask",
    "SpaceError",
    "SpaceGraph",
    "SpecError",
    "SpecPath",
    "Splits",
    "Status",
    "StorageError",
    "Strategy",
    "Supernet",
    "Task",
    "Trial",
    "Unseen",
    "Usage",
    "Width",
    "Zero",
    "build_network",
    "export",
    "resume",
    "run",
    "__version__",
]

_MODULES = {
    "architecture": ("Architecture",),
    "errors": (
        "ArchitectureError",
        "DataError",
        "EstimationFailed",
        "InputError",
        "Interrupted",
        "NasengineError",
        "PluginError",
        "RunFolderError",
        "SearchFailed",
        "SpaceError",
        "SpecError",
        "StorageError",
    ),
    "estimator": ("Candidate", "CostTable", "Estimator"),
    "runs.experiment": ("Experiment",),
    "runs.run": ("Outcome",),
    "runs.session": ("export", "resume", "run"),
    "factories": ("Factory",),
    "graph": ("Node", "SpaceGraph"),
    "history": ("History",),
    "network": ("build_network",),
    "objectives": ("Objective", "Objectives"),
    "operations": ("Zero",),
    "plugin": ("Nested", "Plugin", "SpecPath"),
    "reporter": ("Progress", "Reporter"),
    "search": ("Budget", "Search"),
    "space": ("SearchSpace",),
    "strategy": ("Strategy",),
    "supernet": ("MixedOperation", "Mixture", "Supernet"),
    "task": ("IGNORED", "DataSource", "Samples", "Splits", "Task", "Usage"),
    "tasks.sourced": ("SourcedTask",),
    "trial": ("Measurement", "Metric", "Status", "Trial"),
    "unseen": ("Unseen",),
    "widths": ("Width",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__version__: str


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        return version("nasengine")
    if name not in _HOME:
        raise AttributeError(f"module 'nasengine' has no attribute {name!r}")
    found = getattr(import_module(f"nasengine.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "__version__"})

"""A network of the space that is timed in turn with every other, as a unit of time.

What else a machine does, its clock rate, its neighbours on the same host, change how long a
network takes from second to second, and change it alike for networks of one kind: on a shared
virtual machine the times of two networks ranged over a factor of 1.9, their ratio over 4% either
way. So readings are told at the pace that the machine has when it is disturbed least, found out as
the run begins, and those of a first and a last trial can be compared.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from nasengine.errors import EstimationFailed, RunFolderError
from nasengine.files import read_json, write_json

from . import _timing
from ._engines import Setup, device_name, prepare
from ._latency_cells import probe_network, probes

if TYPE_CHECKING:
    from pathlib import Path

    from nasengine.graph import SpaceGraph
    from nasengine.search import Search

_LOOKS = 8
"""How often the yardstick is looked at, before the first reading."""

_prepared: WeakKeyDictionary[SpaceGraph, dict[object, _timing.Run]] = WeakKeyDictionary()


def yardstick(
    search: Search, setup: Setup, repeats: int, seconds: float
) -> _timing.Yardstick | None:
    """Return the yardstick; None where the clock tells nothing of it.

    To be called inside `_engines.measuring`. What it takes is found out once a run, from several
    looks with pauses between.

    Raises
    ------
    EstimationFailed
        If the engine cannot run it.
    """
    run, kept = _run(search, setup), pace(search, setup)
    if kept is None:
        now, taken = _timing.clock(search.device), list[float]()
        _timing.warm_up(run, now, max(seconds, 1.0))
        with search.reporter.progress("the machine's pace", _LOOKS) as progress:
            for _ in range(_LOOKS):
                taken += _timing.sample(run, now, max(2, repeats // _LOOKS), seconds / 2)
                time.sleep(seconds / 4)
                progress.advance()
        kept = _timing.undisturbed(taken)
        if not 0 < kept < math.inf:
            return None
        keep_pace(search, setup, kept)
    return _timing.Yardstick(run, kept)


def pace(search: Search, setup: Setup) -> float | None:
    """Return the milliseconds that the yardstick takes undisturbed; None before they are known."""
    return _read(_path(search)).get(_name(setup))


def keep_pace(search: Search, setup: Setup, milliseconds: float) -> None:
    """Keep what the yardstick takes as the unit of this run."""
    path = _path(search)
    write_json(path, {**_read(path), _name(setup): milliseconds})


def _run(search: Search, setup: Setup) -> _timing.Run:
    """Return the call that is timed: of the first probe of a table that the engine can run."""
    shape = search.task.input_shape
    kept = _prepared.setdefault(search.space.graph, {})
    key = (setup, shape, search.seed)
    if key not in kept:
        failed = EstimationFailed("latency: the space has no network to time")
        for number, architecture in enumerate(probes(search)):
            try:
                kept[key] = prepare(probe_network(search, number, architecture), setup, shape)
                break
            except EstimationFailed as error:
                failed = error
        else:
            raise failed
    return kept[key]


def _path(search: Search) -> Path:
    return search.checkpoints / "latency_pace.json"


def _name(setup: Setup) -> str:
    """Name what a pace is of: another machine or another way of running has its own."""
    facts = {**asdict(setup), "device_name": device_name(setup.device)}
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _read(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    kept = read_json(path, dict[str, float])
    if not all(value > 0 for value in kept.values()):
        raise RunFolderError(f"{path}: damaged: a pace is more than 0; remove it to measure again")
    return kept

"""The grid of an ablation: what is varied, its cells, and their names."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from nasengine.errors import PluginError, SpecError
from nasengine.plugin import load_class
from nasengine.runs.spec import Table, parse_value
from nasengine.strategy import Strategy

RANDOM = "random"


@dataclass(frozen=True)
class Cell:
    """One run of an ablation.

    Parameters
    ----------
    setting
        What is varied, seed excepted: key path to value as text; empty for a setting that the
        cell's strategy does not have.
    seed
        The seed.
    overrides
        Key path to value; a table replaces the table there.
    kind
        What begins its folder's name, where that is not the setting.
    shared_name
        Whether another cell's setting is written alike in a folder's name.
    """

    setting: Mapping[str, str]
    seed: int
    overrides: Mapping[str, Any]
    kind: str = ""
    shared_name: bool = False

    @property
    def name(self) -> str:
        """The name of the cell's folder; a digest of the setting is added where it is shared."""
        parts = [f"{k.rpartition('.')[2]}={value}" for k, value in self.setting.items() if value]
        words = [*([self.kind] if self.kind else []), *parts, f"seed={self.seed}"]
        plain = re.sub(r"[^A-Za-z0-9_.=-]+", "-", "_".join(words))
        if not self.shared_name:
            return plain
        return f"{plain}_{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"


C = TypeVar("C", bound=Cell)


def parse_vary(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Read ``key=a,b,c`` and ``key=0..4``.

    Raises
    ------
    SpecError
        If one has no key or no value, or a key is given twice.

    Examples
    --------
    >>> parse_vary(["strategy.name=darts,random", "seed=0..2"])
    {'strategy.name': ['darts', 'random'], 'seed': [0, 1, 2]}
    >>> parse_vary(['start=["unet"],["unet", "single_u"],[]'])
    {'start': [['unet'], ['unet', 'single_u'], []]}
    """
    varied: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not (key and equals and values):
            raise SpecError(f"--vary {text!r}: key=a,b,c or key=0..4 is needed")
        if key in varied:
            raise SpecError(f"--vary {text!r}: {key} is varied already; give all its values in one")
        varied[key] = _values(values)
        if not varied[key]:
            raise SpecError(f"--vary {text!r}: an empty range")
    return varied


def _values(text: str) -> list[Any]:
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if numbers:
        return list(range(int(numbers[1]), int(numbers[2]) + 1))
    listed = parse_value(f"[{text}]")  # As TOML has it, a comma may stand inside a value.
    if isinstance(listed, list):
        return listed
    return [parse_value(value.strip()) for value in text.split(",")]


def strategy_key(varied: Mapping[str, Any]) -> str:
    """Return the key that strategies are varied by: whole tables, or their names."""
    return "strategy" if "strategy" in varied else "strategy.name"


def of_strategy(key: str) -> bool:
    """Say whether a key path is the strategy's."""
    return key.partition(".")[0] == "strategy"


def setting_of_strategy(key: str) -> str:
    """Return the setting of the strategy that a key path is of; empty where it is of none.

    Examples
    --------
    >>> setting_of_strategy("strategy.cost.parameters"), setting_of_strategy("strategy.name")
    ('cost', '')
    """
    part, _, rest = key.partition(".")
    setting = rest.partition(".")[0]
    return setting if part == "strategy" and setting != "name" else ""


def of_search(key: str) -> bool:
    """Say whether a key path is of the search alone, and not of how a network is measured."""
    return key.partition(".")[0] in ("strategy", "start", "objectives", "budget")


def cells(
    table: Table, varied: Mapping[str, Sequence[Any]], folder: Path | None = None
) -> list[Cell]:
    """Return every cell of the grid; random search at the same budget is always among them.

    A varied setting of the strategy is left out of the cells of strategies that do not have it.

    Parameters
    ----------
    table
        The spec.
    varied
        Key path to its values; a table (a whole strategy, say) replaces the table there.
    folder
        What the spec's paths are relative to.

    Raises
    ------
    SpecError
        If a key has no values, or a value of it is given twice.
    """
    _check(varied)
    varied = _with_random(table, varied)
    seeds = varied.pop("seed", [table.get("seed", 0)])
    settings = list(_settings(varied, folder or Path()))
    texts = {key: dict(zip(map(repr, v), _texts(v), strict=True)) for key, v in varied.items()}
    grid = [
        Cell(
            {key: texts[key][repr(s[key])] if key in s else "" for key in varied},
            seed,
            {**s, "seed": seed},
        )
        for s in settings
        for seed in seeds
    ]
    for cell, count in Counter((*c.setting.values(), str(c.seed)) for c in grid).items():
        if count > 1:
            raise SpecError(f"ablation: {', '.join(cell)} (the seed last) is given twice")
    return told_apart(grid)


def told_apart(grid: Sequence[C]) -> list[C]:
    """Give every cell a folder of its own."""
    # Letters of either case are one to some file systems.
    names = Counter(cell.name.lower() for cell in grid)
    return [replace(cell, shared_name=names[cell.name.lower()] > 1) for cell in grid]


def _check(varied: Mapping[str, Sequence[Any]]) -> None:
    for key, values in varied.items():
        if not values:
            raise SpecError(f"ablation.vary.{key}: no value to vary it by")
    if "strategy" in varied and "strategy.name" in varied:
        raise SpecError("ablation.vary: strategy and strategy.name are both varied; take one")


def _with_random(table: Table, varied: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Return what is varied, with random search among the strategies."""
    key = strategy_key(varied)
    strategies = list(varied.get(key, [])) or [table.get("strategy", {}).get("name")]
    if RANDOM not in [v.get("name") if isinstance(v, Mapping) else v for v in strategies]:
        strategies.append({"name": RANDOM} if key == "strategy" else RANDOM)
    return {**{k: list(values) for k, values in varied.items()}, key: strategies}


def _settings(varied: Mapping[str, Sequence[Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield every combination once, each without what its strategy does not have."""
    grid = [dict(zip(varied, v, strict=True)) for v in itertools.product(*varied.values())]
    strategies = [setting[strategy_key(setting)] for setting in grid]
    own = [key for key in varied if setting_of_strategy(key)]
    # What no strategy has is a mistake, which building the cell names.
    own = [key for key in own if not all(lacks(s, key, folder) for s in strategies)]
    seen = []
    for setting, strategy in zip(grid, strategies, strict=True):
        lacking = {key for key in own if lacks(strategy, key, folder)}
        fitting = {key: value for key, value in setting.items() if key not in lacking}
        if not lacking or fitting not in seen:
            seen.append(fitting)
            yield fitting


def settings_of(strategy: Any, folder: Path) -> frozenset[str] | None:
    """Return the settings that a strategy has, by its name or table; None of one that is none."""
    name = strategy.get("name") if isinstance(strategy, Mapping) else strategy
    try:
        return frozenset(load_class(Strategy, str(name), folder).model_fields)
    except PluginError:
        return None  # Building it says what is wrong, with the key's path.


def lacks(strategy: Any, key: str, folder: Path) -> bool:
    """Say whether a key path sets what a strategy, by its name or table, does not have."""
    setting, known = setting_of_strategy(key), settings_of(strategy, folder)
    return bool(setting) and known is not None and setting not in known


def _texts(values: Sequence[Any]) -> list[str]:
    """Say each value shortly: of tables of one name, what tells them apart."""
    return [_text(v, values) if isinstance(v, Mapping) else str(v) or "''" for v in values]


def _text(value: Mapping[str, Any], values: Sequence[Any]) -> str:
    name = value.get("name", "")
    alike = [v for v in values if isinstance(v, Mapping) and v.get("name", "") == name]
    told = [
        f"{k}={v}" for k, v in value.items() if k != "name" and (not name or _differs(k, alike))
    ]
    further = ",".join(told)
    if not name:
        return further or "{}"
    return f"{name}({further})" if further else str(name)


def _differs(key: str, alike: Sequence[Mapping[str, Any]]) -> bool:
    return len({repr(table.get(key)) for table in alike}) > 1

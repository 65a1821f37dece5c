"""The spec: one TOML file that says the whole experiment. Reading it runs and imports nothing."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from nasengine.architecture import named_choice
from nasengine.errors import SpecError
from nasengine.plugin import explain
from nasengine.quantities import parse_quantity

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1_000_000

Table = dict[str, Any]


def _in_words(words: str) -> WrapValidator:
    """Say what a pattern means, in place of the pattern."""

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise ValueError(f"{words} needed") from None

    return WrapValidator(check)


RunName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"),
    _in_words("1 to 64 letters, digits, '-' and '_', the first a letter or digit, are"),
]
Key = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9_]*$"),
    _in_words("a name of small letters, digits and '_', the first a letter, is"),
]
Device = Annotated[
    str,
    StringConstraints(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$"),
    _in_words("auto, cpu, cuda or cuda:N (as in cuda:1) is"),
]


def _in_seconds(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return parse_quantity(given, where="seconds").to("s", where="seconds")
    except SpecError as error:
        raise ValueError(str(error).removeprefix("seconds: ")) from error


Seconds = Annotated[
    float,
    Field(gt=0, allow_inf_nan=False),
    BeforeValidator(_in_seconds),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]}),
]
"""A number of seconds, or text such as ``"2 h"``."""


class _Strict(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class GoalTable(_Strict):
    """An objective written as a table: a goal, limits, a screen, or several of these."""

    goal: Literal["max", "min"] | None = None
    """Which way is better; none where it is not optimised."""
    at_most: float | str | None = None
    """Upper limit: a number in the metric's unit, `"5 ms"`, `"20M"` or `"60% of unet"`."""
    at_least: float | str | None = None
    """Lower limit, written like `at_most`."""
    among_best: float | str | None = None
    """A screen, such as `"33%"`: only trials among that share of the best so far are measured
    further, by the estimators after this one."""


def _form(given: Any) -> str:
    return "[table]" if isinstance(given, (Mapping, GoalTable)) else "[goal]"


Direction = Annotated[
    Literal["max", "min"], _in_words('"max", "min" or a table such as { at_most = "5 ms" } is')
]
# Told apart first: else an error of one form is told with those of the other.
Goal = Annotated[
    Annotated[Direction, Tag("[goal]")] | Annotated[GoalTable, Tag("[table]")],
    Discriminator(_form),
]


def _form_of_start(given: Any) -> str:
    return "[choices]" if isinstance(given, Mapping) else "[text]"


Choice = Annotated[
    str,
    BeforeValidator(named_choice),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}]}),
]
"""A choice's name; of a width, the number that it is."""

Start = Annotated[
    Annotated[str, Tag("[text]")] | Annotated[Mapping[str, Choice], Tag("[choices]")],
    Discriminator(_form_of_start),
]


class BudgetTable(_Strict):
    """When the search ends, whichever comes first."""

    trials: int | None = Field(None, ge=1)
    """Architectures that the strategy may have measured; references are not counted."""
    seconds: Seconds | None = None
    """Seconds of search, or text such as `"2 h"`; training of supernets included."""

    @model_validator(mode="after")
    def _ends(self) -> BudgetTable:
        if self.trials is None and self.seconds is None:
            raise ValueError("trials or seconds is needed")
        return self


class FinalTable(_Strict):
    """What is measured of the winner and the references alone, after the search."""

    estimators: dict[Key, Table] = {}
    """Estimators by key, as in `[estimators]`."""


class ExecutionTable(_Strict):
    """Where candidates are measured. It may change when a run is resumed."""

    workers: int = Field(1, ge=1, le=256)
    """How many candidates are measured side by side; with several, the order of results varies."""
    isolate: bool | None = None
    """Measure in worker processes, which a candidate may crash; by default with several workers."""
    timeout: Seconds | None = None
    """Time that one candidate may take, all its estimators together, as in `"30 min"`; it needs
    worker processes."""
    devices: list[Device] | None = None
    """What the workers run on, in turn, such as `["cuda:0", "cuda:1"]`; by default all on
    `device`."""

    @property
    def isolated(self) -> bool:
        """Whether candidates are measured in worker processes."""
        asked = self.workers > 1 or self.timeout is not None
        return asked if self.isolate is None else self.isolate

    @model_validator(mode="after")
    def _possible(self) -> ExecutionTable:
        if not self.isolated and (self.workers > 1 or self.timeout is not None):
            raise ValueError("several workers, or a timeout, need isolate = true")
        if self.devices == []:
            raise ValueError("devices: one or more are needed")
        if self.devices is not None and len(self.devices) > self.workers:
            raise ValueError(
                f"{len(self.devices)} devices need as many workers; got {self.workers}"
            )
        if self.devices is not None and not self.isolated:
            raise ValueError("devices are for worker processes: isolate = true")
        return self


class AblationTable(_Strict):
    """What `nasengine ablate` varies; `--vary` adds to it."""

    vary: dict[str, list[Any]] = {}
    """Key path to its values; a table as a value replaces the table there."""
    baseline: str | None = None
    """The row that others are compared with; by default random search."""


class Spec(_Strict):
    """An experiment: which space, which task, how it is searched, what is measured and wanted."""

    name: RunName
    """Names the run's folder: letters, digits, `-` and `_`, at most 64."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Where all randomness comes from."""
    device: Device = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`."""
    threads: int | None = Field(None, ge=1)
    """Threads of torch on the CPU; by default as many as torch chooses."""
    references: tuple[str, ...] | None = None
    """Reference networks to measure beside the winner; by default the space's first two."""
    start: tuple[Start, ...] = ()
    """Architectures to begin with, before the strategy proposes any: names of references, choices
    (`"decision=choice,..."`, or a table), JSON files, or the space's own architecture strings."""
    space: Table
    """The search space: `name` and its settings."""
    task: Table
    """The task: `name` and its settings."""
    strategy: Table
    """The strategy: `name` and its settings."""
    estimators: dict[Key, Table] = Field(min_length=1)
    """Estimators by key; `name` may be left out where it is the key."""
    objectives: dict[str, Goal] = Field(min_length=1)
    """What is wanted, by metric: `"max"`, `"min"`, or a table with limits."""
    budget: BudgetTable
    """When the search ends."""
    execution: ExecutionTable = ExecutionTable()
    """Worker processes and time limits of candidates."""
    final: FinalTable = FinalTable()
    """Estimators for the winner and the references alone."""
    ablation: AblationTable = AblationTable()
    """What `nasengine ablate` varies."""


def read_toml(path: Path) -> Table:
    """Read a TOML file.

    Raises
    ------
    SpecError
        If there is none, it is too large, or it is not TOML; naming file, line and column.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SpecError(f"{path}: larger than {MAX_BYTES} bytes; is it a spec?")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        run = os.path.isfile(path / "spec.toml")  # noqa: PTH113 no name makes it raise
        advice = f"; a run goes on by nasengine resume {shlex.quote(str(path))}" if run else ""
        raise SpecError(f"{path}: cannot be read: {reason}{advice}") from error
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise SpecError(f"{path}: not TOML: {_said(error, text)}") from error


def _said(error: Exception, text: str) -> str:
    """Say what is no TOML: keys as they are written, and that text needs quotes."""
    told = re.sub(
        r"\((?:'[^']*'(?:, |,)?)+\)",
        lambda keys: ".".join(re.findall(r"'([^']*)'", keys.group())),
        str(error) or "nested too deep",
    )
    at = re.search(r"Invalid value \(at line (\d+), column (\d+)\)", told)
    lines = text.replace("\r\n", "\n").split("\n")
    if at is None or int(at[1]) > len(lines):
        return told
    bare = re.match(r"[A-Za-z_][\w./:-]*", lines[int(at[1]) - 1][int(at[2]) - 1 :])
    return f'{told}; text needs quotes: "{bare.group()}"' if bare else told


def override(table: Mapping[str, Any], assignments: Iterable[str]) -> tuple[Table, list[str]]:
    """Apply ``key.path=value`` assignments to a spec's tables.

    Parameters
    ----------
    table
        The spec; left as it is.
    assignments
        Values are TOML (``3``, ``true``, ``[1, 2]``); what is not is taken as text.

    Returns
    -------
    The new tables, and the key paths that were set.

    Raises
    ------
    SpecError
        Every assignment that has no key or no ``=``, or whose path leads through a value.

    Examples
    --------
    >>> override({"seed": 0}, ["seed=3", "task.data.name=neu_seg"])
    ({'seed': 3, 'task': {'data': {'name': 'neu_seg'}}}, ['seed', 'task.data.name'])
    """
    result = deepcopy(dict(table))
    paths, problems = [], []
    for assignment in assignments:
        try:
            paths.append(_assign(result, assignment))
        except SpecError as error:
            problems.append(str(error))
    if problems:
        raise SpecError("\n".join(problems))
    return result, paths


def key_of(assignment: str) -> str:
    """Return the key path that an assignment sets.

    Examples
    --------
    >>> key_of("task.data.name = neu_seg")
    'task.data.name'
    """
    return ".".join(key.strip() for key in assignment.partition("=")[0].split("."))


def _assign(tables: Table, assignment: str) -> str:
    _, equals, text = assignment.partition("=")
    keys = key_of(assignment).split(".")
    if not equals or not all(keys):
        raise SpecError(f"--set {assignment!r}: key.path=value is needed")
    try:
        table_at(tables, keys[:-1])[keys[-1]] = parse_value(text.strip())
    except SpecError as error:
        raise SpecError(f"--set {assignment!r}: {error}") from error
    return key_of(assignment)


def table_at(tables: Table, keys: Sequence[str]) -> Table:
    """Return the table at a key path, made where there is none; what is set there is put into it.

    Raises
    ------
    SpecError
        If the path leads through a value; an objective that is a goal alone becomes a table.

    Examples
    --------
    >>> tables = {"objectives": {"iou": "max"}}
    >>> table_at(tables, ["objectives", "iou"])["at_least"] = 0.5
    >>> tables
    {'objectives': {'iou': {'goal': 'max', 'at_least': 0.5}}}
    """
    place: Any = tables
    for depth, key in enumerate(keys):
        held = place.setdefault(key, {})
        if isinstance(held, str) and depth == 1 and keys[0] == "objectives":
            held = place[key] = {"goal": held}
        if not isinstance(held, dict):
            raise SpecError(f"{key!r} is a value, not a table")
        place = held
    found: Table = place
    return found


def parse_value(text: str) -> Any:
    """Read a TOML value; what is none is taken as text.

    Examples
    --------
    >>> parse_value("3"), parse_value("true"), parse_value("neu_seg")
    (3, True, 'neu_seg')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return text


def check_spec(table: Mapping[str, Any]) -> Spec:
    """Check the spec's own keys; plugins check theirs when they are built.

    Raises
    ------
    SpecError
        Every problem, a line each, with the key's path and the nearest name.
    """
    frozen = {
        key: tuple(value) if key in ("references", "start") and isinstance(value, list) else value
        for key, value in table.items()
    }
    try:
        return Spec.model_validate(frozen)
    except ValidationError as error:
        raise SpecError("\n".join(explain(error, Spec, ""))) from error

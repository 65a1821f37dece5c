"""A run's log, read for a report: the kinds of line that a report tells of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from nasengine.files import parse_json

Logged = Annotated[float, Field(strict=False, allow_inf_nan=True)]
"""A number of the log, which names those that JSON does not have: ``"nan"``."""


@dataclass(frozen=True)
class CostFacts:
    """One cost of a gradient search, at one iteration."""

    expected: Logged | None = None
    derived: Logged | None = None
    target: Logged | None = None
    unit: str = ""


@dataclass(frozen=True)
class Iteration:
    """A gradient search, at one iteration; by decision: the alphas, their margin and entropy."""

    iteration: int
    seconds: Logged = 0.0
    task_loss: Logged | None = None
    alpha_loss: Logged | None = None
    alphas: dict[str, Annotated[list[Logged], Field(min_length=1)]] = field(default_factory=dict)
    margins: dict[str, Logged] = field(default_factory=dict)
    entropy: dict[str, Logged] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)
    costs: dict[str, CostFacts] = field(default_factory=dict)


@dataclass(frozen=True)
class Choices:
    """The choices of a gradient search's decisions, in the order of the alphas."""

    choices: dict[str, list[str]]


@dataclass(frozen=True)
class Derivation:
    """An architecture that a gradient search derived; by cost: as predicted, as asked."""

    architecture: dict[str, str]
    predicted: dict[str, Logged]
    targets: dict[str, Logged] = field(default_factory=dict)
    moved: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """The mean loss of a training since the step before; `what` begins with its trial's label."""

    what: str
    step: int
    loss: Logged
    learning_rate: Logged = 0.0
    estimator: str = ""


@dataclass(frozen=True)
class ClassFacts:
    """How many samples of a split hold a class, and its share of all targets."""

    samples: int
    share: Logged


@dataclass(frozen=True)
class ValueFacts:
    """What targets that are no classes range over."""

    least: Logged
    mean: Logged
    largest: Logged


@dataclass(frozen=True)
class SplitFacts:
    """What one split holds."""

    samples: int
    classes: dict[str, ClassFacts] = field(default_factory=dict)
    values: ValueFacts | None = None


@dataclass(frozen=True)
class Data:
    """What the data hold, by split, and what was read."""

    splits: dict[str, SplitFacts]
    facts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Decisions:
    """What a search decides: to how many slots each choice goes, and how many channels it is."""

    slots: dict[str, int]
    channels: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Text:
    """A note or a warning."""

    text: str


@dataclass(frozen=True)
class Log:
    """What a report tells of a log, in its order.

    Parameters
    ----------
    decisions, data, iterations, choices, derived, steps, notes, warnings
        The lines of each kind.
    unread
        How many lines are not as they were written: a crash may cut one off.
    """

    decisions: list[Decisions] = field(default_factory=list)
    data: list[Data] = field(default_factory=list)
    iterations: list[Iteration] = field(default_factory=list)
    choices: list[Choices] = field(default_factory=list)
    derived: list[Derivation] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    notes: list[Text] = field(default_factory=list)
    warnings: list[Text] = field(default_factory=list)
    unread: int = 0


@dataclass(frozen=True)
class _Line:
    kind: str


_KINDS = {
    "decisions": ("decisions", Decisions),
    "data": ("data", Data),
    "darts": ("iterations", Iteration),
    "darts_choices": ("choices", Choices),
    "darts_derived": ("derived", Derivation),
    "training": ("steps", Step),
    "note": ("notes", Text),
    "warning": ("warnings", Text),
}
"""Kind of line to the field of `Log` and what a line holds; there are kinds of others beside."""


def read_log(path: Path) -> Log:
    """Read a log; an empty one where there is no file.

    Raises
    ------
    RunFolderError
        If the disk refuses.
    """
    found: dict[str, list[object]] = {name: [] for name, _ in _KINDS.values()}
    unread = 0
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            name, shape = _KINDS.get(parse_json(line, _Line).kind, ("", None))
            if shape is not None:
                found[name].append(parse_json(line, shape))
        except ValueError:
            unread += 1
    return Log(**found, unread=unread)  # type: ignore[arg-type]

"""What a search measures and keeps: metrics, measurements, trials."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from nasengine.architecture import Architecture

Direction = Literal["max", "min"]


def check_details(details: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse details that are read as more than details, and are not what they should be.

    Raises
    ------
    ValueError
        Naming the detail and what it has to be.
    """
    for key, gaps in (("values", False), ("per_sample", True)):
        listed = details.get(key, [])
        if not isinstance(listed, list) or not all(
            _is_number(value) or (gaps and value is None) for value in listed
        ):
            raise ValueError(f"the detail {key!r} has to be a list of numbers")
    for key in ("std", "screen_bar"):
        if not _is_number(details.get(key, 0.0)):
            raise ValueError(f"the detail {key!r} has to be a number")
    return details


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and abs(value) <= sys.float_info.max


@dataclass(frozen=True)
class Metric:
    """A quantity that an estimator measures.

    Parameters
    ----------
    name
        Such as ``iou``, ``parameters``, ``latency``.
    unit
        Such as ``ms``, ``parameters``, ``MACs``; empty for a ratio.
    direction
        Which way is better.
    test_of
        The metric of the same estimator that this one is on the test split, where nothing is
        chosen: winners are judged by it, and it is no objective. Empty for all others.
    """

    name: str
    unit: str
    direction: Direction
    test_of: str = ""

    @property
    def sign(self) -> Literal[1, -1]:
        """1 where more is better, -1 where less is."""
        return 1 if self.direction == "max" else -1


@dataclass(frozen=True)
class Measurement:
    """One measured value, with whatever explains it, as JSON values.

    Parameters
    ----------
    value
        In the metric's unit; finite.
    details
        Kept and shown. Some are read as more: ``values`` (one for each seed) and ``per_sample``
        (one for each validation sample, None where it has none) give a verdict its confidence
        interval, ``std`` is shown beside the value; the engine adds ``screen_bar``, what the trial
        had to reach to go on.
    """

    value: float
    details: Annotated[Mapping[str, Any], AfterValidator(check_details)] = field(
        default_factory=dict
    )


def measurements_to(found: Mapping[str, Measurement]) -> dict[str, Any]:
    """Return measurements as JSON values, as the history and workers write them."""
    return {
        name: {"value": m.value, **({"details": dict(m.details)} if m.details else {})}
        for name, m in found.items()
    }


def measurements_from(found: Mapping[str, Any]) -> dict[str, Measurement]:
    """Read what `measurements_to` gave.

    Examples
    --------
    >>> found = {"iou": Measurement(0.5, {"std": 0.1}), "parameters": Measurement(1000.0)}
    >>> measurements_from(measurements_to(found)) == found
    True
    """
    return {name: Measurement(m["value"], m.get("details", {})) for name, m in found.items()}


class Status(str, Enum):
    """How a trial stands.

    ``running`` is what a killed run leaves behind: it is measured again on resume. ``infeasible``
    breaks a limit; ``screened`` was not among the best by a screen, and is not measured further.
    ``lost`` is the machine's fault, ``failed`` the candidate's.
    """

    RUNNING = "running"
    COMPLETE = "complete"
    INFEASIBLE = "infeasible"
    SCREENED = "screened"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True)
class Trial:
    """One architecture, proposed and measured.

    Parameters
    ----------
    number
        From 0, in the order of proposal.
    architecture
        What was proposed.
    key
        The space's canonical key: equal for architectures that compute the same.
    status
        How it ended.
    measurements
        By metric. An estimator's primary metric has the estimator's key in the spec as its name
        (``iou``), its others follow a dot (``iou.precision``).
    reason
        Why it is not complete; empty otherwise.
    seconds
        Wall time of measuring it; of an attempt that was cut short, up to what was kept.
    reference
        The name of the reference network that it is; empty for what a strategy proposed.
    """

    number: int
    architecture: Architecture
    key: str
    status: Status = Status.RUNNING
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0
    reference: str = ""

    @property
    def label(self) -> str:
        """``trial-7`` or ``reference-unet``: names its folder and seeds its randomness."""
        return f"reference-{self.reference}" if self.reference else f"trial-{self.number}"

    @property
    def said(self) -> str:
        """What people call it: ``trial 7``, ``reference unet``."""
        return self.label.replace("-", " ", 1)

    def value(self, metric: str) -> float:
        """Return the value of a metric.

        Raises
        ------
        KeyError
            If this trial has no such measurement.
        """
        return self.measurements[metric].value

"""An architecture: one choice for every decision of a search space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nasengine.errors import ArchitectureError, did_you_mean


class Architecture(Mapping[str, str]):
    """One choice for every decision of a search space: immutable, hashable, ordered.

    A decision is what is chosen once: a slot, or a group of slots that share their choice.

    Parameters
    ----------
    choices
        Decision to the name of the candidate chosen.

    Examples
    --------
    >>> a = Architecture({"encoder": "conv", "decoder": "skip"})
    >>> a["encoder"], a.replace("encoder", "skip")
    ('conv', Architecture(encoder='skip', decoder='skip'))
    >>> a == Architecture({"decoder": "skip", "encoder": "conv"})
    True
    """

    __slots__ = ("_choices", "_hash")

    def __init__(self, choices: Mapping[str, str]) -> None:
        self._choices = dict(choices)
        self._hash: int | None = None

    def __getitem__(self, decision: str) -> str:
        return self._choices[decision]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._choices.items()))
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Architecture):
            return self._choices == other._choices
        return NotImplemented

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={choice!r}" for name, choice in self._choices.items())
        return f"Architecture({inside})"

    def replace(self, decision: str, choice: str) -> Architecture:
        """Return a copy in which one decision is another choice."""
        return Architecture({**self._choices, decision: choice})


def check_architecture(
    choices: Mapping[str, object],
    decisions: Mapping[str, tuple[str, ...]],
    *,
    where: str = "architecture",
) -> Architecture:
    """Check choices against a space's decisions, and put them in the space's order.

    Parameters
    ----------
    choices
        What was given: from JSON, from Python, from a library.
    decisions
        The space's decisions, each with the choices that are allowed.
    where
        What to call the architecture in an error (a file's name, say).

    Raises
    ------
    ArchitectureError
        If a decision is unknown or missing, or its choice is not one of its candidates; all
        problems at once.
    """
    problems = [
        f"unknown slot {name!r}; {did_you_mean(str(name), decisions)}"
        for name in choices
        if name not in decisions
    ]
    for name, allowed in decisions.items():
        if name not in choices:
            problems.append(f"slot {name!r} is missing; allowed: {', '.join(allowed)}")
        elif choices[name] not in allowed:
            got = choices[name]
            problems.append(
                f"slot {name!r}: {got!r} is no choice; {did_you_mean(str(got), allowed)}"
            )
    if problems:
        raise ArchitectureError(f"{where}: " + "; ".join(problems))
    return Architecture({name: str(choices[name]) for name in decisions})

"""An architecture: one choice for every decision of a search space."""

from __future__ import annotations

import json
import re
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasengine.errors import ArchitectureError, did_you_mean
from nasengine.files import write_json

if TYPE_CHECKING:
    from nasengine.space import SearchSpace

FORMAT = 1
MAX_BYTES = 1_000_000


class Architecture(Mapping[str, str]):
    """One choice for every decision of a search space: immutable, hashable, ordered.

    A decision is what is chosen once: a slot, a group of slots that share their choice, or a width.

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

    # Written out because those that Mapping makes of `__getitem__` are several times slower.
    def keys(self) -> KeysView[str]:
        """Return the decisions."""
        return self._choices.keys()

    def values(self) -> ValuesView[str]:
        """Return the choices."""
        return self._choices.values()

    def items(self) -> ItemsView[str, str]:
        """Return each decision with its choice."""
        return self._choices.items()

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

    @property
    def said(self) -> str:
        """Each decision with its choice, as `parse_choices` reads them.

        >>> Architecture({"level": "16", "encoder": "conv"}).said
        'level 16, encoder conv'
        """
        return ", ".join(f"{decision} {choice}" for decision, choice in self._choices.items())

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
        What was given: from JSON, from Python, from a library. A whole number stands for the choice
        of that name, as a width's are named.
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
        f"unknown decision {name!r:.80}; {did_you_mean(f'{name!s:.80}', decisions)}"
        for name in choices
        if name not in decisions
    ]
    found: dict[str, str] = {}
    for name, allowed in decisions.items():
        got = choices.get(name)
        choice = named_choice(got)
        if name not in choices:
            problems.append(f"decision {name!r} is missing; allowed: {', '.join(allowed)}")
        elif isinstance(choice, str) and choice in allowed:
            found[name] = choice
        else:
            near = did_you_mean(f"{got!s:.80}", allowed)
            problems.append(f"decision {name!r}: {got!r:.80} is no choice; {near}")
    if problems:
        raise ArchitectureError(f"{where}: " + "; ".join(problems))
    return Architecture(found)


def named_choice(given: object) -> object:
    """Return what was given as a choice, a whole number by its name.

    Examples
    --------
    >>> named_choice(16), named_choice("conv"), named_choice(True)
    ('16', 'conv', True)
    """
    return str(given) if type(given) is int else given


def write_architecture(path: Path, architecture: Architecture, space: SearchSpace) -> None:
    """Write an architecture as JSON, to be read by `read_architecture`.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    name = type(space).__name__
    write_json(path, {"format": FORMAT, "space": name, "choices": dict(architecture)})


def read_architecture(path: Path, space: SearchSpace) -> Architecture:
    """Read an architecture from JSON, and check it against its space.

    Parameters
    ----------
    path
        A file of ``{"format": 1, "space": ..., "choices": {decision: choice}}``, or of the
        choices alone, ``{decision: choice}``; they may be baselines.
    space
        The space that it must belong to.

    Raises
    ------
    ArchitectureError
        Naming the file, and the key, decision or choice that is wrong.
    """
    content = _json_object(path)
    if not {"format", "choices"} - set(space.fillings) & set(content) and content:
        return check_architecture(content, space.fillings, where=str(path))
    allowed = {"format", "space", "choices"}
    for key in content:
        if key not in allowed:
            raise ArchitectureError(
                f"{path}: unknown key {key!r:.80}; {did_you_mean(key[:80], allowed)}"
            )
    if content.get("format") != FORMAT or isinstance(content["format"], bool):
        raise ArchitectureError(
            f"{path}: format {content.get('format')!r:.40}; this reads {FORMAT}"
        )
    if content.get("space") != type(space).__name__:
        raise ArchitectureError(
            f"{path}: of the space {content.get('space')!r:.80}, not of {type(space).__name__}"
        )
    choices = content.get("choices")
    if not isinstance(choices, dict):
        raise ArchitectureError(f"{path}: choices: an object of decisions is needed")
    return check_architecture(choices, space.fillings, where=str(path))


def parse_choices(text: str, space: SearchSpace, *, where: str = "architecture") -> Architecture:
    """Read an architecture from text, and check it against its space.

    Parameters
    ----------
    text
        ``first=conv,second=relu``, as `SearchSpace.format` writes it, or ``first conv, second
        relu``, as a run's table shows it; the choices may be baselines.
    space
        The space that it must belong to.
    where
        What to call the architecture in an error.

    Raises
    ------
    ArchitectureError
        If the text is no list of choices, or naming the decision or choice that is wrong.
    """
    parts = [re.split(r"\s*=\s*|\s+", part.strip(), maxsplit=1) for part in text.split(",")]
    if any(len(part) != 2 for part in parts):
        raise ArchitectureError(f"{where}: {text!r:.80} is no list of decision=choice,...")
    twice = {part[0] for part in parts if [p[0] for p in parts].count(part[0]) > 1}
    if twice:
        raise ArchitectureError(f"{where}: decision {min(twice)!r:.80} stands twice")
    return check_architecture(dict(parts), space.fillings, where=where)


def given_architecture(
    given: str, space: SearchSpace, *, where: str, folder: Path = Path()
) -> Architecture:
    """Read an architecture in any of the forms in which a user may give one.

    Parameters
    ----------
    given
        A reference's name, a JSON file (as `read_architecture` reads it), choices (as
        `parse_choices` reads them), or the space's own architecture string.
    space
        The space that it must belong to.
    where
        What to call it in an error.
    folder
        What the file's name is relative to.

    Raises
    ------
    ArchitectureError
        If it is none of these, naming what is wrong.
    """
    if given in space.references():
        return space.reference(given)
    if given.endswith(".json"):
        return read_architecture(folder / given, space)
    try:
        return space.architecture(space.parse(given), where=where)
    except ArchitectureError as error:
        # Meant as choices: an equals sign, or a decision as the first word.
        if "=" in given or given.partition(" ")[0] in space.decisions:
            return parse_choices(given, space, where=where)
        raise ArchitectureError(f"{where}: {error}; or decision=choice,...") from error


def _json_object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ArchitectureError(
                f"{path}: larger than {MAX_BYTES} bytes; is it an architecture?"
            )
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except OSError as error:
        raise ArchitectureError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ArchitectureError(f"{path}: not JSON: {error!s:.200}") from error
    if not isinstance(content, dict):
        raise ArchitectureError(f"{path}: a JSON object is needed")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that stands twice, of which JSON would keep the last in silence."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} stands twice")
        found[key] = value
    return found

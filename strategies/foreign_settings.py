"""Settings of a library's own, by the names that its documentation gives them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nasengine.errors import SpecError, did_you_mean

ForeignSettings = dict[str, bool | int | float | str]

_KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
}


def check_settings(
    settings: Mapping[str, object],
    takes: Callable[..., Any],
    ours: Iterable[str],
    ignored: Mapping[str, str],
) -> None:
    """Refuse settings that a library's class does not have, or that would do nothing.

    Parameters
    ----------
    settings
        By the library's own names.
    takes
        What is called with them.
    ours
        Arguments that the strategy gives itself.
    ignored
        Arguments that have no effect here, with the reason.

    Raises
    ------
    SpecError
        Naming the setting, and the library's own.
    """
    kinds = _kinds(takes)
    allowed = {n: kind for n, kind in kinds.items() if n not in ignored and n not in set(ours)}
    for name, value in settings.items():
        where = f"strategy.settings.{name}"
        if name in ignored and name in inspect.signature(takes).parameters:
            raise SpecError(f"{where}: does nothing here: {ignored[name]}; leave it out")
        if name not in allowed:
            raise SpecError(f"{where}: unknown key; {did_you_mean(name, allowed)}")
        if not isinstance(value, allowed[name]) or (
            isinstance(value, bool) and bool not in allowed[name]
        ):
            wanted = " or ".join(kind.__name__ for kind in allowed[name])
            raise SpecError(f"{where}: {wanted} is needed; got {value!r}")


def _kinds(takes: Callable[..., Any]) -> dict[str, tuple[type, ...]]:
    """Return the arguments that a spec can hold, with their types."""
    found = {}
    for name, parameter in inspect.signature(takes).parameters.items():
        written = getattr(parameter.annotation, "__forward_arg__", parameter.annotation)
        kind = str(written).removesuffix(" | None")
        if kind in _KINDS:
            found[name] = _KINDS[kind]
    return found

"""Factories of blocks: which make the same, and which do not make what was meant.

Blocks are equal where their factories are: that is how repeated cells are inferred, counted and
timed once, and architectures that compute the same are one. Nothing here imports torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from types import CellType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from nasengine.errors import SpaceError

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[..., "nn.Module"]
"""Makes a module from the channels of each tensor that the module is called with, then those out:
(channels in, channels out) where one node is read."""

_ADVICE = "such as lambda i, o, {0}={0}: ..., or make the factory a frozen dataclass"


class Factories:
    """The factories of a space: of those that make the same, all are the first one.

    Examples
    --------
    >>> def convolution(size):
    ...     return lambda i, o: torch.nn.Conv2d(i, o, size)
    >>> factories = Factories()
    >>> one, two, three = (factories.known("slot", convolution(size)) for size in (3, 3, 5))
    >>> one is two, one is three
    (True, False)
    """

    def __init__(self) -> None:
        self._first: dict[Hashable, Factory] = {}
        self._held: list[tuple[str, Factory, Mapping[str, Hashable]]] = []

    def known(self, where: str, factory: Factory) -> Factory:
        """Return the first factory that makes the same.

        Raises
        ------
        SpaceError
            If it cannot be told whether two are equal, naming `where`.
        """
        check_callable(where, factory)
        try:
            what = made_of(factory)
            first = self._first.setdefault(what, factory)
        except TypeError as error:
            raise SpaceError(
                f"{where}: its factory cannot be hashed ({error}); make {type(factory).__name__} "
                f"a frozen dataclass, @dataclass(frozen=True), of hashable fields"
            ) from error
        self._held.append((where, factory, dict(_held(factory))))
        return first

    def check_unchanged(self) -> None:
        """Refuse factories that read what has changed since: all would make what is last.

        Raises
        ------
        SpaceError
            Naming where it stands, and the variable.
        """
        for where, factory, before in self._held:
            now = dict(_held(factory))
            for name, value in before.items():
                if now.get(name) not in {value}:
                    raise SpaceError(
                        f"{where}: its function reads {name} when it is called, and {name} has "
                        f"changed since it was wired; bind it, {_ADVICE.format(name)}"
                    )


def made_of(value: object, within: frozenset[int] = frozenset()) -> Hashable:
    """Return what is equal for factories that make the same.

    A function is its code, and what it holds: two that one `def` or `lambda` made are equal where
    their variables are. Anything else is equal as it says itself, of the same type.

    Raises
    ------
    TypeError
        If it cannot be hashed.
    """
    if isinstance(value, FunctionType) and not vars(value) and id(value) not in within:
        inside = within | {id(value)}
        held = tuple(_made_of_held(each, inside) for each in _values(value))
        return (value.__code__, id(value.__globals__), held)
    if type(value) is partial and not vars(value):
        bound = (value.args, tuple(sorted(value.keywords.items())))
        return (partial, made_of(value.func, within), made_of(bound, within))
    if type(value) is tuple:
        return (tuple, tuple(_made_of_held(each, within) for each in value))
    hash(value)
    return (type(value), value)


def _made_of_held(value: object, within: frozenset[int]) -> Hashable:
    """Return the same of what a function holds; what cannot be hashed is equal to itself alone."""
    try:
        return made_of(value, within)
    except TypeError:
        return (type(value), id(value))


def _values(function: FunctionType) -> Iterator[object]:
    """Yield what a function holds: variables from outside, then defaults."""
    yield from map(_content, function.__closure__ or ())
    yield function.__defaults__
    yield tuple(sorted((function.__kwdefaults__ or {}).items()))


def _content(cell: CellType) -> object:
    """Return what a variable holds: the cell itself while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:  # A function that is defined further below.
        return cell


def _held(factory: object) -> Iterator[tuple[str, Hashable]]:
    """Yield the variables that a factory reads when it is called, and what they are made of."""
    for function in _functions(factory):
        names = function.__code__.co_freevars
        for name, cell in zip(names, function.__closure__ or (), strict=True):
            content = _content(cell)
            if name != "__class__" and content is not cell:
                yield name, _made_of_held(content, frozenset([id(function)]))


def _functions(factory: object) -> Iterator[FunctionType]:
    """Yield the functions of a factory: itself, or the methods of a class."""
    if isinstance(factory, FunctionType):
        yield factory
    elif isinstance(factory, type):
        yield from (each for each in vars(factory).values() if isinstance(each, FunctionType))


def check_bound(where: str, factories: Mapping[str, Factory]) -> None:
    """Refuse candidates that a loop made of one function, whose settings are the last round's.

    Raises
    ------
    SpaceError
        Naming the two, and what they read.
    """
    seen: dict[object, tuple[str, Factory]] = {}
    for name, factory in factories.items():
        if not isinstance(factory, FunctionType) or not (reads := _variables(factory)):
            continue
        held = (
            *(factory.__closure__ or ()),
            *(factory.__defaults__ or ()),
            *(factory.__kwdefaults__ or {}).values(),
        )
        other, same = seen.setdefault((factory.__code__, *map(id, held)), (name, factory))
        if same is not factory:
            raise SpaceError(
                f"{where}: the candidates {other!r} and {name!r} are the same function, which "
                f"reads {', '.join(reads)} when it is called, after the loop; bind it in each, "
                f"{_ADVICE.format(reads[0])}"
            )


def _variables(function: FunctionType) -> list[str]:
    """Return the variables from outside that a function reads; modules and callables are none."""
    code, outside = function.__code__, function.__globals__
    values = {n: outside[n] for n in code.co_names if n in outside}
    return [
        *code.co_freevars,
        *(n for n, v in values.items() if not (callable(v) or isinstance(v, ModuleType))),
    ]


def check_callable(where: str, factory: object) -> None:
    """Refuse what makes nothing, such as a module that is built.

    Raises
    ------
    SpaceError
        Saying what is needed.
    """
    torch: Any = sys.modules.get("torch")  # Where nobody imported it, there is no module of it.
    built = torch is not None and isinstance(factory, torch.nn.Module)
    if built or not callable(factory):
        kind = type(factory).__name__
        raise SpaceError(
            f"{where}: a factory is needed, which makes a new module from (channels in, channels "
            f"out); got {f'a {kind} that is built' if built else described(factory)}; "
            f"such as lambda i, o: {f'nn.{kind}(...)' if built else 'nn.Conv2d(i, o, 1)'}"
        )


def described(got: object) -> str:
    """Say what was given in place of what is needed."""
    if got is None:
        return "None"
    plain = isinstance(got, (str, int, float))
    return f"{type(got).__name__} {got!r:.60}" if plain else f"a {type(got).__name__}"

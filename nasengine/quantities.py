"""Quantities with units: read from a spec (``"5 ms"``, ``"60% of unet"``), written for people.

Units are exact in case, as SI has it (``ms`` is not ``MS``). ``MB`` is 10^6 bytes, ``MiB`` 2^20.
A FLOP is counted as ptflops and the Light SDI paper count it, one for a multiplication with its
addition, so that FLOPs and MACs are two names of one count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal

from nasengine.errors import SpecError, did_you_mean

COUNT, PARAMETERS, MACS, BYTES, TIME, RATIO = "", "parameters", "MACs", "bytes", "s", "ratio"
"""Dimensions, named by their base unit; a bare ``20M`` is a count of whatever is counted."""

_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
_WORDS = {
    "parameters": PARAMETERS,
    "params": PARAMETERS,
    "FLOPs": MACS,
    "MACs": MACS,
    "B": BYTES,
}

UNITS: dict[str, tuple[str, float]] = {
    **{p: (COUNT, f) for p, f in _PREFIXES.items()},
    **{p + word: (base, f) for word, base in _WORDS.items() for p, f in _PREFIXES.items()},
    **{p + " " + word: (base, f) for word, base in _WORDS.items() for p, f in _PREFIXES.items()},
    **{name: (BYTES, factor) for name, factor in _BINARY.items()},
    "bytes": (BYTES, 1.0),
    "ns": (TIME, 1e-9),
    "us": (TIME, 1e-6),
    "µs": (TIME, 1e-6),
    "ms": (TIME, 1e-3),
    "s": (TIME, 1.0),
    "min": (TIME, 60.0),
    "h": (TIME, 3600.0),
    "d": (TIME, 86400.0),
    "%": (RATIO, 0.01),
    "ratio": (RATIO, 1.0),
}
"""Every unit that is understood, with its dimension and its size in the base unit."""

_SUGGESTED = "k, M, G, ms, s, min, h, parameters, FLOPs, MACs, B, MB, MiB, GiB, %, % of REFERENCE"
_NUMBER = re.compile(r"[+-]?\d+(?:_\d+)*(?:\.\d+)?(?:[eE][+-]?\d+)?")
_RELATIVE = re.compile(r"\s*%\s+of\s+([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Quantity:
    """A value that was read, in its dimension's base unit, or relative to a reference network.

    Parameters
    ----------
    value
        In the base unit: seconds, bytes, parameters, MACs; a factor where `reference` is set.
    dimension
        ``s``, ``bytes``, ``parameters``, ``MACs``, ``ratio``; empty for a plain number, which
        takes the unit of whatever it is compared with.
    reference
        The reference network that ``60% of unet`` names; empty for an absolute value.
    scaled
        Whether a plain number had a prefix (``20M``): then it counts things, and is no time.
    text
        What was read, for messages.
    """

    value: float
    dimension: str = COUNT
    reference: str = ""
    scaled: bool = False
    text: str = ""

    def to(
        self,
        unit: str,
        *,
        where: str,
        reference_value: float | None = None,
        references: Iterable[str] = (),
    ) -> float:
        """Return the value in a metric's unit.

        Parameters
        ----------
        unit
            The metric's unit; empty for a ratio.
        where
            The key path, for errors.
        reference_value
            The reference network's value in `unit`, where the quantity is relative to one.
        references
            Names that a percentage could be of, for errors.

        Raises
        ------
        SpecError
            If the two measure different things.

        Examples
        --------
        >>> parse_quantity("5 ms", where="at_most").to("ms", where="at_most")
        5.0
        >>> relative = parse_quantity("60% of unet", where="at_most")
        >>> relative.to("parameters", where="at_most", reference_value=1000.0)
        600.0
        """
        if self.reference:
            if reference_value is None:
                raise SpecError(f"{where}: {self.text!r} needs the reference {self.reference!r}")
            return self.value * reference_value
        dimension, size = UNITS.get(unit or "ratio", (unit, 1.0))
        counts = dimension in (PARAMETERS, MACS, BYTES) or unit not in UNITS
        if self.dimension == COUNT and (counts or not self.scaled):
            return self.value
        if self.dimension == dimension:
            return self.value / size
        allowed = f"a number or one in {unit or '%'}"
        if self.dimension == RATIO and (names := list(references)):
            share = f"{self.value * 100:g}% of {names[0]}"
            raise SpecError(
                f"{where}: {self.text!r} of what? Did you mean {share!r}? References of the space: "
                f"{', '.join(names)}; or give {allowed}"
            )
        raise SpecError(
            f"{where}: {self.text!r} is no value in {unit or 'a ratio'}; give {allowed}"
        )


def parse_quantity(given: object, *, where: str, unit: str = COUNT) -> Quantity:
    """Read a number, a number with a unit, or a percentage of a reference network.

    Parameters
    ----------
    given
        From the spec.
    where
        The key path, for errors.
    unit
        The unit of the metric that it is about, which may be one of its own (``nJ``).

    Raises
    ------
    SpecError
        If it is none of the three, naming what is allowed.

    Examples
    --------
    >>> parse_quantity("20M", where="at_most").value
    20000000.0
    >>> parse_quantity("1.5 GFLOPs", where="at_most").to("MACs", where="at_most")
    1500000000.0
    >>> parse_quantity("60% of unet", where="at_most").reference
    'unet'
    >>> parse_quantity("20k nJ", where="at_most", unit="nJ").to("nJ", where="at_most")
    20000.0
    >>> parse_quantity("5 MS", where="at_most")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    nasengine.errors.SpecError: at_most: '5 MS': unknown unit 'MS'; did you mean 'ms'? Allowed: ...
    """
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return Quantity(_finite(given, given, where), text=repr(given))
    if not isinstance(given, str):
        raise SpecError(f"{where}: a number, or text such as '5 ms', is needed; got {given!r:.80}")
    text = given.strip()
    number = _NUMBER.match(text)
    if number is None:
        raise SpecError(f"{where}: {text!r:.80} does not begin with a number, as '5 ms' does")
    value = _finite(number.group(), text, where)
    rest = text[number.end() :]
    relative = _RELATIVE.fullmatch(rest)
    if relative:
        if value <= 0:
            raise SpecError(f"{where}: {text!r:.80}: a percentage above 0 is needed")
        return Quantity(value / 100, RATIO, relative.group(1), text=text)
    units = {**_own_units(unit), **UNITS}
    found = re.sub(r"\s+", " ", rest.strip())
    if found not in units:
        meant = _meant(value, found)
        near = meant or f"unknown unit {found!r:.40}; {_nearest(found, units, unit)}"
        raise SpecError(f"{where}: {text!r:.80}: {near}")
    dimension, size = units[found]
    return Quantity(_finite(value * size, text, where), dimension, scaled=found != "", text=text)


def as_share(given: object) -> float | None:
    """Return the share that a number or a percentage is; None for what is none.

    Examples
    --------
    >>> [as_share(given) for given in ("33%", 0.5, 1, 0, "150%", "50% of unet", "5 ms")]
    [0.33, 0.5, 1.0, None, None, None, None]
    """
    with suppress(SpecError):
        quantity = parse_quantity(given, where="share")
        if not quantity.reference and 0 < (share := quantity.to("", where="share")) <= 1:
            return share
    return None


def _own_units(unit: str) -> dict[str, tuple[str, float]]:
    """Return a metric's own unit as it is, and counted (``20k nJ``, as it is written)."""
    if not unit or unit in UNITS:
        return {}
    return {f"{prefix} {unit}".strip(): (unit, size) for prefix, size in _PREFIXES.items()}


def _finite(value: float | str, given: object, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SpecError(f"{where}: a finite number is needed; got {given!r:.80}")
    return number


def _meant(value: float, rest: str) -> str:
    """Say how a share of a reference, or a decimal comma, is written; empty for other text.

    Examples
    --------
    >>> _meant(60, "% unet"), _meant(0.5, "of unet"), _meant(1, ",5 ms")[-8:]
    ("did you mean '60% of unet'?", "did you mean '50% of unet'?", "'1.5 ms'")
    """
    if re.match(r",\d", rest):
        return f"a decimal point is needed: '{value:g}.{rest[1:]}'"
    share = re.match(r"(%|percent\b|of\b)", rest)
    if share is None:
        return ""
    percent = value * 100 if share.group() == "of" and value <= 1 else value
    words = [w for w in re.findall(r"[A-Za-z_]\w*", rest) if w not in ("of", "percent", "the")]
    return f"did you mean '{percent:g}% of {'_'.join(words) or 'NAME'}'?"


def _nearest(unit: str, units: Iterable[str], own: str) -> str:
    names = [name for name in units if name and name == name.strip()]
    guess = did_you_mean(unit, names).partition("?")
    start = f"{guess[0]}? Allowed" if guess[1] else "allowed"
    own = "" if own in UNITS else f"{own}, "
    return f"{start}: {own}{_SUGGESTED}"


def format_count(value: float) -> str:
    """Write a number of things in three or four digits.

    Examples
    --------
    >>> format_count(1_970_000), format_count(359_790_000), format_count(950)
    ('1.97M', '359.79M', '950')
    """
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # 999,995 and more would round to 1000.00k.
        if abs(value) >= size * 0.999995:
            return f"{value / size:.2f}{prefix}"
    return f"{value:.0f}" if float(value).is_integer() else _digits(value, "")


def format_size(architectures: int) -> str:
    """Write how many architectures a space has: all digits as far as they are read.

    Examples
    --------
    >>> format_size(1_953_125), format_size(5**200)
    ('1,953,125', '6.2e139')
    """
    if architectures < 10**12:
        return f"{architectures:,}"
    return f"{Decimal(architectures):.1e}".replace("+", "")


def format_bytes(value: float) -> str:
    """Write a size in bytes.

    Examples
    --------
    >>> format_bytes(1536 * 1024), format_bytes(512)
    ('1.5 MiB', '512 B')
    """
    for unit, size in reversed(_BINARY.items()):
        # What would round to 1024.0 of the unit below.
        if abs(value) >= size * (1 - 0.05 / 1024):
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B"


def format_share(share: float) -> str:
    """Write a share in percent; what is there is never written as nothing, nor as all.

    Examples
    --------
    >>> [format_share(share) for share in (0, 0.00007, 1e-7, 0.0684, 0.99996, 1)]
    ['0%', '0.007%', '<0.001%', '6.8%', '>99.9%', '100%']
    """
    percent = 100 * share
    if percent in (0, 100):
        return f"{percent:.0f}%"
    if percent < 0.1:
        return f"{percent:.1g}%" if percent >= 0.001 else "<0.001%"
    return f"{percent:.1f}%" if percent < 99.95 else ">99.9%"


def format_duration(seconds: float) -> str:
    """Write a time in the unit that people would use.

    Examples
    --------
    >>> [format_duration(s) for s in (0.0043, 1.25, 45, 72, 3900, 200_000)]
    ['4.30 ms', '1.2 s', '45 s', '1.2 min', '1 h 05 min', '2 d 8 h']
    """
    if not math.isfinite(seconds):
        return str(seconds)
    # What would round to the next unit is written in it.
    if abs(seconds) < 0.999995:
        return _digits(seconds * 1e3, " ms")
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 59.95 * 60:
        return f"{seconds / 60:.1f} min"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def format_quantity(value: float, unit: str) -> str:
    """Write a metric's value with its unit, as short as it stays exact enough to compare.

    Examples
    --------
    >>> format_quantity(1_970_000, "parameters"), format_quantity(1.2e9, "MACs")
    ('1.97M', '1.20G')
    >>> format_quantity(4.312, "ms"), format_quantity(2**21, "bytes"), format_quantity(0.7123, "")
    ('4.31 ms', '2.0 MiB', '0.712')
    >>> format_quantity(3126.12, "nJ"), format_quantity(20_800, "nJ"), format_quantity(2e-5, "nJ")
    ('3126.12 nJ', '20.80k nJ', '2e-05 nJ')
    """
    if not math.isfinite(value):
        return str(value)
    if unit in _WRITERS:
        return _WRITERS[unit](value)
    if 0.01 <= abs(value) < 10_000:
        return f"{value:.2f} {unit}"
    is_count = 10_000 <= abs(value) < 1e15
    return f"{format_count(value)} {unit}" if is_count else f"{value:.3g} {unit}"


def _digits(value: float, unit: str, places: int = 2) -> str:
    """Write a value with so many places, or, where these show none of it, three digits."""
    small = 0 < abs(value) < 10**-places
    return f"{value:.3g}{unit}" if small else f"{value:.{places}f}{unit}"


def _format_ratio(value: float) -> str:
    return _digits(value, "", places=3) if abs(value) < 1000 else f"{value:.4g}"


_WRITERS: dict[str, Callable[[float], str]] = {
    "": _format_ratio,
    "%": lambda value: _digits(value, "%"),
    "parameters": format_count,
    "MACs": format_count,
    "FLOPs": format_count,
    "bytes": format_bytes,
    "B": format_bytes,
    "s": format_duration,
}

"""Metrics looked up in a table of results, so that a search needs no training.

Any table serves that has a row an architecture, keyed by the space's own architecture strings:
NAS-Bench-201 (Dong and Yang 2020), NAS-Bench-Macro (Su et al. 2021), your own measurements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from nasengine.architecture import Architecture
from nasengine.errors import ArchitectureError, EstimationFailed, SpecError
from nasengine.estimator import Candidate, Estimator
from nasengine.plugin import SpecPath
from nasengine.quantities import format_size
from nasengine.trial import Direction, Measurement, Metric

if TYPE_CHECKING:
    from nasengine.search import Search
    from nasengine.space import SearchSpace

_ENUMERABLE = 200_000
_NAMED = 3
_SAMPLE = 1000


class Column(BaseModel):
    """A column of a table, as a metric."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    column: str
    """The column's name."""

    direction: Direction = "max"
    """Which way is better."""

    unit: str = ""
    """Such as ``%``, ``MACs``, ``ms``."""


def _first(space: SearchSpace) -> Architecture:
    return Architecture({name: choices[0] for name, choices in space.decisions.items()})


def _is_read(space: SearchSpace, text: str) -> bool:
    """Say whether a text is one that the space writes of an architecture."""
    try:
        return space.format(space.architecture(space.parse(text))) == text
    except (ArchitectureError, ValueError, LookupError, TypeError, AttributeError):
        return False  # What reading text of another kind comes to, in anyone's `parse`.


class Tabular(Estimator):
    """Metrics from a Parquet, CSV or JSON file, by the space's own architecture strings."""

    effort: ClassVar[int] = 0
    extra: ClassVar[str] = "tables"

    file: SpecPath
    """The table: ``.parquet`` (needs the extra ``tables``), ``.csv``, or ``.json`` as a list of
    rows or an object of columns."""

    key: str
    """The column that holds the architecture strings."""

    column: str
    """The column of the primary metric."""

    direction: Direction = "max"
    """Which way is better for the primary metric."""

    unit: str = ""
    """Unit of the primary metric."""

    test: str | None = None
    """The column of the primary metric on the test split, by which nothing is chosen: winners are
    compared by it. It is recorded as ``test``."""

    further: Mapping[str, Column] = {}
    """Further metrics to record: ``{ seconds = { column = "train_time", direction = "min" } }``."""

    def metrics(self, search: Search) -> tuple[Metric, ...]:  # noqa: ARG002
        """Return the primary column, the same on the test split, then the further ones."""
        tested = {"test": self.column} if self.test else {}
        return tuple(
            Metric(name, column.unit, column.direction, test_of=tested.get(name, ""))
            for name, column in self.columns.items()
        )

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Metric to its column."""
        first = Column(column=self.column, direction=self.direction, unit=self.unit)
        tested = {"test": first.model_copy(update={"column": self.test})} if self.test else {}
        return {self.column: first, **tested, **self.further}

    @cached_property
    def rows(self) -> Mapping[str, tuple[float, ...]]:
        """Architecture string to its metrics; read once.

        Raises
        ------
        DataError
            If the file cannot be used, naming it and what is wrong.
        """
        from ._tabular_files import read_rows

        return read_rows(self.file, self.key, tuple(c.column for c in self.columns.values()))

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Look an architecture up.

        Raises
        ------
        EstimationFailed
            Naming the row that is missing, or the column that is empty there.
        """
        text = candidate.search.space.format(candidate.architecture)
        values = self.rows.get(text)
        if values is None:
            raise EstimationFailed(f"{self.file}: no row has {self.key} = {text!r}")
        for (name, column), value in zip(self.columns.items(), values, strict=True):
            if not math.isfinite(value):
                raise EstimationFailed(
                    f"{self.file}: {column.column!r} ({name}) of {text!r} is {value}"
                )
        return {name: Measurement(value) for name, value in zip(self.columns, values, strict=True)}

    def check(self, search: Search) -> None:
        """Read the table, and refuse one that holds nothing of this space.

        Raises
        ------
        SpecError
            If no row is an architecture of the space.
        DataError
            If the file cannot be used.
        """
        for name in [self.column, *(["test"] if self.test else [])]:
            if name in self.further:
                raise SpecError(f"further.{name}: is the name of another metric already")
        if self.test and self.column == "test":
            raise SpecError("test: the primary metric's column is of that name; name it otherwise")
        if search.space.size > _ENUMERABLE:
            self._check_sample(search)
            return
        missing = self._missing(search)
        if len(missing) == search.space.size:
            row = next(iter(self.rows))
            raise SpecError(
                f"{self.file}: no row is an architecture of the space; it has {row!r}, "
                f"and the space writes {missing[0]!r}"
            )
        if missing:
            listed = ", ".join(repr(text) for text in missing[:_NAMED])
            search.reporter.warn(
                f"{self.file}: {len(missing)} of {search.space.size} architectures have no row, "
                f"and will fail: {listed}{', ...' if len(missing) > _NAMED else ''}"
            )

    def _check_sample(self, search: Search) -> None:
        """Read some of the keys: a large space's own architectures cannot all be looked up."""
        space = search.space
        if not _is_read(space, space.format(_first(space))):
            search.reporter.note(
                f"{self.file}: the space cannot read its strings: no row is checked"
            )
            return
        keys = list(self.rows)[:: math.ceil(len(self.rows) / _SAMPLE)]
        foreign = [text for text in keys if not _is_read(space, text)]
        if len(foreign) == len(keys):
            raise SpecError(
                f"{self.file}: none of {len(keys)} rows is an architecture of the space; it has "
                f"{foreign[0]!r}, and the space writes {space.format(_first(space))!r}"
            )
        if foreign:
            search.reporter.warn(
                f"{self.file}: {len(foreign)} of {len(keys)} rows are no architectures of the "
                f"space, such as {foreign[0]!r}"
            )
        search.reporter.note(
            f"{self.file}: {len(self.rows)} of {format_size(space.size)} have a row"
        )

    def _missing(self, search: Search) -> list[str]:
        from nasengine.moves import enumerate_all

        space = search.space
        every = map(space.format, enumerate_all(space.decisions))
        return [text for text in every if text not in self.rows]

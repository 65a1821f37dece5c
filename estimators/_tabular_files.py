"""Reads tables of results; the files are not ours, so every fault of theirs is named."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasengine.errors import DataError, PluginError, did_you_mean

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

Columns = dict[str, list[Any]]
_NAMED = 3

MAX_ROWS = 5_000_000
"""Rows of a Parquet file; the largest tables of architectures have half a million."""

MAX_BYTES = 1024**3
"""Bytes of the wanted columns of a Parquet file, decompressed."""


def read_rows(path: Path, key: str, columns: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    """Read a table: key to the values of the columns.

    Parameters
    ----------
    path
        ``.parquet``, ``.csv`` or ``.json``.
    key
        The column of keys.
    columns
        The columns of values.

    Raises
    ------
    DataError
        Naming the file, and the column, row or keys that are wrong.
    PluginError
        If a Parquet file needs an extra that is not installed.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: {path.suffix or 'no suffix'}; allowed: {', '.join(_READERS)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    found = reader(path, list(dict.fromkeys((key, *columns))))
    keys = [str(value) for value in found[key]]
    _refuse_duplicates(path, key, keys)
    values = [_numbers(path, column, found[column]) for column in columns]
    return dict(zip(keys, zip(*values, strict=True), strict=True))


def _refuse_duplicates(path: Path, key: str, keys: Sequence[str]) -> None:
    twice = [text for text, count in Counter(keys).items() if count > 1]
    if twice:
        listed = ", ".join(repr(text) for text in twice[:_NAMED])
        more = ", ..." if len(twice) > _NAMED else ""
        raise DataError(f"{path}: {len(twice)} keys in {key!r} occur twice: {listed}{more}")
    if not keys:
        raise DataError(f"{path}: has no rows")


def _numbers(path: Path, column: str, values: Sequence[Any]) -> list[float]:
    """Read a column as numbers; what is empty is NaN, and fails when it is looked up."""
    numbers: list[float] = []
    for row, value in enumerate(values, start=1):
        try:
            empty = value is None or value == ""
            numbers.append(float("nan") if empty else float(value))
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{path}: column {column!r}, row {row}: {value!r:.80} is no number"
            ) from None
    return numbers


def _refuse_unknown(path: Path, wanted: Sequence[str], names: Sequence[str]) -> None:
    unknown = [name for name in wanted if name not in names]
    if unknown:
        listed = "; ".join(f"no column {name!r}; {did_you_mean(name, names)}" for name in unknown)
        raise DataError(f"{path}: {listed}")


def _parquet(path: Path, wanted: Sequence[str]) -> Columns:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise PluginError(
            f"{path}: reading Parquet needs {error.name}: pip install 'nasengine[tables]'"
        ) from error
    columns: Columns = {name: [] for name in wanted}
    try:
        # Repeated text stays one text: decoded, some kilobytes of it can be many gigabytes.
        with parquet.ParquetFile(path, read_dictionary=list(wanted)) as file:
            _refuse_unknown(path, wanted, file.schema_arrow.names)
            _refuse_bomb(path, wanted, file.metadata)
            for batch in file.iter_batches(columns=list(wanted)):
                for name in wanted:
                    columns[name] += _values(batch.column(name))
    except (arrow.ArrowException, OSError, ValueError) as error:
        line = (str(error).splitlines() or [""])[0]
        raise DataError(f"{path}: is no readable Parquet file: {line}") from error
    return columns


def _values(column: Any) -> list[Any]:
    """Return a column's values as Python's; equal ones of a dictionary are the same object."""
    if not hasattr(column, "dictionary"):
        found: list[Any] = column.to_pylist()
        return found
    texts = column.dictionary.to_pylist()
    return [None if index is None else texts[index] for index in column.indices.to_pylist()]


def _refuse_bomb(path: Path, wanted: Sequence[str], metadata: FileMetaData) -> None:
    """Refuse, from what the file declares, a table that could not be held; nothing is decoded.

    A column of equal values, encoded and compressed, takes a few bytes for billions of rows.
    """
    if metadata.num_rows > MAX_ROWS:
        raise DataError(
            f"{path}: declares {metadata.num_rows:,} rows; at most {MAX_ROWS:,} are read"
        )
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema in wanted)
    if size > MAX_BYTES:
        raise DataError(
            f"{path}: its columns {', '.join(wanted)} would be {size:,} bytes; "
            f"at most {MAX_BYTES:,} are read"
        )


def _csv(path: Path, wanted: Sequence[str]) -> Columns:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _refuse_unknown(path, wanted, reader.fieldnames or ())
            columns: Columns = {name: [] for name in wanted}
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}: line {reader.line_num} has not {len(reader.fieldnames or ())} "
                        "values, as the header"
                    )
                for name in wanted:
                    columns[name].append(row[name])
            return columns
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: is no readable CSV file: {error}") from error


def _json(path: Path, wanted: Sequence[str]) -> Columns:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path}: is no readable JSON file: {error}") from error
    if isinstance(content, Mapping):
        return _json_columns(path, wanted, content)
    if not isinstance(content, list) or not all(isinstance(row, Mapping) for row in content):
        raise DataError(f"{path}: a list of rows, or an object of columns, is needed")
    for number, row in enumerate(content, start=1):
        lacking = [name for name in wanted if name not in row]
        if lacking:
            near = did_you_mean(lacking[0], row)
            raise DataError(f"{path}: row {number} has no {lacking[0]!r}; {near}")
    return {name: [row[name] for row in content] for name in wanted}


def _json_columns(path: Path, wanted: Sequence[str], content: Mapping[str, Any]) -> Columns:
    _refuse_unknown(path, wanted, list(content))
    columns = {name: content[name] for name in wanted}
    if not all(isinstance(values, list) for values in columns.values()):
        raise DataError(f"{path}: a list of rows, or an object of columns, is needed")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path}: the columns' lengths differ: {lengths}")
    return columns


_READERS: Mapping[str, Callable[[Path, Sequence[str]], Columns]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".json": _json,
}

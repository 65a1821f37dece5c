"""The tabular estimator: any table of results, quick to look up, and every fault of it named."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nasengine
from nasengine.errors import DataError, EstimationFailed, InputError, SpecError
from nasengine.estimator import Estimator
from nasengine.estimators.tabular import Column, Tabular
from nasengine.moves import enumerate_all, sample
from nasengine.plugin import build
from nasengine.runs.goals import objectives_of
from nasengine.runs.result import _tests
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.studies.summary import summarise
from nasengine.testing.stubs import Kept, TinySpace, tiny_candidate, tiny_search
from nasengine.trial import Metric


def rows():
    space = TinySpace()
    return [
        {"arch": space.format(architecture), "val": 10.0 + number, "time": 2 * number}
        for number, architecture in enumerate(enumerate_all(space.decisions))
    ]


def write(path: Path, records) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(records))
    elif path.suffix == ".csv":
        names = list(records[0])
        # Keys of the default format hold a comma.
        lines = [",".join(f'"{row[name]}"' for name in names) for row in records]
        path.write_text("\n".join([",".join(names), *lines]) + "\n")
    else:
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(records), path)
    return path


def table(path: Path, **settings) -> Tabular:
    return Tabular(file=path, key="arch", column="val", **settings)


@pytest.fixture
def search():
    return tiny_search(estimators={})


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.json"])
def test_every_format_gives_the_same(tmp_path, search, name):
    further = {"seconds": Column(column="time", direction="min", unit="s")}
    estimator = table(write(tmp_path / name, rows()), further=further)
    estimator.check(search)
    assert estimator.metrics(search) == (Metric("val", "", "max"), Metric("seconds", "s", "min"))
    for row, architecture in zip(rows(), enumerate_all(search.space.decisions), strict=True):
        found = estimator.measure(tiny_candidate(search, architecture))
        assert (found["val"].value, found["seconds"].value) == (row["val"], row["time"])


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.json"])
def test_a_column_may_be_two_metrics(tmp_path, search, name):
    estimator = table(write(tmp_path / name, rows()), further={"again": Column(column="val")})
    found = estimator.measure(tiny_candidate(search))
    assert (found["val"].value, found["again"].value) == (10.0, 10.0)


def test_a_table_that_a_spreadsheet_wrote_is_read(tmp_path, search):
    plain, path = write(tmp_path / "t.csv", rows()), tmp_path / "TABLE.CSV"
    path.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())  # Excel marks UTF-8 so.
    assert table(path).measure(tiny_candidate(search))["val"].value == 10.0


def test_only_the_columns_that_are_read_must_be_small(tmp_path, search, monkeypatch):
    wide = [
        {**row, "notes": random.Random(n).randbytes(2000).hex()} for n, row in enumerate(rows())
    ]
    path = write(tmp_path / "t.parquet", wide)
    monkeypatch.setattr("nasengine.estimators._tabular_files.MAX_BYTES", 2000)
    assert table(path).measure(tiny_candidate(search))["val"].value == 10.0
    with pytest.raises(DataError, match="at most 2,000 are read"):
        Tabular(file=path, key="notes", column="val").measure(tiny_candidate(search))


def test_columns_in_json(tmp_path, search):
    columns = {name: [row[name] for row in rows()] for name in ("arch", "val")}
    estimator = table(write(tmp_path / "t.json", columns))
    assert estimator.measure(tiny_candidate(search))["val"].value == 10.0


def test_from_a_spec_relative_to_it(tmp_path, search):
    write(tmp_path / "t.json", rows())
    settings = {"name": "tabular", "file": "t.json", "key": "arch", "column": "val"}
    settings["further"] = {"seconds": {"column": "time", "direction": "min"}}
    estimator = build(Estimator, settings, where="estimators.accuracy", folder=tmp_path)
    assert estimator.measure(tiny_candidate(search))["val"].value == 10.0


def test_a_missing_row_is_named_before_and_at_the_measurement(tmp_path, search):
    gone = rows().pop(0)["arch"]
    estimator = table(write(tmp_path / "t.json", rows()[1:]))
    reporter = Kept()
    estimator.check(replace(search, reporter=reporter))
    (warning,) = reporter.warnings
    assert f"1 of 4 architectures have no row, and will fail: {gone!r}" in warning
    with pytest.raises(EstimationFailed, match=f"no row has arch = '{gone}'"):
        estimator.measure(tiny_candidate(search))


def test_an_empty_value_fails_its_own_row_alone(tmp_path, search):
    records = rows()
    records[0]["val"] = None
    estimator = table(write(tmp_path / "t.json", records))
    with pytest.raises(EstimationFailed, match=r"'val'.* is nan"):
        estimator.measure(tiny_candidate(search))
    other = next(a for a in enumerate_all(search.space.decisions) if a["second"] == "conv")
    assert estimator.measure(tiny_candidate(search, other))["val"].value == 11.0


def test_a_table_of_another_space_is_refused(tmp_path, search):
    records = [{"arch": f"|nor_conv~{n}|", "val": 1.0} for n in range(3)]
    with pytest.raises(SpecError, match="no row is an architecture of the space"):
        table(write(tmp_path / "t.json", records)).check(search)


class Large(TinySpace):
    """More architectures than are looked up one by one."""

    def define(self, graph):
        x = graph.input(3)
        for number in range(18):
            x = graph.slot(f"slot_{number}", x, {"a": _conv, "b": partial(_conv)}, out=2)
        graph.output(graph.operation("head", x, _conv, out=1))

    def references(self):
        return {}


def _conv(i, o):
    from torch import nn

    return nn.Conv2d(i, o, 1)


def checked(tmp_path, space, keys):
    """Return the warnings and notes of a check of a table of these keys."""
    reporter = Kept()
    search = replace(tiny_search(space, estimators={}), reporter=reporter)
    table(write(tmp_path / "t.json", [{"arch": key, "val": 1.0} for key in keys])).check(search)
    return reporter.warnings, reporter.notes


def test_a_table_of_another_space_is_refused_for_a_large_space_too(tmp_path):
    space = Large()
    assert space.size > 200_000
    rng = random.Random(0)
    own = [space.format(sample(space.decisions, rng)) for _ in range(30)]
    warnings, (note,) = checked(tmp_path, space, own)
    assert warnings == [] and "30 of 262,144 have a row" in note
    with pytest.raises(SpecError, match=r"none of 3 rows .* has 'x0', and the space writes 'slot_"):
        checked(tmp_path, space, ["x0", "x1", "slot_0=c"])
    (warning,), _ = checked(tmp_path, space, ["x0", *own])
    assert "1 of 31 rows are no architectures of the space, such as 'x0'" in warning
    # Read in another order, they would never be found.
    with pytest.raises(SpecError, match="none of 1 rows"):
        checked(tmp_path, space, [",".join(reversed(own[0].split(",")))])


def test_a_space_that_writes_strings_and_reads_none_is_told_of(tmp_path):
    class Writing(Large):
        def format(self, architecture):
            return "".join(architecture.values())

    _, (note,) = checked(tmp_path, Writing(), ["abba"])
    assert "no row is checked" in note


def test_the_test_column_judges_and_chooses_nothing(tmp_path):
    path = write(tmp_path / "t.json", [{**row, "test": 50 - row["val"]} for row in rows()])
    estimator = table(path, test="test", unit="%")
    search = tiny_search(estimators={"accuracy": estimator}, folder=tmp_path)
    estimator.check(search)
    assert estimator.metrics(search) == (
        Metric("val", "%", "max"),
        Metric("test", "%", "max", test_of="val"),
    )
    found = estimator.measure(tiny_candidate(search))
    assert (found["val"].value, found["test"].value) == (10.0, 40.0)
    assert _tests(search, ["accuracy"], {}) == {"accuracy": "accuracy.test"}
    with pytest.raises(SpecError, match=r"objectives\.accuracy\.test: .*; take 'accuracy'"):
        objectives_of({"accuracy.test": "max"}, search, None)
    named = Tabular(file=path, key="arch", column="test", test="val")
    with pytest.raises(SpecError, match="test: the primary metric's column is of that name"):
        named.check(search)
    with pytest.raises(SpecError, match=r"further\.test: is the name of another metric"):
        table(path, test="test", further={"test": Column(column="time")}).check(search)


def test_a_run_by_a_table_is_judged_by_its_test_column(tmp_path):
    path = write(tmp_path / "t.json", [{**row, "test": 50 - row["val"]} for row in rows()])
    spec = {
        "name": "looked-up",
        "device": "cpu",
        "space": {"name": "nasengine.testing.stubs:TinySpace"},
        "task": {"name": "nasengine.testing.stubs:TinySegmentation"},
        "strategy": {"name": "random"},
        "estimators": {
            "accuracy": {
                "name": "tabular",
                "file": str(path),
                "key": "arch",
                "column": "val",
                "test": "test",
            }
        },
        "objectives": {"accuracy": "max"},
        "budget": {"trials": 4},
        "references": [],
    }
    summaries = []
    for seed in (0, 1):
        outcome = nasengine.run({**spec, "seed": seed}, runs=tmp_path / "runs")
        summaries.append(summarise(outcome.folder, {}))
    for summary in summaries:
        assert summary.values["accuracy"] == 13.0 and summary.values["accuracy.test"] == 37.0
        assert summary.tests == {"accuracy": "accuracy.test"}
        assert {"accuracy", "accuracy.test"} <= set(summary.counted)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", json.dumps(rows() + rows()[:2]), "2 keys in 'arch' occur twice: 'first="),
        ("t.json", json.dumps([{"arch": "a", "vl": 1}]), "row 1 has no 'val'; did you mean 'vl'"),
        ("t.json", json.dumps([{"arch": "a", "val": "high"}]), "row 1: 'high' is no number"),
        ("t.json", json.dumps({"arch": ["a"], "val": [1, 2]}), "lengths differ"),
        ("t.json", "[]", "has no rows"),
        ("t.json", "{", "no readable JSON"),
        ("t.json", "[1]", "a list of rows"),
        ("t.json", "[" * 100_000, "no readable JSON"),
        ("t.csv", "arch,vall\na,1\n", "no column 'val'; did you mean 'vall'"),
        ("t.csv", "arch,val\na\n", "line 2 has not 2 values"),
        ("t.csv", "arch,val\na,1,2\n", "line 2 has not 2 values"),
        ("t.csv", 'arch,val\n"a', "no readable CSV"),
        ("t.csv", "", "no column 'arch'"),
        ("t.parquet", "PAR1 and then nothing", "no readable Parquet"),
        ("t.xlsx", "", "allowed: .parquet, .csv, .json"),
    ],
)
def test_faults_of_a_file_are_named_with_it(tmp_path, search, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        table(path).check(search)
    assert str(path) in str(caught.value) and message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path, search):
    with pytest.raises(DataError, match="no such file"):
        table(tmp_path / "t.csv").check(search)


@given(content=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".json", ".parquet"]))
def test_no_content_breaks_out_of_our_errors(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"hostile{suffix}"
    path.write_bytes(content)
    search = tiny_search(estimators={}, folder=path.parent)
    with pytest.raises(InputError, match="hostile"):
        table(path).check(search)


def test_a_look_up_takes_microseconds(tmp_path, search):
    estimator = table(write(tmp_path / "t.json", rows()))
    candidate = tiny_candidate(search)
    estimator.measure(candidate)
    best = min(_seconds(lambda: estimator.measure(candidate)) for _ in range(5))
    assert best < 200e-6


def _seconds(call, count=200):
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def test_the_public_tables(real_data):
    search = tiny_search(NASBench201())
    path = real_data / "tables" / "nas_bench_201.parquet"
    estimator = Tabular(file=path, key="arch_str", column="cifar10_test200")
    estimator.check(search)
    assert len(estimator.rows) == 15_625
    assert max(value for (value,) in estimator.rows.values()) == pytest.approx(94.373, abs=1e-3)


def bomb(path: Path, rows: int, text: str) -> Path:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    index = arrow.array([0] * 200_000, arrow.int32())
    texts = arrow.DictionaryArray.from_arrays(index, [text])
    part = arrow.table({"arch": texts, "val": [1.0] * 200_000})
    plain = {"compression": "zstd", "store_schema": False}
    with parquet.ParquetWriter(path, part.schema, **plain) as writer:
        for _ in range(rows // 200_000):
            writer.write_table(part)
    assert path.stat().st_size < 2_000_000
    return path


def test_a_parquet_file_of_too_many_rows_is_refused_unread(tmp_path, search):
    path = bomb(tmp_path / "bomb.parquet", 6_000_000, "a")
    started = time.perf_counter()
    with pytest.raises(DataError, match=r"bomb.parquet: declares 6,000,000 rows; at most"):
        table(path).check(search)
    assert time.perf_counter() - started < 1


def test_repeated_text_is_held_once(tmp_path, search):
    """Four gigabytes of text, were it decoded, in some kilobytes."""
    resource = pytest.importorskip("resource")
    path = bomb(tmp_path / "bomb.parquet", 400_000, "a" * 10_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"bomb.parquet: 1 keys in 'arch' occur twice"):
        table(path).check(search)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_columns_too_large_when_decompressed_are_refused(tmp_path, search, monkeypatch):
    path = bomb(tmp_path / "bomb.parquet", 200_000, "a")
    monkeypatch.setattr("nasengine.estimators._tabular_files.MAX_BYTES", 100)
    with pytest.raises(DataError, match=r"its columns arch, val would be [\d,]+ bytes"):
        table(path).check(search)

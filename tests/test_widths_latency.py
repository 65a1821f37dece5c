"""Latency tables of spaces whose channels are searched: every block at every width."""

from __future__ import annotations

import dataclasses
import json
from statistics import median

import pytest
import torch
from torch.fx.passes.shape_prop import ShapeProp

from nasengine.errors import ArchitectureError, DataError, EstimationFailed, SpecError
from nasengine.estimators import _blocks, _latency_cells, _timing
from nasengine.estimators._engines import Setup, measuring
from nasengine.estimators.latency import Latency
from nasengine.estimators.latency_table import (
    LatencyTable,
    measure_latency_table,
    read_latency_table,
    write_latency_table,
)
from nasengine.moves import enumerate_all
from nasengine.network import build_network
from nasengine.space import SearchSpace
from nasengine.testing.stubs import TinySpace, TinyWidths, tiny_candidate, tiny_search

QUICK = {"repeats": 2, "seconds": 0.0, "max_spread": 1e6, "threads": 1}
EAGER = Setup("eager", "cpu", 1, 1, fold_batch_norm=False, channels_last=False)


@pytest.fixture
def search(tmp_path):
    return tiny_search(TinyWidths(), estimators={}, folder=tmp_path)


@pytest.fixture
def file(search, tmp_path):
    path = tmp_path / "device.json"
    write_latency_table(search, EAGER, 2, path)
    return path


def shapes_met(space, architecture, shape):
    """Return what the nodes of a network are called with: the shapes of what they read."""
    network = build_network(space.graph, architecture).eval()
    ShapeProp(network).propagate(torch.zeros(1, *shape))
    return {
        node.name: tuple(tuple(n.meta["tensor_meta"].shape[1:]) for n in node.all_input_nodes)
        for node in network.graph.nodes
    }


def test_blocks_are_called_with_what_they_are_called_with_in_networks(search):
    space = search.space
    found = {block.cell: block for block in _blocks.blocks(space.graph)}
    for architecture in enumerate_all(space.decisions):
        met = shapes_met(space, architecture, search.task.input_shape)
        names = {"stem": "stem", "first": "first", "second": "second", "head": "head"}
        for node, called in {**names, "total": "add", "both": "cat"}.items():
            own = [architecture[node]] if node in space.decisions else []
            widths = [architecture[width] for width in space.graph.widths_of(node)]
            factory, channels, shapes = found[node, "@".join([*own, *widths])].same(search)
            if node == "both":  # One cell for each total: whichever part is the wide one.
                assert sum(c for c, *_ in shapes) == sum(c for c, *_ in met[called])
            else:
                assert shapes == met[called]
            if node not in ("total", "both"):
                assert channels[:-1] == tuple(count for count, *_ in met[called])
            assert factory is not None


def test_every_block_has_a_cell_at_every_width_on_which_it_depends(search):
    table = LatencyTable({})
    work = _latency_cells.work(search, table)
    assert table.decisions == {"first": "first", "second": "second"}
    assert table.widths == {
        "first": ("outer", "inner"),
        "second": ("inner",),
        "stem": ("outer",),
        "total": ("inner",),
        "both": ("outer", "inner"),
        "head": ("outer", "inner"),
    }
    rows = {node: [key for name, key in table.cells if name == node] for node in table.nodes}
    assert rows["second"] == [
        f"{name}@{width}"
        for name in ("pointwise", "conv", "double")
        for width in ("narrow", "wide")
    ]
    assert rows["total"] == ["narrow", "wide"]
    assert rows["head"] == ["narrow@narrow", "narrow@wide", "wide@narrow", "wide@wide"]
    assert len(rows["first"]) == 12
    # Those from 4 to 4, or 8 to 8, take the same in both slots, 3 candidates each; and 12 are
    # concatenated in two ways, and read in two.
    assert len(work.cells) == len(table.cells) - 8


def test_known_times_of_blocks_add_up_to_networks(search, monkeypatch):
    """Each module takes what it is known by; a whole network the sum, and 1 ms for the rest."""
    times = {}

    def prepared(self, setup):
        runs = {}
        for number, (same, (block, *_)) in enumerate(self.cells.items(), start=1):
            times[same] = float(number) + (block.node.name == "head") / 2
            runs[same] = ("block", times[same] + 0.25)
            runs["call", same[-1]] = ("call", 0.25)
        for number, (architecture, _) in enumerate(self.table.probes):
            runs["probe", number] = ("probe", 1.0 + of(architecture))
        return runs

    def of(architecture):
        graph, total = search.space.graph, 0.0
        for block in _blocks.blocks(graph):
            fits = all(architecture[w] == choice for w, choice in block.widths.items())
            if fits and block.candidate in ("", architecture.get(block.node.decision)):
                total += times[block.same(search)]
        return total

    def rounds(runs, now, counts):
        for _ in counts:
            yield {key: [value] for key, (_, value) in runs.items()}

    monkeypatch.setattr(_latency_cells.Work, "prepare", prepared)
    monkeypatch.setattr(_timing, "rounds", rounds)
    table = measure_latency_table(search, EAGER, 2).cost_table(search.space)
    assert table.fixed == pytest.approx(1.0)
    for architecture in enumerate_all(search.space.decisions):
        assert table.predict(architecture) == pytest.approx(1.0 + of(architecture))


def test_a_table_is_timed_and_kept_and_predicts_elsewhere(search, file):
    table = read_latency_table(file)
    assert all(len(taken) == 2 for taken in table.cells.values())
    latency = Latency(table=file)
    latency.check(search)
    costs = latency.table(search)
    assert costs.unit == "ms" and dict(costs.widths) == table.widths
    big = search.space.reference("big")
    found = latency.measure(tiny_candidate(search, big))["latency"].value
    by_hand = costs.fixed + sum(
        max(0.0, median(table.cells[node, key]))
        for node, key in [
            ("first", "double@wide@wide"),
            ("second", "double@wide"),
            ("stem", "wide"),
            ("total", "wide"),
            ("both", "wide@wide"),
            ("head", "wide@wide"),
        ]
    )
    assert found == pytest.approx(by_hand)
    kept = json.loads(file.read_text())
    assert kept["widths"]["first"] == ["outer", "inner"]
    assert kept["costs"].keys() == kept["readings"].keys() == table.widths.keys()


def test_a_run_keeps_a_table_of_its_own_and_reads_it_again(search, tmp_path):
    latency = Latency(**QUICK)
    first = dataclasses.replace(search, estimators={"latency": latency}).cost_table("latency")
    again = dataclasses.replace(search, estimators={"latency": latency}).cost_table("latency")
    assert (tmp_path / "tables" / "latency.json").is_file()
    assert first == again and first.widths


def test_a_table_without_widths_has_no_word_of_them(tmp_path):
    path = tmp_path / "device.json"
    write_latency_table(tiny_search(TinySpace(), estimators={}, folder=tmp_path), EAGER, 2, path)
    content = json.loads(path.read_text())
    parts = ["unit", "fixed", "costs", "decisions", "readings", "probes"]
    assert list(content)[-len(parts) :] == parts
    assert list(content["readings"]) == ["first", "second"]


@pytest.mark.parametrize("engine", ["onnxruntime", "folded"])
def test_every_engine_takes_sums_and_concatenations(search, engine):
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        setup = dataclasses.replace(EAGER, engine=engine)
    else:
        setup = dataclasses.replace(EAGER, fold_batch_norm=True)
    work = _latency_cells.work(search, LatencyTable({}))
    work.cells = {same: blocks for same, blocks in work.cells.items() if not blocks[0].node.factory}
    work.cells = dict(list(work.cells.items())[-5:])
    assert {blocks[0].node.name for blocks in work.cells.values()} == {"total", "both"}
    work.table.probes = []
    runs = work.prepare(setup)
    with measuring(search, setup):
        for run in runs.values():
            run()


def test_inputs_are_held_once_but_for_what_may_overwrite_them(search, monkeypatch):
    """Tensors at every width, one for each candidate, would be many gigabytes."""
    held = {}

    def prepared(module, setup, inputs):
        held.setdefault(tuple(map(id, inputs)), []).append(inputs)
        return lambda: None

    monkeypatch.setattr(_latency_cells, "prepared", prepared)
    work = _latency_cells.work(search, LatencyTable({}))
    runs = work.prepare(EAGER)
    shapes = {same[-1] for same in work.cells}
    operations = sum(blocks[0].node.kind == "operation" for blocks in work.cells.values())
    assert operations == 2 + 3 and len(runs) == len(work.cells) + len(shapes) + 5
    assert len(held) == len(shapes) + operations + 5


def _renamed(content, node, old, new):
    row = content["readings"][node]
    content["readings"][node] = {key.replace(old, new): taken for key, taken in row.items()}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda c: c["readings"]["first"].pop("conv@wide@narrow"),
            "slot 'first' lacks 'conv' at outer = wide, inner = narrow$",
        ),
        (
            lambda c: _renamed(c, "second", "wide", "wider"),
            r"'second' lacks 'pointwise' at inner = wide; slot 'second' lacks 'conv' at inner",
        ),
        (
            lambda c: _renamed(c, "second", "conv", "con"),
            r"'second' lacks 'conv' at inner = narrow \(and at 1 other widths\)$",
        ),
        (lambda c: c["readings"]["stem"].pop("wide"), "operation 'stem' lacks at outer = wide$"),
        (
            lambda c: (c["readings"].pop("total"), c["widths"].pop("total")),
            "add 'total' is missing",
        ),
        (
            lambda c: (c["readings"].update(more={}), c["widths"].update(more=["inner"])),
            "the space has no 'more'",
        ),
        (
            lambda c: c["widths"].pop("second"),
            "slot 'second' depends on the widths inner in the space, and on no widths here",
        ),
        (
            lambda c: c["widths"].update(first=["inner", "outer"]),
            "the widths outer, inner in the space, and on the widths inner, outer here",
        ),
    ],
)
def test_what_a_table_lacks_is_named(search, file, damage, message):
    content = json.loads(file.read_text())
    damage(content)
    file.write_text(json.dumps(content))
    with pytest.raises(SpecError, match=message):
        Latency(table=file).check(search)


def test_a_table_of_the_space_with_fixed_channels_is_refused(search, tmp_path):
    path = tmp_path / "fixed.json"
    fixed = tiny_search(TinySpace(), estimators={}, folder=tmp_path)
    write_latency_table(fixed, EAGER, 2, path)
    with pytest.raises(SpecError, match="'first' depends on the widths outer, inner in the space"):
        Latency(table=path).check(search)


def test_a_damaged_file_is_named(search, file):
    content = json.loads(file.read_text())
    del content["widths"]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="damaged: readings and decisions name different slots"):
        Latency(table=file).check(search)


def test_a_block_that_a_table_lacks_fails_its_candidate(search, file):
    content = json.loads(file.read_text())
    for key in [key for key in content["readings"]["first"] if key.startswith("double")]:
        del content["readings"]["first"][key]
    file.write_text(json.dumps(content))
    latency = Latency(table=file)
    latency.check(search)
    with pytest.raises(EstimationFailed, match="no candidate 'double@wide@wide' in slot 'first'"):
        latency.measure(tiny_candidate(search, search.space.reference("big")))


def test_a_table_that_the_space_had_before_is_not_gone_on_with(tmp_path):
    class Changed(SearchSpace):
        """One of fixed channels."""

        def define(self, graph):
            TinySpace().define(graph)

    before, path = Changed, tmp_path / "device.json"
    write_latency_table(tiny_search(before(), estimators={}, folder=tmp_path), EAGER, 2, path)

    class Changed(SearchSpace):
        """One whose channels are searched."""

        def define(self, graph):
            TinyWidths().define(graph)

    after = tiny_search(Changed(), estimators={}, folder=tmp_path)
    with pytest.raises(ArchitectureError, match=r"device\.json: probe: .*outer"):
        write_latency_table(after, EAGER, 4, path)

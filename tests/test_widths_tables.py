"""A cost table of searched widths is checked to be of its space, when it is made and when read."""

from dataclasses import replace

import pytest
from torch import nn

from nasengine import SearchSpace, Zero
from nasengine.errors import RunFolderError, SpecError
from nasengine.estimator import Candidate
from nasengine.estimators.flops import Flops
from nasengine.estimators.parameters import Parameters
from nasengine.files import write_json
from nasengine.moves import enumerate_all
from nasengine.testing.stubs import TinyWidths, tiny_search


class Edited(Parameters):
    """Parameters, in a table that lacks a row's key, or is of other widths."""

    lacks: str = ""
    widths: tuple[str, ...] = ()

    def table(self, search):
        table = super().table(search)
        costs = {
            node: {key: cost for key, cost in row.items() if key != self.lacks}
            for node, row in table.costs.items()
        }
        widths = dict.fromkeys(table.widths, self.widths) if self.widths else table.widths
        return replace(table, costs=costs, widths=widths)


def search_with(folder, **settings):
    return tiny_search(TinyWidths(), folder=folder, estimators={"size": Edited(**settings)})


def test_a_table_of_searched_widths_is_one_of_its_space(tmp_path):
    made = search_with(tmp_path).cost_table("size")
    assert made.depends("first") == ("first", "outer", "inner")
    assert made.depends("head") == ("outer", "inner")
    assert search_with(tmp_path).cost_table("size") == made


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lacks": "conv@wide@narrow"}, "slot 'first' lacks 'conv@wide@narrow'"),
        ({"lacks": "narrow@narrow"}, "node 'head' lacks 'narrow@narrow'"),
        ({"widths": ("depth",)}, "'first' is of other widths"),
    ],
)
def test_a_table_that_forgets_a_width_is_refused_when_it_is_made_and_when_it_is_read(
    settings, said, tmp_path
):
    search = search_with(tmp_path, **settings)
    with pytest.raises(SpecError, match=f"estimators.size: its cost table is incomplete: {said}"):
        search.cost_table("size")
    (tmp_path / "tables").mkdir()
    damaged = search.estimators["size"].table(search)
    write_json(tmp_path / "tables" / "size.json", damaged.to_json())
    with pytest.raises(RunFolderError, match=f"size.json: damaged: {said}"):
        search.cost_table("size")


class CutAtWidths(SearchSpace):
    """A sum all of whose terms a choice may cut, at searched channels."""

    def define(self, graph):
        width = graph.width("width", (2, 4, 8))
        stem = graph.operation("stem", graph.input(3), conv, out=width)
        gates = {"conv": conv, "skip": nn.Identity, "none": Zero}
        branch = graph.operation("branch", stem, conv)
        total = graph.add(
            "total", [graph.slot("one", stem, gates), graph.slot("other", branch, gates)]
        )
        graph.output(graph.operation("head", total, conv, out=1))


def conv(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 1)


COUNTED = {"parameters": Parameters(), "flops": Flops()}


@pytest.mark.parametrize("space", [CutAtWidths(), TinyWidths()], ids=["cut", "widths"])
def test_tables_of_searched_widths_predict_and_sum_up_what_is_measured(space):
    search = tiny_search(space, estimators=COUNTED)
    summed = search.cost_table("parameters").scaled(3, "") + search.cost_table("flops").scaled(
        2, ""
    )
    for architecture in enumerate_all(space.decisions):
        found = {
            name: estimator.measure(Candidate(architecture, search, "x", {}))[name].value
            for name, estimator in COUNTED.items()
        }
        for name, value in found.items():
            assert search.cost_table(name).predict(architecture) == value, (name, architecture)
        assert summed.predict(architecture) == 3 * found["parameters"] + 2 * found["flops"]


def test_tables_of_other_widths_have_no_sum():
    counted = tiny_search(TinyWidths(), estimators=COUNTED).cost_table("parameters")
    row = dict(counted.costs["head"])
    row.pop("narrow@narrow")
    with pytest.raises(ValueError, match="other slots or candidates"):
        counted + replace(counted, costs={**counted.costs, "head": row})

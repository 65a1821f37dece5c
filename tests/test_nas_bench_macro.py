"""NAS-Bench-Macro against its public table."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from nasengine import moves
from nasengine.errors import ArchitectureError
from nasengine.network import build_network
from nasengine.spaces.nas_bench_macro import NASBenchMacro

SPACE = NASBenchMacro()

# Rows of the public table: parameters and FLOPs (multiply-adds of convolutions and classifier).
PUBLISHED = {
    "00000000": (387_882, 7_713_280),
    "00000001": (791_594, 14_115_328),
    "10000000": (396_298, 12_128_768),
    "20000000": (409_834, 17_854_976),
    "01000000": (415_082, 14_447_104),
    "00010000": (491_434, 14_225_920),
    "11111111": (1_588_874, 53_246_464),
    "22222222": (2_932_586, 105_660_928),
}


def parameters(key):
    with torch.device("meta"):
        network = build_network(SPACE.graph, SPACE.parse(key))
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("key", PUBLISHED)
def test_parameters_are_the_published_ones(key):
    assert parameters(key) == PUBLISHED[key][0]


@pytest.mark.parametrize("key", PUBLISHED)
def test_flops_are_the_published_ones(key):
    with torch.device("meta"):
        network = build_network(SPACE.graph, SPACE.parse(key)).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 32, 32))
    assert counter.get_total_flops() // 2 == PUBLISHED[key][1]


@given(st.text("012", min_size=8, max_size=8))
def test_keys_are_read_back(key):
    assert SPACE.format(SPACE.architecture(SPACE.parse(key))) == key


@pytest.mark.parametrize("text", ["", "2221222", "222122200", "22212223", "2221222٢", "resnet18"])
def test_other_text_is_refused(text):
    with pytest.raises(ArchitectureError, match="no NAS-Bench-Macro key"):
        SPACE.parse(text)


def test_an_identity_may_stand_before_or_after():
    """The benchmark's table has the same accuracy for both: it is one network."""
    keys = {SPACE.key(SPACE.architecture(SPACE.parse(text))) for text in ("00001000", "00010000")}
    assert len(keys) == 1
    assert SPACE.key(SPACE.architecture(SPACE.parse("00100000"))) not in keys


def test_every_row_of_the_public_table_agrees(real_data):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(real_data / "tables" / "nas_bench_macro.parquet")
    texts = {SPACE.format(found) for found in moves.enumerate_all(SPACE.decisions)}
    assert texts == set(table.arch)
    for row in table.sample(100, random_state=0).itertuples():
        assert parameters(row.arch) == row.params
    keys = table.arch.map(lambda text: SPACE.key(SPACE.architecture(SPACE.parse(text))))
    assert keys.nunique() == 3_969
    assert (table.groupby(keys)[["mean_acc", "params", "flops"]].nunique() == 1).all().all()

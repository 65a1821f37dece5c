"""NAS-Bench-201 against its public tables."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from nasengine import moves
from nasengine.errors import ArchitectureError
from nasengine.network import build_network
from nasengine.spaces.nas_bench_201 import NASBench201

# Rows of the public table for CIFAR-10 (10 classes): parameters, and FLOPs, which are multiply-adds
# of convolutions and of the classifier, and its bias.
PUBLISHED = {
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|"
    "+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|": (129_306, 15_647_370),
    "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|": (
        559_386,
        78_561_930,
    ),
    "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|"
    "+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|": (372_346, 51_036_810),
}

SPACE = NASBench201()
CHOICES = next(iter(SPACE.decisions.values()))
cells = st.fixed_dictionaries({edge: st.sampled_from(CHOICES) for edge in SPACE.decisions})


def parameters(space, text):
    with torch.device("meta"):
        network = build_network(space.graph, space.architecture(space.parse(text)))
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(space, text):
    with torch.device("meta"):
        network = build_network(space.graph, space.architecture(space.parse(text))).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 32, 32))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("text", PUBLISHED)
def test_parameters_are_the_published_ones(text):
    assert parameters(SPACE, text) == PUBLISHED[text][0]


@pytest.mark.parametrize("text", PUBLISHED)
def test_flops_are_the_published_ones(text):
    assert multiply_adds(SPACE, text) + SPACE.classes == PUBLISHED[text][1]


def test_fifteen_cells_share_six_decisions():
    assert SPACE.size == 15_625
    assert len(SPACE.graph.slots) == 15 * 6
    assert list(SPACE.decisions) == [
        "edge_0_1",
        "edge_0_2",
        "edge_1_2",
        "edge_0_3",
        "edge_1_3",
        "edge_2_3",
    ]


@given(cells)
def test_strings_are_read_back(cell):
    architecture = SPACE.architecture(cell)
    text = SPACE.format(architecture)
    assert SPACE.architecture(SPACE.parse(text)) == architecture
    assert text.count("+") == 2
    assert text.count("~") == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no NAS-Bench-201 cell"),
        ("resnet", "no NAS-Bench-201 cell"),
        ("|none~0|+|none~0|none~1|", "no NAS-Bench-201 cell"),
        ("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|", "no NAS-Bench-201 cell"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|x", "no NAS-Bench-201 cell"),
        (
            "|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x2~2|",
            "decision 'edge_2_3': 'nor_conv_3x2' is no choice; did you mean 'nor_conv_3x3'?",
        ),
    ],
)
def test_other_text_is_refused(text, said):
    with pytest.raises(ArchitectureError) as caught:
        SPACE.parse(text)
    assert said in str(caught.value)


@given(st.text(max_size=80))
def test_no_text_is_a_traceback(text):
    with pytest.raises(ArchitectureError):
        SPACE.parse(text)


def test_a_cell_computes_what_its_edges_say():
    """Against the sum over edges written out by hand, with the network's own modules."""
    space = NASBench201(width=4, cells_per_stage=1)
    cell = moves.sample(space.decisions, random.Random(3)).replace("edge_0_1", "nor_conv_3x3")
    cell = cell.replace("edge_1_3", "none").replace("edge_2_3", "nor_conv_1x1")
    network = build_network(space.graph, cell).eval()
    x = torch.randn(2, 3, 8, 8)

    def run_cell(number, node_0):
        def edge(i, j, value):
            if cell[f"edge_{i}_{j}"] == "none":
                return torch.zeros_like(value)
            return network.get_submodule(f"cell_{number}_edge_{i}_{j}")(value)

        node_1 = edge(0, 1, node_0)
        node_2 = edge(0, 2, node_0) + edge(1, 2, node_1)
        return edge(0, 3, node_0) + edge(1, 3, node_1) + edge(2, 3, node_2)

    with torch.no_grad():
        y = run_cell(1, network.stem(x))
        y = run_cell(2, network.reduction_1(y))
        y = run_cell(3, network.reduction_2(y))
        torch.testing.assert_close(network(x), network.head(y))


def test_a_cell_of_nothing_still_runs():
    cell = dict.fromkeys(SPACE.decisions, "none")
    space = NASBench201(width=2, cells_per_stage=2)
    outputs = build_network(space.graph, cell).eval()(torch.randn(2, 3, 8, 8))
    assert torch.equal(outputs[0], outputs[1])


def test_every_row_of_the_public_table_agrees(real_data):
    """Parameters of 200 cells, where no branch is dead: the benchmark also counts dead ones."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(real_data / "tables" / "nas_bench_201.parquet")
    assert set(table.arch_str) == {
        SPACE.format(architecture) for architecture in moves.enumerate_all(SPACE.decisions)
    }
    whole = NASBench201(cells_per_stage=5)
    alive = 0
    for row in table.sample(60, random_state=0).itertuples():
        counted = parameters(whole, row.arch_str)
        assert counted <= row.cifar10_params
        if "none" not in row.arch_str:
            alive += 1
            assert counted == row.cifar10_params
    assert alive > 5
    assert table.cifar10_test200.idxmax() == _row(table, "best_cifar10")
    assert table.cifar100_test200.idxmax() == _row(table, "best_cifar100")


def _row(table, name):
    return table.index[table.arch_str == SPACE.format(SPACE.reference(name))][0]


def test_keys_beside_the_benchmarks_own(real_data):
    """What NAS-Bench-201 counts as one cell (6,466 of them), and what is one network here (6,625).

    The benchmark's index reads a cell as nested text: it takes two convolutions of one input for
    one, folds a convolution of zeros, and does not flatten every sum of sums. Here a key says
    that the networks are the same, so cells of one key have the same parameters once dead branches
    are gone; that, not the index, is what is tested.
    """
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(real_data / "tables" / "nas_bench_201.parquet")
    keys = [SPACE.key(SPACE.architecture(SPACE.parse(text))) for text in table.arch_str]
    assert len(set(keys)) == 6_625
    assert table.iso_rep_index.nunique() == 6_466

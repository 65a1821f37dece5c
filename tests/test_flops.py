"""The flops estimator: the paper's counting, from any block, and nothing left out in silence."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from ptflops import get_model_complexity_info
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from nasengine import moves
from nasengine.architecture import Architecture
from nasengine.errors import EstimationFailed, SpecError
from nasengine.estimators._mac_counter import count_macs
from nasengine.estimators.flops import Flops
from nasengine.estimators.tabular import Tabular
from nasengine.graph import SpaceGraph
from nasengine.space import SearchSpace
from nasengine.spaces import light_blocks
from nasengine.spaces.light_sdi import LightSDI
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.testing.stubs import (
    TinyClassification,
    TinySegmentation,
    TinySpace,
    tiny_candidate,
    tiny_search,
)

TABLE_1 = {
    "single_conv": 18.28,
    "double_conv": 359.79,
    "single_dilation_conv": 18.28,
    "double_dilation_conv": 359.79,
    "double_dw_conv": 11.54,
    "double_dw_d_conv": 49.82,
    "cutconnect": 59.57,
}


def macs(module, shape):
    counter = count_macs(module.to("meta").eval(), shape)
    assert not counter.uncounted
    return counter.macs.total()


class Call(nn.Module):
    def __init__(self, function, *modules):
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, x):
        return self.function(x, *self.parts)


@pytest.mark.parametrize(("block", "millions"), TABLE_1.items())
def test_table_1_of_the_paper(block, millions):
    module = getattr(light_blocks, block)(3, 64)
    assert round(macs(module, (3, 96, 96)) / 1e6, 2) == millions


def test_a_whole_network_as_ptflops_counts_its_modules():
    search = tiny_search(LightSDI(width=4), task=TinySegmentation(size=32), estimators={})
    for index in range(3):
        architecture = moves.sample(search.space.decisions, search.stream("test", index))
        candidate = tiny_candidate(search, architecture)
        theirs, _ = get_model_complexity_info(
            copy.deepcopy(candidate.network()),
            search.task.input_shape,
            as_strings=False,
            print_per_layer_stat=False,
            ost=io.StringIO(),
            backend="pytorch",
            backend_specific_config={"count_functional": False},
        )
        measurement = Flops().measure(candidate)["flops"]
        # ptflops sees modules alone; interpolation as a function is counted here.
        interpolated = sum(
            count
            for name, count in measurement.details["operations"].items()
            if name.startswith("upsample")
        )
        assert measurement.value - interpolated in (theirs, theirs - interpolated)


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.ConvTranspose2d(4, 6, 2, 2), (4, 5, 5), 4 * 6 * 4 * 25 + 6 * 100),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), (4, 5, 5), 2 * 6 * 9 * 25),
        (nn.LayerNorm(8), (4, 8), 2 * 32),
        (nn.LayerNorm(8, elementwise_affine=False), (4, 8), 32),
        (nn.GroupNorm(2, 4), (4, 3, 3), 2 * 36),
        (nn.InstanceNorm2d(4), (4, 3, 3), 36),
        (nn.MaxPool2d(2), (4, 6, 6), 4 * 36),
        (nn.AdaptiveAvgPool2d(1), (4, 6, 6), 4 * 36),
        (nn.Upsample(scale_factor=2), (4, 3, 3), 4 * 36),
        (nn.ReLU(inplace=True), (4, 3, 3), 36),
        (nn.Dropout(0.5), (4, 3, 3), 0),
        (nn.Hardswish(), (4, 3, 3), 36),
        (nn.Hardswish(inplace=True), (4, 3, 3), 36),
        (nn.GLU(1), (4, 3, 3), 36),
        (nn.LogSigmoid(), (4, 3, 3), 36),
        # A 1x1 convolution without bias, and each of its weights once.
        (weight_norm(nn.Conv2d(4, 6, 1, bias=False)), (4, 5, 5), 24 * 25 + 24),
        # Three gates of two products and their biases; nine pointwise operations a step.
        (Call(lambda x, gru: gru(x)[0], nn.GRU(8, 8)), (5, 8), 5 * 8 * (3 * 2 * 9 + 10)),
        (nn.Linear(8, 3), (8,), 8 * 3 + 3),
        (nn.Linear(8, 3), (5, 8), 5 * (8 * 3 + 3)),
        (Call(F.relu), (4, 3, 3), 36),
        (Call(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")), (4, 3, 3), 144),
        (Call(lambda x: x + x * 2), (4, 3, 3), 72),
        (Call(lambda x: torch.cat([x.flatten(1), x.flatten(1)])), (4, 3, 3), 0),
        (Call(lambda x: torch.einsum("nij,nkj->nik", x, x)), (5, 8), 5 * 5 * 8),
        (Call(lambda x: x.mean(-1)), (5, 8), 40),
        # queries x keys: 5 x 5 products of 8, a softmax, 5 x 5 products of 8.
        (Call(lambda x: F.scaled_dot_product_attention(x, x, x)), (1, 5, 8), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_operations_of_any_kind(module, shape, expected):
    counted = macs(module, shape)
    if expected is None:
        products = 2 * 5 * 5 * 8 + 5 * 5
        assert products <= counted <= products + 3 * 5 * 8  # scaling, where it is written out
    else:
        assert counted == expected


def test_attention_counts_its_projections_and_products():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    module = Call(lambda x, a: a(x, x, x, need_weights=False)[0], attention)
    projections, products = 5 * 4 * (8 * 8 + 8), 2 * 5 * 5 * 8 + 2 * 5 * 5
    assert 1.0 <= macs(module, (5, 8)) / (projections + products) < 1.05


class Fft(nn.Module):
    def forward(self, x):
        return torch.fft.fft2(x).real


class FftSpace(SearchSpace):
    """A slot with an operation that no formula is known for."""

    def define(self, graph: SpaceGraph) -> None:
        choices = {"fft": lambda i, o: Fft(), "relu": lambda i, o: nn.ReLU()}
        graph.output(graph.slot("only", graph.input(3), choices))


def test_what_cannot_be_counted_is_named():
    search = tiny_search(FftSpace(), estimators={})
    candidate = tiny_candidate(search, Architecture({"only": "fft"}))
    with pytest.raises(EstimationFailed, match=r"_fft_c2c.*allow_uncounted"):
        Flops().measure(candidate)
    with pytest.raises(SpecError, match=r"slot 'only', candidate 'fft': flops: .*_fft_c2c"):
        Flops().table(search)
    allowed = Flops(allow_uncounted=True).measure(candidate)["flops"]
    assert any("_fft_c2c" in name for name in allowed.details["uncounted"])


@pytest.mark.parametrize("space", [TinySpace(), LightSDI(width=2)], ids=["tiny", "light_sdi"])
def test_the_table_predicts_exactly(space):
    search = tiny_search(space, estimators={})
    table = Flops().table(search)
    assert table.unit == "MACs"
    sampled = [moves.sample(space.decisions, search.stream("test", i)) for i in range(4)]
    for architecture in [*sampled, *(space.reference(name) for name in space.references())]:
        value = Flops().measure(tiny_candidate(search, architecture))["flops"].value
        assert table.predict(architecture) == pytest.approx(value, rel=1e-12)


def test_nothing_is_left_behind_in_a_module():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to("meta")
    before = [set(vars(part)) for part in module.modules()]
    assert count_macs(module, (3, 8, 8)).macs == count_macs(module, (3, 8, 8)).macs
    assert [set(vars(part)) for part in module.modules()] == before
    assert all(not part._forward_hooks for part in module.modules())


def test_nas_bench_201_has_published_the_convolutions_and_the_classifier(real_data):
    path = real_data / "tables" / "nas_bench_201.parquet"
    table = Tabular(file=path, key="arch_str", column="cifar10_flops")
    task = TinyClassification(size=32, classes=10)
    search = tiny_search(NASBench201(), task=task, estimators={})
    # They count what reaches no output, too: so without cut connections.
    whole = {edge: choices[1:] for edge, choices in search.space.decisions.items()}
    for index in range(5):
        architecture = moves.sample(whole, search.stream("test", index))
        candidate = tiny_candidate(search, architecture)
        published = table.measure(candidate)["cifar10_flops"].value
        counted = Flops().measure(candidate)["flops"].details["operations"]
        assert "none" not in architecture.values()
        assert counted["convolution"] + counted["addmm"] == published

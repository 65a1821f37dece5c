"""bfloat16 is used where it is right, and never through torch's faulty kernel."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nasengine.errors import SpecError
from nasengine.estimator import Estimator
from nasengine.passes import (
    Precision,
    choose_precision,
    disagreements,
    precision,
    prepare,
    prepare_checked,
)
from nasengine.passes.convolutions import PreparedConv2d
from nasengine.plugin import load_class
from nasengine.recipe import RECIPES
from nasengine.strategies.darts import Darts
from nasengine.strategies.gradient_search import GradientSearch
from nasengine.strategy import Strategy
from nasengine.supernet import Mixture, Supernet
from nasengine.testing.stubs import Kept, tiny_search
from nasengine.training import Training

light_sdi = pytest.importorskip("nasengine.spaces.light_sdi")
BF16 = Precision("bf16", "cpu")


def dilated_depthwise(channels=8, **settings):
    usual = {"padding": 2, "dilation": 2, "groups": channels}
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, channels, 3, **(usual | settings)))


def weight_gradient(network, run, x):
    network.zero_grad()
    run.run(network, x).square().mean().backward()
    return network[0].weight.grad.flatten().double()


@pytest.mark.parametrize("size", [48, 96])
def test_the_gradient_of_dilated_depthwise_convolutions_is_right(size):
    """Fails where torch's own kernel is taken, as long as torch has its fault."""
    plain = dilated_depthwise()
    torch.manual_seed(1)
    x = torch.randn(4, 8, size, size)
    expected = weight_gradient(plain, Precision("fp32", "cpu", channels_last=False), x)
    found = weight_gradient(prepare(copy.deepcopy(plain)), BF16, x)
    assert float((found - expected).norm() / expected.norm()) < 0.02


def loss_of(x):
    return lambda module, run: run.run(module, x).square().mean()


def test_what_no_pass_converts_is_trained_in_float32():
    warnings = []
    network = dilated_depthwise(stride=2)
    x = torch.randn(2, 8, 48, 48)
    chosen = prepare_checked(network, BF16, loss_of(x), warnings.append)
    assert chosen == Precision("fp32", "cpu")
    assert "float32" in warnings[0]


class Broken(nn.BatchNorm2d):
    """Gives a wrong gradient in bfloat16, as a faulty kernel does."""

    def forward(self, x):
        x = super().forward(x)
        return x if x.dtype is torch.float32 else x * 0 + x.detach().relu() * self.weight[0]


def test_a_disagreement_falls_back_and_leaves_the_network_as_it_was():
    warnings = []
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Broken(4), nn.Conv2d(4, 4, 3))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    chosen = prepare_checked(network, BF16, loss_of(torch.randn(4, 3, 12, 12)), warnings.append)
    assert chosen == Precision("fp32", "cpu", channels_last=False, prepared=False)
    assert "disagree with float32" in warnings[0]
    assert not any(isinstance(part, PreparedConv2d) for part in network.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_nan_is_a_disagreement():
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    fast = copy.deepcopy(network)
    fast[0].weight.data.fill_(torch.nan)
    assert disagreements(network, fast, BF16, loss_of(torch.randn(2, 3, 8, 8)))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_healthy_supernet_agrees(dropout):
    torch.manual_seed(0)
    supernet = Supernet(light_sdi.LightSDI(width=4).graph)
    supernet.network.head = nn.Sequential(nn.Dropout(dropout), supernet.network.head)
    x = torch.rand(4, 3, 32, 32)
    targets = (F.avg_pool2d(x[:, :1], 9, 1, 4) > 0.5).float()

    def loss(module, run):
        mixtures = {name: Mixture(torch.full((5,), 0.2)) for name in supernet.decisions}
        return F.binary_cross_entropy_with_logits(run.run(module, x, mixtures), targets)

    warnings = []
    assert prepare_checked(supernet, BF16, loss, warnings.append) == BF16
    assert warnings == []
    assert supernet.training


@pytest.mark.parametrize(
    ("name", "quick", "expected"),
    [
        ("auto", True, "bf16"),
        ("auto", False, "fp32"),
        ("bf16", False, "bf16"),
        ("fp32", True, "fp32"),
    ],
)
def test_auto_is_bfloat16_where_it_is_quick(name, quick, expected, monkeypatch):
    monkeypatch.setattr(precision, "has_quick_bfloat16", lambda device: quick)
    assert choose_precision(name, "cpu").name == expected


def test_a_gpu_without_bfloat16_is_named(monkeypatch):
    monkeypatch.setattr(precision, "has_quick_bfloat16", lambda device: False)
    with pytest.raises(SpecError, match="cuda:1 has no bfloat16"):
        choose_precision("bf16", "cuda:1")


@pytest.mark.parametrize(
    ("kind", "name"), [(Strategy, "darts"), (Estimator, "trained"), (Estimator, "one_shot")]
)
def test_what_trains_refuses_it_before_anything_runs(kind, name, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "has_quick_bfloat16", lambda device: False)
    part = load_class(kind, name)(precision="bf16")
    search = tiny_search(folder=tmp_path)
    part.check(search)
    with pytest.raises(SpecError, match="cuda has no bfloat16"):
        part.check(replace(search, device="cuda"))


def test_autocast_is_of_the_device(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(torch, "autocast", lambda *given: given)
        assert Precision("bf16", "cuda:0").context() == ("cuda", torch.bfloat16)
    with BF16.context():
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


def test_a_search_in_bfloat16_ends_in_float32_weights(tmp_path):
    settings = Darts(iterations=4, arch_every=2, precision="bf16")
    search = replace(tiny_search(folder=tmp_path), reporter=Kept())
    steps = GradientSearch(settings, search)
    result = steps.run()
    assert steps.steps.precision.name == "bf16", search.reporter.warnings
    assert all(p.dtype is torch.float32 for p in steps.steps.supernet.parameters())
    assert all(alpha.dtype is torch.float32 for alpha in result.alphas.values())


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_training_in_either_precision_learns_the_same(tmp_path, name):
    search = replace(tiny_search(folder=tmp_path), reporter=Kept())
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1)
    )
    recipe = replace(RECIPES["adamw"], iterations=15, batch=4)
    samples = search.splits.train
    job = Training(
        network, samples, recipe, ("precision",), tmp_path / "c.safetensors", precision=name
    )
    job.run(search)
    assert search.reporter.warnings == []
    assert job.curve[-1][1] < job.curve[0][1]


class DropPath(nn.Sequential):
    """Drops samples and pixels by functions, which no module tells of."""

    def forward(self, x):
        x = F.dropout(super().forward(x), 0.5, self.training)
        return x * (torch.rand(len(x), 1, 1, 1) < 0.5) * 2 if self.training else x


@pytest.mark.parametrize("seed", range(6))
def test_what_draws_in_training_is_no_disagreement(seed):
    torch.manual_seed(seed)
    block = DropPath(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    network = nn.Sequential(block, nn.Conv2d(8, 1, 1))
    warnings = []
    chosen = prepare_checked(network, BF16, loss_of(torch.randn(2, 3, 16, 16)), warnings.append)
    assert (chosen, warnings) == (BF16, [])
    assert all(part.training for part in network.modules())


def test_float32_on_a_gpu_is_no_tf32_in_either_direction():
    class Looking(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append(torch.backends.cudnn.allow_tf32)
            return x * 1

        @staticmethod
        def backward(ctx, gradient):
            seen.append(torch.backends.cudnn.allow_tf32)
            return gradient

    class Look(nn.Module):
        def forward(self, x):
            return Looking.apply(x)

    before, seen = torch.backends.cudnn.allow_tf32, []
    run, x = Precision("fp32", "cuda"), torch.ones(1, 1, 2, 2).requires_grad_()
    outputs = [run.run(Look(), x) for _ in range(2)]
    assert torch.backends.cudnn.allow_tf32 == before
    sum(outputs).sum().backward()
    assert seen == [False] * 4
    assert torch.backends.cudnn.allow_tf32 == before

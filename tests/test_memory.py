"""The memory estimator: hand-made cases, and what torch's profiler sees on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from nasengine.estimators._liveness import inference_peak, training_peak, weight_bytes
from nasengine.estimators.memory import Memory
from nasengine.spaces.light_sdi import LightSDI
from nasengine.testing.stubs import TinySegmentation, TinySpace, tiny_candidate, tiny_search

BYTES = 4 * 16 * 16  # of one channel


class Skip(nn.Module):
    """Keeps its input for the end."""

    def __init__(self, wide):
        super().__init__()
        self.up, self.down = nn.Conv2d(2, wide, 1), nn.Conv2d(wide, 2, 1)

    def forward(self, x):
        return torch.cat([x, self.down(self.up(x))], 1)


def on_meta(module):
    return module.to("meta")


@pytest.mark.parametrize(
    ("module", "channels"),
    [
        (nn.Conv2d(2, 8, 1), 2 + 8),
        (nn.ReLU(inplace=True), 2),
        (nn.Flatten(), 2),
        (nn.Sequential(nn.ReLU(), nn.ReLU()), 2 + 2 + 2),
        (Skip(8), 2 + 8 + 2),  # while `down` runs; after it 2 + 2 + 4 is less
        (Skip(1), 2 + 2 + 4),
    ],
    ids=["conv", "in place", "view", "relu", "wide skip", "narrow skip"],
)
def test_peaks_by_hand(module, channels):
    assert inference_peak(on_meta(module), (1, 2, 16, 16)) == channels * BYTES


def test_what_is_released_is_not_counted():
    deep = nn.Sequential(*[nn.Conv2d(2, 2, 1) for _ in range(9)])
    # The caller holds the input; then one tensor is read and one is written.
    assert inference_peak(on_meta(deep), (1, 2, 16, 16)) == 3 * 2 * BYTES


def test_training_keeps_activations_and_gradients():
    thin = training_peak(on_meta(nn.Sequential(*[nn.Conv2d(2, 2, 1)] * 4)), (1, 2, 16, 16))
    deep = training_peak(on_meta(nn.Sequential(*[nn.Conv2d(2, 2, 1)] * 8)), (1, 2, 16, 16))
    # Each of four more layers keeps its input of two channels for the backward pass.
    assert deep - thin == 4 * 2 * BYTES


def test_weights_count_shared_ones_once():
    module = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    module.append(module[0])
    everything, trainable = weight_bytes(module)
    assert trainable == 4 * (4 + 2 + 4)
    assert everything == trainable + 4 * 4 + 8  # running mean and variance, the batch counter


def profiled_peak(call):
    """Return the peak of bytes allocated by torch on the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    now = peak = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


class Plain(nn.Module):
    """Operations whose CPU kernels need no scratch memory."""

    def forward(self, x):
        small = nn.functional.max_pool2d(x, 2)
        large = nn.functional.interpolate(small.relu() * 2, scale_factor=2)
        return torch.cat([x, large, x * large], 1).sigmoid()


@pytest.mark.parametrize("shape", [(1, 2, 32, 32), (4, 3, 64, 64)])
def test_the_cpu_allocates_exactly_what_was_counted(shape):
    def infer():
        with torch.no_grad():
            Plain()(torch.zeros(shape))

    assert profiled_peak(infer) == pytest.approx(inference_peak(Plain(), shape), rel=0.01)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("name", ["single_u", "cut_u", "unet"])
def test_convolutions_take_scratch_memory_on_top(name, training):
    search = tiny_search(LightSDI(width=4), task=TinySegmentation(size=48), estimators={})
    network = tiny_candidate(search, search.space.reference(name)).network()
    shape = (4, 3, 48, 48)

    def infer():
        with torch.no_grad():
            network.eval()(torch.rand(shape))

    def train():
        network.train()(torch.rand(shape)).square().mean().backward()

    measured = profiled_peak(train if training else infer)
    counted = (training_peak if training else inference_peak)(network.to("meta"), shape)
    assert 0.95 * counted <= measured <= 1.75 * counted


def test_the_estimator_adds_weights_and_states():
    search = tiny_search(TinySpace(), estimators={})
    candidate = tiny_candidate(search)
    found = {name: m.value for name, m in Memory().measure(candidate).items()}
    weights, trainable = weight_bytes(candidate.network())
    assert found["weights"] == weights
    assert found["memory"] == weights + found["activations"]
    assert found["training"] == weights + 2 * trainable + found["training_activations"]
    larger = Memory(batch=4).measure(candidate)
    assert larger["activations"].value == pytest.approx(4 * found["activations"], rel=0.01)
    momentum = Memory(optimiser_states=1).measure(candidate)
    assert found["training"] - momentum["training"].value == trainable

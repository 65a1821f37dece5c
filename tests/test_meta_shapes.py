"""Shapes on meta tensors without torch's rules in Python are those that torch gives."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from nasengine.meta_shapes import MacCount, MetaShapes, on_meta
from nasengine.plugin import installed, load_class
from nasengine.shapes import infer_shapes
from nasengine.space import SearchSpace


def outcome(work):
    """Return the shapes and types of what is computed, or the error."""
    try:
        found = work()
    except (RuntimeError, ValueError) as error:
        return type(error).__name__
    return [(t.shape, t.dtype) for t in (found if isinstance(found, tuple) else (found,))]


def assert_as_torch(work):
    expected = outcome(work)
    with MetaShapes():
        assert outcome(work) == expected


def meta(*shape, **settings):
    return torch.empty(shape, device="meta", **settings)


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 4]),
    channels=st.sampled_from([2, 4]),
    transposed=st.booleans(),
)
def test_convolutions_and_pools(
    size, kernel, stride, padding, dilation, groups, channels, transposed
):
    x = meta(2, 4, *size)
    weight = meta(4, channels // groups or 1, *kernel)
    conv = F.conv_transpose2d if transposed else F.conv2d
    further = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    assert_as_torch(lambda: conv(x, weight, **further))
    assert_as_torch(lambda: F.max_pool2d(x, kernel, stride, padding))
    assert_as_torch(lambda: F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode=True))


@pytest.mark.parametrize("other", [(2, 4, 5, 5), (4, 1, 1), (1,), (), (3,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_sums_and_products(other, dtype):
    x, y = meta(2, 4, 5, 5), meta(*other, dtype=dtype)
    for work in (lambda: x + y, lambda: y * x, lambda: x.clone().add_(y), lambda: x + 2):
        assert_as_torch(work)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concatenation_interpolation_and_norms(axis):
    x, wide = meta(2, 4, 6, 6), meta(2, 5, 6, 6)
    assert_as_torch(lambda: torch.cat([x, wide], axis))
    assert_as_torch(lambda: torch.cat([x, x.long()], axis))
    assert_as_torch(lambda: F.interpolate(x, scale_factor=2, mode="bilinear"))
    assert_as_torch(lambda: F.interpolate(x, size=(3, 7)))
    for channels in (4, 5):
        mean = meta(channels)
        assert_as_torch(lambda m=mean: F.batch_norm(x, m, m, m, m))
        assert_as_torch(lambda m=mean: F.batch_norm(x, m, m, m, m, training=True))


def test_what_is_no_meta_tensor_is_computed():
    with MetaShapes():
        assert torch.equal(F.relu(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))


@pytest.mark.parametrize("name", sorted(installed("space")))
def test_every_space_has_the_shapes_that_torch_infers(name, monkeypatch):
    space = load_class(SearchSpace, name)()
    shape = (3, 32, 32) if name.startswith("nas_bench") else (3, 64, 64)
    shape = (space.graph.channels[space.graph.nodes[0].name][1], *shape[1:])
    found = infer_shapes(space.graph, shape)
    monkeypatch.setattr("nasengine.meta_shapes._RULES", {})
    assert infer_shapes(space.graph, shape) == found


def test_convolutions_are_counted():
    with MetaShapes(), MacCount() as count:
        F.conv2d(meta(1, 3, 8, 8), meta(4, 3, 3, 3), padding=1)
    assert count.macs == 4 * 3 * 9 * 64


CHECKED = """
import sys
from nasengine.meta_shapes import MetaShapes
from nasengine.shapes import infer_shapes
from nasengine.spaces.light_sdi import LightSDI
infer_shapes(LightSDI(width=2).graph, (3, 32, 32))
print([name for name in ("sympy", "torch._dynamo") if name in sys.modules])
"""


def test_the_compiler_stays_out():
    done = subprocess.run(
        [sys.executable, "-c", CHECKED], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_modules_are_made_without_contents_and_those_with_contents_are_filled():
    with on_meta():
        made = torch.nn.Conv2d(3, 4, 3)
        real = torch.nn.Linear(2, 2, device="cpu")
    torch.manual_seed(0)
    again = torch.nn.Linear(2, 2)
    torch.manual_seed(0)
    with on_meta():
        inside = torch.nn.Linear(2, 2, device="cpu")
    assert made.weight.is_meta
    assert made.weight.requires_grad
    assert real.weight.isfinite().all()
    assert torch.equal(inside.weight, again.weight)
    assert torch.equal(inside.bias, again.bias)


def test_making_a_module_without_contents_initialises_nothing(monkeypatch):
    def fill(*_, **__):
        raise AssertionError("contents were made for a meta tensor")

    monkeypatch.setattr(torch.nn.init, "_calculate_correct_fan", fill)
    with on_meta():
        torch.nn.Conv2d(3, 4, 3)

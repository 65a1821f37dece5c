"""Which factories make the same, and which do not make what was meant."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from nasengine.errors import SpaceError
from nasengine.factories import Factories, Factory
from nasengine.graph import SpaceGraph
from nasengine.moves import enumerate_all
from nasengine.space import SearchSpace


def convolution(size: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> Factory:
    def make(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(channels_in, channels_out, size), norm(channels_out))

    return make


def wrapped(inner: Factory) -> Factory:
    return lambda i, o: nn.Sequential(inner(i, o), nn.ReLU())


def by_default(size: int) -> Factory:
    return lambda i, o, size=size: nn.Conv2d(i, o, size)


def holding(value: Any) -> Factory:
    return lambda i, o: nn.Sequential(nn.Conv2d(i, o, 1), value)


@dataclass(frozen=True)
class Convolution:
    size: int

    def __call__(self, channels_in: int, channels_out: int) -> nn.Module:
        return nn.Conv2d(channels_in, channels_out, self.size)


RELU, SIZES, ONES = nn.ReLU(), [3, 3], torch.ones(2)


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: convolution(3), lambda: convolution(5)),
        (lambda: convolution(3), lambda: convolution(3, nn.InstanceNorm2d)),
        (lambda: wrapped(convolution(3)), lambda: wrapped(convolution(5))),
        (lambda: wrapped(convolution(3)), lambda: convolution(3)),
        (lambda: by_default(3), lambda: by_default(5)),
        (lambda: partial(nn.Conv2d, kernel_size=3), lambda: partial(nn.Conv2d, kernel_size=1)),
        (lambda: partial(nn.Conv2d, kernel_size=SIZES), lambda: partial(nn.Conv2d, kernel_size=3)),
        (lambda: partial(convolution(3)), lambda: convolution(3)),
        (lambda: Convolution(3), lambda: Convolution(5)),
        (lambda: nn.Identity, lambda: nn.BatchNorm2d),
        (lambda: holding(RELU), lambda: holding(nn.ReLU())),
        (lambda: holding(SIZES), lambda: holding([3, 3])),
        (lambda: holding((1, 2)), lambda: holding((1, 2.0))),
        (lambda: holding(1), lambda: holding(True)),
        (lambda: holding(ONES), lambda: holding(torch.ones(2))),
    ],
)
def test_factories_are_equal_by_what_they_hold(
    make: Callable[[], Factory], other: Callable[[], Factory]
) -> None:
    factories = Factories()
    first = factories.known("first", make())
    assert factories.known("other", other()) is not first
    assert factories.known("again", make()) is first
    factories.check_unchanged()


def test_functions_in_functions_are_told_apart_by_what_is_set_on_them() -> None:
    factories = Factories()
    one, two = (wrapped(wrapped(convolution(3))) for _ in range(2))
    assert factories.known("one", one) is factories.known("two", two)
    first, second = convolution(3), convolution(3)
    second.size = 5  # type: ignore[attr-defined]
    assert factories.known("one", first) is not factories.known("two", second)


def test_a_function_that_holds_itself_is_equal_to_itself() -> None:
    def deep(channels_in: int, channels_out: int, depth: int = 2) -> nn.Module:
        inner = deep(channels_out, channels_out, depth - 1) if depth else nn.Identity()
        return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1), inner)

    factories = Factories()
    assert factories.known("one", deep) is factories.known("two", deep)
    factories.check_unchanged()


class Written(SearchSpace):
    """A chain of three slots, whose blocks are made anew for each."""

    def define(self, graph: SpaceGraph) -> None:
        x = graph.operation("stem", graph.input(3), convolution(1), out=4)
        for n in range(3):
            x = graph.slot(f"slot{n}", x, {"conv": convolution(1), "none": nn.Identity})
        graph.output(x)


def test_blocks_made_for_each_slot_are_equal_for_keys_and_shapes() -> None:
    space = Written()
    assert len({space.graph[f"slot{n}"].candidates["conv"] for n in range(3)}) == 1
    # How many are left out counts, and not which.
    assert len({space.key(each) for each in enumerate_all(space.decisions)}) == 4


def dilated(graph: SpaceGraph) -> None:
    x = graph.input(3)
    for n in range(2):
        block = {"conv": lambda i, o: nn.Conv2d(i, o, 3, dilation=2**n)}  # noqa: B023
        x = graph.slot(f"slot{n}", x, block)
    graph.output(x)


def pooled(graph: SpaceGraph) -> None:
    x = graph.slot("slot", graph.input(3), {"conv": convolution(1)})
    for n in (2, 4):
        x = graph.operation(f"pool{n}", x, lambda i, o: nn.MaxPool2d(n))  # noqa: B023
    graph.output(x)


def classes(graph: SpaceGraph) -> None:
    x = graph.input(3)
    for n in (1, 3):

        class Block(nn.Module):
            def __init__(self, channels_in: int, channels_out: int) -> None:
                super().__init__()
                self.conv = nn.Conv2d(channels_in, channels_out, n)  # noqa: B023

        x = graph.slot(f"slot{n}", x, {"block": Block})
    graph.output(x)


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (dilated, "slot 'slot0', candidate 'conv': its function reads n when it is called, and n"),
        (pooled, "operation 'pool2': its function reads n when it is called, and n has changed"),
        (classes, "slot 'slot1', candidate 'block': its function reads n when it is called"),
    ],
)
def test_what_has_changed_since_it_was_wired_is_refused(
    wire: Callable[[SpaceGraph], None], said: str
) -> None:
    graph = SpaceGraph()
    wire(graph)
    with pytest.raises(SpaceError) as caught:
        graph.finish()
    assert str(caught.value).startswith(said)
    assert "lambda i, o, n=n: ..." in str(caught.value)


def test_what_is_defined_further_below_may_be_read() -> None:
    graph = SpaceGraph()
    x = graph.slot("slot", graph.input(3), {"conv": lambda i, o: nn.Sequential(later(i, o))})
    later = convolution(1)
    graph.output(x)
    graph.finish()

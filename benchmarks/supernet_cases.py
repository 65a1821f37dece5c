"""What the benchmark of a supernet's step measures: spaces, sizes, and a space of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """What is measured: a space, the size and the number of the images."""

    space: str
    settings: Mapping[str, int]
    size: int
    batch: int
    repeats: int

    def text(self) -> str:
        """Name it."""
        settings = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        return f"{self.space} ({settings}), {self.batch} x {self.size}x{self.size}"


CASES = {
    "light_sdi_16": Case("light_sdi", {"width": 16}, 96, 4, 7),
    "light_sdi_64": Case("light_sdi", {"width": 64}, 96, 4, 3),
    "nas_bench_201": Case("nas_bench_201", {"width": 16, "classes": 8}, 32, 16, 3),
    "own": Case("own", {"slots": 4, "candidates": 4, "width": 16}, 48, 4, 7),
}
QUICK = {
    "light_sdi_16": Case("light_sdi", {"width": 2}, 16, 2, 2),
    "own": Case("own", {"slots": 2, "candidates": 2, "width": 2}, 16, 2, 2),
}
GROWTH = {"slots": (2, 4, 8), "candidates": (2, 4, 8), "width": (8, 16, 32), "size": (24, 48, 96)}


def own_space(slots: int, candidates: int, width: int) -> Any:
    """Return a space of the benchmark's own: a chain of slots of convolutions, pools, skips."""
    from torch import nn

    from nasengine.space import SearchSpace

    def block(kernel: int, dilation: int, depthwise: bool) -> Callable[[int, int], nn.Module]:
        def make(i: int, o: int) -> nn.Module:
            pad, groups = dilation * (kernel // 2), i if depthwise else 1
            first = nn.Conv2d(i, i, kernel, padding=pad, dilation=dilation, groups=groups)
            return nn.Sequential(first, nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, o, 1))

        return make

    offered = {
        "conv": block(3, 1, False),
        "separable": block(5, 1, True),
        "dilated": block(3, 2, True),
        "pool": lambda _i, _o: nn.AvgPool2d(3, 1, 1),
        "conv_dilated": block(3, 2, False),
        "separable_3": block(3, 1, True),
        "wide": block(5, 1, False),
        "skip": lambda _i, _o: nn.Identity(),
    }
    chosen = dict(list(offered.items())[:candidates])

    class Own(SearchSpace):
        """A chain."""

        def define(self, graph: Any) -> None:
            def stem(i: int, o: int) -> nn.Module:
                return nn.Conv2d(i, o, 3, padding=1)

            x = graph.operation("stem", graph.input(3), stem, out=width)
            for number in range(slots):
                x = graph.slot(f"slot_{number}", x, chosen)
            graph.output(graph.operation("head", x, lambda i, o: nn.Conv2d(i, o, 1), out=1))

    return Own()

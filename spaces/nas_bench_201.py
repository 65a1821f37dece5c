"""NAS-Bench-201: one cell of six edges, repeated fifteen times.

Dong and Yang: NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search
(ICLR 2020, arXiv:2001.00326), section 2 and its public code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from nasengine.architecture import Architecture
from nasengine.errors import ArchitectureError
from nasengine.factories import Factory
from nasengine.graph import Node, SpaceGraph
from nasengine.space import SearchSpace

_NODES = 4
_EDGES = tuple((source, node) for node in range(1, _NODES) for source in range(node))
_STAGES = 3


class NASBench201(SearchSpace):
    """Image classification by 15 equal cells of 6 edges and 5 operations: 15,625 architectures.

    A cell has four nodes; every node is the sum of all earlier ones, each passed through the
    operation of its edge. ``edge_i_j`` leads from node i to node j, and all cells share it. Three
    stages of cells double the channels, with a residual block of stride 2 between them.

    Architecture strings are the benchmark's: ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``.

    References: ``resnet`` (the ResNet-like cell: two 3x3 convolutions in a row and a skip
    connection around them), ``best_cifar10`` and ``best_cifar100`` (the best test accuracy after
    200 epochs in the benchmark's tables, mean of its seeds), ``convolutions`` (3x3 on every edge).

    Shape
    -----
    Networks go from (N, channels, H, W) to logits (N, classes); H and W divisible by 4.

    Examples
    --------
    >>> space = NASBench201()
    >>> space.size, list(space.decisions)[:3]
    (15625, ['edge_0_1', 'edge_0_2', 'edge_1_2'])
    >>> space.format(space.reference("resnet"))
    '|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|'
    """

    widths: ClassVar[tuple[str, ...]] = ("width",)

    channels: int = Field(default=3, gt=0)
    """Channels of the images."""
    classes: int = Field(default=10, gt=0)
    """Number of classes."""
    width: int = Field(default=16, gt=0)
    """Channels of the first stage; doubled in each of the two further ones."""
    cells_per_stage: int = Field(default=5, gt=0)
    """Cells in each of the three stages."""

    def define(self, graph: SpaceGraph) -> None:
        """Wire stem, three stages of cells, and classifier."""
        from .nas_bench_201_blocks import OPERATIONS, Reduction, head, stem

        x = graph.operation("stem", graph.input(self.channels), stem, out=self.width)
        for stage in range(_STAGES):
            if stage:
                out = self.width * 2**stage
                x = graph.operation(f"reduction_{stage}", x, Reduction, out=out)
            for cell in range(self.cells_per_stage):
                number = stage * self.cells_per_stage + cell + 1
                x = _wire_cell(graph, f"cell_{number}", x, OPERATIONS)
        graph.output(graph.operation("head", x, head, out=self.classes))

    def references(self) -> Mapping[str, Mapping[str, str]]:
        """Return known cells."""
        return {name: self.parse(text) for name, text in _CELLS.items()}

    def parse(self, text: str) -> Mapping[str, str]:
        """Read the benchmark's architecture string.

        Raises
        ------
        ArchitectureError
            If the text is none.
        """
        nodes = text.split("+")
        edges = [re.findall(r"\|([^|~]*)~(\d)(?=\|)", node) for node in nodes]
        found = [(int(source), node) for node, row in enumerate(edges, 1) for _, source in row]
        choices = [operation for row in edges for operation, _ in row]
        if tuple(found) != _EDGES or _join(choices) != text:
            example = _CELLS["resnet"]
            raise ArchitectureError(f"no NAS-Bench-201 cell: {text!r:.200}; one is {example!r}")
        cell = dict(zip((_edge(*edge) for edge in _EDGES), choices, strict=True))
        return self.architecture(cell, where=f"cell {text!r}")

    def format(self, architecture: Architecture) -> str:
        """Write the benchmark's architecture string."""
        return _join([architecture[_edge(*edge)] for edge in _EDGES])


def _wire_cell(graph: SpaceGraph, cell: str, x: Node, operations: Mapping[str, Factory]) -> Node:
    nodes = [x]
    for node in range(1, _NODES):
        edges = [
            graph.slot(
                f"{cell}_{_edge(source, node)}",
                nodes[source],
                operations,
                shares=_edge(source, node),
            )
            for source in range(node)
        ]
        nodes.append(edges[0] if node == 1 else graph.add(f"{cell}_node_{node}", edges))
    return nodes[-1]


def _edge(source: int, node: int) -> str:
    return f"edge_{source}_{node}"


def _join(operations: list[str]) -> str:
    rows = []
    for node in range(1, _NODES):
        row, operations = operations[:node], operations[node:]
        rows.append("|" + "".join(f"{name}~{source}|" for source, name in enumerate(row)))
    return "+".join(rows)


_CELLS = {
    "resnet": "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|",
    "convolutions": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "best_cifar10": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
    "best_cifar100": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
}

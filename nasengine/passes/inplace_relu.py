"""Pass: a ReLU behind a batch norm overwrites what the batch norm gave."""

from __future__ import annotations

from torch import nn

from nasengine.passes.tracing import blocks, module_of, only_reader, traced


def overwrite_batch_norms(module: nn.Module) -> int:
    """Let every ReLU that alone reads a batch norm's output work in place; return how many.

    A batch norm keeps its input for the backward pass, not its output.
    """
    return sum(_overwrite_in_block(block) for block in blocks(module))


def _overwrite_in_block(block: nn.Module) -> int:
    graph = traced(block)
    if graph is None:
        return 0
    count = 0
    for node in graph.graph.nodes:
        norm, reader = module_of(graph, node), only_reader(node)
        relu = module_of(graph, reader) if reader is not None else None
        if isinstance(norm, nn.BatchNorm2d) and type(relu) is nn.ReLU and not relu.inplace:
            relu.inplace = True
            count += 1
    return count

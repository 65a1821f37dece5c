"""Pass: a ReLU behind a batch norm overwrites what the batch norm gave."""

from __future__ import annotations

from collections import Counter

from torch import nn

from nasengine.passes.batch_norms import is_norm
from nasengine.passes.tracing import blocks, module_of, only_reader, replace, traced


def overwrite_batch_norms(module: nn.Module) -> int:
    """Let every ReLU that alone reads a batch norm's output work in place; return how many.

    A batch norm keeps its input for the backward pass, not its output. A ReLU that stands in
    several places stays: what it reads in the others may still be needed.
    """
    places = Counter(part for _, part in module.named_modules(remove_duplicate=False))
    return sum(_overwrite_in_block(block, places) for block in blocks(module))


def _overwrite_in_block(block: nn.Module, places: Counter[nn.Module]) -> int:
    graph = traced(block)
    if graph is None:
        return 0
    count = 0
    for node in graph.nodes:
        norm, reader = module_of(block, node), only_reader(node)
        if reader is None or not is_norm(norm):
            continue
        relu = module_of(block, reader)
        if type(relu) is nn.ReLU and not relu.inplace and places[relu] == 1:
            # A new one: another network may share the old.
            replace(block, str(reader.target), nn.ReLU(inplace=True).train(relu.training))
            count += 1
    return count

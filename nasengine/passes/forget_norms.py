"""Pass: what batch norms give is not kept for the backward pass."""

from __future__ import annotations

from torch import nn

from nasengine.passes.batch_norms import is_own_norm, prepared_norm
from nasengine.passes.forgotten import ForgottenReLU
from nasengine.passes.tracing import blocks, module_of, only_reader, recast, replace, traced


def forget_norms(module: nn.Module) -> int:
    """Let the output of every batch norm that one ReLU or convolution reads be forgotten.

    It takes effect inside `nasengine.passes.forgotten.forgetting`: see `Precision.sparing`.

    Returns
    -------
    How many batch norms.
    """
    return sum(_forget_in_block(block) for block in blocks(module))


def _forget_in_block(block: nn.Module) -> int:
    graph = traced(block)
    if graph is None:
        return 0
    count = 0
    for node in graph.nodes:
        norm, reader = module_of(block, node), only_reader(node)
        follower = module_of(block, reader) if reader is not None else None
        if not is_own_norm(norm) or reader is None or getattr(norm, "forgets", False):
            continue
        if type(follower) is nn.ReLU and follower.inplace:
            replace(block, str(reader.target), recast(follower, ForgottenReLU))
        elif not isinstance(follower, nn.Conv2d):
            continue
        new = prepared_norm(norm)
        new.forgets = True
        replace(block, str(node.target), new)
        count += 1
    return count

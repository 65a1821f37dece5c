"""Pass: convolutions before a batch norm are trained without their bias."""

from __future__ import annotations

import torch
from torch import nn

from nasengine.passes.convolutions import PreparedConv2d, prepared
from nasengine.passes.tracing import blocks, module_of, only_reader, replace, traced


def drop_conv_biases(module: nn.Module) -> int:
    """Leave out, while training, the bias of convolutions that a batch norm alone reads.

    Their biases become zero and the batch norm's running mean takes them over: in training a batch
    norm cannot tell a constant from any other, and in evaluation the two cancel. Weights that are
    loaded later must have such zeros too, as those that a prepared module saved have.

    Parameters
    ----------
    module
        A supernet or a network; what follows what is found by tracing.

    Returns
    -------
    How many convolutions.
    """
    return sum(_drop_in_block(block) for block in blocks(module))


def _drop_in_block(block: nn.Module) -> int:
    graph = traced(block)
    if graph is None:
        return 0
    count = 0
    for node in graph.graph.nodes:
        conv, reader = module_of(graph, node), only_reader(node)
        if not isinstance(conv, nn.Conv2d) or conv.bias is None or reader is None:
            continue
        if isinstance(conv, PreparedConv2d) and conv.drops_bias:
            continue
        norm = module_of(graph, reader)
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            replace(block, str(node.target), _without_bias(conv, norm))
            count += 1
    return count


def _without_bias(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> PreparedConv2d:
    assert conv.bias is not None and norm.running_mean is not None
    with torch.no_grad():
        norm.running_mean -= conv.bias
        conv.bias.zero_()
    new = prepared(conv)
    new.drops_bias = True
    return new

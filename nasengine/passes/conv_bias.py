"""Pass: convolutions before a batch norm are trained without their bias."""

from __future__ import annotations

from collections import Counter
from typing import TypeGuard

import torch
from torch import Tensor, nn

from nasengine.passes.batch_norms import is_norm
from nasengine.passes.convolutions import PreparedConv2d, is_own_conv, prepared
from nasengine.passes.tracing import blocks, module_of, only_reader, replace, traced

_Places = Counter[nn.Module | Tensor]
"""How often a module or a parameter stands in the whole."""


def drop_conv_biases(module: nn.Module) -> int:
    """Leave out, while training, the bias of convolutions that a batch norm alone reads.

    Their biases become zero and the batch norm's running mean takes them over: in training a batch
    norm cannot tell a constant from any other, and in evaluation the two cancel. Weights that are
    loaded later must have such zeros too, as those that a prepared module saved have.

    Parameters
    ----------
    module
        A supernet or a network; what follows what is found by tracing. What stands in several
        places stays: another reader would miss the bias.

    Returns
    -------
    How many convolutions.
    """
    places: _Places = Counter(part for _, part in module.named_modules(remove_duplicate=False))
    places.update(value for _, value in module.named_parameters(remove_duplicate=False))
    return sum(_drop_in_block(block, places) for block in blocks(module))


def _drop_in_block(block: nn.Module, places: _Places) -> int:
    graph = traced(block)
    if graph is None:
        return 0
    count = 0
    for node in graph.nodes:
        conv, reader = module_of(block, node), only_reader(node)
        if reader is None or not is_own_conv(conv) or not _has_own_bias(conv, places):
            continue
        norm = module_of(block, reader)
        if _takes_over(norm) and places[norm] == 1 and norm.training is conv.training:
            replace(block, str(node.target), _without_bias(conv, norm))
            count += 1
    return count


def _has_own_bias(conv: nn.Conv2d, places: _Places) -> bool:
    dropped = isinstance(conv, PreparedConv2d) and conv.drops_bias
    return conv.bias is not None and not dropped and places[conv] == places[conv.bias] == 1


def _takes_over(norm: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    return is_norm(norm) and norm.running_mean is not None


def _without_bias(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> PreparedConv2d:
    assert conv.bias is not None and norm.running_mean is not None
    with torch.no_grad():
        norm.running_mean -= conv.bias
        conv.bias.zero_()
    new = prepared(conv)
    new.drops_bias = True
    return new

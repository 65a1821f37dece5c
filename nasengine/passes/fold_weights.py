"""Pass: a mixture's weight is folded into the batch norm that ends a candidate.

A candidate that ends in a batch norm costs no pass over its output to be weighted: scaling gamma
and beta scales the output. Where a ReLU follows, w relu(z) = relu(w z) for w > 0, which a mixture
says of itself (`Mixture.positive`).
"""

from __future__ import annotations

from torch import fx, nn

from nasengine.passes.batch_norms import is_own_norm, prepared_norm
from nasengine.passes.tracing import module_of, only_reader, replace, traced
from nasengine.supernet import MixedOperation


def fold_mixture_weights(module: nn.Module) -> int:
    """Fold weights in every `MixedOperation` inside; return how many candidates take theirs."""
    count = 0
    for mixed in module.modules():
        if not isinstance(mixed, MixedOperation):
            continue
        for name, candidate in list(mixed.candidates.items()):
            if name in mixed.takes_weight | mixed.takes_positive_weight:
                continue
            graph = traced(candidate)
            last = None if graph is None else _last_norm(graph)
            if graph is None or last is None:
                continue
            mixed.candidates[name] = _folded(graph, last)
            kind = mixed.takes_weight if _is_output(last) else mixed.takes_positive_weight
            kind.add(name)
            count += 1
    return count


def _is_output(node: fx.Node) -> bool:
    reader = only_reader(node)
    return reader is not None and reader.op == "output"


def _last_norm(graph: fx.GraphModule) -> fx.Node | None:
    """Return the node of the batch norm that ends a candidate, but perhaps for a ReLU."""
    output = next(node for node in graph.graph.nodes if node.op == "output")
    last = output.args[0]
    if isinstance(last, fx.Node) and isinstance(module_of(graph, last), nn.ReLU):
        last = last.args[0] if len(last.users) == 1 else None
    if not isinstance(last, fx.Node) or len(last.users) != 1:
        return None
    norm = module_of(graph, last)
    return last if is_own_norm(norm) else None


def _folded(graph: fx.GraphModule, last: fx.Node) -> fx.GraphModule:
    """Return the candidate with a second input that scales the output of its last batch norm."""
    norm = graph.get_submodule(str(last.target))
    assert isinstance(norm, nn.BatchNorm2d)
    replace(graph, str(last.target), prepared_norm(norm))
    first = next(node for node in graph.graph.nodes if node.op == "placeholder")
    with graph.graph.inserting_after(first):
        weight = graph.graph.placeholder("mixture_weight", default_value=None)
    last.args = (*last.args, weight)
    graph.recompile()
    return graph

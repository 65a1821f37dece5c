"""Pass: a mixture's weight is folded into the batch norm that ends a candidate.

A candidate that ends in a batch norm costs no pass over its output to be weighted: scaling gamma
and beta scales the output. Where a ReLU follows, w relu(z) = relu(w z) for w > 0, which a mixture
says of itself (`Mixture.positive`).
"""

from __future__ import annotations

from torch import fx, nn

from nasengine.passes.batch_norms import is_own_norm, prepared_norm
from nasengine.passes.tracing import module_of, replace, traced
from nasengine.supernet import MixedOperation, ScaledNorm


def fold_mixture_weights(module: nn.Module) -> int:
    """Fold weights in every `MixedOperation` inside; return how many candidates take theirs."""
    count = 0
    for mixed in module.modules():
        if not isinstance(mixed, MixedOperation):
            continue
        for name, candidate in mixed.candidates.items():
            last = None if name in mixed.scaled else _last_norm(candidate)
            if last is not None:
                mixed.scaled[name] = last
                count += 1
    return count


def _last_norm(candidate: nn.Module) -> ScaledNorm | None:
    """Return the batch norm that ends a candidate, but perhaps for a ReLU; it can be scaled."""
    graph = traced(candidate)
    if graph is None:
        return None
    output = next(node for node in graph.nodes if node.op == "output")
    last, through_relu = output.args[0], False
    if isinstance(last, fx.Node) and type(module_of(candidate, last)) is nn.ReLU:
        last, through_relu = last.args[0] if len(last.users) == 1 else None, True
    if not isinstance(last, fx.Node) or len(last.users) != 1:
        return None
    norm = module_of(candidate, last)
    if not is_own_norm(norm):
        return None
    replace(candidate, str(last.target), prepared_norm(norm))
    return ScaledNorm(str(last.target), through_relu)

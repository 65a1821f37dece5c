"""Tracing blocks down to single operations, for passes that need to know what follows what."""

from __future__ import annotations

from typing import Any

from torch import fx, nn
from torch.fx.proxy import TraceError

from nasengine.supernet import MixedOperation


class _Tracer(fx.Tracer):
    """Goes down to modules that hold no others: what these compute is theirs to know."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children()) or super().is_leaf_module(
            m, module_qualified_name
        )


def blocks(module: nn.Module) -> list[nn.Module]:
    """Return the parts that can be traced: a supernet's candidates, or a network as a whole."""
    mixed = [part for part in module.modules() if isinstance(part, MixedOperation)]
    candidates = [candidate for part in mixed for candidate in part.candidates.values()]
    return candidates or [module]


def traced(module: nn.Module) -> fx.GraphModule | None:
    """Trace a block, its modules shared; None where its forward depends on its input's values.

    The result has the block's own modules, parameters and buffers, those included that its forward
    never reads: their names and their order stay.
    """
    try:
        graph = fx.GraphModule(module, _Tracer().trace(module))
    except (TraceError, TypeError, ValueError, AttributeError, RuntimeError, NameError, KeyError):
        return None
    if has_hooks(module):
        return None
    for kind in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
        graph.__dict__[kind] = module.__dict__[kind]
    graph.train(module.training)
    return graph


def has_hooks(module: nn.Module) -> bool:
    """Say whether calling a module does more than its forward."""
    kept: dict[str, Any] = module.__dict__
    return any(kept[name] for name in kept if name.endswith("_hooks"))


def only_reader(node: fx.Node) -> fx.Node | None:
    """Return the one node that reads a node, if there is just one."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def module_of(traced_module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls; None for other nodes, and for modules called twice."""
    if node.op != "call_module":
        return None
    found = traced_module.get_submodule(str(node.target))
    calls = [
        other
        for other in traced_module.graph.nodes
        if other.op == "call_module" and traced_module.get_submodule(str(other.target)) is found
    ]
    return found if len(calls) == 1 else None


def replace(module: nn.Module, path: str, new: nn.Module) -> None:
    """Put a module in another's place, by its dotted path."""
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, new)

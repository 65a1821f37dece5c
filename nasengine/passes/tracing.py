"""Tracing blocks down to single operations, for passes that need to know what follows what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import fx, nn

from nasengine.supernet import MixedOperation, Supernet

M = TypeVar("M", bound=nn.Module)


class _Tracer(fx.Tracer):
    """Goes down to modules that hold no others, or do more than their forward."""

    # Else what a forward does to a buffer in place, such as a running mean, is done to it.
    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        alone = not any(True for _ in m.children()) or has_hooks(m)
        return alone or super().is_leaf_module(m, module_qualified_name)


def blocks(module: nn.Module) -> list[nn.Module]:
    """Return the parts that are traced, each on its own.

    They are a supernet's candidates and all that stands between its slots; of a network the whole
    of it, or else its nodes, where one of them cannot be traced.
    """
    parts: Iterable[nn.Module]
    if isinstance(module, Supernet):
        parts = module.network.children()
    elif isinstance(module, MixedOperation):
        parts = module.candidates.values()
    elif isinstance(module, fx.GraphModule) and traced(module) is None:
        parts = module.children()
    else:
        return [module]
    return [block for part in parts for block in blocks(part)]


def traced(module: nn.Module) -> fx.Graph | None:
    """Trace a block, which stays as it is; None where its forward takes no proxy for its input.

    The graph tells what follows what and is not run: what a forward decides anew in every call
    stays its own.
    """
    if has_hooks(module):
        return None
    try:
        with _restored(module):
            return _Tracer().trace(module)
    except Exception:  # noqa: BLE001 - a third party's forward raises anything on a proxy
        return None


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Take back what a forward assigned to its module: a count of its calls, or a proxy."""
    kept = [(part, dict(vars(part)), dict(part._buffers)) for part in module.modules()]
    try:
        yield
    finally:
        for part, attributes, buffers in kept:
            for now, before in ((vars(part), attributes), (part._buffers, buffers)):
                now.clear()
                now.update(before)


def has_hooks(module: nn.Module) -> bool:
    """Say whether calling a module does more, or other, than its class's forward."""
    kept: dict[str, Any] = module.__dict__
    return "forward" in kept or any(kept[name] for name in kept if name.endswith("_hooks"))


def only_reader(node: fx.Node) -> fx.Node | None:
    """Return the one node that reads a node, if there is just one."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def module_of(block: nn.Module, node: fx.Node) -> nn.Module | None:
    """Return the module that a node of a block calls.

    None for other nodes, and for modules that are called twice or have hooks.
    """
    if node.op != "call_module":
        return None
    found = block.get_submodule(str(node.target))
    calls = [
        other
        for other in node.graph.nodes
        if other.op == "call_module" and block.get_submodule(str(other.target)) is found
    ]
    return found if len(calls) == 1 and not has_hooks(found) else None


def recast(module: nn.Module, kind: type[M]) -> M:
    """Return a module of another class with the same parameters, hooks and settings."""
    other = kind.__new__(kind)
    other.__dict__.update(module.__dict__)
    return other


def replace_each(module: nn.Module, by: Callable[[nn.Module], nn.Module | None]) -> int:
    """Put another in the place of every part that there is one for; return how many."""
    count = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            new = by(child)
            if new is not None:
                setattr(parent, name, new)
                count += 1
    return count


def replace(module: nn.Module, path: str, new: nn.Module) -> None:
    """Put a module in another's place, by its dotted path."""
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, new)

"""A network as the source of plain PyTorch: its layers of torch.nn, its forward pass, its imports.

`torch.fx` traces it. What is written can be built anew from exactly what the source says
(`rebuilt`), to be held against the network.
"""

from __future__ import annotations

import builtins
import copy
import inspect
import math
import operator
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.nn import functional

from nasengine.errors import ExportFailed

_STANDARD = {"math": math, "operator": operator}
"""Modules of Python's own whose functions a forward pass may call."""
_BUILTINS = ("abs", "bool", "float", "getattr", "int", "len", "max", "min", "pow", "round", "sum")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_CONSTANTS = {
    "torch": "import torch",
    "inf": "from math import inf",
    "nan": "from math import nan",
    "device": "from torch import device",
    "NoneType": "from types import NoneType",
}


_ACTIVATIONS = {functional.relu: "relu", functional.gelu: "gelu"}
_KEPT_ELSEWHERE: Mapping[type[nn.Module], Mapping[str, Callable[[Any], Any]]] = {
    nn.Hardtanh: dict.fromkeys(("min_value", "max_value"), lambda _: None),
    nn.MultiheadAttention: {
        "bias": lambda layer: layer.in_proj_bias is not None,
        "add_bias_kv": lambda layer: layer.bias_k is not None,
    },
    nn.TransformerEncoderLayer: {
        "d_model": lambda layer: layer.self_attn.embed_dim,
        "nhead": lambda layer: layer.self_attn.num_heads,
        "dim_feedforward": lambda layer: layer.linear1.out_features,
        "dropout": lambda layer: layer.dropout.p,
        "activation": lambda layer: _ACTIVATIONS.get(layer.activation, layer.activation),
        "layer_norm_eps": lambda layer: layer.norm1.eps,
        "batch_first": lambda layer: layer.self_attn.batch_first,
        "bias": lambda layer: layer.linear1.bias is not None,
    },
}
"""How layers of torch.nn tell the arguments that they do not keep under the same name."""


@dataclass(frozen=True)
class Source:
    """A network as it is traced, and the lines that say it."""

    graph: fx.Graph
    imports: Sequence[str]
    layers: Sequence[str]
    forward: str

    @classmethod
    def of(cls, network: nn.Module) -> Source:
        """Trace a network.

        Raises
        ------
        ExportFailed
            Naming what cannot be traced or written.
        """
        try:
            graph = _Tracer().trace(network)
        # Tracing runs the network's own code, which may raise anything.
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise ExportFailed(
                f"torch.fx cannot trace it: {type(error).__name__}: {first}"
            ) from error
        for node in graph.nodes:
            node.type = None  # An annotation may name anything.
        layers = list(_definitions(network, graph))
        _check_all_used(network, graph)
        code = graph.python_code("self")
        # Before it, fx writes for itself what it is not to trace into.
        forward = code.src[code.src.index("def forward") :].strip()
        # fx frees every value after its last use, on the same line.
        forward = re.sub(r";  (\w+ = )+None", "", forward)
        return cls(graph, _imports(layers, forward, code.globals), layers, forward)


class _Tracer(fx.Tracer):
    """Traces into everything but layers of torch.nn and plain sequences of them."""

    # What is computed from a buffer is written as code too, not as what came out.
    proxy_buffer_attributes = True

    def is_leaf_module(self, module: nn.Module, _name: str) -> bool:
        return _is_layer(module)


def _is_layer(module: nn.Module) -> bool:
    if type(module) is nn.Sequential:
        return all(_is_layer(child) for child in module.children())
    known = getattr(nn, type(module).__name__, None) is type(module)
    return known and not isinstance(module, nn.ModuleList | nn.ModuleDict)


def _definitions(network: nn.Module, graph: fx.Graph) -> Iterator[str]:
    """Yield the lines that define what the graph uses, under the network's own names."""
    containers: set[str] = set()
    done: set[str] = set()
    for node in graph.nodes:
        target = str(node.target)
        if node.op not in {"call_module", "get_attr"} or target in done:
            continue
        done.add(target)
        parents = target.split(".")[:-1]
        for depth in range(1, len(parents) + 1):
            container = ".".join(parents[:depth])
            if container not in containers:
                containers.add(container)
                yield _assignment(container, "nn.Module()")
        if node.op == "call_module":
            yield _assignment(target, _layer_source(network.get_submodule(target), target))
        else:
            yield _tensor_source(network, target)


def _assignment(target: str, value: str) -> str:
    *parents, name = target.split(".")
    owner = ".".join(["self", *parents])
    if all(part.isidentifier() for part in (*parents, name)):
        return f"{owner}.{name} = {value}"
    if any(not part.isidentifier() for part in parents):
        return f"self.get_submodule({'.'.join(parents)!r}).add_module({name!r}, {value})"
    return f"{owner}.add_module({name!r}, {value})"


def _tensor_source(network: nn.Module, target: str) -> str:
    value = network.state_dict().get(target)
    if value is None:
        raise ExportFailed(
            f"{target} is a tensor that the weights do not hold; make it a parameter or a "
            f"persistent buffer"
        )
    made = f"torch.empty({tuple(value.shape)}, dtype={value.dtype})"
    kind = "buffer"
    if target in dict(network.named_parameters()):
        kind, made = "parameter", f"nn.Parameter({made})"
    owner, _, name = target.rpartition(".")
    return f"self.get_submodule({owner!r}).register_{kind}({name!r}, {made})"


def _layer_source(module: nn.Module, where: str) -> str:
    if type(module) is nn.Sequential:
        if [name for name, _ in module.named_children()] != [str(i) for i in range(len(module))]:
            inner = ", ".join(
                f"{name!r}: {_layer_source(child, where)}"
                for name, child in module.named_children()
            )
            return f"nn.Sequential(OrderedDict({{{inner}}}))"
        inner = textwrap.indent(
            "".join(f"{_layer_source(child, where)},\n" for child in module), "    "
        )
        return f"nn.Sequential(\n{inner})"
    values = ", ".join(
        f"{name}={_literal(value, module, where)}" for name, value in _settings(module, where)
    )
    return f"nn.{type(module).__name__}({values})"


def _parameters(module: nn.Module) -> dict[str, inspect.Parameter]:
    """Return what a layer's constructor takes, as far as it says what is computed."""
    made_by: type[nn.Module] = type(module)
    passed_over = {"self", "device", "dtype"}
    if isinstance(module, nn.RNNBase):  # LSTM and GRU pass on what they are given.
        made_by, passed_over = nn.RNNBase, {*passed_over, "mode"}
    return {
        name: parameter
        for name, parameter in inspect.signature(made_by.__init__).parameters.items()
        if name not in passed_over and parameter.kind not in _VARIADIC
    }


def _settings(module: nn.Module, where: str) -> Iterator[tuple[str, Any]]:
    """Yield the arguments of a layer of torch.nn that are not its defaults.

    Such a layer keeps every argument under its own name, but for tensors that it may do without
    (``bias``), and for those of `_KEPT_ELSEWHERE`. Their printed form is no source: it leaves
    arguments out.
    """
    elsewhere = _KEPT_ELSEWHERE.get(type(module), {})
    for name, parameter in _parameters(module).items():
        if name not in elsewhere and not hasattr(module, name):
            raise ExportFailed(f"{where}: nn.{type(module).__name__} does not tell its {name!r}")
        value = elsewhere[name](module) if name in elsewhere else getattr(module, name)
        if name == "bias" and not isinstance(value, bool):
            value = value is not None
        default = parameter.default
        spread = isinstance(value, tuple) and isinstance(default, int) and set(value) == {default}
        same = value == default and type(value) is type(default)
        if not same and not spread:
            yield name, value


def _literal(value: Any, module: nn.Module, where: str) -> str:
    parts = value if isinstance(value, tuple) else (value,)
    for part in parts:
        plain = part is None or isinstance(part, bool | int | str)
        if not plain and not (isinstance(part, float) and math.isfinite(part)):
            raise ExportFailed(
                f"{where}: nn.{type(module).__name__} holds {type(part).__name__}, no plain value"
            )
    return repr(value)


def _check_all_used(network: nn.Module, graph: fx.Graph) -> None:
    """Refuse weights that the file would have no place for."""
    used = {str(node.target) for node in graph.nodes if node.op in {"call_module", "get_attr"}}
    unused = [
        name
        for name in network.state_dict()
        if name not in used and not name.startswith(tuple(f"{target}." for target in used))
    ]
    if unused:
        raise ExportFailed(f"its forward pass does not use {', '.join(sorted(unused))}")


def rebuilt(network: nn.Module, source: Source) -> nn.Module:
    """Return a network anew: every layer built from what its source says, with its weights.

    Raises
    ------
    ExportFailed
        If its source does not make it again.
    """
    try:
        return _built_anew(network, source)
    # A layer of torch.nn may have been changed (by a hook that makes its weight, say).
    except (TypeError, ValueError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ExportFailed(
            f"its layers cannot be made from what they tell: {type(error).__name__}: {first}"
        ) from error


def _built_anew(network: nn.Module, source: Source) -> nn.Module:
    values: dict[str, Any] = {}
    for node in source.graph.nodes:
        target = str(node.target)
        if node.op == "call_module":
            values[target] = _rebuilt(network.get_submodule(target), target)
        elif node.op == "get_attr":
            owner, _, name = target.rpartition(".")
            values[target] = copy.deepcopy(getattr(network.get_submodule(owner), name))
    again = fx.GraphModule(values, source.graph).eval()
    again.load_state_dict(network.state_dict())
    return again


def _rebuilt(module: nn.Module, where: str) -> nn.Module:
    if type(module) is nn.Sequential:
        made = nn.Sequential()
        for name, child in module.named_children():
            made.add_module(name, _rebuilt(child, where))
        return made
    return type(module)(**dict(_settings(module, where)))


def _imports(layers: Sequence[str], forward: str, named: Mapping[str, Any]) -> list[str]:
    """Return the import lines of what the file uses.

    Raises
    ------
    ExportFailed
        If the forward pass calls what is neither torch's nor Python's own.
    """
    # fx offers names that most code does not use.
    used = {name: value for name, value in named.items() if re.search(rf"\b{name}\b", forward)}
    unknown = {name: value for name, value in used.items() if _import(name, value) is None}
    if unknown:
        said = sorted(getattr(value, "__name__", name) for name, value in unknown.items())
        raise ExportFailed(f"its forward pass calls what is not torch's: {', '.join(said)}")
    needed = {_import(name, value) or "" for name, value in used.items()}
    if any("OrderedDict(" in line for line in layers):
        needed.add("from collections import OrderedDict")
    standard = {"from pathlib import Path", *(line for line in needed if "torch" not in line)}
    torches = ["import torch", "from safetensors.torch import load_file", "from torch import nn"]
    further = sorted(line for line in needed if "torch" in line and line not in torches)
    return [*sorted(standard - {""}), "", *torches, *further]


def _import(name: str, value: Any) -> str | None:
    """Return the line that imports what a forward pass names; None where that is refused."""
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    if name in _BUILTINS and value is getattr(builtins, name):
        return ""
    module = getattr(value, "__module__", "").lstrip("_")
    own = getattr(value, "__name__", "")
    if module in _STANDARD and getattr(_STANDARD[module], own, None) is value:
        return f"from {module} import {own} as {name}"
    return None

"""What a run delivers of its network: a plain-PyTorch file that needs no nasengine.

The file is written from the network as `torch.fx` traces it: its layers of `torch.nn` with their
settings, and its forward pass. Before it is written, the layers are built anew from exactly what
the file will say, and must give the network's own outputs.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from nasengine.delivery.usage import usage_constants, usage_docstring, usage_functions
from nasengine.errors import NasengineError
from nasengine.files import write_atomically

_TOLERANCE = 1e-3
"""Largest difference to torch, relative to the largest output, of a model that is delivered."""

_MODULES = {"torch": "import torch", "math": "import math", "operator": "import operator"}
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_CONSTANTS = {
    "inf": "from math import inf",
    "nan": "from math import nan",
    "device": "from torch import device",
    "NoneType": "from types import NoneType",
}


class ExportFailed(NasengineError):
    """A network cannot be written in a form; the run's other results are not touched."""


def checked_difference(outputs: Tensor, wanted: Tensor, what: str) -> float:
    """Return the largest difference of outputs; refuse a model in which it is too large."""
    difference = float((outputs - wanted).abs().max())
    allowed = _TOLERANCE * max(1.0, float(wanted.abs().max()))
    if not difference <= allowed:
        raise ExportFailed(f"{what} differs from the network by {difference:.3g}")
    return difference


def example(input_shape: Sequence[int]) -> Tensor:
    """Return three random samples: one or two could pass for a broadcast dimension."""
    return torch.rand(3, *input_shape, generator=torch.Generator().manual_seed(0))


def export_python(
    network: nn.Module, input_shape: Sequence[int], path: Path, facts: Mapping[str, Any]
) -> str:
    """Write a network as a plain-PyTorch file; it loads ``weights.safetensors`` beside it.

    Parameters
    ----------
    network
        Any module that `torch.fx` can trace.
    input_shape
        (C, H, W) of one sample.
    path
        The file to write.
    facts
        From `usage_facts`: how it is used.

    Returns
    -------
    Why it could not be written; empty when it was.
    """
    try:
        write_atomically(path, python_source(network, input_shape, facts))
    except ExportFailed as error:
        return f"no {path.name}: {error}"
    return ""


def python_source(network: nn.Module, input_shape: Sequence[int], facts: Mapping[str, Any]) -> str:
    """Return a network as Python source, whose class ``Network`` holds only torch.

    Raises
    ------
    ExportFailed
        Naming what cannot be traced or written.
    """
    network = network.cpu().eval()
    tracer = _Tracer()
    try:
        graph = tracer.trace(network)
    # Tracing runs the network's own code, which may raise anything.
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ExportFailed(f"torch.fx cannot trace it: {type(error).__name__}: {first}") from error
    lines = list(_definitions(network, graph))
    _verify(network, graph, input_shape)
    return _file(graph, lines, input_shape, facts)


class _Tracer(fx.Tracer):
    """Traces into everything but layers of torch.nn and plain sequences of them."""

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
        raise ExportFailed(f"{target} is a tensor that the weights do not hold")
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


def _settings(module: nn.Module, where: str) -> Iterator[tuple[str, Any]]:
    """Yield the arguments of a layer of torch.nn that are not its defaults.

    Such a layer keeps every argument under its own name, but for tensors that it may do without
    (``bias``). Their printed form is no source: it leaves arguments out.
    """
    for name, parameter in inspect.signature(type(module).__init__).parameters.items():
        if name in {"self", "device", "dtype"} or parameter.kind in _VARIADIC:
            continue
        if not hasattr(module, name):
            raise ExportFailed(f"{where}: nn.{type(module).__name__} does not tell its {name!r}")
        value = getattr(module, name)
        if name == "bias":
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


def _verify(network: nn.Module, graph: fx.Graph, input_shape: Sequence[int]) -> None:
    """Build every layer anew from its settings, and compare outputs."""
    values: dict[str, Any] = {}
    for node in graph.nodes:
        target = str(node.target)
        if node.op == "call_module":
            values[target] = _rebuilt(network.get_submodule(target), target)
        elif node.op == "get_attr":
            owner, _, name = target.rpartition(".")
            values[target] = copy.deepcopy(getattr(network.get_submodule(owner), name))
    again = fx.GraphModule(values, graph).eval()
    unused = sorted(set(network.state_dict()) - set(again.state_dict()))
    if unused:
        raise ExportFailed(f"its forward pass does not use {', '.join(unused)}")
    again.load_state_dict(network.state_dict())
    inputs = example(input_shape)
    with torch.inference_mode():
        checked_difference(again(inputs), network(inputs), "the source")


def _rebuilt(module: nn.Module, where: str) -> nn.Module:
    if type(module) is nn.Sequential:
        made = nn.Sequential()
        for name, child in module.named_children():
            made.add_module(name, _rebuilt(child, where))
        return made
    return type(module)(**dict(_settings(module, where)))


def _file(
    graph: fx.Graph, lines: Sequence[str], input_shape: Sequence[int], facts: Mapping[str, Any]
) -> str:
    code = graph.python_code("self")
    # fx offers names that most code does not use.
    used = {name for name in code.globals if re.search(rf"\b{name}\b", code.src)}
    unknown = sorted(used - set(_MODULES) - set(_CONSTANTS))
    if unknown:
        raise ExportFailed(f"its forward pass calls what is not torch's: {', '.join(unknown)}")
    # fx frees every value after its last use, on the same line.
    body = re.sub(r";  (\w+ = )+None", "", code.src)
    imports = [
        *(
            ["from collections import OrderedDict"]
            if any("OrderedDict" in x for x in lines)
            else []
        ),
        *(line for name, line in {**_MODULES, **_CONSTANTS}.items() if name in used - {"torch"}),
        "from pathlib import Path",
        "",
        "import torch",
        "from safetensors.torch import load_file",
        "from torch import nn",
    ]
    shape = ", ".join(str(size) for size in input_shape)
    return _TEMPLATE.format(
        imports="\n".join(imports),
        layers=textwrap.indent("\n".join(lines), " " * 8),
        forward=textwrap.indent(body.strip(), " " * 4),
        shape=shape,
        docs=usage_docstring(facts),
        constants=usage_constants(facts),
        functions=usage_functions(facts),
    )


_TEMPLATE = '''"""A network that nasengine trained, in plain PyTorch (torch, safetensors).

{docs}
"""

{imports}

{constants}
class Network(nn.Module):
    def __init__(self):
        super().__init__()
{layers}

{forward}


def load(weights=Path(__file__).with_name("weights.safetensors")):
    """Return the trained network, in evaluation mode."""
    network = Network()
    network.load_state_dict(load_file(weights))
    return network.eval()
{functions}

if __name__ == "__main__":
    print(tuple(load()(torch.zeros(1, {shape})).shape))
'''

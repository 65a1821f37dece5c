"""What a run delivers of its network: a plain-PyTorch file that needs no nasengine.

The file is written from the network as `torch.fx` traces it: its layers of `torch.nn` with their
settings, and its forward pass. Before it is written, the layers are built anew from exactly what
the file will say, and must give the network's own outputs.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nasengine.delivery.source import Source, rebuilt
from nasengine.delivery.usage import usage_constants, usage_docstring, usage_functions
from nasengine.errors import ExportFailed
from nasengine.exporting.checked import checked_difference, example
from nasengine.files import write_atomically


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
    source = Source.of(network)
    inputs = example(input_shape)
    with torch.inference_mode():
        checked_difference(rebuilt(network, source)(inputs), network(inputs), "the source")
    return _TEMPLATE.format(
        docs=usage_docstring(facts),
        imports="\n".join(source.imports),
        constants=usage_constants(facts),
        layers=textwrap.indent("\n".join(source.layers), " " * 8),
        forward=textwrap.indent(source.forward, " " * 4),
        functions=usage_functions(facts),
        shape=", ".join(str(size) for size in input_shape),
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

"""The ways to run a network at inference, each made into one call to be timed."""

from __future__ import annotations

import contextlib
import copy
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nasengine.errors import EstimationFailed, ExportFailed
from nasengine.exporting.int8 import quantized
from nasengine.exporting.onnx_model import exported, session
from nasengine.files import machine_folder
from nasengine.machine import model_name, threads
from nasengine.network import calling
from nasengine.randomness import torch_seed

from ._heap import kept_heap
from ._turns import in_turn

if TYPE_CHECKING:
    from nasengine.search import Search

EngineName = Literal["eager", "compile", "onnxruntime"]
RuntimePrecision = Literal["fp32", "int8"]


@dataclass(frozen=True)
class Setup:
    """How a network is run.

    Parameters
    ----------
    engine
        What executes it.
    device
        ``cpu``, ``cuda``, ``cuda:1``.
    batch
        Samples a run.
    threads
        Threads on the CPU.
    fold_batch_norm
        Whether batch norms become part of the convolution before them.
    channels_last
        Whether tensors are (N, H, W, C) in memory.
    precision
        Of weights and activations.
    """

    engine: EngineName
    device: str
    batch: int
    threads: int
    fold_batch_norm: bool
    channels_last: bool
    precision: RuntimePrecision = "fp32"


@contextlib.contextmanager
def measuring(search: Search, setup: Setup) -> Iterator[None]:
    """Hold the machine for one measurement: threads as set up, no gradients, the heap kept.

    Two measurements at once would each measure the other, in whichever processes they are.
    """
    turn = machine_folder() / "latency.lock"
    turned = in_turn(turn, search, "latency")
    with turned, torch.inference_mode(), kept_heap(), threads(setup.threads):
        yield


def prepare(network: nn.Module, setup: Setup, *shapes: Sequence[int]) -> Callable[[], object]:
    """Return a call that runs a network once on a batch of samples.

    Call it, and this, inside `measuring`.

    Parameters
    ----------
    network
        A network, or a module of one.
    setup
        How it is run.
    *shapes
        (C, H, W) of a sample, or of each of several that it is called with.

    Raises
    ------
    EstimationFailed
        If the engine cannot take this network, with its reason.
    """
    return prepared(network, setup, inputs_of(setup, *shapes))


def inputs_of(setup: Setup, *shapes: Sequence[int]) -> list[Tensor]:
    """Return a batch of random samples, or several."""
    with torch_seed(0, "latency", "input") as generator:
        return [
            _laid_out(torch.rand((setup.batch, *shape), generator=generator), setup)
            for shape in shapes
        ]


def prepared(network: nn.Module, setup: Setup, inputs: Sequence[Tensor]) -> Callable[[], object]:
    """Return a call that runs a network once on what is given; else as `prepare`."""
    network = network.eval().to(setup.device)
    if setup.fold_batch_norm:
        network = fold(network, len(inputs))
    if setup.channels_last and any(x.ndim == 4 for x in inputs):
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if setup.engine == "onnxruntime":
        return _onnxruntime(network, inputs, setup)
    if setup.engine == "compile":
        return _compiled(network, inputs)
    return lambda: network(*inputs)


def _laid_out(x: Tensor, setup: Setup) -> Tensor:
    x = x.to(setup.device)
    if setup.channels_last and x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x


def fold(network: nn.Module, inputs: int = 1) -> nn.Module:
    """Return a copy in which each batch norm is part of the convolution that it alone reads.

    Parameters
    ----------
    network
        A network, or a module of one.
    inputs
        How many tensors it is called with.

    Raises
    ------
    EstimationFailed
        If the network's control flow depends on its data, so that no graph can be read from it.
    """
    try:
        traced = fx.symbolic_trace(calling(copy.deepcopy(network), inputs))
    except Exception as error:
        raise EstimationFailed(
            f"latency: fold_batch_norm cannot trace the network: {type(error).__name__}: {error}"
        ) from error
    for convolution, norm in _pairs(traced):
        name = str(convolution.target)
        first, second = traced.get_submodule(name), traced.get_submodule(str(norm.target))
        traced.add_submodule(name, fuse_conv_bn_eval(first, second))  # type: ignore[type-var, arg-type]
        norm.replace_all_uses_with(convolution)
        traced.graph.erase_node(norm)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _pairs(traced: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Return the convolutions that run once and are read by a batch norm alone, with it."""
    runs = Counter(node.target for node in traced.graph.nodes)
    found: list[tuple[fx.Node, fx.Node]] = []
    for node in traced.graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node):
            continue
        alone = len(before.users) == 1 and runs[before.target] == 1
        if before.op == "call_module" and alone and _folds(traced, before, node):
            found.append((before, node))
    return found


def _folds(traced: fx.GraphModule, before: fx.Node, node: fx.Node) -> bool:
    first, second = (traced.get_submodule(str(n.target)) for n in (before, node))
    return (
        isinstance(first, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        and isinstance(second, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
        and second.track_running_stats
    )


def _compiled(network: nn.Module, inputs: Sequence[Tensor]) -> Callable[[], object]:
    compiled: Callable[..., object] = torch.compile(network, dynamic=False)
    try:
        compiled(*inputs)
    except Exception as error:
        line = str(error).strip().splitlines()[:1]
        raise EstimationFailed(
            f"latency: torch.compile failed: {type(error).__name__}: {''.join(line)}"
        ) from error
    return lambda: compiled(*inputs)


def _onnxruntime(
    network: nn.Module, inputs: Sequence[Tensor], setup: Setup
) -> Callable[[], object]:
    inputs = [x.cpu().contiguous() for x in inputs]
    try:
        model = exported(network.cpu(), inputs)
        # Inputs that a module does not use are among them.
        names = [given.name for given in model.graph.input]
        feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        if setup.precision == "int8":
            model = quantized(model, [feed])
    except ExportFailed as error:
        raise EstimationFailed(f"latency: as ONNX: {error}") from error
    runs = session(model.SerializeToString(), threads=setup.threads, device=setup.device)
    return lambda: runs.run(None, feed)


def device_name(device: str) -> str:
    """Name the processor, as a table of latencies should."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return model_name() or platform.processor() or platform.machine()

"""A step of training as one CUDA graph: recorded once, then launched as a whole.

A step of a supernet is two thousand small kernels, and a GPU waits most of the time for Python to
launch the next. A graph launches all of them at once, with the same arithmetic, and candidates
that do not wait for one another run side by side in it (CUDA C++ Programming Guide, "CUDA
Graphs"; `torch.cuda.graphs`).
"""

from __future__ import annotations

import random
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count, cycle
from types import FunctionType, ModuleType
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

R = TypeVar("R")

_AS_WRITTEN = 2
"""Calls before one is recorded: libraries load kernels, optimisers make their state."""
_LANES = 8
"""Streams that `side_by_side` has in a graph; candidates of one slot are rarely more."""

_GENERATORS = (random._inst, np.random.mtrand._rand, torch.default_generator)
"""What `random`, `numpy.random` and `torch` draw from on the processor."""

_lanes: ContextVar[tuple[torch.cuda.Stream, ...]] = ContextVar("lanes", default=())


def side_by_side(calls: Iterable[Callable[[], R]]) -> Iterator[R]:
    """Return what calls that do not wait for one another return, in their order.

    One by one, each when it is asked for; while a graph is recorded, side by side in it.

    Examples
    --------
    >>> list(side_by_side([lambda: 1, lambda: 2]))
    [1, 2]
    """
    lanes = _lanes.get()
    if not lanes:
        yield from (call() for call in calls)
        return
    main, found = torch.cuda.current_stream(), []
    for call, lane in zip(calls, cycle(lanes), strict=False):
        lane.wait_stream(main)
        with torch.cuda.stream(lane):
            found.append(call())
    for lane in lanes[: len(found)]:
        main.wait_stream(lane)
    yield from found


class Recorder:
    """Runs steps of a module's training, on a GPU as graphs that it recorded.

    A step runs as written at first. Where that shows that it cannot be replayed, because it waits
    for the GPU, draws on the processor, or changes what is no tensor, it runs so for good. A replay
    draws from the GPU's generator as a call does. The graphs share memory.

    Parameters
    ----------
    watched
        What the steps run, such as a network and its task: watched for state that is no tensor.
    device
        ``cuda...``, or ``cpu``, where every step runs as written.
    tell
        Told why a step cannot be replayed.

    Examples
    --------
    >>> Recorder([nn.Identity()], "cpu", print).run(lambda x: 2 * x, torch.ones(2))
    tensor([2., 2.])
    """

    def __init__(
        self, watched: Sequence[object], device: str, tell: Callable[[str], object]
    ) -> None:
        self.watched = watched
        self.tell = tell
        # By function, not by bound method: who runs steps would never be freed.
        self.graphs: dict[Any, Graph[Any]] = {}
        self._runs: Counter[Any] = Counter()
        self._read: list[Tensor] = []
        self._hindered = False
        self.stream: torch.cuda.Stream | None = None
        if device.startswith("cuda"):
            with torch.cuda.device(device):
                self.stream, *lanes = map(torch.cuda.Stream, [torch.device(device)] * (1 + _LANES))
                self.lanes = tuple(lanes)
                self.pool = torch.cuda.graph_pool_handle()

    def run(self, step: Callable[..., R], *inputs: Any) -> R:
        """Return what a step returns; the next one may overwrite it.

        Parameters
        ----------
        step
            A function or a method, that takes and returns tensors or nests of them.
        inputs
            All that changes from call to call, but for tensors that are changed in place.
        """
        if self.stream is None:
            return step(*inputs)
        # All on one stream: gradients are summed on the stream that first saw the weights.
        with _on(self.stream):
            return self._run(step, getattr(step, "__func__", step), inputs)

    def _run(self, step: Callable[..., R], key: Any, inputs: tuple[Any, ...]) -> R:
        if self._hindered:
            return step(*inputs)
        if self._runs[key] < _AS_WRITTEN:
            self._runs[key] += 1
            with _hindrances(self.watched) as found:
                outputs = step(*inputs)
            if found:
                self._give_up(found[0])
            return outputs
        if key not in self.graphs:
            try:
                self.graphs[key] = self.record(step, inputs)
                self._read += _held(self.watched)
            except RuntimeError as error:
                self._give_up(f"recording one fails: {error}".partition("\n")[0])
        # Not where the error is caught: it keeps what was recorded, up to there, in memory.
        graph: Graph[R] | None = self.graphs.get(key)
        return step(*inputs) if graph is None or not graph.fits(inputs) else graph.replay(inputs)

    def _give_up(self, why: str) -> None:
        self._hindered = True
        self.tell(f"steps are launched kernel by kernel, not as one graph: {why}")

    def record(self, step: Callable[..., R], inputs: Any) -> Graph[R]:
        """Record the kernels of a step on the current stream, without running them."""
        leaves, form = tree_flatten(inputs)
        own = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        graph, kept = torch.cuda.CUDAGraph(), tree_unflatten(own, form)
        token = _lanes.set(self.lanes)
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=torch.cuda.current_stream()):
                outputs = step(*kept)
        finally:
            _lanes.reset(token)
        return Graph(graph.replay, kept, outputs)


def run_until_recorded(run: Callable[[], object]) -> None:
    """Run steps until a GPU has recorded them: what comes then takes its usual time."""
    for _ in range(_AS_WRITTEN + 1):
        run()


class Graph(Generic[R]):
    """What was recorded: kernels that read and write the same memory in every replay.

    Parameters
    ----------
    launch
        Runs the kernels.
    inputs
        What they read.
    outputs
        What they write.
    """

    def __init__(self, launch: Callable[[], object], inputs: Any, outputs: R) -> None:
        self._launch = launch
        self._inputs, self._form = tree_flatten(inputs)
        self._outputs = outputs

    def fits(self, inputs: Any) -> bool:
        """Say whether inputs differ from the recorded ones in the tensors' values alone."""
        leaves, form = tree_flatten(inputs)
        return form == self._form and all(map(_alike, leaves, self._inputs))

    def replay(self, inputs: Any) -> R:
        """Run on other inputs."""
        for own, given in zip(self._inputs, tree_flatten(inputs)[0], strict=True):
            if isinstance(own, Tensor):
                own.copy_(given)
        self._launch()
        return self._outputs


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype
    return type(one) is type(other) and bool(one == other)


@contextmanager
def _on(stream: torch.cuda.Stream) -> Iterator[None]:
    """Run on a stream, after what came before and before what comes after."""
    outer = torch.cuda.current_stream(stream.device)
    stream.wait_stream(outer)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        outer.wait_stream(stream)


@contextmanager
def _hindrances(watched: Sequence[object]) -> Iterator[list[str]]:
    """List what happens inside that a replay would leave out, or that cannot be recorded."""
    found: list[str] = []
    drawn, before = list(map(_state, _GENERATORS)), _states(watched)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _telling_of_waits():
            yield found
    for warning in caught:
        if "synchronizing CUDA operation" in str(warning.message):
            found.append(f"{warning.filename}:{warning.lineno} waits for the GPU")
        elif "debug mode is a prototype" not in str(warning.message):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if list(map(_state, _GENERATORS)) != drawn:
        found.append("random numbers are drawn on the processor")
    found.extend(
        f"{name} changes" for name, state in _states(watched).items() if before.get(name) != state
    )


@contextmanager
def _telling_of_waits() -> Iterator[None]:
    """Let torch warn wherever Python waits for the GPU."""
    kept = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(kept)


def _held(watched: Sequence[object]) -> list[Tensor]:
    """Return the tensors that objects hold: kernels that are replayed read them where they lie.

    A module may let one go, such as positions that it makes anew for images of another size.
    """
    return [value for _, value in _inside(watched) if isinstance(value, Tensor)]


def _states(watched: Sequence[object]) -> dict[str, str]:
    """Return, by name, what objects hold that is no tensor, as it stands now."""
    states = ((name, _state(value)) for name, value in _inside(watched))
    return {name: state for name, state in states if state is not None}


def _state(value: object) -> str | None:
    """Return what a number, a text, a counter, an array or a generator holds; None of others."""
    state: Any = None
    if isinstance(value, (bool, int, float, complex, str, bytes, count)):
        state = value
    elif isinstance(value, np.ndarray):
        state = value.tobytes()
    elif isinstance(value, random.Random):
        state = value.getstate()
    elif isinstance(value, np.random.Generator):
        state = value.bit_generator.state
    elif isinstance(value, np.random.RandomState):
        state = [np.asarray(part).tolist() for part in value.get_state()]
    elif isinstance(value, torch.Generator) and value.device.type == "cpu":
        state = value.get_state().tolist()
    return None if state is None else repr(state)


def _inside(watched: Sequence[object]) -> Iterator[tuple[str, object]]:
    """Name all that objects hold, and that what they hold holds, each once."""
    seen: set[int] = set()
    waiting = [(type(one).__name__, one) for one in watched]
    while waiting:
        path, owner = waiting.pop()
        if id(owner) not in seen:
            seen.add(id(owner))
            parts = [(f"{path}.{name}", part) for name, part in _parts(owner)]
            yield from parts
            waiting += parts


def _parts(owner: Any) -> Iterator[tuple[object, object]]:
    """Name what an object holds by itself; of torch's own ones, modules alone are looked into."""
    if isinstance(owner, Mapping):
        yield from owner.items()
    elif isinstance(owner, (list, tuple, deque)):
        yield from enumerate(owner)
    elif isinstance(owner, nn.Module):
        registered = {"_modules", "_parameters", "_buffers"}
        for name, part in vars(owner).items():
            yield from part.items() if name in registered else [(name, part)]
    elif hasattr(owner, "__dict__") and not _is_code(owner):
        yield from vars(owner).items()
        yield from (getattr(owner, "__pydantic_private__", None) or {}).items()


def _is_code(owner: object) -> bool:
    of_torch = type(owner).__module__.partition(".")[0] == "torch"
    return of_torch or isinstance(owner, (type, ModuleType, FunctionType))

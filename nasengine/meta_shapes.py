"""Modules and shapes on meta tensors: no contents, and without torch's own rules in Python.

torch's rules for these load its compiler and sympy at their first use, which takes longer than all
that a check of a spec does besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nasengine.randomness import kept_generators

M = TypeVar("M", bound=nn.Module)

_ELEMENTWISE = frozenset(
    [
        "relu",
        "sigmoid",
        "tanh",
        "silu",
        "gelu",
        "elu",
        "leaky_relu",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "softplus",
        "mish",
        "neg",
        "exp",
        "log",
        "sqrt",
        "add",
        "sub",
        "mul",
        "div",
        "addcmul",
    ]
)
_NORMS = frozenset(
    ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
)


_INITIALISERS = frozenset([init.kaiming_uniform_, init.uniform_, init.normal_, init.constant_])


@contextmanager
def on_meta() -> Iterator[None]:
    """Make modules on the meta device inside; what would fill their tensors is passed over.

    Examples
    --------
    >>> with on_meta():
    ...     torch.nn.Linear(2, 3).weight
    Parameter containing:
    tensor(..., device='meta', size=(3, 2), requires_grad=True)
    """
    with torch.device("meta"), _Unfilled():
        yield


def made_cheaply(make: Callable[[], M]) -> M:
    """Make a module on the meta device, or in memory where its constructor needs values."""
    try:
        with on_meta():
            return make()
    except Exception:  # noqa: BLE001 in memory it works, or it says best what is wrong
        with kept_generators():
            return make()


def made_on_meta(make: Callable[[], M]) -> M:
    """Make a module whose tensors are all on the meta device.

    Examples
    --------
    >>> made_on_meta(lambda: torch.nn.Dropout(torch.tensor(0.5).item()))
    Dropout(p=0.5, inplace=False)
    """
    return made_cheaply(make).to("meta")


class _Unfilled(TorchFunctionMode):
    """Passes over the initialisation of meta tensors, half of what making a module takes."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the tensor as it is."""
        given = kwargs or {}
        if func in _INITIALISERS and given["tensor"].is_meta:
            return given["tensor"]
        return func(*args, **given)


class UncompiledMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that does not load torch's compiler to be kept out of what is compiled."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class MetaShapes(UncompiledMode):  # type: ignore[no-untyped-call]
    """Answers operations on meta tensors by their shapes; what it has no rule for is torch's.

    So is whatever does not fit: torch says best what is wrong.

    Examples
    --------
    >>> with MetaShapes():
    ...     torch.nn.functional.relu(torch.empty(2, 3, 8, 8, device="meta")).shape
    torch.Size([2, 3, 8, 8])
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return what an operation gives, without contents."""
        name = func._overloadpacket.__name__
        rule = _RULES.get(name.removesuffix("_"))
        given = args[0] if name == "cat" else args
        tensors = [argument for argument in given if isinstance(argument, Tensor)]
        # How types are promoted is torch's to say.
        simple = all(t.is_meta and t.dtype is tensors[0].dtype for t in tensors)
        found = rule(args) if rule and tensors and simple and not kwargs else None
        if found is None:
            return func(*args, **(kwargs or {}))
        if not name.endswith("_"):
            return found
        return args[0] if found.shape == args[0].shape else func(*args)


class MacCount(UncompiledMode):  # type: ignore[no-untyped-call]
    """Counts the multiply-accumulates of convolutions and matrix products by torch's formulas.

    Attributes
    ----------
    macs
        So far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count it."""
        output = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.macs += formula(*args, **(kwargs or {}), out_val=output) // 2
        return output


def _elementwise(arguments: Sequence[Any]) -> Tensor | None:
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    first, *others = tensors
    fits = first.is_meta and first.is_floating_point()
    # All other broadcasting is torch's to do.
    fits = fits and all(t.shape in (first.shape, ()) for t in others)
    return _like(first) if fits else None


def _like(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def _empty(x: Tensor, *shape: int) -> Tensor:
    return x.new_empty(shape)


def _convolution(arguments: Sequence[Any]) -> Tensor | None:
    x, weight, _, stride, padding, dilation, transposed, _, groups = arguments
    fits = x.ndim == weight.ndim and x.shape[1] == weight.shape[1] * groups
    if transposed or not fits or not x.is_meta:
        return None
    sizes = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    sides = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in sizes]
    if min(sides) < 1:
        return None
    return _empty(x, x.shape[0], weight.shape[0], *sides)


def _max_pool(arguments: Sequence[Any]) -> tuple[Tensor, Tensor] | None:
    if not 3 <= len(arguments) <= 4:
        return None
    x, kernel, stride, padding = [*arguments, [0, 0]][:4]
    if x.ndim != 4 or len(kernel) + len(padding) != 4:
        return None
    sizes = zip(x.shape[2:], kernel, stride or kernel, padding, strict=True)
    sides = [(size + 2 * p - k) // s + 1 for size, k, s, p in sizes]
    if min(sides) < 1 or any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        return None
    shape = (*x.shape[:2], *sides)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


def _batch_norm(arguments: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor] | None:
    x, *others = arguments
    vectors = [t for t in others if isinstance(t, Tensor)]
    if any(t.shape != (x.shape[1],) for t in vectors):
        return None
    return _like(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


def _cat(arguments: Sequence[Any]) -> Tensor | None:
    tensors, axis = arguments[0], arguments[1] if len(arguments) > 1 else 0
    first = tensors[0]
    axis %= first.ndim
    like = {(t.dtype, t.device.type, *t.shape[:axis], *t.shape[axis + 1 :]) for t in tensors}
    if len(like) > 1 or not first.is_meta:
        return None
    size = sum(t.shape[axis] for t in tensors)
    return _empty(first, *first.shape[:axis], size, *first.shape[axis + 1 :])


def _upsample(arguments: Sequence[Any]) -> Tensor | None:
    x, size = arguments[:2]
    return _empty(x, *x.shape[:2], *size) if x.ndim == len(size) + 2 else None


_RULES: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "convolution": _convolution,
    "cat": _cat,
    "max_pool2d_with_indices": _max_pool,
    "upsample_bilinear2d": _upsample,
    "upsample_nearest2d": _upsample,
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_NORMS, _batch_norm),
}

"""Zero-cost proxies: a score of an untrained network from one batch. Higher is better.

Each is a function of (network, probe); the network is its own to change. Compared in Abdelfattah
et al. 2021, "Zero-cost proxies for lightweight NAS", which sums them over layers as is done here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ._norms import Deviations, WithoutNorms

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d)
_WEIGHTED = (*_CONVOLUTIONS, nn.ConvTranspose3d, nn.Linear)
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")

_RECTIFIERS = frozenset(
    (
        "relu",
        "hardtanh",  # ReLU6 too
        "leaky_relu",
        "rrelu_with_noise",
        "_prelu_kernel",
        "elu",  # SELU too
        "celu",
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "softplus",
    )
)
"""ATen's units that are on where what comes in is above 0, and off, or nearly so, below."""


@dataclass(frozen=True)
class Probe:
    """What a network is probed with.

    Parameters
    ----------
    inputs
        (N, C, H, W), a batch of the task's samples.
    loss
        From the network's outputs for them to a scalar.
    generator
        For proxies that draw inputs or weights, on the CPU.
    """

    inputs: Tensor
    loss: Callable[[Tensor], Tensor]
    generator: torch.Generator


def _weights(network: nn.Module) -> list[Tensor]:
    """Return the weights of convolutions, linear layers and attention's projections."""
    found = [m.weight for m in network.modules() if isinstance(m, _WEIGHTED)]
    for module in network.modules():
        if isinstance(module, nn.MultiheadAttention):
            given = [getattr(module, name) for name in _PROJECTIONS]
            found += [weight for weight in given if weight is not None]
    return found


def _gradients(scalar: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    if not weights:
        raise ValueError("the network has no convolution and no linear layer")
    found = torch.autograd.grad(scalar, weights, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]


def grad_norm(network: nn.Module, probe: Probe) -> float:
    """Sum the norms of the layers' gradients of the loss (Abdelfattah et al. 2021, section 3.1)."""
    weights = _weights(network)
    gradients = _gradients(probe.loss(network.train()(probe.inputs)), weights)
    return float(sum(gradient.double().norm().item() for gradient in gradients))


def snip(network: nn.Module, probe: Probe) -> float:
    """Sum |weight x gradient of the loss| (SNIP: Lee et al. 2019, equations 3 to 6)."""
    weights = _weights(network)
    gradients = _gradients(probe.loss(network.train()(probe.inputs)), weights)
    return _saliency(weights, gradients)


def synflow(network: nn.Module, probe: Probe) -> float:
    """Sum |weight x gradient of R|, R the outputs for ones (SynFlow: Tanaka et al. 2020, eq. 2).

    With the absolute values of all weights, in float64, normalisations left out, of which one
    that divides by its own input's deviation would let no change of a weight through.
    """
    network = network.double().eval()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.abs_()
    weights = _weights(network)
    ones = torch.ones_like(probe.inputs[:1], dtype=torch.float64)
    with WithoutNorms():
        return _saliency(weights, _gradients(network(ones).sum(), weights))


def _saliency(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> float:
    pairs = zip(weights, gradients, strict=True)
    return float(sum((w.detach() * g).abs().double().sum().item() for w, g in pairs))


class _Rectifiers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up in how many rectified units each two samples are alike: on or off in both."""

    def __init__(self, count: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alike = torch.zeros(count, count, dtype=torch.float64)
        self.seen = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func._overloadpacket.__name__.rstrip("_") in _RECTIFIERS:
            # Before it runs: it may write over what comes in.
            self._add(args[0])
        return func(*args, **(kwargs or {}))

    def _add(self, x: Tensor) -> None:
        if len(x) != len(self.alike):
            raise ValueError(
                f"a rectified unit reads a tensor of {tuple(x.shape)}, whose first axis is not the "
                f"{len(self.alike)} samples"
            )
        # Codes are products of 0 and 1: exact in float32 up to 2^24 units.
        code = (x.flatten(1) > 0).float()
        off = 1 - code
        self.alike += (code @ code.T + off @ off.T).double().cpu()
        self.seen += code.shape[1]


def naswot(network: nn.Module, probe: Probe) -> float:
    """Return log |det K|, K_ij = ReLUs alike on or off for samples i, j (Mellor et al. 2021).

    The paper's networks have ReLUs; of their kin (leaky, parametric, GELU, SiLU, ...) the sign of
    what comes in is the code too. Sigmoids and their like are no such units.

    Raises
    ------
    ValueError
        If the network has none.
    """
    counter = _Rectifiers(len(probe.inputs))
    with torch.no_grad(), counter:
        network.train()(probe.inputs)
    if not counter.seen:
        raise ValueError("the network has no ReLU, nor one of its kin (GELU, SiLU, PReLU, ...)")
    return float(torch.linalg.slogdet(counter.alike).logabsdet)


def jacob_cov(network: nn.Module, probe: Probe) -> float:
    """Return -sum(log v + 1 / v) over the eigenvalues v of the Jacobians' correlations.

    One row a sample: the gradient of the sum of its outputs by its input (Mellor et al. 2020,
    first version, equations 4 to 6).

    Raises
    ------
    ValueError
        If a gradient is constant, as that of a network without any activation.
    """
    inputs = probe.inputs.clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(network.train()(inputs).sum(), inputs)
    rows = jacobian.flatten(1).double()
    if (rows == rows[:, :1]).all(dim=1).any():
        raise ValueError("a sample's gradient is the same everywhere in it, and correlates not")
    correlations = torch.corrcoef(rows)
    if not correlations.isfinite().all():
        return math.nan
    values = torch.linalg.eigvalsh(correlations).clamp(min=0) + 1e-5
    return -float((values.log() + 1 / values).sum())


def zen(network: nn.Module, probe: Probe) -> float:
    """Return the Zen-score (Lin et al. 2021, algorithm 1): expressivity under Gaussian weights.

    log E|f(x) - f(x + 0.01 e)| plus, for each normalisation, the log of the deviation that it
    takes away. The paper has batch norms; for others the deviation is of what they normalise
    together. f are the last features that still have a height and a width.
    """
    with torch.no_grad():
        for weight in _weights(network):
            weight.copy_(torch.randn(weight.shape, generator=probe.generator))
        x = torch.randn(probe.inputs.shape, generator=probe.generator)
        other = x + 1e-2 * torch.randn(x.shape, generator=probe.generator)
        with Deviations() as deviations:
            features = _features(network.train(), x.to(probe.inputs.device))
        moved = _features(network, other.to(probe.inputs.device)) - features
        distance = moved.double().flatten(1).norm(dim=1).mean().item()
    return sum(math.log(d) if d > 0 else -math.inf for d in [distance, *deviations.found])


def _features(network: nn.Module, x: Tensor) -> Tensor:
    """Return the outputs; of a classifier, the last tensor before its global pooling."""
    maps: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            maps[:] = [output]

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        output: Tensor = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return output if output.ndim == 4 or not maps else maps[0]


PROXIES: Mapping[str, Callable[[nn.Module, Probe], float]] = {
    "grad_norm": grad_norm,
    "snip": snip,
    "synflow": synflow,
    "naswot": naswot,
    "jacob_cov": jacob_cov,
    "zen": zen,
}
"""Every proxy by its name in a spec."""

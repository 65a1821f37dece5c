"""From alphas to the mixtures that a supernet runs.

- ``softmax``: DARTS (Liu, Simonyan, Yang 2019, equation 2).
- ``none``: the alphas themselves, as the Light SDI-NAS paper prints it.
- ``gumbel``: softmax of perturbed alphas, SNAS (Xie et al. 2019); with one path, where only the
  sampled candidate runs and its gradient is the relaxation's, GDAS (Dong and Yang 2019).
- two paths: ProxylessNAS (Cai, Zhu, Han 2019, section 3.2): in the step of the alphas two sampled
  candidates run, gated by a sample between the two; in the step of the weights one sampled alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from nasengine.supernet import Mixture

Kind = Literal["softmax", "none", "gumbel"]
Alphas = Mapping[str, Tensor]
"""Decision to one number a choice: (choices,)."""


@dataclass(frozen=True)
class Relaxation:
    """How alphas become mixtures.

    Parameters
    ----------
    kind
        ``softmax``, ``none`` or ``gumbel``.
    paths
        How many candidates of a slot run at once: 0 for all, 1 or 2 sampled ones.
    """

    kind: Kind = "softmax"
    paths: int = 0

    def initial(self, choices: int) -> Tensor:
        """Return equal alphas: zeros, and 1 / choices where they are the weights themselves."""
        return torch.full((choices,), 1 / choices if self.kind == "none" else 0.0)

    def probabilities(self, alphas: Alphas, temperature: float | Tensor) -> dict[str, Tensor]:
        """Return the distribution over each decision's choices: what costs are expected under."""
        scale = temperature if self.kind == "softmax" else 1.0
        return {name: torch.softmax(alpha / scale, 0) for name, alpha in alphas.items()}

    def noise(self, alphas: Alphas, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw what a step needs: (2, choices) standard Gumbel numbers a decision, or nothing.

        Drawn once a step, so that the passes of a second-order step see the same mixture.
        """
        if self.kind == "none" or (self.kind == "softmax" and not self.paths):
            return {}
        return {
            name: -torch.empty(2, len(alpha)).exponential_(generator=generator).log().to(alpha)
            for name, alpha in alphas.items()
        }

    def mixtures(
        self,
        alphas: Alphas,
        noise: Mapping[str, Tensor],
        temperature: float | Tensor,
        *,
        for_weights: bool = False,
    ) -> dict[str, Mixture]:
        """Return one mixture a decision.

        Parameters
        ----------
        alphas
            By decision, (choices,).
        noise
            From `noise`.
        temperature
            Divides the logits.
        for_weights
            Whether the step trains the weights: one path of the softmax then, not two.
        """
        return {
            name: self._mixture(alpha, noise.get(name), temperature, for_weights)
            for name, alpha in alphas.items()
        }

    def _mixture(
        self, alpha: Tensor, noise: Tensor | None, temperature: float | Tensor, for_weights: bool
    ) -> Mixture:
        if self.kind == "none":
            return Mixture(alpha)
        if noise is None:
            return Mixture(torch.softmax(alpha / temperature, 0), positive=True)
        # The largest k of perturbed logits are a sample of k without replacement, of the
        # distribution that `probabilities` tells.
        perturbed = alpha / (temperature if self.kind == "softmax" else 1.0) + noise[0]
        soft = torch.softmax((perturbed if self.kind == "gumbel" else alpha) / temperature, 0)
        if self.paths == 0:
            return Mixture(soft, positive=True)
        paths = 1 if for_weights else self.paths
        drawn = torch.topk(perturbed.detach(), min(paths, len(alpha))).indices
        if len(drawn) == 1:
            return _gated(soft, drawn, 0)
        pair = torch.softmax(alpha[drawn] / temperature, 0)
        first = int((alpha[drawn].detach() / temperature + noise[1][:2]).argmax())
        return _gated(torch.zeros_like(alpha).index_put((drawn,), pair), drawn, first)


def _gated(soft: Tensor, drawn: Tensor, first: int) -> Mixture:
    """Return a one-hot mixture that has the gradient of the soft one (straight-through)."""
    hard = one_hot(drawn[first], len(soft)).to(soft)
    return Mixture(hard + soft - soft.detach(), tuple(drawn.tolist()))


def shifts(alphas: Alphas, strength: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw what the weights of candidates are moved by: uniform in -strength..strength.

    SmoothDARTS-RS (Chen and Hsieh 2020): weights trained under it do not come to rely on one
    exact mixture, which is what makes alphas collapse.
    """
    return {
        name: strength * (torch.rand(len(alpha), generator=generator) * 2 - 1).to(alpha)
        for name, alpha in alphas.items()
    }


def shifted(mixtures: Mapping[str, Mixture], by: Mapping[str, Tensor]) -> dict[str, Mixture]:
    """Move the weights of candidates by numbers from `shifts`."""
    return {
        name: mixture._replace(weights=mixture.weights + by[name], positive=False)
        for name, mixture in mixtures.items()
    }

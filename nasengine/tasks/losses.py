"""Losses of segmentation, as pure functions, in float32 whatever the network computes in.

Chen et al. 2023, "Lightweight Convolutional Neural Networks for Surface Defect Segmentation
based on Neural Architecture Search", equations (2) and (3).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nasengine.task import IGNORED


def dice_loss(probabilities: Tensor, targets: Tensor, epsilon: float = 1.0) -> Tensor:
    """Return 1 - (2 sum(p g) + eps) / (sum(p^2) + sum(g^2) + eps), equation (3).

    The sums run over the batch as well as over the pixels, so that an image without a defect
    does not decide the loss of its own.

    Parameters
    ----------
    probabilities
        Any shape, in 0 to 1.
    targets
        The same shape, in 0 to 1.
    epsilon
        Keeps the ratio defined where neither holds any foreground.

    Examples
    --------
    >>> perfect = torch.tensor([0.0, 1.0, 1.0])
    >>> dice_loss(perfect, perfect).item()
    0.0
    >>> round(dice_loss(1 - perfect, perfect, epsilon=0.0).item(), 3)
    1.0
    """
    overlap = (probabilities * targets).sum()
    total = probabilities.square().sum() + targets.square().sum()
    return 1 - (2 * overlap + epsilon) / (total + epsilon)


def _mean(losses: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of a loss a pixel over those that count; 0 where none does."""
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def binary_loss(
    logits: Tensor, targets: Tensor, dice: float, cross_entropy: float, epsilon: float
) -> Tensor:
    """Return the weighted sum of dice and binary cross-entropy, equation (2).

    Parameters
    ----------
    logits
        (N, 1, H, W).
    targets
        (N, H, W), int64, 0 or 1; `IGNORED` counts for nothing.
    dice, cross_entropy
        The weights; the paper's are 1 and 0.5.
    epsilon
        Of `dice_loss`.
    """
    logits = logits.float().squeeze(1)
    counted = (targets != IGNORED).to(logits.dtype)
    foreground = targets.to(logits.dtype) * counted
    losses = functional.binary_cross_entropy_with_logits(logits, foreground, reduction="none")
    found = dice_loss(logits.sigmoid() * counted, foreground, epsilon)
    return cross_entropy * _mean(losses, counted) + dice * found


def multiclass_loss(
    logits: Tensor, targets: Tensor, dice: float, cross_entropy: float, epsilon: float
) -> Tensor:
    """Return equation (2) for several classes: cross-entropy, and dice of each foreground class.

    The paper has binary problems only. Cross-entropy takes the place of its binary form, and
    dice is the mean of equation (3) over the foreground classes, of their soft-max.

    Parameters
    ----------
    logits
        (N, K, H, W).
    targets
        (N, H, W), int64, 0 (background) to K - 1; `IGNORED` counts for nothing.
    dice, cross_entropy
        The weights.
    epsilon
        Of `dice_loss`.
    """
    logits = logits.float()
    counted = (targets != IGNORED).to(logits.dtype)
    losses = functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    probabilities = logits.softmax(1) * counted.unsqueeze(1)
    classes = range(1, logits.shape[1])
    terms = [
        dice_loss(probabilities[:, index], (targets == index).to(logits.dtype), epsilon)
        for index in classes
    ]
    return cross_entropy * _mean(losses, counted) + dice * torch.stack(terms).mean()

"""What a measurement is worth, given what is believed of its outcome. Lower values are better.

- Jones, Schonlau and Welch, Efficient Global Optimization of Expensive Black-Box Functions, 1998.
- Emmerich, Deutz and Klinkenberg, Hypervolume-based Expected Improvement: Monotonicity Properties
  and Exact Computation, CEC 2011: with independent goals, a sum over the front's strips.
"""

from __future__ import annotations

import random

import numpy as np

from .features import Array


def expected_improvement(best: float | Array, mean: Array, deviation: Array) -> Array:
    """Return E[max(best - Y, 0)] for normal Y, broadcast."""
    from scipy.special import ndtr

    z = (best - mean) / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    gain: Array = deviation * (z * ndtr(z) + density)
    return gain


def expected_hypervolume_improvement(
    front: Array, reference: Array, mean: Array, deviation: Array
) -> Array:
    """Return by how much the hypervolume of a front of two goals is expected to grow.

    Parameters
    ----------
    front
        (points, 2): points of which none dominates another.
    reference
        (2,): the corner up to which volume counts.
    mean, deviation
        (candidates, 2): what is believed of each goal, independently.
    """
    front = front[np.lexsort((front[:, 1], front[:, 0]))]
    ends = np.append(front[:, 0], reference[0])
    levels = np.minimum(np.append(reference[1], front[:, 1]), reference[1])
    # In the strip between two points of the front, volume counts below the left one's level.
    first = expected_improvement(ends, mean[:, :1], deviation[:, :1])
    second = expected_improvement(levels, mean[:, 1:], deviation[:, 1:])
    width = np.diff(first, axis=1, prepend=0.0)
    gain: Array = (width * second).sum(axis=1)
    return gain


def expected_chebyshev_improvement(
    front: Array, mean: Array, deviation: Array, rng: random.Random, draws: int = 64
) -> Array:
    """Return the expected improvement of three or more goals under weights drawn for this once.

    The weighted Chebyshev distance to the front's ideal point (Knowles, ParEGO, 2006), with the
    expectation over draws that all candidates share.

    Parameters
    ----------
    front
        (points, goals).
    mean, deviation
        (candidates, goals): what is believed of each goal, independently.
    rng
        Draws weights and outcomes.
    draws
        Outcomes drawn a candidate.
    """
    generator = np.random.default_rng(rng.getrandbits(63))
    weights = generator.dirichlet(np.ones(front.shape[1]))
    ideal = front.min(axis=0)

    def distance(points: Array) -> Array:
        weighted = weights * (points - ideal)
        chebyshev: Array = weighted.max(axis=-1) + 0.05 * weighted.sum(axis=-1)
        return chebyshev

    noise = generator.standard_normal((draws, 1, front.shape[1]))
    outcomes = distance(mean + noise * deviation)
    gain: Array = np.maximum(distance(front).min() - outcomes, 0).mean(axis=0)
    return gain

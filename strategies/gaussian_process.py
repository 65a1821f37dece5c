"""A Gaussian process over architectures: exact, and small enough to be fitted at every proposal.

Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006, Algorithm 2.1.
The kernel is a sum of two: one falls with the number of decisions that differ (the exponential of
the Hamming distance), the other with the distance of the features of the whole network.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from .features import Array, Features

LENGTHS, WHOLES, NOISES = (0.1, 0.4, 1.5), (0.0, 0.3, 0.7), (0.01, 0.1)


@dataclass(frozen=True)
class Kernel:
    """The covariance of architectures.

    Parameters
    ----------
    length
        At which share of differing decisions the first part has fallen to 1/e.
    whole
        Weight of the part that compares whole networks; the other's is the rest to 1.
    noise
        Variance of the noise, in units of the kernel's.
    """

    length: float
    whole: float
    noise: float

    def __call__(self, a: Array, b: Array, features: Features) -> Array:
        """Return the covariances of rows with rows: (rows of a, rows of b)."""
        local, decisions = features.local, len(features.decisions)
        equal = a[:, :local] @ b[:, :local].T
        covariance = np.exp((equal - decisions) / (decisions * self.length))
        if self.whole:
            x, y = a[:, local:], b[:, local:]
            squared = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
            covariance *= 1 - self.whole
            covariance += self.whole * np.exp(-0.5 * np.maximum(squared, 0))
        return covariance


KERNELS = tuple(Kernel(*values) for values in product(LENGTHS, WHOLES, NOISES))


class Posterior:
    """What is believed of every architecture once some are measured.

    Parameters
    ----------
    kernel
        The covariance.
    rows
        Features of what was measured: (n, columns).
    values
        What was measured there: (n,), of mean about 0.
    features
        Tells which columns are which.
    """

    def __init__(self, kernel: Kernel, rows: Array, values: Array, features: Features) -> None:
        from scipy.linalg import cho_solve, cholesky

        covariance = kernel(rows, rows, features)
        covariance[np.diag_indices_from(covariance)] += kernel.noise
        self._kernel, self._rows, self._features = kernel, rows, features
        self._root = cholesky(covariance, lower=True, check_finite=False)
        self._weights = cho_solve((self._root, True), values, check_finite=False)
        self._variance = max(float(values @ self._weights) / len(values), 1e-12)

    @property
    def evidence(self) -> float:
        """Log marginal likelihood at the best overall variance, up to a constant."""
        count = len(self._weights)
        return float(-0.5 * count * np.log(self._variance) - np.log(np.diag(self._root)).sum())

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Return the mean and the standard deviation at rows of features: (rows,) each."""
        from scipy.linalg import solve_triangular

        covariance = self._kernel(rows, self._rows, self._features)
        half = solve_triangular(self._root, covariance.T, lower=True, check_finite=False)
        left = np.maximum(1 - (half**2).sum(axis=0), 1e-9)
        return covariance @ self._weights, np.sqrt(self._variance * left)


def likeliest_kernel(features: Features, rows: Array, values: Array) -> Kernel:
    """Return the kernel under which the measured values, (n,) at (n, columns), are likeliest."""
    return max(KERNELS, key=lambda kernel: Posterior(kernel, rows, values, features).evidence)

"""A Gaussian process over architectures: exact, and it grows with the trials.

Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006: Algorithm 2.1, and
section 5.4.1 for the choice of the kernel. What a row of features is: `features`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .features import Array, Features

STEPS = 15
"""Steps by which the likeliest kernel is sought; further ones change little."""


@dataclass(frozen=True)
class Kernel:
    r"""The covariance of architectures, a sum of five, whose shares make up 1.

    .. math::
        s_1 e^{-\sum_d w_d D_d(a, b)} + s_2 e^{-|u_a - u_b|^2 / 2 l^2} + s_3 A(a, b)
        + s_4 e^{-\sum_d w_d D'_d(a, b)} + s_5 A'(a, b)

    The first is for decisions that matter together: D_d is 0 where decision d agrees and 1 where
    it does not, and its weight w_d is how much it matters (automatic relevance determination).
    The second compares whole networks u; the third, the share A of the decisions that agree, is
    for decisions that each add their part. The last two are the first and the third once more, of
    decisions as they are written: dead ones count. They may be left out.

    Parameters
    ----------
    weights
        w, one a decision.
    length
        l, in units of the usual distance of two random networks.
    shares
        s, five or three that sum to 1.
    noise
        Variance of the noise, in units of the kernel's.
    """

    weights: tuple[float, ...]
    length: float
    shares: tuple[float, ...]
    noise: float

    def __call__(self, a: Array, b: Array, features: Features) -> Array:
        """Return the covariances of rows with rows: (rows of a, rows of b)."""
        local, end = features.local, features.local + features.whole
        covariance = self._decided(a[:, :local], b[:, :local], features.widths, *self.shares[:3:2])
        whole = np.exp(_squared(a[:, local:end], b[:, local:end]) * (-0.5 / self.length**2))
        whole *= self.shares[1]
        covariance += whole
        if len(self.shares) > 3:
            widths = [width - 1 for width in features.widths]
            covariance += self._decided(a[:, end:], b[:, end:], widths, *self.shares[3:])
        return covariance

    def _decided(
        self, a: Array, b: Array, widths: Sequence[int], together: float, each: float
    ) -> Array:
        """Return the covariances of decisions that matter together, and each on its own."""
        scale = np.sqrt(np.repeat(self.weights, widths))
        covariance: Array = np.exp(-0.5 * _squared(a * scale, b * scale))
        covariance *= together
        covariance += a @ (b.T * (each / len(self.weights)))
        return covariance

    def diagonal(self, rows: Array, features: Features) -> Array:
        """Return the covariance of each row with itself: (rows,)."""
        agreeing = (rows[:, : features.local] ** 2).sum(axis=1) / len(self.weights)
        variance: Array = 1 - self.shares[2] + self.shares[2] * agreeing
        return variance


def _squared(a: Array, b: Array) -> Array:
    """Return squared distances of rows to rows: (rows of a, rows of b)."""
    squared: Array = a @ (-2 * b.T)
    squared += (a**2).sum(axis=1)[:, None]
    squared += (b**2).sum(axis=1)
    return np.maximum(squared, 0, out=squared)


class Posterior:
    """What is believed of some architectures once others are measured.

    Both sets grow (`observe`, `ask`), and what was computed before is kept.

    Parameters
    ----------
    kernel
        The covariance.
    features
        Tells which columns are which.
    """

    def __init__(self, kernel: Kernel, features: Features) -> None:
        self._kernel, self._features = kernel, features
        columns = features.local + features.whole + features.written
        self._seen, self._asked = np.empty((0, columns)), np.empty((0, columns))
        # The Cholesky factor of the covariance of what was seen, and what it makes of that with
        # what was asked: L, and L^-1 k.
        self._root, self._half = np.empty((0, 0)), np.empty((0, 0))
        self._prior = np.empty(0)

    def observe(self, rows: Array) -> None:
        """Count rows of features, (n, columns), among those measured."""
        from scipy.linalg import cholesky

        below = self._solve(self._kernel(self._seen, rows, self._features)).T
        corner = self._kernel(rows, rows, self._features) - below @ below.T
        corner[np.diag_indices_from(corner)] += self._kernel.noise
        corner = cholesky(corner, lower=True, check_finite=False)
        further = self._kernel(rows, self._asked, self._features) - below @ self._half
        self._half = np.vstack([self._half, _solve(corner, further)])
        above = np.zeros((len(self._root), len(corner)))
        self._root = np.block([[self._root, above], [below, corner]])
        self._seen = np.vstack([self._seen, rows])

    def forget(self, kept: int) -> None:
        """Go back to the first so many of the rows measured."""
        self._seen, self._half = self._seen[:kept], self._half[:kept]
        self._root = self._root[:kept, :kept]

    def ask(self, rows: Array) -> None:
        """Count rows of features among those of which `predict` tells."""
        half = self._solve(self._kernel(self._seen, rows, self._features))
        self._half = np.hstack([self._half, half])
        self._prior = np.append(self._prior, self._kernel.diagonal(rows, self._features))
        self._asked = np.vstack([self._asked, rows])

    def _solve(self, right: Array) -> Array:
        return _solve(self._root, right)

    def predict(self, values: Array, columns: Sequence[int]) -> tuple[Array, Array]:
        """Return the means and the standard deviations of some that were asked: (columns,) each.

        Parameters
        ----------
        values
            What was measured at the first of the rows observed: (n,), of mean about 0. The others
            are believed to turn out as expected, which leaves the means as they are.
        columns
            Which of those asked, in their order.
        """
        known = len(values)
        weights = _solve(self._root[:known, :known], values)
        variance = max(float(weights @ weights) / known, 1e-12)
        half = self._half[:, columns]
        left = self._prior[columns] - np.einsum("ij,ij->j", half, half)
        mean: Array = weights @ half[:known]
        return mean, np.sqrt(variance * np.maximum(left, 1e-9))


def left_out_means(kernel: Kernel, rows: Array, values: Array, features: Features) -> Array:
    """Return what is expected of each row's value given all the others: (rows,).

    Rasmussen and Williams, equation 5.12.
    """
    from scipy.linalg import cho_factor, cho_solve

    covariance = kernel(rows, rows, features)
    covariance[np.diag_indices_from(covariance)] += kernel.noise
    inverse = cho_solve(cho_factor(covariance, lower=True), np.eye(len(rows)))
    means: Array = values - inverse @ values / np.diag(inverse)
    return means


def _solve(root: Array, right: Array) -> Array:
    from scipy.linalg import solve_triangular

    if not right.size:
        return right
    solved: Array = solve_triangular(root, right, lower=True, check_finite=False)
    return solved

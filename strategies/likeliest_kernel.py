"""The kernel under which what was measured is likeliest, by gradient.

Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006, equations 5.8 and
5.9, with the overall variance at its best value. Priors hold what few trials cannot tell near the
usual, so that nothing collapses: a maximum a posteriori.
"""

from __future__ import annotations

import numpy as np

from .features import Array, Features
from .gaussian_process import STEPS, Kernel

DIFFERENCE = 2.5
"""Sum of the weights of all decisions, by the prior: networks that agree nowhere are strangers."""

BOUNDS = {"weight": (-9.0, 4.0), "length": (-2.0, 2.0), "share": (-4.0, 4.0), "noise": (-8.0, 1.0)}
"""Of the logarithms that are sought."""


def likeliest_kernel(features: Features, rows: Array, values: Array) -> Kernel:
    """Return the kernel under which the measured values, (n,) at (n, columns), are likeliest."""
    from scipy.optimize import minimize

    likelihood = Likelihood(features, rows, values)
    count = len(features.widths)
    bounds = [BOUNDS["weight"]] * count + [BOUNDS["length"]] + [BOUNDS["share"]] * 2
    found = minimize(
        likelihood,
        likelihood.usual,
        jac=True,
        method="L-BFGS-B",
        bounds=[*bounds, BOUNDS["noise"]],
        options={"maxiter": STEPS},
    )
    return likelihood.kernel(found.x)


class Likelihood:
    """The negative log posterior of a kernel's logarithms, and its gradient.

    The logarithms are those of the weights, the length, the shares of the second and third part
    relative to the first's, and the noise.

    Parameters
    ----------
    features
        Tells which columns are which.
    rows, values
        What was measured: (n, columns) and (n,).
    """

    def __init__(self, features: Features, rows: Array, values: Array) -> None:
        self._decisions, self._values = len(features.widths), values
        local, whole = rows[:, : features.local], rows[:, features.local :]
        ends = np.cumsum(features.widths)[:-1]
        self._differ = np.stack(
            [0.5 * _distances(part).ravel() for part in np.split(local, ends, axis=1)]
        )
        self._far = _distances(whole)
        self._agree = local @ local.T / self._decisions
        weight = np.log(DIFFERENCE / self._decisions)
        self.usual = np.array([weight] * self._decisions + [0.0, 0.0, -1.0, -3.0])

    def kernel(self, logs: Array) -> Kernel:
        """Return the kernel of such logarithms."""
        values = np.exp(logs)
        shares = np.array([1.0, *values[-3:-1]])
        first, second, third = (shares / shares.sum()).tolist()
        weights = tuple(values[: self._decisions].tolist())
        return Kernel(weights, float(values[-4]), (first, second, third), float(values[-1]))

    def __call__(self, logs: Array) -> tuple[float, Array]:
        """Return the negative log posterior, up to a constant, and its gradient."""
        from scipy.linalg import cholesky, lapack

        kernel, count, n = self.kernel(logs), self._decisions, len(self._values)
        weights, shares = np.array(kernel.weights), kernel.shares
        near = self._far / kernel.length**2
        together = np.exp(-(weights @ self._differ)).reshape(n, n)
        whole = np.exp(-0.5 * near)
        covariance = shares[0] * together + shares[1] * whole + shares[2] * self._agree
        noisy = covariance + kernel.noise * np.eye(n)
        root = cholesky(noisy, lower=True, check_finite=False)
        half, _ = lapack.dpotri(root, lower=True)
        inverse = np.tril(half) + np.tril(half, -1).T
        explained = inverse @ self._values
        variance = max(float(self._values @ explained) / n, 1e-12)
        evidence = -0.5 * n * np.log(variance) - np.log(np.diag(root)).sum()
        # By how much the negative evidence grows with each covariance.
        slope = 0.5 * (inverse - np.outer(explained, explained) / variance)
        gradient = np.empty_like(logs)
        gradient[:count] = -weights * (self._differ @ (slope * together).ravel()) * shares[0]
        gradient[count] = shares[1] * np.vdot(slope, whole * near)
        gradient[count + 1] = shares[1] * np.vdot(slope, whole - covariance)
        gradient[count + 2] = shares[2] * np.vdot(slope, self._agree - covariance)
        gradient[count + 3] = kernel.noise * np.trace(slope)
        prior, prior_slope = self._prior(logs)
        return float(prior - evidence), gradient + prior_slope

    def _prior(self, logs: Array) -> tuple[float, Array]:
        """Return the negative log prior and its gradient.

        Normal: the weights about their own mean, that and all others about the usual.
        """
        count = self._decisions
        centre = logs[:count].mean()
        within = logs[:count] - centre
        about = np.append(centre, logs[count:]) - self.usual[count - 1 :]
        spread = np.array([1.5, 0.5, 1.5, 1.5, 1.5])
        value = 0.5 * (within**2).sum() / 0.7**2 + 0.5 * ((about / spread) ** 2).sum()
        pulls = about / spread**2
        slope = np.concatenate([within / 0.7**2 + pulls[0] / count, pulls[1:]])
        return float(value), slope


def _distances(rows: Array) -> Array:
    """Return squared distances of rows to each other: (rows, rows)."""
    products = rows @ rows.T
    squares = np.diag(products)
    distances: Array = np.maximum(squares[:, None] + squares - 2 * products, 0)
    return distances

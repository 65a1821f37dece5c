"""The kernel under which what was measured is likeliest, by gradient.

Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006, equations 5.8 and
5.9, with the overall variance at its best value. Priors hold what few trials cannot tell near the
usual, so that nothing collapses: a maximum a posteriori.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .features import Array, Features
from .gaussian_process import Kernel

STEPS = 15
"""Steps by which it is sought; further ones change little."""

DIFFERENCE = 2.5
"""Sum of the weights of all decisions, by the prior: networks that agree nowhere are strangers."""

BOUNDS = {"weight": (-9.0, 4.0), "length": (-2.0, 2.0), "share": (-4.0, 4.0), "noise": (-14.0, 1.0)}
"""Of the logarithms that are sought."""


def likeliest_kernel(
    features: Features, rows: Array, values: Array, *, dead: bool = False
) -> Kernel:
    """Return the kernel under which the measured values, (n,) at (n, columns), are likeliest.

    Parameters
    ----------
    features
        Tells which columns are which.
    rows, values
        What was measured.
    dead
        Whether dead decisions may count, if there are any.
    """
    from scipy.optimize import minimize

    likelihood = Likelihood(features, rows, values, dead=dead)
    count = len(features.widths)
    bounds = [BOUNDS["weight"]] * count + [BOUNDS["length"]]
    bounds += [BOUNDS["share"]] * (len(likelihood.usual) - len(bounds) - 1)
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

    The logarithms are those of the weights, the length, the shares of the second and the further
    parts relative to the first's, and the noise.

    Parameters
    ----------
    features
        Tells which columns are which.
    rows, values
        What was measured: (n, columns) and (n,).
    dead
        Whether dead decisions may count, if there are any.
    """

    def __init__(
        self, features: Features, rows: Array, values: Array, *, dead: bool = False
    ) -> None:
        self._features, self._decisions, self._values = features, len(features.widths), values
        local, whole, written = np.split(
            rows, [features.local, features.local + features.whole], axis=1
        )
        self._far = _distances(whole)
        # How decisions differ, and the share that agrees: of those alive, and of those written.
        self._decided = [_compared(local, features.widths)]
        if dead and features.written:
            self._decided.append(_compared(written, [width - 1 for width in features.widths]))
        weight = np.log(DIFFERENCE / self._decisions)
        shares = [0.0, -1.0, -1.0, -1.0][: 2 * len(self._decided)]
        self.usual = np.array([weight] * self._decisions + [0.0, *shares, -3.0])

    def kernel(self, logs: Array) -> Kernel:
        """Return the kernel of such logarithms."""
        *weights, length = np.exp(logs[: self._decisions + 1]).tolist()
        *others, noise = np.exp(logs[self._decisions + 1 :]).tolist()
        total = 1.0 + sum(others)
        shares = tuple(share / total for share in (1.0, *others))
        return Kernel(self._features, tuple(weights), length, shares, noise)

    def __call__(self, logs: Array) -> tuple[float, Array]:
        """Return the negative log posterior, up to a constant, and its gradient."""
        from scipy.linalg import cholesky, lapack

        kernel, count, n = self.kernel(logs), self._decisions, len(self._values)
        weights, shares = np.array(kernel.weights), kernel.shares
        near = self._far / kernel.length**2
        parts = [np.exp(-0.5 * near)]
        for differ, agree in self._decided:
            parts += [np.exp(-(weights @ differ)).reshape(n, n), agree]
        # The first two stand the other way round among the shares.
        parts[:2] = parts[1::-1]
        covariance = sum(share * part for share, part in zip(shares, parts, strict=True))
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
        gradient[:count] = 0
        for (differ, _), part in zip(self._decided, (0, 3), strict=False):
            by_weight = differ @ (slope * parts[part]).ravel()
            gradient[:count] -= shares[part] * weights * by_weight
        gradient[count] = shares[1] * np.vdot(slope, parts[1] * near)
        for index in range(1, len(parts)):
            grows = np.vdot(slope, parts[index] - covariance)
            gradient[count + index] = shares[index] * grows
        gradient[-1] = kernel.noise * np.trace(slope)
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
        spread = np.full(len(about), 1.5)
        spread[1] = 0.5
        value = 0.5 * (within**2).sum() / 0.7**2 + 0.5 * ((about / spread) ** 2).sum()
        pulls = about / spread**2
        slope = np.concatenate([within / 0.7**2 + pulls[0] / count, pulls[1:]])
        return float(value), slope


def _compared(rows: Array, widths: Sequence[int]) -> tuple[Array, Array]:
    """Return by how much each decision differs, (decisions, pairs), and the share that agrees."""
    parts = np.split(rows, np.cumsum(widths)[:-1], axis=1)
    differ = np.stack([0.5 * _distances(part).ravel() for part in parts])
    return differ, rows @ rows.T / len(widths)


def _distances(rows: Array) -> Array:
    """Return squared distances of rows to each other: (rows, rows)."""
    products = rows @ rows.T
    squares = np.diag(products)
    distances: Array = np.maximum(squares[:, None] + squares - 2 * products, 0)
    return distances

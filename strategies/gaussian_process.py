"""A Gaussian process over architectures: exact, and it grows with the trials.

Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006: Algorithm 2.1, and
section 5.4.1 for the choice of the kernel. What a row of features is: `features`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from nasengine.architecture import Architecture

from .features import Array, Features

Columns = npt.NDArray[np.int64]
"""Which of the architectures that are asked about."""


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
    features
        What its rows are.
    weights
        w, one a decision.
    length
        l, in units of the usual distance of two random networks.
    shares
        s, five or three that sum to 1.
    noise
        Variance of the noise, in units of the kernel's.
    """

    features: Features
    weights: tuple[float, ...]
    length: float
    shares: tuple[float, ...]
    noise: float

    def __call__(self, a: Array, b: Array) -> Array:
        """Return the covariances of rows with rows: (rows of a, rows of b)."""
        return self.between(self.embed(a), self.embed(b))

    def embed(self, rows: Array) -> Array:
        """Return rows of features scaled as covariances take them, once for all of them.

        The columns of each part follow one another, those of the exponentials with half their
        squared length at their end: the exponent is a product less both halves.
        """
        features = self.features
        local, end = features.local, features.local + features.whole
        parts = self._decided(rows[:, :local], features.widths, self.shares[2])
        parts.insert(1, _with_half(rows[:, local:end] / self.length))
        if len(self.shares) > 3:
            widths = [width - 1 for width in features.widths]
            parts += self._decided(rows[:, end:], widths, self.shares[4])
        return np.hstack(parts)

    def _decided(self, rows: Array, widths: Sequence[int], each: float) -> list[Array]:
        """Return what tells decisions that matter together, and each on its own."""
        scale = np.sqrt(np.repeat(self.weights, widths))
        return [_with_half(rows * scale), rows * np.sqrt(each / len(self.weights))]

    def between(self, a: Array, b: Array) -> Array:
        """Return the covariances of embedded rows with embedded rows."""
        local, whole, written = self.features.local, self.features.whole, self.features.written
        widths = [(local, 0), (whole, 1), (local, None)]
        if len(self.shares) > 3:
            widths += [(written, 3), (written, None)]
        covariance, start = np.zeros((len(a), len(b))), 0
        for width, share in widths:
            end = start + width
            part = a[:, start:end] @ b[:, start:end].T
            if share is not None:
                part -= a[:, end, None]
                part -= b[:, end]
                np.exp(np.minimum(part, 0, out=part), out=part)
                part *= self.shares[share]
                end += 1
            covariance += part
            start = end
        return covariance

    def diagonal(self, rows: Array) -> Array:
        """Return the covariance of each row with itself: (rows,)."""
        agreeing = (rows[:, : self.features.local] ** 2).sum(axis=1) / len(self.weights)
        variance: Array = 1 - self.shares[2] + self.shares[2] * agreeing
        return variance


def _with_half(rows: Array) -> Array:
    """Return rows with half of their squared length as a further column."""
    return np.column_stack([rows, 0.5 * np.einsum("ij,ij->i", rows, rows)])


class Grown:
    """A table that grows at its ends without being copied every time.

    Parameters
    ----------
    rows, columns
        How many there are to begin with, all zeros.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._room = np.empty((rows, columns))
        self._shape = (rows, columns)

    @property
    def table(self) -> Array:
        """What there is; to be written to as well."""
        rows, columns = self._shape
        return self._room[:rows, :columns]

    def resize(self, rows: int, columns: int) -> Array:
        """Return the table with so many rows and columns; what is new holds anything."""
        shape, room = (rows, columns), self._room.shape
        if rows > room[0] or columns > room[1]:
            larger = [
                there if wanted <= there else wanted + wanted // 2 + 64
                for wanted, there in zip(shape, room, strict=True)
            ]
            before, self._room = self.table, np.empty(larger)
            self._room[: before.shape[0], : before.shape[1]] = before
        self._shape = shape
        return self.table


class Posterior:
    """What is believed of some architectures once others are measured.

    Both sets grow, and what was computed before is kept.

    Parameters
    ----------
    kernel
        The covariance.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._observed: list[Architecture] = []
        columns = kernel.embed(np.empty((0, kernel.features.columns))).shape[1]
        self._seen, self._asked = Grown(0, columns), Grown(0, columns)
        # The Cholesky factor of the covariance of what was seen, and what it makes of that with
        # what was asked: L, and L^-1 k.
        self._root, self._half = np.empty((0, 0)), Grown(0, 0)
        # The variance of what was asked: before anything was seen, and what is left of it.
        self._prior, self._left = Grown(1, 0), Grown(1, 0)

    def observe(self, architectures: Sequence[Architecture]) -> None:
        """Count these as measured, in this order, and no others; what was so before is kept."""
        pairs = zip(self._observed, architectures, strict=False)
        alike = takewhile(lambda pair: pair[0] is pair[1] or pair[0] == pair[1], pairs)
        kept = sum(1 for _ in alike)
        self._forget(kept)
        self._observed = list(architectures)
        if kept < len(architectures):
            self._learn(self._kernel.features(architectures[kept:]))

    def _forget(self, kept: int) -> None:
        """Go back to the first so many of those measured."""
        if kept == len(self._root):
            return
        self._root = self._root[:kept, :kept].copy()
        self._seen.resize(kept, self._seen.table.shape[1])
        half = self._half.resize(kept, len(self._asked.table))
        self._left.table[0] = self._prior.table[0] - np.einsum("ij,ij->j", half, half)

    def _learn(self, rows: Array) -> None:
        """Count further rows of features, (n, columns), among those measured."""
        from scipy.linalg import cholesky

        between = self._kernel.between
        new, asked, before = self._kernel.embed(rows), self._asked.table, len(self._root)
        below = _solve(self._root, between(self._seen.table, new)).T
        corner = between(new, new) - below @ below.T
        corner[np.diag_indices_from(corner)] += self._kernel.noise
        corner = cholesky(corner, lower=True, check_finite=False)
        half = between(new, asked) - below @ self._half.table
        total = before + len(rows)
        half = _solve(corner, half)
        self._half.resize(total, len(asked))[before:] = half
        self._left.table[0] -= np.einsum("ij,ij->j", half, half)
        root = np.zeros((total, total))
        root[:before, :before], root[before:, :before], root[before:, before:] = (
            self._root,
            below,
            corner,
        )
        self._root = root
        self._seen.resize(total, new.shape[1])[before:] = new

    def ask(self, architectures: Sequence[Architecture]) -> None:
        """Be ready to tell of these: of those asked before, and of further ones after them."""
        before, total = len(self._asked.table), len(architectures)
        if before == total:
            return
        rows = self._kernel.features(architectures[before:])
        new = self._kernel.embed(rows)
        half = _solve(self._root, self._kernel.between(self._seen.table, new))
        self._asked.resize(total, new.shape[1])[before:] = new
        self._half.resize(len(self._root), total)[:, before:] = half
        prior = self._kernel.diagonal(rows)
        self._prior.resize(1, total)[0, before:] = prior
        self._left.resize(1, total)[0, before:] = prior - np.einsum("ij,ij->j", half, half)

    def weigh(self, values: Array) -> tuple[Array, float]:
        """Return what `predict` takes: the weights of what was measured, and its variance.

        Parameters
        ----------
        values
            What was measured of the first of those observed: (n,), of mean about 0. The others
            are believed to turn out as expected, which leaves the means as they are.
        """
        known = len(values)
        weights = _solve(self._root[:known, :known], values)
        return weights, max(float(weights @ weights) / known, 1e-12)

    def predict(self, weighed: tuple[Array, float], columns: npt.ArrayLike) -> tuple[Array, Array]:
        """Return the means and the standard deviations of some that were asked: (columns,) each.

        Parameters
        ----------
        weighed
            From `weigh`.
        columns
            Which of those asked, in their order.
        """
        weights, variance = weighed
        columns = np.asarray(columns)
        half, left = self._half.table[: len(weights)], self._left.table[0, columns]
        # Most of them: it takes less to compute them all than to gather their columns.
        most = 2 * columns.size > half.shape[1]
        mean: Array = (weights @ half)[columns] if most else weights @ half[:, columns]
        return mean, np.sqrt(variance * np.maximum(left, 1e-9))


def left_out_means(kernel: Kernel, rows: Array, values: Array) -> Array:
    """Return what is expected of each row's value given all the others: (rows,).

    Rasmussen and Williams, equation 5.12.
    """
    from scipy.linalg import cho_factor, cho_solve

    covariance = kernel(rows, rows)
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

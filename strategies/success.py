"""How likely an architecture is measured at all, and does not fail.

Where failures follow from the architecture (it needs more memory than there is), what is near
them fails too; where they strike by chance, they say nothing. So they are no bad values: they are
learned by a process of their own, and what a measurement is expected to gain is multiplied by the
chance that there will be one (Gelbart, Snoek and Adams, Bayesian Optimization with Unknown
Constraints, 2014).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nasengine.architecture import Architecture
from nasengine.trial import Status, Trial

from .features import Array, Features
from .gaussian_process import Columns, Posterior
from .likeliest_kernel import Likelihood, likeliest_kernel

LEAST = 0.01
"""The least chance that is believed: nothing is ruled out."""


class Success:
    """A Gaussian process of which trials were measured and which failed: 1 and 0.

    Parameters
    ----------
    known
        Ended trials, from which its kernel is chosen.
    features
        Of the space.
    """

    def __init__(self, known: Sequence[Trial], features: Features) -> None:
        rows, values = features([trial.architecture for trial in known]), _outcomes(known)
        if np.ptp(values):
            kernel = likeliest_kernel(features, rows, values - values.mean(), dead=True)
        else:
            likelihood = Likelihood(features, rows, values, dead=True)
            kernel = likelihood.kernel(likelihood.usual)
        self._posterior = Posterior(kernel)

    def observe(self, trials: Sequence[Trial]) -> None:
        """Condition on the trials that ended, in this order; what was so before is kept."""
        self._posterior.observe([trial.architecture for trial in trials])
        values = _outcomes(trials)
        self._share = values.mean()
        self._weighed = self._posterior.weigh(values - self._share)

    def chances(self, asked: Sequence[Architecture], columns: Columns) -> Array:
        """Return how likely some of the architectures asked about are measured: (columns,).

        Parameters
        ----------
        asked
            As of `Posterior.ask`.
        columns
            Which of them.
        """
        self._posterior.ask(asked)
        mean, _ = self._posterior.predict(self._weighed, columns)
        chances: Array = np.clip(self._share + mean, LEAST, 1)
        return chances


def _outcomes(trials: Sequence[Trial]) -> Array:
    return np.array([float(trial.status is not Status.FAILED) for trial in trials])

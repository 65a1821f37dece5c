"""An estimator of one's own: how many convolutions a network has."""

from nasengine import Estimator, Measurement, Metric


class Convolutions(Estimator):
    """Number of convolutions."""

    effort = 0  # It counts: asked before anything is trained.

    def metrics(self, search):
        """Name the metric, its unit, and which way is better."""
        return (Metric("convolutions", "", "min"),)

    def measure(self, candidate):
        """Count them in the derived network."""
        kinds = [type(module).__name__ for module in candidate.network().modules()]
        return {"convolutions": Measurement(float(kinds.count("Conv2d")))}

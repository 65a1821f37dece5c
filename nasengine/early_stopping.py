"""When a training ends before its last step, and the weights that it keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass
class EarlyStopping:
    """Stops a training whose validation score no longer rises, and keeps the best weights.

    Parameters
    ----------
    score
        Scores the network, higher is better.
    every
        Steps between scores; the last step is always scored.
    patience
        Scores without a rise before it stops.
    """

    score: Callable[[nn.Module], float]
    every: int
    patience: int
    best: float = -math.inf
    waited: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def look(self, network: nn.Module) -> bool:
        """Score the network; say whether to stop."""
        score = self.score(network)
        if score > self.best:
            self.best, self.waited = score, 0
            self.weights = {name: t.detach().clone() for name, t in network.state_dict().items()}
        else:
            self.waited += 1
        return self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        return {"best": self.best, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.best, self.waited, self.weights = state["best"], state["waited"], state["weights"]

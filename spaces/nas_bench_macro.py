"""NAS-Bench-Macro: eight layers, each left out or one of two inverted residuals.

Su, Huang, Li, You, Wang, Qian, Zhang, Xu: Prioritized Architecture Sampling with Monto-Carlo Tree
Search (CVPR 2021, arXiv:2103.11922), section 4, and its public code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from nasengine.architecture import Architecture
from nasengine.errors import ArchitectureError
from nasengine.graph import SpaceGraph
from nasengine.space import SearchSpace

_CHOICES = ("identity", "mb3", "mb6")
_STAGES = (2, 3, 3)
_LAYERS = tuple(f"layer_{number}" for number in range(1, sum(_STAGES) + 1))


class NASBenchMacro(SearchSpace):
    """Image classification by 8 layers of 3 choices: 6,561 architectures.

    Three stages of 2, 3 and 3 layers; the first layer of each halves the size and doubles the
    channels, and there ``identity`` is a 1x1 convolution of stride 2, as in the public benchmark.
    ``mb3`` is a 3x3 inverted residual of expansion 3, ``mb6`` a 5x5 one of expansion 6: what the
    benchmark's parameters and FLOPs were counted on (its public code now builds the second 3x3).

    Architecture strings are the benchmark's eight digits: 0 identity, 1 mb3, 2 mb6.

    References: ``mb3`` and ``mb6`` (everywhere), ``best_cifar10`` (the best mean accuracy in the
    benchmark's table, tied with 22212202).

    Shape
    -----
    Networks go from (N, channels, H, W) to logits (N, classes).

    Examples
    --------
    >>> space = NASBenchMacro()
    >>> space.size, space.format(space.reference("best_cifar10"))
    (6561, '22212220')
    """

    widths: ClassVar[tuple[str, ...]] = ("width", "features")

    channels: int = Field(default=3, gt=0)
    """Channels of the images."""
    classes: int = Field(default=10, gt=0)
    """Number of classes."""
    width: int = Field(default=32, gt=0)
    """Channels of the stem; each stage doubles them."""
    features: int = Field(default=1280, gt=0)
    """Channels of the last 1x1 convolution, before the classifier."""

    def define(self, graph: SpaceGraph) -> None:
        """Wire stem, three stages of layers, and classifier."""
        from .nas_bench_macro_blocks import FIRST_LAYERS, LAYERS, classifier, features, stem

        x = graph.operation("stem", graph.input(self.channels), stem, out=self.width)
        names = iter(_LAYERS)
        for stage, layers in enumerate(_STAGES, start=1):
            for layer in range(layers):
                choices = LAYERS if layer else FIRST_LAYERS
                x = graph.slot(next(names), x, choices, out=self.width * 2**stage)
        x = graph.operation("features", x, features, out=self.features)
        graph.output(graph.operation("classifier", x, classifier, out=self.classes))

    def references(self) -> Mapping[str, Mapping[str, str]]:
        """Return known networks."""
        keys = {"mb3": "1" * 8, "mb6": "2" * 8, "best_cifar10": "22212220"}
        return {name: self.parse(key) for name, key in keys.items()}

    def parse(self, text: str) -> Mapping[str, str]:
        """Read the benchmark's key of eight digits.

        Raises
        ------
        ArchitectureError
            If the text is none.
        """
        digits = [("012".find(digit)) for digit in text]
        if len(digits) != len(_LAYERS) or -1 in digits:
            raise ArchitectureError(
                f"no NAS-Bench-Macro key: {text!r:.200}; one has eight digits: 0 identity, 1 mb3, "
                "2 mb6"
            )
        return {name: _CHOICES[digit] for name, digit in zip(_LAYERS, digits, strict=True)}

    def format(self, architecture: Architecture) -> str:
        """Write the benchmark's key of eight digits."""
        return "".join(str(_CHOICES.index(architecture[layer])) for layer in _LAYERS)

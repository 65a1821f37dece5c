"""The contract of estimators."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nasengine.architecture import Architecture
from nasengine.errors import RunFolderError, SpecError
from nasengine.files import make_folder, read_json
from nasengine.plugin import Plugin
from nasengine.trial import Measurement, Metric

if TYPE_CHECKING:
    from torch import fx

    from nasengine.graph import SpaceGraph
    from nasengine.search import Search
    from nasengine.workload import Workload

WEIGHTS_FILE = "weights.safetensors"
INT8_FILE = "model_int8.onnx"


@dataclass(frozen=True)
class Candidate:
    """One architecture on its way through the estimators.

    Parameters
    ----------
    architecture
        What is to be measured.
    search
        The search that it belongs to.
    label
        ``trial-7`` or ``reference-unet``: names its folder and seeds its randomness.
    measurements
        What earlier estimators have found.
    """

    architecture: Architecture
    search: Search
    label: str
    measurements: dict[str, Measurement]

    def network(self, *labels: str | int) -> fx.GraphModule:
        """Build the network, initialised from the spec's seed, the label and further labels."""
        from nasengine.network import build_network
        from nasengine.randomness import torch_seed

        with torch_seed(self.search.seed, self.label, "network", *labels):
            return build_network(self.search.space.graph, self.architecture)

    @cached_property
    def folder(self) -> Path:
        """Where an estimator may keep files of this candidate (checkpoints, weights)."""
        return make_folder(self.search.folder / "trials" / self.label)

    @property
    def weights_path(self) -> Path:
        """Where an estimator that trains leaves the weights (safetensors) to be delivered."""
        return self.folder / WEIGHTS_FILE

    @property
    def int8_path(self) -> Path:
        """Where an estimator that quantises leaves the model (ONNX) to be delivered."""
        return self.folder / INT8_FILE


@dataclass(frozen=True)
class _Costs:
    """What of a cost table is kept in a file; `CostTable` says what each is."""

    unit: str
    fixed: float
    costs: Mapping[str, Mapping[str, float]]
    decisions: Mapping[str, str]
    operations: Mapping[str, float] = field(default_factory=dict)
    sums: Mapping[str, float] = field(default_factory=dict)
    zeros: Mapping[str, float] = field(default_factory=dict)
    widths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class CostTable(_Costs):
    """An additive cost: what each candidate costs in each slot, and the rest of the network.

    Where channels are searched, a slot's cost depends on their widths too, and so does that of
    operations and sums, which have rows of their own then.

    Parameters
    ----------
    unit
        Such as ``parameters`` or ``ms``.
    fixed
        The cost of all that is not searched.
    costs
        Slot to candidate (choices and baselines) to its cost there; of a node whose cost depends
        on widths, its `row_key` to that.
    decisions
        Slot to the decision that fills it.
    operations
        Operations that a cut connection may leave without use, and their part of `fixed`.
    sums
        Sums that a cut connection may shorten, and what one addition is of `fixed`.
    zeros
        Slot to the cost of a `Zero` that is built after all: where nothing else is to sum.
    widths
        Node to the widths (decisions) on which its cost depends; none where channels are fixed.
    graph
        The space's, by which `predict` knows what a cut leaves without use; without it, nothing
        is taken off.
    """

    graph: SpaceGraph | None = field(default=None, repr=False, compare=False)

    def predict(self, architecture: Mapping[str, str]) -> float:
        """Return the cost of a whole network, of what `nasengine.canonical.simplify` leaves."""
        total = self.fixed + sum(
            row[self.key(name, architecture)] for name, row in self.costs.items()
        )
        return total if self.graph is None else total - self._cut(self.graph, architecture)

    def depends(self, name: str) -> tuple[str, ...]:
        """Return the decisions on which the cost of a node in `costs` depends: its own first."""
        own = (self.decisions[name],) if name in self.decisions else ()
        return (*own, *self.widths.get(name, ()))

    def key(self, name: str, architecture: Mapping[str, str]) -> str:
        """Return the key of a network's cost in the row of a node."""
        if name not in self.widths:
            return architecture[self.decisions[name]]
        return row_key(architecture[decision] for decision in self.depends(name))

    @property
    def cuts(self) -> bool:
        """Whether a choice may cut a connection, so that costs are no sum over decisions."""
        from nasengine.canonical import meanings

        return self.graph is not None and "zero" in meanings(self.graph).values()

    def _cut(self, graph: SpaceGraph, architecture: Mapping[str, str]) -> float:
        """Return the cost of all that cut connections leave without use."""
        from nasengine.canonical import meanings, simplify

        meaning = meanings(graph)
        if "zero" not in meaning.values():
            return 0.0
        left = simplify(graph, architecture)
        cut = sum(cost for name, cost in self.operations.items() if name not in left)
        for name, cost in self.sums.items():
            cut += cost * (len(graph[name].inputs) - max(1, len(left.get(name, ()))))
        for name, row in self.costs.items():
            cost = row[self.key(name, architecture)]
            if name not in left:
                cut += cost
            elif graph[name].kind == "add":
                terms = len(graph[name].inputs)
                cut += cost * (terms - max(1, len(left[name]))) / (terms - 1)
            elif name in self.zeros and meaning[name, architecture[self.decisions[name]]] == "zero":
                # Counted at the widest: zeros cost by the channels that they fill.
                built = graph.channels_of(name, architecture)[-1] / graph.channels[name][-1]
                cut -= self.zeros[name] * built
        return cut

    def scaled(self, factor: float, unit: str | None = None) -> CostTable:
        """Return the table with every cost so many times as large, in another unit where given."""

        def of(row: Mapping[str, float]) -> dict[str, float]:
            return {name: factor * cost for name, cost in row.items()}

        return replace(
            self,
            unit=self.unit if unit is None else unit,
            fixed=factor * self.fixed,
            costs={slot: of(row) for slot, row in self.costs.items()},
            operations=of(self.operations),
            sums=of(self.sums),
            zeros=of(self.zeros),
        )

    def __add__(self, other: CostTable) -> CostTable:
        """Return the costs of both, of one space, together: what a cut leaves out, too.

        Examples
        --------
        >>> macs = CostTable("MACs", 5.0, {"stem": {"a": 2.0, "b": 3.0}}, {"stem": "stem"})
        >>> bytes_read = CostTable("bytes", 8.0, {"stem": {"a": 1.0, "b": 0.0}}, {"stem": "stem"})
        >>> (macs.scaled(4.6, "pJ") + bytes_read.scaled(160, "pJ")).predict({"stem": "b"})
        1316.8

        Raises
        ------
        ValueError
            If they are of other units, slots or candidates.
        """
        if self.unit != other.unit:
            raise ValueError(f"costs in {self.unit} and in {other.unit} have no sum; scale them")
        rows, others = ({s: set(row) for s, row in t.costs.items()} for t in (self, other))
        # Of what is no slot there is no row where it costs nothing at any width.
        shared = rows.keys() & others.keys()
        if not {*self.decisions, *other.decisions} <= shared or any(
            rows[name] != others[name] for name in shared
        ):
            raise ValueError("costs of other slots or candidates have no sum")
        return replace(
            self,
            fixed=self.fixed + other.fixed,
            costs={
                name: _summed(self.costs.get(name, {}), other.costs.get(name, {}))
                for name in {**self.costs, **other.costs}
            },
            widths={**self.widths, **other.widths},
            operations=_summed(self.operations, other.operations),
            sums=_summed(self.sums, other.sums),
            zeros=_summed(self.zeros, other.zeros),
        )

    def terms(self) -> dict[tuple[str, ...], dict[str, float]]:
        """Return decisions to the costs that depend on just these, by `row_key` of their choices.

        Where nothing cuts, a network's cost is `fixed` and one cost of each term.
        """
        total: dict[tuple[str, ...], dict[str, float]] = {}
        for name, row in self.costs.items():
            found = total.setdefault(self.depends(name), {})
            for key, cost in row.items():
                found[key] = found.get(key, 0.0) + cost
        return total

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON values."""
        return {
            "unit": self.unit,
            "fixed": self.fixed,
            "costs": {slot: dict(row) for slot, row in self.costs.items()},
            "decisions": dict(self.decisions),
            **{
                name: dict(found)
                for name in ("operations", "sums", "zeros")
                if (found := getattr(self, name))
            },
            **({"widths": {n: list(w) for n, w in self.widths.items()}} if self.widths else {}),
        }


def row_key(choices: Iterable[str]) -> str:
    """Return the key of a cost that depends on several choices: a candidate's, then widths'.

    Examples
    --------
    >>> row_key(["conv", "16", "32"])
    'conv@16@32'
    """
    return "@".join(choices)


def _summed(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}


def read_cost_table(path: Path) -> CostTable:
    """Read what `CostTable.to_json` gave.

    Raises
    ------
    RunFolderError
        If it is damaged.
    """
    found = read_json(path, _Costs)
    empty = [slot for slot, row in found.costs.items() if not row]
    if empty or found.costs.keys() != {*found.decisions, *found.widths}:
        raise RunFolderError(f"{path}: damaged: costs and decisions are not of the same slots")
    return CostTable(**vars(found))


class Estimator(Plugin):
    """Measures one thing about candidates, or several at once.

    Attributes
    ----------
    effort
        Cheap ones run first, so that a limit they break spares the rest: 0 counts, 1 takes
        milliseconds to seconds, 2 trains, 3 measures what was trained.
    """

    kind: ClassVar[str] = "estimator"
    effort: ClassVar[int] = 1

    @abstractmethod
    def metrics(self, search: Search) -> tuple[Metric, ...]:
        """Return what it measures, the primary metric first."""

    @abstractmethod
    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Measure a candidate: a measurement for every metric, by the metric's own name.

        Raises
        ------
        EstimationFailed
            With the reason, where this candidate cannot be measured.
        """

    def table(self, search: Search) -> CostTable:  # noqa: ARG002
        """Return the cost of each candidate in each slot, at the slot's real shape.

        Raises
        ------
        SpecError
            If what it measures is not a sum over slots.
        """
        raise SpecError(
            f"the estimator {type(self).__name__} has no cost table: not a sum over slots"
        )

    def workload(self, search: Search) -> Workload | None:  # noqa: ARG002
        """Return the training of one measurement; None where it does not train."""
        return None

    def shared_workload(self, search: Search) -> Workload | None:  # noqa: ARG002
        """Return the training that all measurements share (a supernet's); None without one."""
        return None

    def write_table(self, search: Search, path: Path) -> None:  # noqa: ARG002
        """Measure the cost table of this device into a file that other machines search with.

        Raises
        ------
        SpecError
            If there is no such file for what it measures.
        """
        raise SpecError(f"the estimator {type(self).__name__} writes no table file")

    @property
    def has_table(self) -> bool:
        """Whether `table` is defined."""
        return type(self).table is not Estimator.table

    @property
    def trains(self) -> bool:
        """Whether it takes long: what it finds is kept before another one measures."""
        return self.effort > 1

    @property
    def leaves_weights(self) -> bool:
        """Whether it trains the network at its full width, and leaves its weights."""
        return False

    @property
    def counts(self) -> bool:
        """Whether it counts or looks up: at once, without chance, the same every time."""
        return self.effort == 0

    def check(self, search: Search) -> None:
        """Refuse, before anything runs, a search in which this cannot measure.

        Raises
        ------
        SpecError
            Naming the setting and what is possible.
        """


def by_effort(estimators: Mapping[str, Estimator]) -> list[tuple[str, Estimator]]:
    """Order estimators so that cheap ones run first; otherwise as in the spec."""
    return sorted(estimators.items(), key=lambda item: item[1].effort)

"""Latency of a derived network: measured on this device, or predicted for another one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from nasengine.errors import SpecError
from nasengine.estimator import Candidate, CostTable, Estimator
from nasengine.plugin import SpecPath, changed
from nasengine.trial import Measurement, Metric

from .latency_table import (
    LatencyTable,
    check_latency_table,
    measure_latency_table,
    predict,
    read_latency_table,
    write_latency_table,
)

if TYPE_CHECKING:
    from nasengine.search import Search

    from ._engines import Setup


class Latency(Estimator):
    """Time of one forward pass: median, 90th percentile, spread and frames per second."""

    effort: ClassVar[int] = 1

    engine: Literal["eager", "compile", "onnxruntime"] = "eager"
    """What executes the network; ``onnxruntime`` needs the extra ``onnx``."""

    batch: int = Field(default=1, gt=0)
    """Samples in one forward pass."""

    threads: int | None = Field(default=None, gt=0)
    """Threads on the CPU; by default as many as torch uses."""

    fold_batch_norm: bool = False
    """Make each batch norm part of the convolution before it, as deployment does."""

    channels_last: bool = False
    """Keep tensors as (N, H, W, C) in memory."""

    precision: Literal["fp32", "int8"] = "fp32"
    """``int8``: quantised as `quantized` does it, by random inputs, for times do not depend on the
    ranges; with ``engine = "onnxruntime"``, on the CPU."""

    repeats: int = Field(default=30, gt=1)
    """Timed passes, at least."""

    seconds: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    """Seconds of timed passes, at least (up to ten times the repeats)."""

    yardstick: bool = True
    """Time one network of the space in turn with each that is measured, and divide by how much
    slower than undisturbed it ran, so that quiet and busy minutes compare; false leaves the
    readings as timed."""

    max_spread: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    """Spread of the middle half of the readings, relative to their median, above which they are
    taken again, and in the end refused."""

    # The contract has a method of the name that the setting has in a spec.
    table_file: SpecPath | None = Field(default=None, alias="table")
    """A table made by ``nasengine latency-table`` on another device: predict, time nothing. How
    networks ran is the table's to say; `batch` must be its own."""

    @property
    def counts(self) -> bool:
        """Whether it looks up in a table's file."""
        return self.table_file is not None

    def metrics(self, search: Search) -> tuple[Metric, ...]:  # noqa: ARG002
        """Return the median first; a prediction has no percentile and no spread."""
        latency, fps = Metric("latency", "ms", "min"), Metric("fps", "1/s", "max")
        if self.table_file is not None:
            return (latency, fps)
        return (latency, Metric("p90", "ms", "min"), Metric("spread", "", "min"), fps)

    def measure(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Time the derived network in eval mode, end to end.

        Raises
        ------
        EstimationFailed
            If the engine cannot run it, or its readings cannot be trusted, with the reason.
        """
        search = candidate.search
        if self.table_file is not None:
            return self._predicted(candidate, search)
        from . import _engines, _timing, _yardstick

        setup = self.setup(search)
        network = candidate.network("latency")
        with _engines.measuring(search, setup):
            run = _engines.prepare(network, setup, search.task.input_shape)
            unit = None
            if self.yardstick:
                unit = _yardstick.yardstick(search, setup, self.repeats, self.seconds)
            now = _timing.clock(search.device)
            reading = _timing.read(run, unit, now, self.repeats, self.seconds, self.max_spread)
        details = {"samples": reading.raw, "slowness": reading.slowness, **vars(setup)}
        return {
            "latency": Measurement(reading.median, details),
            "p90": Measurement(reading.p90),
            "spread": Measurement(reading.spread),
            "fps": Measurement(1e3 * self.batch / reading.median),
        }

    def table(self, search: Search) -> CostTable:
        """Time each candidate in each slot at its real shapes, or read it from the table's file.

        Raises
        ------
        SpecError
            If the table's file does not fit the space or the task.
        DataError
            If the file cannot be read.
        """
        if self.table_file is not None:
            return self._costs(search)
        from . import _timing, _yardstick

        table, setup = self.measured_table(search), self.setup(search)
        if not self.yardstick:
            return table.cost_table(search.space)
        pace = _yardstick.pace(search, setup)
        if pace is None:
            pace = _timing.undisturbed(table.yardstick)
            _yardstick.keep_pace(search, setup, pace)
        return table.cost_table(search.space).scaled(pace / median(table.yardstick))

    def write_table(self, search: Search, path: Path) -> None:
        """Time this device's table into a JSON file; goes on with what the file holds already.

        Raises
        ------
        DataError
            If the file is of other settings, another device, or damaged.
        StorageError
            If the disk refuses.
        """
        if self.table_file is not None:
            raise SpecError("table: this estimator reads a table; leave it out to measure one")
        write_latency_table(search, self.setup(search), self.repeats, path)

    def measured_table(self, search: Search) -> LatencyTable:
        """Time a table, with every reading."""
        table = measure_latency_table(search, self.setup(search), self.repeats)
        unsteady = table.unsteady(self.max_spread)
        if unsteady:
            (node, key), spread = max(unsteady.items(), key=lambda item: item[1])
            search.reporter.warn(
                f"latency: {len(unsteady)} of {len(table.cells)} candidates have readings that "
                f"spread too much (most: {key!r} in slot {node!r}, by {spread:.0%}): is the "
                f"machine busy? A table is only as good as its readings"
            )
        return table

    def setup(self, search: Search) -> Setup:
        """Return how networks are run."""
        import torch

        from ._engines import Setup

        return Setup(
            engine=self.engine,
            device=search.device,
            batch=self.batch,
            threads=self.threads or torch.get_num_threads(),
            fold_batch_norm=self.fold_batch_norm,
            channels_last=self.channels_last,
            precision=self.precision,
        )

    def check(self, search: Search) -> None:
        """Refuse a table that does not fit the search or a setting, and a missing engine.

        Raises
        ------
        SpecError, DataError
            If the table is for another space, another input, another setting, or damaged.
        PluginError
            Saying what to install.
        """
        if self.table_file is not None:
            self._refuse_unused()
            self._costs(search)
            return
        if self.precision == "int8" and (self.engine != "onnxruntime" or search.device != "cpu"):
            raise SpecError(
                f"precision: 'int8' is run by engine = 'onnxruntime' on the cpu; this is "
                f"{self.engine!r} on {search.device}"
            )
        if self.engine == "onnxruntime":
            from nasengine.exporting.onnx_model import require_onnxruntime

            require_onnxruntime("latency: engine = 'onnxruntime'", search.device)

    @cached_property
    def read_table(self) -> LatencyTable:
        """The table of the file, read once."""
        assert self.table_file is not None
        return read_latency_table(self.table_file)

    def _refuse_unused(self) -> None:
        """Refuse settings that a table contradicts, or that are of measuring."""
        given, facts = changed(self), self.read_table.facts
        problems = [
            f"{name}: the table {self.table_file} was measured with {facts.get(name)!r}, and the "
            f"spec says {getattr(self, name)!r}"
            for name in ("engine", "threads", "fold_batch_norm", "channels_last", "precision")
            if name in given and facts.get(name) != getattr(self, name)
        ]
        problems += [
            f"{name}: with a table nothing is timed; leave one of the two out"
            for name in ("repeats", "seconds", "yardstick", "max_spread")
            if name in given
        ]
        if problems:
            raise SpecError("; ".join(problems))

    def _costs(self, search: Search) -> CostTable:
        if self.read_table.facts.get("batch") != self.batch:
            raise SpecError(
                f"{self.table_file}: is for a batch of {self.read_table.facts.get('batch')}, "
                f"and latency.batch = {self.batch}"
            )
        return check_latency_table(self.read_table, search, str(self.table_file))

    def _predicted(self, candidate: Candidate, search: Search) -> dict[str, Measurement]:
        value = predict(self._costs(search), search.space, candidate.architecture)
        details = {"predicted": True, "table": str(self.table_file), **self.read_table.facts}
        return {
            "latency": Measurement(value, details),
            "fps": Measurement(1e3 * self.batch / value),
        }

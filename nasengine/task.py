"""The contract of tasks and of their data sources."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from nasengine.errors import DataError, SpecError, did_you_mean
from nasengine.plugin import Plugin
from nasengine.trial import Metric

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Targets = Literal["masks", "labels", "values", ""]
"""What targets are: a class for every place (N, H, W), a class for every sample (N,), or numbers of
any shape (N, ...), such as a denoised image or several labels at once. Empty: masks or labels.
"""

IGNORED = -100
"""The target of a pixel that is neither trained on nor judged: torch's own `ignore_index`."""

_ADVICE = (
    "one value an output; end in a pooling and a linear layer",
    "a value for every pixel; bring it back to the input's size",
)
"""By whether the task is about pixels."""


@dataclass(frozen=True)
class Samples:
    """Samples of one split, prepared once and kept as tensors.

    Parameters
    ----------
    inputs
        (N, C, H, W), float32, images in 0 to 1; or (N, C, ...) with any number of dimensions: a
        signal (N, C, L), a volume (N, C, D, H, W), columns of a table (N, C).
    targets
        (N, H, W) int64 masks of class indices (0 is background) and, for tasks that take it,
        `IGNORED`; (N,) int64 labels; or (N, ...) values, float32 or int64.
    names
        One a sample, for messages and pictures.
    """

    inputs: Tensor
    targets: Tensor
    names: tuple[str, ...]
    _placed: dict[str, Samples] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def check(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        targets: Targets = "",
        *,
        ignores: bool = False,
    ) -> None:
        """Refuse samples that are not as the attributes say.

        Parameters
        ----------
        input_shape
            (C, H, W) that a sample must have.
        classes
            Targets that are classes are below it.
        targets
            What they are.
        ignores
            Whether a target may be `IGNORED`.

        Raises
        ------
        DataError
            Naming the first sample, the value that it has, and what is allowed.
        """
        if not self.names:
            raise DataError("holds no samples")
        self._check_type("inputs", self.inputs, "torch.float32")
        self._check_shape("inputs", self.inputs, input_shape)
        self._check_values("input", self.inputs, ~self.inputs.isfinite(), "finite values")
        if targets == "values":
            self._check_type("targets", self.targets, "torch.float32", "torch.int64")
            self._check_shape("targets", self.targets, tuple(self.targets.shape[1:]))
            self._check_values("target", self.targets, ~self.targets.isfinite(), "finite values")
        else:
            self._check_classes(input_shape, classes, targets, ignores=ignores)

    def _check_classes(
        self, input_shape: tuple[int, ...], classes: int, targets: Targets, *, ignores: bool
    ) -> None:
        self._check_type("targets", self.targets, "torch.int64")
        forms = {"labels": (), "masks": input_shape[1:]}
        self._check_shape("targets", self.targets, *(forms[t] for t in forms if targets in (t, "")))
        beyond = (self.targets < 0) | (self.targets >= classes)
        allowed = f"class indices from 0 to {classes - 1}"
        if ignores:
            beyond &= self.targets != IGNORED
            allowed += f", and {IGNORED} for what is ignored"
        self._check_values("target", self.targets, beyond, allowed)

    def _check_type(self, what: str, tensor: Tensor, *allowed: str) -> None:
        if str(tensor.dtype) in allowed:
            return
        numbers = what == "targets" and len(allowed) == 1 and tensor.is_floating_point()
        advice = "; a task whose targets are numbers says targets: ClassVar = 'values'" * numbers
        raise DataError(f"{what} are of {tensor.dtype}; allowed: {' or '.join(allowed)}{advice}")

    def _check_shape(self, what: str, tensor: Tensor, *shapes: tuple[int, ...]) -> None:
        allowed = [(len(self.names), *shape) for shape in shapes]
        if tuple(tensor.shape) not in allowed:
            raise DataError(
                f"{what} of {len(self.names)} named samples have the shape {tuple(tensor.shape)}; "
                f"allowed: {' or '.join(map(str, allowed))}"
            )

    def _check_values(self, what: str, tensor: Tensor, wrong: Tensor, allowed: str) -> None:
        if not wrong.any():
            return
        place = tuple(wrong.nonzero()[0].tolist())
        value = tensor[place].item()
        raise DataError(f"{self.names[place[0]]!r} has the {what} {value}; allowed: {allowed}")

    def on(self, device: str) -> Samples:
        """Return the samples on a device; they are brought there once."""
        if device not in self._placed:
            inputs, targets = self.inputs.to(device), self.targets.to(device)
            if inputs is self.inputs and targets is self.targets:
                return self
            self._placed[device] = Samples(inputs, targets, self.names)
        return self._placed[device]

    def take(self, indices: Sequence[int]) -> Samples:
        """Return some of them, in the order of the indices.

        Examples
        --------
        >>> import torch
        >>> labels = Samples(torch.rand(3, 1, 4, 4), torch.arange(3), ("a", "b", "c"))
        >>> labels.take([2, 0]).names
        ('c', 'a')
        """
        chosen = list(indices)
        names = tuple(self.names[index] for index in chosen)
        return Samples(self.inputs[chosen], self.targets[chosen], names)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of some of them, where they are."""
        indices = indices.to(self.inputs.device)
        return self.inputs[indices], self.targets[indices]

    def digest(self) -> str:
        """Return a digest of inputs, targets and names: equal for equal samples alone."""
        found = hashlib.sha256("\0".join(self.names).encode())
        for tensor in (self.inputs, self.targets):
            found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            found.update(tensor.contiguous().cpu().numpy().tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Splits:
    """Samples to train on, to choose by, and (optionally) to report at the very end.

    Parameters
    ----------
    train, validation, test
        The samples.
    facts
        What was read, a line each: shown by ``check --data``.
    doubts
        What the user should look into before believing a result, a line each: told by every
        command that loads the samples.
    """

    train: Samples
    validation: Samples
    test: Samples | None = None
    facts: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Samples]:
        """The splits that there are, by name."""
        found = {"train": self.train, "validation": self.validation}
        return found if self.test is None else {**found, "test": self.test}


@dataclass(frozen=True)
class Usage:
    """What a user of a delivered network must know beside its shapes; empty where it is not known.

    Parameters
    ----------
    inputs
        ``images``: as `DataSource.inputs`.
    classes
        Names of the classes in order of their index.
    decision
        How logits become a class: by ``threshold``, class 1 where the one output is above 0, else
        class 0; by ``argmax``, the class of the largest output.
    """

    inputs: Literal["images", ""] = ""
    classes: tuple[str, ...] = ()
    decision: Literal["threshold", "argmax", ""] = ""


class DataSource(Plugin):
    """Where a task's samples come from; a setting of the task: ``data = { name = ... }``.

    Attributes
    ----------
    targets
        What `load` gives as targets: ``masks``, ``labels`` or ``values``. A source that leaves it
        empty is not held against the task before the data are read.
    inputs
        What `load` gives as inputs: ``images``, which are RGB (C = 3) or grey (C = 1), 8 bits a
        channel brought to `shape` (bilinear, antialiased) and divided by 255. It is written
        beside the networks that a run delivers; a source that leaves it empty says nothing.
    """

    kind: ClassVar[str] = "data"
    targets: ClassVar[Targets] = ""
    inputs: ClassVar[Literal["images", ""]] = ""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one sample, or (C, ...) of what is no image, known without reading any."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in order of their index; a mask's class 0 is background.

        By default none, for targets that are values.
        """
        return ()

    def check(self) -> None:
        """Refuse files or folders that are not there, without reading what they hold.

        Raises
        ------
        DataError
            Naming the file or folder.
        """

    @abstractmethod
    def load(self, seed: int) -> Splits:
        """Read or make the samples. The same seed gives the same samples in the same order.

        Raises
        ------
        DataError
            Naming the file and what is wrong with it.
        """


class Task(Plugin):
    """Data, loss and metrics. Knows nothing of architectures.

    Attributes
    ----------
    targets
        Which targets the loss takes: ``masks``, ``labels`` or ``values``; other samples are
        refused. Empty takes masks and labels.
    ignores
        Whether loss and metrics leave out what has the target `IGNORED`. Samples that hold it are
        refused where they do not.
    """

    kind: ClassVar[str] = "task"
    targets: ClassVar[Targets] = ""
    ignores: ClassVar[bool] = False

    def check_data(self) -> None:
        """Refuse data that are not there, before anything runs; by default asks its `data`.

        Raises
        ------
        DataError
            Naming the file or folder.
        """
        data = getattr(self, "data", None)
        if isinstance(data, DataSource):
            data.check()

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one sample, or (C, ...), known without reading the data."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Channels (or logits) that a network must give."""

    @property
    def usage(self) -> Usage:
        """What is written beside a delivered network of its inputs and outputs, by default nothing.

        Shapes are written in any case.
        """
        return Usage()

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        """What a network must give for one sample: (outputs, H, W) or (outputs,).

        None, the default, leaves all but the channels open.
        """
        return None

    def check_outputs(self, shape: tuple[int, ...]) -> None:
        """Refuse networks whose outputs are not what the loss takes.

        Parameters
        ----------
        shape
            What the space's networks give for one sample: (C, H, W) or (C,).

        Raises
        ------
        SpecError
            Naming what they give and what is needed.
        """
        if shape[0] != self.outputs:
            raise SpecError(
                f"space: its networks give {shape[0]} channels, and the task needs "
                f"{self.outputs}; set space.classes (or its like) to {self.outputs}"
            )
        needed = self.output_shape
        if needed is not None and shape != needed:
            given, wanted = ("x".join(map(str, sides)) for sides in (shape, needed))
            raise SpecError(
                f"space: its networks give {given} for a sample, and the task "
                f"{type(self).__name__} needs {wanted}: {_ADVICE[len(needed) > 1]}"
            )

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """What `evaluate` gives; the first is the primary one."""

    def metrics_from(self, first: str | None) -> tuple[Metric, ...]:
        """Return the metrics, the named one first; by default the task's own order.

        Raises
        ------
        SpecError
            If the task has no such metric, with the nearest name.
        """
        names = [metric.name for metric in self.metrics]
        if first is not None and first not in names:
            raise SpecError(f"metric: the task has no {first!r}; {did_you_mean(first, names)}")
        return tuple(sorted(self.metrics, key=lambda metric: metric.name != (first or names[0])))

    @abstractmethod
    def load(self, seed: int) -> Splits:
        """Return the samples.

        Raises
        ------
        DataError
            If the data cannot be used.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the differentiable loss of a batch: a scalar in float32.

        Parameters
        ----------
        outputs
            The network's logits: (N, outputs, H, W) or (N, outputs).
        targets
            (N, H, W) or (N,), int64; values as the data have them.
        """

    @abstractmethod
    def evaluate(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Return every metric over a whole split, from its logits and targets, on the CPU."""

    def augment(
        self,
        inputs: Tensor,
        targets: Tensor,
        generator: torch.Generator,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Return a randomly transformed batch; by default as it is."""
        return inputs, targets

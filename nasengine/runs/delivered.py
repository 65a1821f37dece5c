"""One network of a run with its files: what ``best/`` holds, and what `export` writes of others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasengine.architecture import Architecture, write_architecture
from nasengine.delivery.usage import usage_facts
from nasengine.errors import NasengineError
from nasengine.estimator import INT8_FILE, WEIGHTS_FILE
from nasengine.files import write_atomically
from nasengine.task import Samples
from nasengine.trial import Metric, Trial

if TYPE_CHECKING:
    from torch import nn

    from nasengine.search import Search

FROM_WEIGHTS = (WEIGHTS_FILE, "predictions.png", "model.py", "model.onnx", INT8_FILE)
"""What `deliver_network` writes only where a network was trained, and could be exported."""


def weights_of(run: Path, trial: Trial) -> Path:
    """Return where the weights of a trial or a reference lie, if any estimator left some."""
    return run / "trials" / trial.label / WEIGHTS_FILE


def deliver_network(
    search: Search,
    architecture: Architecture,
    weights: Path,
    folder: Path,
    use: Mapping[str, Any],
) -> list[str]:
    """Write a network into a folder: architecture, pictures, weights, ONNX, plain PyTorch.

    Parameters
    ----------
    search
        Its space, its task and, for the predictions, its data.
    architecture
        What is delivered.
    weights
        Its weights; without the file, what needs them is left out. What was quantised of them lies
        beside them.
    folder
        Where to; it exists.
    use
        How it is used, from `usage`.

    Returns
    -------
    What could not be delivered, and why, a line each.

    Raises
    ------
    RunFolderError
        If the weights are damaged.
    """
    from nasengine.delivery.picture import draw
    from nasengine.network import trained_network

    network = None
    if weights.is_file():
        network = trained_network(search.space.graph, architecture, weights)
    write_architecture(folder / "architecture.json", architecture, search.space)
    draw(search.space, folder / "architecture.svg", architecture)
    draw(search.space, folder / "architecture.png", architecture)
    if network is None:
        return ["no weights: no estimator trains the network at its full width (add a 'trained')"]
    write_atomically(folder / WEIGHTS_FILE, weights.read_bytes())
    return _deliver_trained(search, network, weights.with_name(INT8_FILE), folder, use)


def _deliver_trained(
    search: Search, network: nn.Module, int8: Path, folder: Path, use: Mapping[str, Any]
) -> list[str]:
    from nasengine.delivery.export import export_python
    from nasengine.delivery.onnx_model import copy_onnx, export_onnx

    shape = search.task.input_shape
    pieces: list[Callable[[], str | None]] = [
        lambda: _draw_predictions(search, network, folder / "predictions.png"),
        lambda: export_python(network, shape, folder / "model.py", use),
        lambda: export_onnx(network, shape, folder / "model.onnx", use),
    ]
    if int8.is_file():
        pieces.append(lambda: copy_onnx(int8, folder / INT8_FILE, use))
    problems = []
    with search.reporter.progress(f"delivering {folder.name}", len(pieces)) as progress:
        for deliver in pieces:
            problems.append(deliver())
            progress.advance()
    return [problem for problem in problems if problem]


def usage(search: Search, architecture: Architecture) -> dict[str, Any]:
    """Return how a network of a search is used; see `usage_facts`."""
    from nasengine.meta_shapes import made_on_meta
    from nasengine.network import build_network

    graph, shape = search.space.graph, search.task.input_shape
    network = made_on_meta(partial(build_network, graph, architecture)).eval()
    out = search.shapes.out[graph.order[-1]]
    return usage_facts(search.task.usage, shape, out, _sides(network, shape, out))


def _sides(network: nn.Module, shape: tuple[int, ...], out: tuple[int, ...]) -> int:
    """Return what height and width must be divisible by; 0 where only the task's own are known."""
    channels, *size = shape
    for divisor in (1, 2, 4, 8, 16, 32, 64):
        if not size or any(side % divisor for side in size):
            return 0
        # One more: twice as much would fit as well where something is halved once more. And twice
        # as much: one more may be cut off before weights that are laid out for so many places.
        tried = ((channels, *(times * side + divisor for side in size)) for times in (1, 2))
        if all(_takes(network, larger, out) for larger in tried):
            return divisor
    return 0


def _takes(network: nn.Module, shape: tuple[int, ...], out: tuple[int, ...]) -> bool:
    """Say whether a network takes samples of a shape, and gives an output for each place still."""
    found = _outputs(network, shape)
    return found is not None and (len(out) != len(shape) or found[1:] == shape[1:])


def _outputs(network: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape of a sample's outputs; None where a network on meta does not take it."""
    import torch

    from nasengine.meta_shapes import MetaShapes

    try:
        with MetaShapes(), torch.no_grad():
            return tuple(network(torch.empty(2, *shape, device="meta")).shape[1:])
    except Exception:  # noqa: BLE001 a third party's forward raises anything
        return None


def _draw_predictions(search: Search, network: nn.Module, path: Path) -> str | None:
    """Draw validation images with the network's masks; return what went wrong.

    Images with something to find, at equal distances in the split: not chosen by how they went.
    """
    from nasengine.evaluation import predict
    from nasengine.tasks.contact_sheet import draw_samples

    try:
        samples = search.splits.validation
    except NasengineError as error:
        return f"no predictions.png: {error}"
    if samples.inputs.ndim != 4 or samples.targets.ndim < 3:
        return None
    if search.task.targets == "values":
        drawn = samples.take(range(min(8, len(samples))))
        draw_samples(drawn, path, predict(network, drawn.inputs, "cpu"))
        return None
    held = samples.targets.flatten(1).any(1).nonzero().flatten()
    if len(held) == 0:
        return None
    chosen = held[sorted({round(i * (len(held) - 1) / 7) for i in range(8)})]
    drawn = Samples(
        samples.inputs[chosen], samples.targets[chosen], tuple(samples.names[i] for i in chosen)
    )
    outputs = predict(network, drawn.inputs, "cpu")
    classes = (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)
    draw_samples(drawn, path, classes, classes=search.task.usage.classes)
    return None


def measured_facts(trial: Trial, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Return what was measured of a network, as JSON values."""
    return {
        "architecture": dict(trial.architecture),
        "status": trial.status.value,
        "measurements": {
            name: {"value": m.value, "unit": metrics[name].unit, **_json(m.details)}
            for name, m in trial.measurements.items()
            if name in metrics
        },
    }


def _json(details: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what explains a value, without the raw samples, which the history has."""
    found: dict[str, Any] = json.loads(
        json.dumps({k: v for k, v in details.items() if k != "samples"})
    )
    return {key: value for key, value in found.items() if key not in ("value", "unit")}

"""What is delivered of a network: plain PyTorch that runs without nasengine, and ONNX."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import operator
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from nasengine.delivery import source
from nasengine.delivery.export import export_python, python_source
from nasengine.delivery.onnx_model import export_onnx, write_onnx
from nasengine.delivery.usage import usage_docstring, usage_facts
from nasengine.delivery.writable import not_writable
from nasengine.errors import ExportFailed
from nasengine.evaluation import predict
from nasengine.exporting.quiet import quiet
from nasengine.graph import SpaceGraph
from nasengine.moves import enumerate_all, sample
from nasengine.network import build_network
from nasengine.operations import Zero
from nasengine.plugin import load_class
from nasengine.runs.delivered import usage
from nasengine.space import SearchSpace
from nasengine.spaces.light_sdi import LightSDI
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.task import Usage
from nasengine.tasks.class_folders import ClassFolders
from nasengine.tasks.classification import Classification
from nasengine.tasks.folder import Folder
from nasengine.tasks.segmentation import Segmentation
from nasengine.tasks.sourced import SourcedTask
from nasengine.testing.stubs import TinyClassification, TinySegmentation, tiny_search

FACTS = usage_facts(Usage(), (3, 32, 32), (1, 32, 32))


class Scaled(nn.Module):
    """Parameter, buffer, functional call and a skip of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, 4, 1, 1), 2.0))
        self.register_buffer("shift", torch.full((1, 4, 1, 1), 0.5))
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), Zero())

    def forward(self, x: Tensor) -> Tensor:
        return F.hardtanh(self.inner(x) + x * self.scale + self.shift)


class Attention(nn.Module):
    """Self-attention whose scale is read from a shape, by Python's own functions."""

    def __init__(self, channels: int = 3, _: int = 3) -> None:
        super().__init__()
        self.query, self.value = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        query = self.query(x).flatten(2)
        weights = torch.softmax(query @ query.transpose(1, 2) / math.sqrt(c), -1)
        scale = operator.abs(math.prod((h, w))) / math.floor(h / 2)
        return (weights @ self.value(x).flatten(2)).view(n, c, h, w) / scale


def custom() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect"),
        nn.GroupNorm(2, 4),
        nn.PReLU(4),
        Scaled(),
        nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.ConvTranspose2d(4, 2, 2, stride=2),
    )


def light(name: str) -> nn.Module:
    space = LightSDI(width=2)
    choices = space.reference("unet")
    if name == "mixed":
        words = ("single_conv", "single_dilation_conv", "double_dw_conv", "double_dw_d_conv")
        every = [*words, "cutconnect"] * 2
        choices = space.architecture(dict(zip(space.decisions, every, strict=False)))
    return build_network(space.graph, choices)


def cell() -> nn.Module:
    space = NASBench201()
    text = "|nor_conv_3x3~0|+|skip_connect~0|avg_pool_3x3~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
    return build_network(space.graph, space.architecture(space.parse(text)))


class Tokens(nn.Module):
    """A layer that reads (N, L, C)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        if isinstance(self.layer, nn.MultiheadAttention):
            tokens = self.layer(tokens, tokens, tokens, need_weights=False)[0]
        else:
            tokens = self.layer(tokens)
        tokens = tokens[0] if isinstance(self.layer, nn.RNNBase) else tokens
        return tokens.transpose(1, 2).unflatten(2, (x.shape[2], x.shape[3]))


class Positions(nn.Module):
    """Adds sines of the places, as many as there are."""

    def __init__(self, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("sines", torch.arange(64.0).sin(), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        return x + 2 * self.sines[: x.shape[3]]


def transformers() -> nn.Module:
    """Layers that do not keep what they are made of under its name."""
    without_bias: dict[str, Any] = {"activation": "gelu", "bias": False}
    layers = [
        nn.MultiheadAttention(4, 2, batch_first=True),
        nn.MultiheadAttention(4, 4, bias=False, add_bias_kv=True, batch_first=True),
        nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        nn.TransformerEncoderLayer(4, 1, 12, layer_norm_eps=1e-3, batch_first=True, **without_bias),
        nn.GRU(4, 4, 2, bias=False, batch_first=True),
        nn.LSTM(4, 2, batch_first=True, bidirectional=True),
    ]
    mixed = [Tokens(layer) for layer in layers]
    return nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), *mixed, nn.Hardtanh(-2.0, 2.0), nn.Flatten())


NETWORKS = {
    "unet": lambda: light("unet"),
    "mixed": lambda: light("mixed"),
    "cell": cell,
    "custom": custom,
    "attention": Attention,
    "transformers": transformers,
    "positions": Positions,
}


def trained(name: str) -> nn.Module:
    """A network whose batch norms have seen data, so that their buffers matter."""
    torch.manual_seed(0)
    network = NETWORKS[name]().train()
    for _ in range(3):
        network(torch.rand(2, 3, 32, 32))
    return network.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_python_file_runs_without_nasengine(name: str, tmp_path: Path) -> None:
    network = trained(name)
    assert export_python(network, (3, 32, 32), tmp_path / "model.py", FACTS) == ""
    inputs = torch.rand(2, 3, 32, 32)
    wanted = network(inputs).detach()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    save_file({"inputs": inputs}, tmp_path / "inputs.safetensors")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.modules['nasengine'] = None\n"
        "import torch; from safetensors.torch import load_file, save_file; from model import load\n"
        "inputs = load_file(sys.argv[1] + '/inputs.safetensors')['inputs']\n"
        "with torch.no_grad(): outputs = load()(inputs)\n"
        "save_file({'outputs': outputs}, sys.argv[1] + '/outputs.safetensors')\n"
    )
    command = [sys.executable, "-I", "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outputs = load_file(tmp_path / "outputs.safetensors")["outputs"]
    torch.testing.assert_close(outputs, wanted)
    source = (tmp_path / "model.py").read_text()
    assert "nasengine." not in source
    assert max(len(line) for line in source.splitlines()) < 200


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Foreign(nn.Module):
    def __init__(self, *_: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return foreign(x)


@torch.fx.wrap
def foreign(x: Tensor) -> Tensor:
    return x * 2


class Spare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class SpareOfTwo(Spare):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return x + y


def hooked() -> nn.Module:
    """A convolution whose weights are not those that its class says."""
    conv = nn.Conv2d(3, 3, 1)
    weight = conv.weight
    del conv._parameters["weight"]
    conv.register_parameter("kernel", nn.Parameter(weight.detach()))
    conv.register_forward_pre_hook(lambda layer, _: setattr(layer, "weight", layer.kernel))
    return nn.Sequential(conv)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Branching(), "torch.fx cannot trace it: TraceError"),
        (Foreign(), "calls what is not torch's: foreign"),
        (Spare(), "does not use unused.bias, unused.weight"),
        (nn.MultiheadAttention(4, 2), "no model.py: "),
        (
            nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 1))),
            "torch.fx cannot trace it: TraceError",
        ),
        (
            Positions(persistent=False),
            "sines is a tensor that the weights do not hold; .*persistent",
        ),
        (hooked(), "its layers cannot be made from what they tell: RuntimeError"),
    ],
    ids=["branching", "foreign", "spare", "attention", "spectral", "kept", "hooked"],
)
def test_what_cannot_be_written_is_said(network: nn.Module, reason: str, tmp_path: Path) -> None:
    said = export_python(network, (3, 8, 8), tmp_path / "model.py", FACTS)
    assert said.startswith("no model.py: ")
    assert re.search(reason, said)
    assert "\n" not in said
    assert not (tmp_path / "model.py").exists()


class Mixed(SearchSpace):
    """Two slots that offer what cannot be written beside what can."""

    def define(self, graph: SpaceGraph) -> None:
        blocks = {"attention": Attention, "foreign": Foreign}
        x = graph.slot("first", graph.input(3), blocks)
        x = graph.slot("second", x, blocks)
        both = graph.operation("both", [x, x], lambda *_: SpareOfTwo())
        graph.output(graph.operation("head", both, lambda i, o: nn.Conv2d(i, o, 1), out=1))


def test_what_a_space_holds_that_cannot_be_written_is_known_before_training() -> None:
    space = Mixed()
    space.shapes((3, 8, 8))
    foreign, spare = sorted(not_writable(space.graph))
    assert re.match(
        "no model.py for a network with the candidate 'foreign' in first, second: .*foreign",
        foreign,
    )
    assert "the operation in both: its forward pass does not use" in spare
    assert not_writable(NASBench201().graph) == []


def test_a_source_that_computes_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = source._settings
    monkeypatch.setattr(
        source,
        "_settings",
        lambda module, where: (
            (k, v) for k, v in settings(module, where) if k != "count_include_pad"
        ),
    )
    with pytest.raises(ExportFailed, match="the source differs from the network by"):
        python_source(trained("custom"), (3, 8, 8), FACTS)


def test_onnx_gives_what_torch_gives(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    ort = pytest.importorskip("onnxruntime")
    network = trained("mixed")
    facts = write_onnx(network, (3, 32, 32), tmp_path / "model.onnx", FACTS)
    assert facts["verified"]
    assert facts["max_abs_difference"] < 1e-5
    said = capfd.readouterr()
    assert said.out == said.err == ""
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        inputs = torch.rand(batch, 3, 32, 32)
        (outputs,) = session.run(None, {"input": inputs.numpy()})
        torch.testing.assert_close(torch.from_numpy(outputs), network(inputs).detach())


def free_axes(path: Path) -> list[str]:
    onnx = pytest.importorskip("onnx")
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    return [dim.dim_param for dim in shape.dim]


@pytest.mark.parametrize(("name", "size"), [("light_sdi", 32), ("nas_bench_201", 16)])
def test_onnx_takes_images_of_any_size_that_the_network_takes(
    name: str, size: int, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    ort = pytest.importorskip("onnxruntime")
    space = load_class(SearchSpace, name)(width=4)
    torch.manual_seed(0)
    architecture = sample(space.decisions, random.Random(0))
    network = build_network(space.graph, architecture).eval()
    facts = write_onnx(network, (3, size, size), tmp_path / "model.onnx", FACTS)
    assert facts["any_size"]
    assert free_axes(tmp_path / "model.onnx") == ["batch", "", "height", "width"]
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    inputs = torch.rand(2, 3, size + 16, size + 48)
    (outputs,) = session.run(None, {"input": inputs.numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs), network(inputs).detach())


class OfOneSize(nn.Module):
    """Reads the pixels of images of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


def test_onnx_is_of_one_size_where_the_network_is(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    told = usage_facts(Usage(), (3, 8, 8), (2,), sides=1)
    facts = write_onnx(OfOneSize().eval(), (3, 8, 8), tmp_path / "model.onnx", told)
    assert not facts["any_size"]
    assert free_axes(tmp_path / "model.onnx") == ["batch", "", "", ""]
    props = {p.key for p in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert "size" in props and "sides_divisible_by" not in props


class Rows(nn.Module):
    """A GRU over each row of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.permute(0, 2, 3, 1).flatten(0, 1)
        return self.gru(rows)[0].unflatten(0, (-1, x.shape[2])).permute(0, 3, 1, 2)


def test_nothing_is_printed_while_recurrent_layers_are_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    pytest.importorskip("onnxscript")
    write_onnx(Rows().eval(), (3, 8, 8), tmp_path / "model.onnx", FACTS)
    said = capfd.readouterr()
    assert said.out == said.err == ""
    assert not recwarn.list


def test_what_exporters_say_beside_their_errors_is_not_told(
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    with quiet():
        # Torch logs a page of it where a network cannot be exported for any size.
        logging.getLogger("torch._guards").error("a traceback")
        logging.getLogger("other").critical("worse")
        print("said")
        warnings.warn("warned", stacklevel=1)
    said = capfd.readouterr()
    assert said.out == said.err == ""
    assert not recwarn.list
    logging.getLogger("other").error("heard")
    assert caplog.messages == ["heard"]


def test_onnx_says_which_extra_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "onnxscript" else real(n, *a)
    )
    said = export_onnx(trained("custom"), (3, 8, 8), tmp_path / "model.onnx", FACTS)
    assert said == "no model.onnx: it needs onnxscript: pip install 'nasengine[onnx]'"


# How it is used


def images(folder: Path, side: int) -> None:
    """Write images with masks of three classes, and the images once more by kind."""
    for number in range(6):
        size = (side, side if side == 16 else side + number, 3)
        pixels = numpy.random.default_rng(number).integers(0, 256, size, numpy.uint8)
        pixels[..., number % 3] //= 2
        for name, values in (
            ("images", pixels),
            ("masks", (pixels[..., 0] // 100).astype(numpy.uint8)),
            (f"kind {number % 2}", pixels),
        ):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(values).save(folder / name / f"{number}.png")


def segmentation(folder: Path, **settings: Any) -> Segmentation:
    data = Folder(images=folder / "images", masks=folder / "masks", size=16, **settings)
    return Segmentation(data=data)


def classification(folder: Path) -> Classification:
    (folder / "kinds").mkdir()
    for number in range(2):
        (folder / f"kind {number}").rename(folder / "kinds" / f"kind {number}")
    names = ("kind 0", "kind 1")
    return Classification(data=ClassFolders(root=folder / "kinds", names=names, size=16))


TASKS: dict[str, Callable[[Path], SourcedTask]] = {
    "binary": segmentation,
    "grey": lambda folder: segmentation(folder, channels=1, names=("a", 'b "2"', "c\\n")),
    "labels": classification,
}


def pooled(channels: int, outputs: int) -> nn.Module:
    layers = [nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, outputs))


@pytest.mark.parametrize("side", [16, 45])
@pytest.mark.parametrize("name", TASKS)
def test_the_python_file_predicts_what_the_engine_does(
    name: str, side: int, tmp_path: Path
) -> None:
    images(tmp_path, side)
    task = TASKS[name](tmp_path)
    torch.manual_seed(0)
    channels, outputs = task.input_shape[0], task.outputs
    network = nn.Conv2d(channels, outputs, 3, padding=1) if name != "labels" else pooled(3, 2)
    facts = usage_facts(task.usage, task.input_shape, task.output_shape or ())
    assert export_python(network, task.input_shape, tmp_path / "model.py", facts) == ""
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    model: dict[str, Any] = {"__file__": str(tmp_path / "model.py"), "__name__": "model"}
    exec(compile((tmp_path / "model.py").read_text(), "model.py", "exec"), model)
    samples = task.load(0).train
    wanted = predict(network, samples.inputs, "cpu")
    assert model["CLASSES"] == task.data.classes
    assert all(word in model["__doc__"] for word in task.data.classes)
    for number, sample_name in enumerate(samples.names):
        image = numpy.array(Image.open(tmp_path / "images" / f"{Path(sample_name).stem}.png"))
        found = model["predict"](model["load"](), image)
        logits = wanted[number : number + 1]
        if name != "labels":  # At the image's own size, not at the 16 x 16 trained at.
            assert found.shape == image.shape[:2]
            logits = F.interpolate(logits, image.shape[:2], mode="bilinear", antialias=True)
        decided = (logits[0, 0] > 0).long() if outputs == 1 else logits[0].argmax(0)
        assert found.shape == decided.shape
        # Pillow and torch may round a resized pixel apart, by one of 255.
        prepared = model["prepare"](image)[0]
        torch.testing.assert_close(
            prepared, samples.inputs[number], rtol=0, atol=1e-7 + (side != 16) / 255
        )
        assert (found == decided).float().mean() >= (1 if side == 16 else 0.98)
    grey = model["prepare"](numpy.full((5, 7), 51, numpy.uint8))
    torch.testing.assert_close(grey, torch.full((1, *task.input_shape), 0.2))
    deep = model["prepare"](numpy.full((5, 7), 51 * 257, numpy.uint16))
    torch.testing.assert_close(deep, grey)
    mirrored = numpy.arange(105, dtype=numpy.uint8).reshape(5, 7, 3)[:, ::-1, ::-1]
    assert torch.equal(model["prepare"](mirrored), model["prepare"](mirrored.copy()))
    call = "image = numpy.asarray(ImageOps.exif_transpose(Image.open(path)).convert('RGB'))"
    assert call in model["__doc__"]
    assert ("as high and wide as the image" in model["__doc__"]) == (name != "labels")
    with pytest.raises(TypeError, match="uint8"):
        model["prepare"](numpy.zeros((5, 7, 3), numpy.float32))
    with pytest.raises(TypeError, match=r"numpy\.asarray"):
        model["predict"](model["load"](), Image.new("RGB", (7, 5)))
    with pytest.raises(ValueError, match=r"\(H, W, 3\) or \(H, W\); got \(5, 7, 4\)"):
        model["prepare"](numpy.zeros((5, 7, 4), numpy.uint8))


def test_a_task_that_says_nothing_gets_a_file_without_helpers(tmp_path: Path) -> None:
    assert export_python(trained("custom"), (3, 32, 32), tmp_path / "model.py", FACTS) == ""
    source = (tmp_path / "model.py").read_text()
    assert "(N, 3, 32, 32), float32\n" in source  # Of what range, only a task can say.
    assert "predict" not in source and "CLASSES" not in source


@pytest.mark.parametrize(
    ("space", "size", "sides"),
    [
        (LightSDI(width=2), 64, 16),
        (LightSDI(width=2), 80, 16),
        (NASBench201(width=2), 32, 4),
        (Mixed(), 8, 1),
    ],
)
def test_which_other_sizes_fit_is_told(space: SearchSpace, size: int, sides: int) -> None:
    task = TinySegmentation(size=size)
    if isinstance(space, NASBench201):
        task = TinyClassification(size=size, classes=10)
    architecture = next(enumerate_all(space.decisions))
    facts = usage(tiny_search(space, task=task), architecture)
    assert facts["sides_divisible_by"] == sides
    told = usage_docstring(facts)
    assert f"trained at {size} x {size}" in told
    assert f"divisible by {sides}" in told or sides == 1


def test_onnx_holds_how_it_is_used(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    facts = usage_facts(Usage("images", ("good", "bad"), "argmax"), (3, 8, 8), (2,))
    write_onnx(OfOneSize().eval(), (3, 8, 8), tmp_path / "model.onnx", facts)
    props = {p.key: p.value for p in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert json.loads(props["classes"]) == ["good", "bad"]
    assert json.loads(props["size"]) == [8, 8]
    assert props["classifies"] == "images"
    assert props["colours"] == "RGB" and props["decision"] == "argmax"

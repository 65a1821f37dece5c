"""What is delivered of a network: plain PyTorch that runs without nasengine, and ONNX."""

from __future__ import annotations

import importlib.util
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from nasengine.delivery import export
from nasengine.delivery.export import export_python, python_source
from nasengine.delivery.onnx_model import export_onnx, write_onnx
from nasengine.moves import sample
from nasengine.network import build_network
from nasengine.operations import Zero
from nasengine.plugin import load_class
from nasengine.space import SearchSpace
from nasengine.spaces.light_sdi import LightSDI
from nasengine.spaces.nas_bench_201 import NASBench201


class Scaled(nn.Module):
    """Parameter, buffer, functional call and a skip of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, 4, 1, 1), 2.0))
        self.register_buffer("shift", torch.full((1, 4, 1, 1), 0.5))
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), Zero())

    def forward(self, x: Tensor) -> Tensor:
        return F.hardtanh(self.inner(x) + x * self.scale + self.shift)


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


NETWORKS = {
    "unet": lambda: light("unet"),
    "mixed": lambda: light("mixed"),
    "cell": cell,
    "custom": custom,
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
    assert export_python(network, (3, 32, 32), tmp_path / "model.py") == ""
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


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Branching(), "torch.fx cannot trace it: TraceError"),
        (Foreign(), "calls what is not torch's: .*foreign"),
        (Spare(), "does not use unused.bias, unused.weight"),
        (nn.MultiheadAttention(4, 2), "no model.py: "),
    ],
    ids=["branching", "foreign", "spare", "attention"],
)
def test_what_cannot_be_written_is_said(network: nn.Module, reason: str, tmp_path: Path) -> None:
    said = export_python(network, (3, 8, 8), tmp_path / "model.py")
    assert said.startswith("no model.py: ")
    assert re.search(reason, said)
    assert "\n" not in said
    assert not (tmp_path / "model.py").exists()


def test_a_source_that_computes_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = export._settings
    monkeypatch.setattr(
        export,
        "_settings",
        lambda module, where: (
            (k, v) for k, v in settings(module, where) if k != "count_include_pad"
        ),
    )
    with pytest.raises(export.ExportFailed, match="the source differs from the network by"):
        python_source(trained("custom"), (3, 8, 8))


def test_onnx_gives_what_torch_gives(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    ort = pytest.importorskip("onnxruntime")
    network = trained("mixed")
    facts = write_onnx(network, (3, 32, 32), tmp_path / "model.onnx")
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
    facts = write_onnx(network, (3, size, size), tmp_path / "model.onnx")
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
    facts = write_onnx(OfOneSize().eval(), (3, 8, 8), tmp_path / "model.onnx")
    assert not facts["any_size"]
    assert free_axes(tmp_path / "model.onnx") == ["batch", "", "", ""]


def test_onnx_says_which_extra_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "onnxscript" else real(n, *a)
    )
    said = export_onnx(trained("custom"), (3, 8, 8), tmp_path / "model.onnx")
    assert said == "no model.onnx: onnxscript not installed; pip install 'nasengine[onnx]'"

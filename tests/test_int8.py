"""Networks in integers of 8 bits: the model, what is measured of it and delivered, its time."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from safetensors.torch import save_file
from test_other_tasks import Layers, Noise, Restored
from test_trained import TestedSegmentation

import nasengine
from nasengine.cli import main
from nasengine.errors import EstimationFailed, ExportFailed, PluginError, RunFolderError, SpecError
from nasengine.estimator import Candidate, by_effort
from nasengine.estimators import _engines
from nasengine.estimators.latency import Latency
from nasengine.estimators.latency_table import read_latency_table
from nasengine.estimators.one_shot import OneShot
from nasengine.estimators.parameters import Parameters
from nasengine.estimators.quantized import Quantized
from nasengine.estimators.trained import Trained
from nasengine.evaluation import evaluate, score
from nasengine.exporting.int8 import quantized
from nasengine.exporting.onnx_model import OnnxNetwork, exported, exported_as_free
from nasengine.files import make_folder
from nasengine.search import Search
from nasengine.testing.stubs import TinySegmentation, tiny_candidate, tiny_search

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

TRAINED = Trained(iterations=40, batch=4, learning_rate=0.03)


def search_for(folder: Path, **rest: Any) -> Search:
    estimators = {"iou": TRAINED, "int8": Quantized()}
    return tiny_search(
        **{"task": TestedSegmentation(), "estimators": estimators} | rest, folder=folder
    )


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A network that was trained."""
    found = tiny_candidate(search_for(tmp_path_factory.mktemp("int8")))
    found.measurements.update(TRAINED.measure(found))
    return found


def test_a_model_in_int8_computes_nearly_the_same_in_a_quarter_of_the_bytes() -> None:
    torch.manual_seed(0)
    layers = [
        layer
        for wide in (3, 32, 32)
        for layer in (torch.nn.Conv2d(wide, 32, 3), torch.nn.BatchNorm2d(32), torch.nn.ReLU())
    ]
    network = torch.nn.Sequential(*layers).eval()
    inputs = torch.rand(16, 3, 16, 16)
    model, _, _ = exported_as_free(network, (3, 16, 16))
    small = quantized(model, [{"input": inputs.numpy()}])
    wanted = network(inputs).detach()
    outputs = OnnxNetwork(small.SerializeToString())(inputs)
    error = (outputs - wanted).pow(2).mean().sqrt() / wanted.pow(2).mean().sqrt()
    assert 0 < error < 0.05
    kinds = {w.name: w.data_type for w in small.graph.initializer if len(w.dims) == 4}
    assert set(kinds.values()) == {onnx.TensorProto.INT8}
    # A scale for each channel, not one for all.
    scales = [w for w in small.graph.initializer if "weight" in w.name and "scale" in w.name]
    assert [list(scale.dims) for scale in scales] == [[32]] * 3
    # Activations in a byte without a sign, and no operations but those of the standard.
    assert {w.data_type for w in small.graph.initializer if "zero_point" in w.name} == {
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT8,  # of the weights
        onnx.TensorProto.INT32,  # of the biases
    }
    assert Counter(node.op_type for node in small.graph.node)["Conv"] == 3
    assert [used.domain for used in small.opset_import] == [""]
    assert len(small.SerializeToString()) < 0.4 * len(model.SerializeToString())


def test_nothing_is_said_while_a_model_is_quantised(
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    inputs = torch.rand(2, 3, 8, 8)
    for module in (torch.nn.Conv2d(3, 4, 3), torch.nn.Identity()):  # The second has a spare scale.
        model = exported(module, [inputs])
        quantized(model, [{model.graph.input[0].name: inputs.numpy()}])
    said = capfd.readouterr()
    assert said.out == said.err == ""
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert not recwarn.list


def test_what_cannot_be_quantised_says_why() -> None:
    model = exported(torch.nn.Conv2d(3, 4, 3), [torch.rand(2, 3, 8, 8)])
    with pytest.raises(ExportFailed, match=r"^it cannot be quantised: .*other"):
        quantized(model, [{"other": torch.rand(2, 3, 8, 8).numpy()}])


def test_what_is_measured_is_what_the_file_gives(candidate: Candidate) -> None:
    search, estimator = candidate.search, Quantized(samples=6)
    found = estimator.measure(candidate)
    names = ["iou", "error", "loss", "test_iou", "test_error", "test_loss", "bytes"]
    assert [metric.name for metric in estimator.metrics(search)] == names == list(found)
    assert Quantized(metric="error").metrics(search)[0].name == "error"
    data = candidate.int8_path.read_bytes()
    assert found["bytes"].value == len(data)
    for prefix, split in (("", "validation"), ("test_", "test")):
        samples = search.splits.parts[split]
        again = score(OnnxNetwork(data)(samples.inputs), samples.targets, search.task)
        assert {name: found[prefix + name].value for name in again} == again
        assert len(found[f"{prefix}iou"].details["per_sample"]) == len(samples)
    # Of the trained weights, not of fresh ones.
    assert found["iou"].value == pytest.approx(candidate.measurements["iou"].value, abs=0.1)
    fresh = candidate.network("fresh").eval()
    assert evaluate(fresh, search.splits.validation, search)["iou"] < found["iou"].value - 0.2


def test_it_is_calibrated_by_training_samples_that_a_run_draws_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[torch.Tensor] = []

    def seen(model: Any, feeds: Any) -> Any:
        fed.append(torch.cat([torch.from_numpy(feed["input"]) for feed in feeds]))
        return quantized(model, feeds)

    monkeypatch.setattr("nasengine.exporting.int8.quantized", seen)
    drawn = []
    for seed, label in ((0, "trial-0"), (0, "trial-1"), (1, "trial-0")):
        search = search_for(make_folder(tmp_path / str(seed)), seed=seed)
        found = tiny_candidate(search, label=label)
        save_file(found.network().state_dict(), found.weights_path)
        Quantized(samples=5).measure(found)
        train = search.splits.train.inputs
        drawn.append([n for x in fed.pop() for n, y in enumerate(train) if x.equal(y)])
    assert [len(set(numbers)) for numbers in drawn] == [5, 5, 5]
    assert drawn[0] == drawn[1] != drawn[2]


def test_signals_are_quantised_too(tmp_path: Path) -> None:
    task, space = Restored(data=Noise(sides=(32,))), Layers(sides=1, halved=True)
    trained = Trained(iterations=2, batch=4)
    search = tiny_search(space, task=task, estimators={"error": trained}, folder=tmp_path)
    found = tiny_candidate(search)
    before = trained.measure(found)["error"].value
    assert Quantized().measure(found)["error"].value == pytest.approx(before, rel=0.2)


def test_it_needs_what_trains(tmp_path: Path) -> None:
    narrow = Trained(iterations=1, batch=4, width_fraction=0.5)
    for other in (Parameters(), narrow, OneShot(iterations=1, batch=4)):
        only = search_for(tmp_path, estimators={"other": other, "int8": Quantized()})
        with pytest.raises(SpecError, match="trains at full width, and none does: take a 'trained"):
            Quantized().check(only)
    Quantized().check(search_for(tmp_path, estimators={"narrow": narrow, "full": TRAINED}))
    assert [key for key, _ in by_effort({"int8": Quantized(), "iou": TRAINED})] == ["iou", "int8"]
    with pytest.raises(SpecError, match="metric: the task has no 'dice'"):
        Quantized(metric="dice").check(search_for(tmp_path))
    with pytest.raises(EstimationFailed, match="no estimator beside it trained the network at its"):
        Quantized().measure(tiny_candidate(only))


def test_it_says_which_extra_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PluginError, match=r"quantized needs onnxruntime: pip .*nasengine\[onnx\]"):
        Quantized().check(search_for(tmp_path))


def test_a_network_that_is_trained_anew_is_quantised_anew(tmp_path: Path) -> None:
    found = tiny_candidate(search_for(tmp_path))
    TRAINED.measure(found)
    Quantized().measure(found)
    assert found.int8_path.is_file()
    Trained(iterations=1, batch=4).measure(found)
    assert not found.int8_path.exists(), "it is of weights that are gone"


SPEC = {
    "name": "tiny",
    "seed": 0,
    "threads": 1,
    "space": {"name": "nasengine.testing.stubs:TinySpace"},
    "task": {"name": "nasengine.testing.stubs:TinySegmentation"},
    "strategy": {"name": "random"},
    "estimators": {"iou": {"name": "trained", "iterations": 30, "batch": 4}, "parameters": {}},
    "objectives": {"iou": "max"},
    "budget": {"trials": 2},
    "references": ["big"],
    "final": {"estimators": {"int8": {"name": "quantized"}}},
}


@pytest.mark.parametrize(("where", "status"), [("final", 0), ("search", 2)])
def test_what_is_trained_at_the_end_alone_is_quantised_there(
    where: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = {"name": "trained", "iterations": 3, "batch": 4}
    parts = {"search": {"iou": full | {"width_fraction": 0.5}}, "final": {"full": full}}
    parts[where]["int8"] = {"name": "quantized"}
    spec = SPEC | {"estimators": parts["search"], "final": {"estimators": parts["final"]}}
    (tmp_path / "spec.toml").write_text(tomli_w.dumps(spec))
    assert main(["check", str(tmp_path / "spec.toml")]) == status
    assert ("estimators.int8: it quantises what" in capsys.readouterr().err) == (where == "search")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "spec.toml").write_text(tomli_w.dumps(SPEC))
    assert main(["run", str(folder / "spec.toml"), "--quiet", "--runs", str(folder)]) == 0
    return folder / "tiny-1"


def test_a_run_delivers_the_model_that_was_measured(ran: Path) -> None:
    facts = json.loads((ran / "best" / "metrics.json").read_text())
    model = onnx.load(ran / "best" / "model_int8.onnx")
    props = {prop.key: prop.value for prop in model.metadata_props}
    assert props["inputs"] == facts["usage"]["inputs"]
    task = TinySegmentation()
    samples = task.load(0).validation
    network = OnnxNetwork((ran / "best" / "model_int8.onnx").read_bytes())
    again = score(network(samples.inputs), samples.targets, task)["iou"]
    assert facts["searched"]["measurements"]["int8"]["value"] == again
    # Beside the references, as all that is measured at the end.
    assert facts["references"]["big"]["measurements"]["int8"]["value"] <= 1
    operations = Counter(node.op_type for node in model.graph.node)
    assert operations["QuantizeLinear"] and operations["DequantizeLinear"]


def test_an_export_has_it_too(ran: Path, tmp_path: Path) -> None:
    nasengine.export(ran, tmp_path / "big", reference="big", code=["nasengine.testing.stubs"])
    assert (tmp_path / "big" / "model_int8.onnx").is_file()
    kept = json.loads((ran / "best" / "metrics.json").read_text())["searched"]["trial"]
    other = 1 - kept  # Which is no winner, and so was not quantised.
    nasengine.export(ran, tmp_path / "other", trial=other, code=["nasengine.testing.stubs"])
    assert (tmp_path / "other" / "model.onnx").is_file()
    assert not (tmp_path / "other" / "model_int8.onnx").exists()


# Its time


def test_latency_in_int8_is_of_a_quantised_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = tiny_search(task=TinySegmentation(), estimators={}, folder=tmp_path)
    run, kept = _engines.session, list[bytes]()

    def seen(model: bytes, **given: Any) -> Any:
        kept.append(model)
        return run(model, **given)

    monkeypatch.setattr(_engines, "session", seen)
    quick = {"repeats": 2, "seconds": 0.0, "max_spread": 1e6, "yardstick": False}
    for precision in ("fp32", "int8"):
        latency = Latency(engine="onnxruntime", precision=precision, **quick)
        latency.check(search)
        found = latency.measure(tiny_candidate(search))
        assert found["latency"].details["precision"] == precision
        names = [node.op_type for node in onnx.load_from_string(kept.pop()).graph.node]
        assert ("QuantizeLinear" in names) == (precision == "int8")


def test_a_table_in_int8_covers_the_space(tmp_path: Path) -> None:
    search = tiny_search(task=TinySegmentation(), estimators={}, folder=tmp_path)
    latency = Latency(engine="onnxruntime", precision="int8", repeats=2)
    latency.write_table(search, tmp_path / "table.json")
    table = read_latency_table(tmp_path / "table.json")
    assert table.facts["precision"] == "int8"
    costs = table.cost_table(search.space)
    assert costs.predict(tiny_candidate(search).architecture) > 0


@pytest.mark.parametrize(
    ("engine", "device"), [("eager", "cpu"), ("compile", "cpu"), ("onnxruntime", "cuda")]
)
def test_int8_is_refused_where_nothing_runs_it(engine: Any, device: str, tmp_path: Path) -> None:
    search = replace(tiny_search(estimators={}, folder=tmp_path), device=device)
    with pytest.raises(SpecError, match=f"by engine = 'onnxruntime' .*{engine}' on {device}"):
        Latency(engine=engine, precision="int8").check(search)


def test_a_table_that_does_not_tell_its_precision_is_of_float32(tmp_path: Path) -> None:
    search = tiny_search(task=TinySegmentation(), estimators={}, folder=tmp_path)
    path = tmp_path / "table.json"
    Latency(repeats=2).write_table(search, path)
    table = json.loads(path.read_text())
    del table["precision"]
    path.write_text(json.dumps(table))
    assert read_latency_table(path).facts["precision"] == "fp32"
    Latency(repeats=2).write_table(search, path)  # It is gone on with.
    given = Latency.model_validate(
        {"table": str(path), "precision": "int8"}, context={"folder": tmp_path}
    )
    with pytest.raises(SpecError, match=r"precision: the table .* was measured with 'fp32'"):
        given.check(search)


def test_damaged_weights_are_no_failure_of_the_network(tmp_path: Path) -> None:
    found = tiny_candidate(search_for(tmp_path))
    save_file({"head.weight": torch.zeros(1)}, found.weights_path)
    with pytest.raises(RunFolderError, match=r"weights\.safetensors: damaged"):
        Quantized().measure(found)

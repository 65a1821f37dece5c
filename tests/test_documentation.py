"""The documentation: its code runs, its specs search, its links lead somewhere."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from nasengine.cli import main
from nasengine.runs.experiment import Experiment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SPECS = sorted((ROOT / "examples").rglob("*.toml"))


class Block(NamedTuple):
    """A fenced block: its language, the file that it stands for, its text."""

    page: Path
    line: int
    language: str
    file: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Yield a page's fenced blocks."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", text, re.M | re.S):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match[1], match[2] or "", match[3])


BLOCKS = [block for page in PAGES for block in blocks(page)]
COMPLETE = [page for page in PAGES if any(block.file for block in blocks(page))]


def where(block: Block) -> str:
    return f"{block.page.name}:{block.line}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=where)
def test_python_is_python(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "toml"], ids=where)
def test_toml_is_toml(block: Block) -> None:
    tomllib.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith(("http://", "https://"))]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    folders = "nasengine|spaces|strategies|estimators|examples|tests|docs|benchmarks"
    named = re.findall(rf"`((?:{folders})/[\w/.-]*)`", text)
    named = [name for name in named if "my_" not in name]
    assert [name for name in named if not (ROOT / name).exists()] == []


WITHOUT_ONNX = """
import importlib.util
_find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "onnx" else _find(name, *more)
"""
"""The blocks deliver eight networks: six seconds of ONNX each, which has tests of its own."""


def test_every_page_for_writers_has_a_complete_example() -> None:
    names = {page.name for page in COMPLETE}
    assert {f"writing_a_{kind}.md" for kind in ("space", "strategy", "task")} <= names
    assert "writing_an_estimator.md" in names


@pytest.mark.parametrize("page", COMPLETE, ids=lambda page: page.name)
def test_complete_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(blocks(page))
    for block in found:
        if block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
    for block in found:
        if block.language == "python" and not block.file:
            done = subprocess.run(
                [sys.executable, "-c", WITHOUT_ONNX + block.text],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, f"{where(block)}\n{done.stderr}"
        if block.language == "toml" and block.file:
            assert main(["run", block.file, "--quiet"]) == 0, where(block)
            assert (tmp_path / "runs").is_dir()


def name_of(spec: Path) -> str:
    return str(spec.relative_to(ROOT / "examples"))


def with_data(spec: Path, folder: Path) -> list[str]:
    """Return overrides that give an example the data that it needs."""
    if spec.name.startswith("nas_bench"):
        given = os.environ.get("NASENGINE_DATA")
        if not given:
            pytest.skip("NASENGINE_DATA is not set: it names the folder of neu_seg/ and tables/")
        path = Path(given) / "tables" / f"{spec.stem}.parquet"
        keys = [key for key in ("accuracy", "flops") if key in read(spec)["estimators"]]
        return [f"estimators.{key}.file={path}" for key in keys]
    if spec.name == "own_images.toml":
        return own_images(folder)
    return []


def own_images(folder: Path) -> list[str]:
    for name in ("images", "masks"):
        (folder / "mine" / name).mkdir(parents=True)
        for number in range(24):
            pixels = Image.effect_noise((40, 40), 60.0 + number)
            drawn = pixels if name == "images" else pixels.point(lambda v: 255 * (v > 150))
            drawn.save(folder / "mine" / name / f"part_{number}.png")
    return [f"task.data.{name}={folder / 'mine' / name}" for name in ("images", "masks")]


def read(spec: Path) -> dict[str, Any]:
    return tomllib.loads(spec.read_text(encoding="utf-8"))


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_examples_are_accepted(spec: Path, tmp_path: Path) -> None:
    # Measuring a latency table takes its time, and that a target is met is tested elsewhere.
    easy = [override for override in shrunk(spec) if override.startswith("strategy.cost")]
    experiment = Experiment.load(spec, [*easy, *with_data(spec, tmp_path)])
    search = experiment.search(tmp_path)
    experiment.check_ahead(search)
    assert search.objectives.goals
    assert experiment.references


SMALLER = {
    "space.width": 4,
    "task.data.size": 32,
    "task.data.train": 8,
    "task.data.validation": 4,
    "strategy.iterations": 10,
    "strategy.arch_every": 5,
    "estimators.iou.iterations": 4,
    "estimators.iou.batch": 4,
    "estimators.latency.seconds": 0.0,
    "estimators.latency.repeats": 5,
    # What so small networks take is too short to be steady on a busy machine.
    "estimators.latency.max_spread": 100.0,
    "strategy.cost.latency.target": "10 s",
    "strategy.population": 2,
    "final.estimators.full.iterations": 4,
    "final.estimators.here.max_spread": 100.0,
    "budget.trials": 2,
}

KEPT = {
    "device_table/spec.toml": (
        "space.width",
        "task.data.size",
        "strategy.cost",
        "estimators.latency",
    )
}
"""Keys that an example cannot do without: its table is of that size, and nothing is timed."""

EXPORTS_BLOCKS = ("int8.toml",)
"""Whose table of latencies takes a minute: each block is exported. It is left out."""


def shrunk(spec: Path) -> list[str]:
    """Return overrides that make an example small: of keys that it has, or its estimators have."""
    table = read(spec)
    overrides = ["references=" + str(table.get("references", [])[:1])]
    smaller = SMALLER | ({"strategy.cost": "{}"} if name_of(spec) in EXPORTS_BLOCKS else {})
    for path, value in smaller.items():
        if path.startswith(KEPT.get(name_of(spec), ("-",))):
            continue
        *tables, key = path.split(".")
        place = table
        for name in tables:
            place = None if place is None else place.get(name)
        if place is not None and (key in place or "estimators" in tables):
            overrides.append(f"{path}={value}")
    return overrides


EXPORTED = ("light_sdi.toml", "my_space.toml")
"""Delivered with ONNX: one example of each space. It takes two thirds of such a small run."""


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_examples_run_when_made_small(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name_of(spec) not in EXPORTED:
        monkeypatch.setattr("nasengine.delivery.onnx_model.export_onnx", lambda *_, **__: None)
    overrides = shrunk(spec) + with_data(spec, tmp_path)
    settings = [word for override in overrides for word in ("--set", override)]
    runs = tmp_path / "runs"
    assert main(["run", str(spec), "--quiet", "--runs", str(runs), *settings]) == 0
    (run,) = runs.iterdir()
    assert (run / "best" / "architecture.json").is_file()
    trains = any(table.get("name") == "trained" for table in read(spec)["estimators"].values())
    assert (run / "best" / "weights.safetensors").is_file() == trains
    assert (run / "best" / "model.onnx").is_file() == (name_of(spec) in EXPORTED)


def test_every_example_is_told_of() -> None:
    """A file in examples/ that no page and no other file names is not found by anybody."""
    texts = [path.read_text(encoding="utf-8") for path in (*PAGES, *SPECS, ROOT / "Makefile")]
    own = [path for path in (ROOT / "examples").iterdir() if path.suffix in (".toml", ".py")]
    assert [path.name for path in own if not any(path.name in text for text in texts)] == []


def test_commands_in_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in sorted(set(re.findall(r"`?nasengine ([a-z-]+)", text)) - {"nasengine"}):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, command
    targets = set(re.findall(r"^make (\w+)", text, re.M))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets and all(re.search(rf"^{target}:", makefile, re.M) for target in targets)

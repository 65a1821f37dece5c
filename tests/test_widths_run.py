"""What a user sees and gets of a space whose channels are searched."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import tomli_w
import torch
from torch import nn

from nasengine.architecture import given_architecture
from nasengine.cli import main
from nasengine.delivery.picture import render
from nasengine.delivery.picture_layout import panels
from nasengine.delivery.picture_rows import rows
from nasengine.errors import ArchitectureError, SpaceError
from nasengine.graph import SpaceGraph
from nasengine.report import write_report
from nasengine.runs.experiment import Experiment
from nasengine.runs.identity import space_digest
from nasengine.space import SearchSpace
from nasengine.spaces.light_sdi import LightSDI


class Conv(nn.Sequential):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.ReLU())


class Point(nn.Sequential):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(nn.Conv2d(channels_in, channels_out, 1), nn.ReLU())


def pooled(channels_in: int, channels_out: int) -> nn.Module:
    return nn.MaxPool2d(2)


def doubled(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels_in, channels_out, 1))


class Levels(SearchSpace):
    """A UNet of two levels, the channels of both searched."""

    widths: ClassVar[tuple[str, ...]] = ("width",)

    width: int = 4
    least: int = 2
    first: str = "outer"

    def define(self, graph: SpaceGraph) -> None:
        blocks = {"conv": Conv, "point": Point}
        outer = graph.width(self.first, {"half": self.width // 2, "full": self.width})
        inner = graph.width("inner", (self.least, 4))
        x = graph.slot("down_1", graph.input(3), blocks, out=outer)
        skip = graph.slot("down_2", x, {**blocks, "none": nn.Identity})
        x = graph.operation("pool", skip, pooled)
        x = graph.slot("deep_1", x, blocks, out=2 * inner, shares="deep")
        x = graph.slot("deep_2", x, blocks, shares="deep")
        x = graph.concat("both", [graph.operation("enlarge", x, doubled, out=outer), skip])
        x = graph.slot("up_1", x, blocks, out=outer)
        graph.output(graph.operation("head", x, lambda i, o: nn.Conv2d(i, o, 1), out=1))

    def references(self) -> Mapping[str, Mapping[str, str | int]]:
        same = dict.fromkeys(("down_1", "down_2", "deep", "up_1"), "conv")
        return {"widest": {self.first: "full", "inner": 4, **same}}


NARROW = {
    "outer": "half",
    "inner": "2",
    "down_1": "conv",
    "down_2": "none",
    "deep": "point",
    "up_1": "conv",
}
GIVEN = ",".join(f"{decision}={choice}" for decision, choice in NARROW.items())


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "name": "wide",
        "space": {"name": f"{__name__}:Levels"},
        "task": {"name": "nasengine.testing.stubs:TinySegmentation", "size": 8},
        "strategy": {"name": "random"},
        "estimators": {"firsts": {"name": "nasengine.testing.stubs:CountingEstimator"}},
        "objectives": {"firsts": "max"},
        "budget": {"trials": 3},
        **changes,
    }


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "spec.toml"
    path.write_text(tomli_w.dumps(spec(**changes)))
    return path


def test_an_architecture_is_given_in_any_form(tmp_path: Path) -> None:
    space = Levels()
    architecture = space.architecture(NARROW)
    path = tmp_path / "narrow.json"
    path.write_text(json.dumps({**NARROW, "inner": 2}))
    as_shown = ", ".join(f"{decision} {choice}" for decision, choice in NARROW.items())
    for given in (GIVEN, as_shown, str(path)):
        assert given_architecture(given, space, where="it") == architecture
    assert space.reference("widest")["inner"] == "4"
    with pytest.raises(ArchitectureError, match=r"decision 'outer': 'hlaf' is no choice.*'half'"):
        given_architecture(GIVEN.replace("half", "hlaf"), space, where="it")
    with pytest.raises(ArchitectureError, match="decision 'inner' is missing; allowed: 2, 4"):
        space.architecture(
            {decision: NARROW[decision] for decision in NARROW if decision != "inner"}
        )


def test_a_search_starts_with_widths_by_their_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, start=[{**NARROW, "inner": 2}, "widest"])
    assert [dict(each)["inner"] for each in Experiment.load(path).start] == ["2", "4"]


def digest(space: SearchSpace) -> str:
    return space_digest(SimpleNamespace(space=space))  # type: ignore[arg-type]


def test_a_run_is_of_its_widths_and_goes_on_with_no_others() -> None:
    others = (Levels(width=6), Levels(least=1), Levels(first="other"))
    assert len({digest(space) for space in (Levels(), *others)}) == 4
    # As earlier versions had it: their runs go on.
    assert digest(LightSDI(width=2)).startswith("4f1aaf25eb029a505a22b0e8c66d1fed")


def said_channels(space: SearchSpace, choices: Mapping[str, str] | None = None) -> dict[str, str]:
    return {
        name: box.channels
        for panel in panels(space.graph, choices)
        for name, box in panel.boxes.items()
        if box.channels
    }


def test_a_picture_says_the_channels_to_choose_from_and_those_of_a_network() -> None:
    assert said_channels(Levels()) == {
        **dict.fromkeys(("down_1", "down_2", "enlarge", "up_1"), "2|4"),
        **dict.fromkeys(("deep_1", "deep_2"), "4|8"),
    }
    assert said_channels(Levels(), NARROW) == {
        **dict.fromkeys(("down_1", "down_2", "enlarge", "up_1"), "2"),
        **dict.fromkeys(("deep_1", "deep_2"), "4"),
    }
    texts = re.findall(r">([^<>]+)</text>", render(Levels(), "svg").decode())
    assert "searched channels: outer half|full, inner 2|4" in texts
    # In the list of colours are blocks alone.
    assert not {"half", "full", "2", "4"} & set(texts)
    chosen = render(Levels(), "svg", Levels().architecture(NARROW)).decode()
    assert ">searched channels: outer half, inner 2<" in chosen


class Stages(SearchSpace):
    """Cells of two slots that keep their channels, after stems of searched ones."""

    def define(self, graph: SpaceGraph) -> None:
        blocks = {"conv": Conv, "point": Point}
        x = graph.input(3)
        for stage, widths in enumerate(((8, 16), (1000, 1200, 1400, 1600))):
            x = graph.operation(f"stem_{stage}", x, Conv, out=graph.width(f"w_{stage}", widths))
            for cell in range(2):
                name = f"cell_{stage}_{cell}"
                parts = [graph.slot(f"{name}_{side}", x, blocks, shares=side) for side in "ab"]
                x = graph.add(f"{name}_sum", parts)
        graph.output(graph.operation("head", x, Conv, out=1))


STAGES = {"w_0": "8", "w_1": "1600", "a": "conv", "b": "point"}


def test_repeated_cells_say_their_channels_once() -> None:
    [whole, cell] = panels(Stages().graph, STAGES)
    cells = [box for box in whole.boxes.values() if box.kind == "cell"]
    assert [(box.text, box.channels) for box in cells] == [("cell x 2", "8"), ("cell x 2", "1600")]
    assert not any(box.channels for box in cell.boxes.values())


class Halved(SearchSpace):
    """Sums of two slots that are pooled: what pools would hang over the channels of one slot."""

    def define(self, graph: SpaceGraph) -> None:
        blocks = {"conv": Conv, "point": Point}
        x = graph.input(3)
        for stage in range(3):
            width = graph.width(f"w_{stage}", (16, 24, 32))
            parts = [graph.slot(f"{side}_{stage}", x, blocks, out=width) for side in "ab"]
            x = graph.operation(f"downsampled_{stage}", graph.add(f"sum_{stage}", parts), pooled)
        graph.output(graph.operation("head", x, Conv, out=1))


@pytest.mark.parametrize("space", [Levels(), Stages(), Halved()], ids=["u", "cells", "halved"])
def test_channels_to_choose_from_have_room_beside_their_box(space: SearchSpace) -> None:
    for panel in (row for whole in panels(space.graph) for row in rows(whole)):
        for box in (box for box in panel.boxes.values() if box.channels):
            for other in panel.boxes.values():
                beside = box.right < other.right and other.left < box.end
                over = abs(box.y + 0.15 - other.y) < other.height / 2
                assert not (beside and over), (box.name, other.name)


def test_a_space_is_narrowed_where_its_widths_choices_keep_their_names() -> None:
    narrow = Levels(width=8).narrowed(0.5)
    assert narrow.decisions == Levels().decisions
    assert narrow.graph.channels_of("up_1", NARROW) == (4, 2)

    class Numbered(Levels):
        def define(self, graph: SpaceGraph) -> None:
            x = graph.slot(
                "a", graph.input(3), {"conv": Conv}, out=graph.width("w", (1, self.width))
            )
            graph.output(graph.operation("head", x, Conv, out=1))

    told = r"Numbered has other choices of the width 'w' \(1, 2 in place of 1, 4; names such as"
    with pytest.raises(SpaceError, match=told):
        Numbered().narrowed(0.5)
    told = "0.25 of Numbered's channels, width = 1: .*width 'w': numbers of channels increase"
    with pytest.raises(SpaceError, match=told):
        Numbered().narrowed(0.25)
    with pytest.raises(SpaceError, match="width = 2: searched_widths are shares that increase"):
        LightSDI(width=4, searched_widths=(0.25, 1.0)).narrowed(0.5)


CODE = ["--code", __name__, "--code", "nasengine.testing.stubs"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that starts with a narrow network, which is the best, and searches on by gradient."""
    folder = tmp_path_factory.mktemp("widths")
    path = written(
        folder,
        strategy={"name": "darts", "iterations": 6, "arch_every": 2, "log_every": 2, "batch": 2},
        start=[NARROW],
        estimators={
            "parameters": {},
            "iou": {"name": "trained", "iterations": 2, "batch": 2},
        },
        objectives={"parameters": "min"},
        budget={"trials": 2},
    )
    assert main(["run", str(path), "--runs", str(folder / "runs"), "--quiet"]) == 0
    return folder / "runs" / "wide-1"


def test_what_is_delivered_has_the_widths_that_were_chosen(run: Path) -> None:
    best = run / "best"
    assert json.loads((best / "architecture.json").read_text())["choices"] == NARROW
    source = (best / "model.py").read_text()
    assert (
        "in_channels=3, out_channels=2" in source and "in_channels=4, out_channels=1" not in source
    )
    model: dict[str, Any] = {"__file__": str(best / "model.py"), "__name__": "model"}
    exec(compile(source, "model.py", "exec"), model)
    assert model["load"]()(torch.zeros(2, 3, 8, 8)).shape == (2, 1, 8, 8)
    assert ">searched channels: outer half, inner 2<" in (best / "architecture.svg").read_text()
    told = json.loads((best / "metrics.json").read_text())
    assert told["slots"] == {"down_1": 1, "down_2": 1, "deep": 2, "up_1": 1}
    assert told["channels"] == {"outer": 2, "inner": 2}
    count = told["searched"]["measurements"]["parameters"]["value"]
    assert count == sum(weight.numel() for weight in model["load"]().parameters())


def test_a_report_tells_widths_from_slots(run: Path) -> None:
    text = re.sub("<[^>]+>", "", write_report(run).read_text())
    assert "4 decisions for 5 slots: " in text and "; channels: outer 2, inner 2." in text
    assert "outer (channels)half: 2inner (channels)2" in text and "deep (2 slots)point" in text
    tables = write_report(run).read_text().split('class="heat"')[1:]
    named = [re.findall(r"<tr><th>(\w+)</th>", table.split("</table>")[0]) for table in tables]
    assert named == [["outer"], ["inner"], ["down_1", "down_2", "deep", "up_1"]]


def test_a_report_of_an_unfinished_run_tells_widths_from_slots_too(run: Path) -> None:
    """And shows nothing of what an earlier winner left in best/."""
    text = write_report(run, finished=False).read_text()
    words = re.sub("<[^>]+>", "", text)
    assert "4 decisions for 5 slots: " in words and "; channels: outer 2, inner 2." in words
    assert "outer (channels)half: 2inner (channels)2" in words and "deep (2 slots)point" in words
    assert "the searched network's graph" in html.unescape(write_report(run).read_text())
    assert "the searched network's graph" not in html.unescape(text)
    assert "delivered in best/" not in text


def test_numbers_are_their_own_letters(run: Path) -> None:
    page = write_report(run).read_text()
    assert '<span class="letter plain">2</span>' in page
    key = page.split('class="legend">')[-1].split("</p>")[0]
    assert "half" in key and "point" in key and "2" not in re.findall(r">(\w+)<", key)


def test_the_terminal_says_which_widths_there_are_and_which_were_chosen(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(run / "spec.toml")]) == 0
    out = capsys.readouterr().out
    assert "96 architectures, 4 decisions in 5 slots and 2 widths; " in out
    assert "parameters: " in out
    measured = ["measure", str(run / "spec.toml"), "--architecture"]
    assert main([*measured, GIVEN, "--estimators", "parameters"]) == 0
    assert main([*measured, "widest", "--estimators", "parameters"]) == 0


def test_a_run_goes_on_and_delivers_another_of_its_networks(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(run, tmp_path / "wide")
    assert main(["export", str(folder), "--trial", "1", *CODE]) == 0
    assert main(["export", str(folder), "--reference", "widest", *CODE]) == 0
    source = (folder / "exported" / "reference-widest" / "model.py").read_text()
    assert "in_channels=3, out_channels=4" in source
    assert main(["resume", str(folder), *CODE, "--set", "budget.trials=3"]) == 0
    assert "architecture: outer half, inner 2, down_1 conv" in capsys.readouterr().out
    assert main(["compare", str(run), str(folder)]) == 0

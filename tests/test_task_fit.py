"""A space that a task's loss cannot take, or data of another kind, is refused before the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_spec import load
from torch import nn

from nasengine import SearchSpace, SpaceGraph
from nasengine.errors import SpaceError, SpecError
from nasengine.testing.stubs import TinySegmentation

HERE = Path(__file__)


def conv(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Conv2d(channels_in, channels_out, 1)


def pooled(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels_in, channels_out)
    )


def halved(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Conv2d(channels_in, channels_out, 2, stride=2)


class Maps(SearchSpace):
    """Convolutions, and an end that is chosen by the test."""

    end: str = "conv"
    candidates: int = 2
    classes: int = 8

    def define(self, graph: SpaceGraph) -> None:
        ends = {"conv": conv, "pooled": pooled, "halved": halved}
        x = graph.input(3)
        if self.candidates:
            choices = {"conv": conv, "wide": lambda i, o: nn.Conv2d(i, o, 3, padding=1)}
            x = graph.slot("s", x, dict(list(choices.items())[: self.candidates]), out=4)
        graph.output(graph.operation("end", x, ends[self.end], out=self.classes))


def spec(task: str, data: dict[str, Any], **space: Any) -> dict[str, Any]:
    return {
        "name": "fit",
        "space": {"name": f"{HERE}:Maps", **space},
        "task": {"name": task, "data": data},
        "strategy": {"name": "random"},
        "estimators": {"parameters": {}},
        "objectives": {"parameters": "min"},
        "budget": {"trials": 2},
    }


LABELS = {"name": "textures", "size": 16}
MASKS = {"name": "surface_defects", "size": 16}


@pytest.mark.parametrize(
    ("task", "data", "space", "told"),
    [
        ("classification", LABELS, {}, "networks give 8x16x16 for a sample, and the task "
         "Classification needs 8: one value an output"),
        ("segmentation", MASKS, {"classes": 1, "end": "pooled"},
         "networks give 1 for a sample, and the task Segmentation needs 1x16x16"),
        ("segmentation", MASKS, {"classes": 1, "end": "halved"},
         "networks give 1x8x8 for a sample, and the task Segmentation needs 1x16x16"),
        ("classification", LABELS, {"classes": 5, "end": "pooled"},
         "networks give 5 channels, and the task needs 8; set space.classes"),
        ("segmentation", LABELS, {}, "segmentation needs masks (a class for every pixel), and "
         "data of Textures are labels"),
        ("classification", MASKS, {}, "classification needs labels (a class for every image), and "
         "data of SurfaceDefects are masks"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    tmp_path: Path, task: str, data: dict[str, Any], space: dict[str, Any], told: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load(spec(task, data, **space), tmp_path).search(tmp_path)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("task", "data", "space"),
    [
        ("classification", LABELS, {"end": "pooled"}),
        ("segmentation", MASKS, {"classes": 1}),
    ],
)
def test_what_fits_is_taken(
    tmp_path: Path, task: str, data: dict[str, Any], space: dict[str, Any]
) -> None:
    experiment = load(spec(task, data, **space), tmp_path)
    assert experiment.check_ahead(experiment.search(tmp_path)) == []


def test_a_task_that_says_nothing_of_its_outputs_is_held_to_their_number_alone() -> None:
    task = TinySegmentation(classes=2)
    task.check_outputs((2, 5, 7))
    with pytest.raises(SpecError, match="networks give 3 channels, and the task needs 2"):
        task.check_outputs((3, 5, 7))


def test_a_space_without_a_slot_is_refused(tmp_path: Path) -> None:
    table = spec("segmentation", MASKS, classes=1, candidates=0)
    with pytest.raises(SpaceError, match="space: Maps has no slot, so nothing to search"):
        load(table, tmp_path).search(tmp_path)


def test_a_space_of_one_architecture_gets_a_note(tmp_path: Path) -> None:
    experiment = load(spec("segmentation", MASKS, classes=1, candidates=1), tmp_path)
    (note,) = experiment.check_ahead(experiment.search(tmp_path))
    assert note == "space: Maps holds one architecture: there is nothing to choose"

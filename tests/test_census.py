"""`check --data` counts what the data hold and draws some of them."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from nasengine.census import census, census_of, lacking, telling
from nasengine.cli import main
from nasengine.task import IGNORED, Samples, Splits, Usage
from nasengine.tasks.folder import Folder
from nasengine.tasks.segmentation import Segmentation
from nasengine.tasks.surface_defects import SurfaceDefects

EXAMPLES = Path(__file__).parents[1] / "examples"


class OwnSegmentation(Segmentation):
    """A task that says nothing of how its networks are used."""

    @property
    def usage(self) -> Usage:
        return Usage()


def test_classes_are_called_as_the_data_call_them_where_the_task_does_not() -> None:
    task = OwnSegmentation(data=SurfaceDefects(size=16, train=2, validation=2))
    found = census_of(task, task.load(0))
    assert list(found["train"]["classes"]) == ["background", "defect"]


def test_labels_are_counted_and_a_class_without_a_name_has_its_index() -> None:
    labels = Samples(torch.zeros(4, 1, 2, 2), torch.tensor([0, 2, 2, 0]), ("a", "b", "c", "d"))
    assert census(Splits(labels, labels), ("cat",))["train"] == {
        "samples": 4,
        "classes": {
            "cat": {"samples": 2, "share": 0.5},
            "1": {"samples": 0, "share": 0.0},
            "2": {"samples": 2, "share": 0.5},
        },
    }


def test_classes_that_a_split_lacks_are_told() -> None:
    def samples(*labels: int) -> Samples:
        names = tuple(str(index) for index in range(len(labels)))
        return Samples(torch.zeros(len(labels), 1, 2, 2), torch.tensor(labels), names)

    splits = Splits(samples(0, 1), samples(0, 0, 0, 2, 2, 2), samples(0, 0, 0, IGNORED))
    assert lacking(splits, ("good", "crack", "hole")) == [
        "no train sample holds the class hole: nothing can learn what it looks like",
        "no validation sample holds the class crack: no network is chosen by how well it finds it",
        "no test sample holds any of the classes crack, hole: "
        "no network is judged by how well it finds it",
    ]


def test_classes_in_next_to_no_sample_are_told_where_networks_are_judged() -> None:
    def samples(*labels: int) -> Samples:
        names = tuple(str(index) for index in range(len(labels)))
        return Samples(torch.zeros(len(labels), 1, 2, 2), torch.tensor(labels), names)

    enough, few = samples(0, 0, 0, 1, 1, 1), samples(0, 0, 0, 1, 1)
    assert lacking(Splits(few, enough, enough), ("good", "crack")) == []
    assert lacking(Splits(enough, few, samples(0, 1)), ("good", "crack")) == [
        "few validation samples hold crack (2 of 5): a network is chosen by so little",
        "few test samples hold good (1 of 2), crack (1 of 2): networks are judged by so little",
    ]


def test_masks_that_hold_nothing_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        for number in range(5):
            picture = Image.new("L", (32, 32), number if part == "images" else 0)
            picture.save(tmp_path / part / f"{number}.png")
    data = Folder(images=tmp_path / "images", masks=tmp_path / "masks", size=32)
    first, second, third = Segmentation(data=data).load(seed=0).doubts
    assert first.startswith("no train sample holds the class defect")
    assert second.startswith("no validation sample holds the class defect")
    assert third.startswith("few validation samples hold background (1 of 1)")


def test_samples_with_a_defect_are_looked_at_first() -> None:
    masks = torch.zeros(5, 2, 2, dtype=torch.int64)
    masks[3, 0, 0] = masks[4] = 1
    samples = Samples(torch.zeros(5, 1, 2, 2), masks, tuple("abcde"))
    assert telling(samples, 3).names == ("d", "e", "a")


def test_check_reads_the_data_counts_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number in range(15):
        name = f"plate_{number}.png"
        Image.new("L", (32, 32), 10 * number).save(tmp_path / "images" / name)
        mask = Image.new("L", (32, 32))
        mask.paste(255, (0, 0, 16, 16))
        mask.save(tmp_path / "masks" / name)
    settings = {"images": tmp_path / "images", "masks": tmp_path / "masks", "size": 32}
    given = [part for k, v in settings.items() for part in ("--set", f"task.data.{k}={v}")]
    spec = str(EXAMPLES / "own_images.toml")
    picture = tmp_path / "look.png"
    assert main(["check", spec, *given, "--json", "--data", str(picture)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["files"] == ["images, width x height: 15 of 32 x 32", "mask values: 0, 255"]
    assert facts["doubts"] == []
    assert facts["picture"] == {"path": str(picture), "samples": 8}
    found = facts["data"]
    assert [found[split]["samples"] for split in ("train", "validation", "test")] == [9, 3, 3]
    assert found["train"]["classes"]["defect"] == {"samples": 9, "share": 0.25}
    with Image.open(picture) as image:
        assert image.size == (4 + 8 * 100, 4 + 2 * 100)  # enlarged to 96 pixels

    small = ["--set", "task.data.size=16"]
    with Image.open(tmp_path / "masks" / "plate_3.png") as mask:
        mask.paste(0, (0, 0, 16, 16))
        mask.putpixel((0, 0), 255)
        mask.save(tmp_path / "masks" / "plate_3.png")
    assert main(["check", spec, *given, *small, "--data", str(picture)]) == 0
    told = capsys.readouterr()
    assert f"8 training samples are drawn in {picture}" in told.out
    assert "15 of 32 x 32; brought to 16 x 16, masks by mask_resize = 'nearest'" in told.out
    assert "warning: 1 of 15 masks lose all of a class" in told.err
    assert told.out.endswith("the spec can be run, with a warning to look into\n")

    (tmp_path / "images" / "plate_3.png").write_bytes(b"no image")
    assert main(["check", spec, *given, "--data", "look.jpg"]) == 2
    assert "--data look.jpg: the picture is a .png" in capsys.readouterr().err
    assert main(["check", spec, *given, "--data"]) == 2
    assert "plate_3.png" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["check"], ["run", "--runs", "made"]])
def test_data_that_are_not_there_are_refused_before_anything_runs(
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *options = command
    spec = str(EXAMPLES / "own_images.toml")
    given = [f"--set=task.data.{part}={tmp_path / part}" for part in ("images", "masks")]
    assert main([name, spec, *options, *given]) == 2
    assert "images: no such folder (task.data.images)" in capsys.readouterr().err
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    assert main([name, spec, *options, *given]) == 2
    assert "no images found" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()

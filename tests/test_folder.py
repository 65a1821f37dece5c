"""The user's own images: pairs, values, divisions, and every mistake named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from nasengine.census import census
from nasengine.errors import DataError, SpecError
from nasengine.plugin import build
from nasengine.task import IGNORED, DataSource, Splits
from nasengine.tasks.folder import Folder
from nasengine.tasks.splits import joined, split_by_group

VALUES = {"0": "background", "255": "defect"}
GENERATOR = np.random.default_rng(0)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def noise() -> np.ndarray:
    return GENERATOR.integers(0, 256, (12, 12))


def mask(value: int = 255) -> np.ndarray:
    pixels = np.zeros((12, 12))
    pixels[2:6, 3:9] = value
    return pixels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "sub/c", "sub/d", "e"):
        save(tmp_path / f"images/{name}.png", noise())
        save(tmp_path / f"masks/{name}.png", mask())
    return tmp_path


def folder(root: Path, **settings: Any) -> Folder:
    return Folder(images=root / "images", masks=root / "masks", size=12, **settings)


def names(splits: Splits) -> dict[str, set[str]]:
    found = {"train": set(splits.train.names), "validation": set(splits.validation.names)}
    return found if splits.test is None else {**found, "test": set(splits.test.names)}


def fails(source: DataSource, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        source.load(seed=0)
    message, *_ = str(caught.value).split("\n")  # A line for each file.
    for part in parts:
        assert part in message


def test_images_and_masks_are_read(root: Path) -> None:
    splits = folder(root).load(seed=0)
    assert len(splits.train) == 4
    assert len(splits.validation) == 1
    assert splits.test is None
    assert int(splits.train.targets[0].sum()) == 24
    assert splits.train.targets[0, 2:6, 3:9].min() == 1
    assert set.union(*names(splits).values()) == {"a", "b", "sub/c", "sub/d", "e"}


def test_it_is_built_from_a_table_with_relative_paths(root: Path) -> None:
    table = {"name": "folder", "images": "images", "masks": "masks", "size": [10, 14]}
    source = build(DataSource, table, where="task.data", folder=root)
    assert source.shape == (3, 10, 14)
    assert source.load(seed=0).train.inputs.shape == (4, 3, 10, 14)


def test_formats_may_differ_between_image_and_mask(tmp_path: Path) -> None:
    for name, suffix in (("a", "jpg"), ("b", "BMP"), ("c", "tif"), ("d", "webp")):
        save(tmp_path / f"images/{name}.{suffix}", noise())
        save(tmp_path / f"masks/{name}.png", mask())
    assert len(folder(tmp_path, validation=1).load(seed=0).train) == 3


def test_a_mask_suffix_in_another_or_the_same_folder(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / f"images/{name}.png", noise())
        save(tmp_path / f"masks/{name}_mask.png", mask())
        save(tmp_path / f"both/{name}.png", noise())
        save(tmp_path / f"both/{name}_mask.png", mask())
    apart = folder(tmp_path, mask_suffix="_mask", validation=1)
    assert len(apart.load(seed=0).train) == 2
    both = tmp_path / "both"
    together = Folder(images=both, masks=both, mask_suffix="_mask", validation=1, size=12)
    assert names(together.load(seed=0))["train"] <= {"a", "b", "c"}


def test_nothing_found(tmp_path: Path) -> None:
    fails(folder(tmp_path), str(tmp_path / "images"), "no such folder")
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "images/readme.txt").write_text("no image")
    fails(folder(tmp_path), "no images found")


def test_an_image_without_a_mask(root: Path) -> None:
    (root / "masks/b.png").unlink()
    fails(folder(root), "b.png: no mask b.*", "1 of 5")
    splits = folder(root, missing_masks="background").load(seed=0)
    index = [*splits.train.names, *splits.validation.names].index("b")
    targets = [*splits.train.targets, *splits.validation.targets]
    assert int(targets[index].max()) == 0


def test_masks_that_are_named_otherwise(root: Path) -> None:
    for path in list((root / "masks").rglob("*.png")):
        path.rename(path.with_name(f"{path.stem}_gt.png"))
    fails(folder(root), "5 of 5", 'did you mean task.data.mask_suffix = "_gt"?')
    for number, path in enumerate(sorted((root / "masks").rglob("*.png"))):
        path.rename(root / f"masks/{number}.png")
    fails(folder(root), "masks are named as their images, and the first there is 0.png")
    for path in (root / "masks").glob("*.png"):
        path.unlink()
    fails(folder(root), "there is no image file in that folder")


def test_every_file_with_something_wrong_is_told_at_once(root: Path) -> None:
    (root / "images/a.png").write_bytes(b"")
    save(root / "masks/e.png", np.zeros((3, 3)))
    with pytest.raises(DataError) as caught:
        folder(root).load(seed=0)
    first, second = str(caught.value).split("\n")
    assert "images/a.png: not an image" in first and "masks/e.png: 3 x 3 pixels" in second


def test_many_files_with_something_wrong_are_told_in_part(root: Path) -> None:
    for number in range(30):
        save(root / f"images/z{number:02d}.png", noise())
        save(root / f"masks/z{number:02d}.png", np.zeros((3, 3)))
    with pytest.raises(DataError) as caught:
        folder(root).load(seed=0)
    lines = str(caught.value).split("\n")
    assert len(lines) == 11
    assert lines[-1] == "15 of 35 images were read; the rest was not tried"


def test_masks_that_may_be_inverted_are_told(root: Path) -> None:
    for path in (root / "masks").rglob("*.png"):
        save(path, 255 - mask())
    (doubt,) = folder(root).load(seed=0).doubts
    assert doubt.startswith("'defect' is 83% of all pixels") and "inverted?" in doubt
    assert folder(root, values={"255": "background", "0": "defect"}).load(0).doubts == ()


def test_a_mask_without_an_image(root: Path) -> None:
    (root / "images/sub/c.png").unlink()
    fails(folder(root), "c.png: no image sub/c.*")


def test_two_images_of_one_name(root: Path) -> None:
    save(root / "images/a.bmp", noise())
    fails(folder(root), "a.png", "same name as", "a.bmp")


def test_sizes_that_differ(root: Path) -> None:
    save(root / "masks/a.png", np.zeros((12, 10)))
    fails(folder(root), "masks/a.png: 10 x 12 pixels", "images/a.png has 12 x 12")


def test_labels_beyond_the_classes(root: Path) -> None:
    several = folder(root, names=("background", "crack", "hole"))
    fails(several, "label 255 is beyond the classes", "0 (background), 1 (crack), 2 (hole)")


def test_values_map_to_classes(root: Path) -> None:
    both = mask(255)
    both[8:10, :] = 100
    save(root / "masks/a.png", both)
    values = {"0": "background", "255": "crack", "100": "hole"}
    splits = folder(root, names=("background", "crack", "hole"), values=values).load(seed=0)
    targets = dict(zip(splits.train.names, splits.train.targets, strict=True))
    targets.update(zip(splits.validation.names, splits.validation.targets, strict=True))
    assert targets["a"][9, 0] == 2
    assert targets["a"][3, 4] == 1
    fails(folder(root, values={"0": "background", "255": "defect"}), "a.png: label 100")


RED, WHITE = (255, 0, 0), (255, 255, 255)


def coloured(root: Path, how: str) -> None:
    """Make masks that are black, with a red pixel and a white one."""
    for path in (root / "masks").rglob("*.png"):
        mask = Image.new("RGB", (12, 12))
        mask.putpixel((1, 1), RED)
        mask.putpixel((2, 2), WHITE)
        mask.quantize(4).save(path) if how == "P" else mask.convert(how).save(path)


@pytest.mark.parametrize("how", ["RGB", "P", "RGBA"])
def test_masks_in_colour_are_read_by_the_colours_that_are_named(root: Path, how: str) -> None:
    coloured(root, how)
    values = {"#000000": "background", "#ff0000": "defect", "#FFFFFF": "defect"}
    splits = folder(root, values=values).load(0)
    assert "mask values: #000000, #ff0000, #ffffff" in splits.facts
    held = {int(mask.sum()) for part in splits.parts.values() for mask in part.targets}
    assert held == {2}

    ignoring = folder(root, ignore=("#ffffff",)).load(0)
    assert {int((mask == IGNORED).sum()) for mask in ignoring.train.targets} == {1}
    assert {int((mask == 1).sum()) for mask in ignoring.train.targets} == {1}
    del values["#FFFFFF"]
    fails(folder(root, values=values), "label #ffffff is beyond the classes; allowed: #000000 (b")


def test_masks_in_colour_are_refused_with_their_colours_where_none_is_named(root: Path) -> None:
    coloured(root, "RGB")
    fails(folder(root), "mode RGB: #000000, #ff0000, #ffffff)", "task.data.values may name col")
    Image.new("RGB", (12, 12), RED).save(root / "masks" / "a.jpg")
    (root / "masks" / "a.png").unlink()
    values = {"#000000": "background", "#ff0000": "defect", "#ffffff": "defect"}
    fails(folder(root, values=values), "saved lossily")
    (root / "masks" / "a.jpg").unlink()
    Image.fromarray(np.zeros((12, 12), np.uint16)).save(root / "masks" / "a.png")
    fails(folder(root, values=values), "a.png: masks of mode", "hold no colours")


def test_images_that_are_their_own_masks_are_refused_before_any_is_read(root: Path) -> None:
    with pytest.raises(DataError, match=r"each image is its own mask; task.data.mask_suffix"):
        Folder(images=root / "images", masks=root / "images").check()


def test_a_division_that_leaves_a_split_short_is_refused_before_any_is_read(root: Path) -> None:
    with pytest.raises(DataError, match=r"validation = 4, after test = 3, of 5 images in 5 groups"):
        folder(root, validation=4, test=3).check()
    with pytest.raises(DataError, match="leave none to train on"):
        folder(root, validation=4, test=1).check()


def test_ignored_values_are_no_class(root: Path) -> None:
    both = mask(255)
    both[8:10, :] = 128
    save(root / "masks/a.png", both)
    source = folder(root, ignore=(128,))
    splits = source.load(seed=0)
    assert splits.doubts == ()
    targets = {
        name: target
        for part in splits.parts.values()
        for name, target in zip(part.names, part.targets, strict=True)
    }
    assert targets["a"][9, 0] == IGNORED
    assert targets["a"][3, 4] == 1
    assert {0, 1} == set(targets["b"].flatten().tolist())
    for part in splits.parts.values():
        part.check(source.shape, 2, ignores=True)
    names = "background", "crack", "hole"
    fails(folder(root, names=names, ignore=(128,)), "128 (ignored)", "task.data.ignore")
    counted = census(splits, source.classes)
    part = next(name for name, part in splits.parts.items() if "a" in part.names)
    number = len(splits.parts[part])
    assert counted[part]["classes"]["(ignored)"] == {
        "samples": 1,
        "share": pytest.approx(24 / (144 * number)),
    }


@pytest.mark.parametrize("settings", [{"ignore": (0,)}, {"ignore": (255,), "values": VALUES}])
def test_an_ignored_value_is_no_class_as_well(root: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="is a class as well"):
        folder(root, **settings)


def test_ignored_targets_need_a_task_that_takes_them(root: Path) -> None:
    splits = folder(root, ignore=(255,)).load(seed=0)
    with pytest.raises(DataError, match=r"has the target -100; allowed: class indices from 0 to 1"):
        splits.train.check((3, 12, 12), 2)


@pytest.fixture
def scratched(tmp_path: Path) -> Path:
    """Wide plates, each with a scratch that is thin beside a pixel of the size."""
    for index in range(6):
        scratch = np.zeros((96, 192))
        scratch[8 * index + 1 : 8 * index + 2, 20:40] = 255
        save(tmp_path / f"images/{index}.png", GENERATOR.integers(0, 256, (96, 192)))
        save(tmp_path / f"masks/{index}.png", scratch)
    return tmp_path


def test_defects_that_resizing_erases_are_told(scratched: Path) -> None:
    splits = folder(scratched).load(seed=0)
    assert not any(int(part.targets.sum()) for part in splits.parts.values())
    (doubt,) = splits.doubts
    assert "6 of 6 masks lose all of a class when they are brought to 12 x 12" in doubt
    assert "masks/0.png" in doubt
    sizes, values = splits.facts
    assert "6 of 192 x 96; brought to 12 x 12, squashed" in sizes
    assert values == "mask values: 0, 255"


def test_masks_by_cover_lose_no_defect(scratched: Path) -> None:
    splits = folder(scratched, mask_resize="cover").load(seed=0)
    assert splits.doubts == ()
    for part in splits.parts.values():
        assert part.targets.flatten(1).any(1).all()


def test_more_values_than_classes_are_told(root: Path) -> None:
    save(root / "masks/a.png", mask(1))
    (doubt,) = folder(root).load(seed=0).doubts
    assert "masks hold 0, 1, 255, and every value but 0 counts as 'defect'" in doubt
    assert "what counts for nothing by task.data.ignore" in doubt
    assert (
        folder(root, values={"0": "background", "1": "defect", "255": "defect"}).load(0).doubts
        == ()
    )


def test_lossy_masks_with_greys_are_told(root: Path) -> None:
    for name, value in (("a", 255), ("b", 2)):
        (root / f"masks/{name}.png").unlink()
        save(root / f"masks/{name}.jpg", mask(value))
    (doubt,) = folder(root).load(seed=0).doubts
    assert "1 of 5 masks are saved lossily (JPEG)" in doubt
    assert "masks/b.jpg" in doubt


def test_corrupt_and_oversized_files(root: Path) -> None:
    fails(folder(root, max_pixels=100), "a.png: 12 x 12 pixels are more than max_pixels = 100")
    (root / "images/a.png").write_bytes((root / "images/a.png").read_bytes()[:80])
    fails(folder(root), "images/a.png: corrupt or truncated")


def test_empty_splits(root: Path) -> None:
    fails(folder(root, validation=5), "leave none to train on")
    fails(folder(root, validation=0.01), "the validation split empty")
    fails(folder(root, validation=3, test=9), "the test split short")


def test_a_split_file_as_csv_or_text(root: Path) -> None:
    rows = {"a": "train", "b": "validation", "sub/c.png": "test", "e": "train"}
    (root / "s.csv").write_text("name,split\n" + "".join(f"{n},{s}\n" for n, s in rows.items()))
    (root / "s.txt").write_text("".join(f"{n} {s}\n" for n, s in rows.items()) + "\n")
    for file in ("s.csv", "s.txt"):
        found = names(folder(root, split_file=root / file).load(seed=0))
        assert found == {"train": {"a", "e"}, "validation": {"b"}, "test": {"sub/c"}}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name,split\na,train\nb,validaton\n", ["'validaton'", "did you mean 'validation'?"]),
        ("name,split\na,train\nsub/cc,train\n", ["'sub/cc'", "no image", "'sub/c'"]),
        ("name,split\na,train\na,test\n", ["'a' is in two splits, train and test"]),
        ("name,split\na,train\n", ["the validation split is empty"]),
        ("name,part\na,train\n", ["no column 'split'", "name, part"]),
        ("name,split\na\n", ["line 2"]),
        ("", ["no column 'name'"]),
        ("name,split\na,\xff\n", ["s.csv"]),
    ],
)
def test_mistakes_in_a_split_file(root: Path, text: str, parts: list[str]) -> None:
    (root / "s.csv").write_bytes(text.encode("latin-1"))
    fails(
        folder(root, split_file=root / "s.csv"), "s.csv" if "empty" not in parts[0] else "", *parts
    )


def test_a_text_line_needs_two_words(root: Path) -> None:
    (root / "s.txt").write_text("a train\nb\n")
    fails(folder(root, split_file=root / "s.txt"), "s.txt, line 2", "'b'")
    fails(folder(root, split_file=root / "none.txt"), "none.txt: cannot be read")


def test_splits_by_folder(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "validation/c", "test/a"):
        save(tmp_path / f"images/{name}.png", noise())
        save(tmp_path / f"masks/{name}.png", mask())
    found = names(folder(tmp_path, by_folder=True).load(seed=0))
    assert found == {
        "train": {"train/a", "train/b"},
        "validation": {"validation/c"},
        "test": {"test/a"},
    }
    save(tmp_path / "images/val/d.png", noise())
    save(tmp_path / "masks/val/d.png", mask())
    fails(folder(tmp_path, by_folder=True), "val/d.png", "train, validation, test")


def test_the_same_pixels_in_two_stated_splits(tmp_path: Path) -> None:
    twice = noise()
    for name, pixels in (("train/a", twice), ("train/b", noise()), ("validation/c", twice)):
        save(tmp_path / f"images/{name}.png", pixels)
        save(tmp_path / f"masks/{name}.png", mask())
    fails(folder(tmp_path, by_folder=True), "train/a.png", "validation/c.png", "the same pixels")


def test_a_group_in_two_stated_splits(root: Path) -> None:
    (root / "g.csv").write_text("name,group\na,1\nb,1\nsub/c,2\nsub/d,3\ne,4\n")
    (root / "s.csv").write_text("name,split\na,train\nb,validation\nsub/c,train\n")
    both = folder(root, groups=root / "g.csv", split_file=root / "s.csv")
    fails(both, "a.png (train)", "b.png (validation)", "the group '1'")


def test_groups_stay_whole_when_divided(root: Path) -> None:
    (root / "g.csv").write_text("name,group\na,1\nb,1\nsub/c,2\nsub/d,2\ne,2\n")
    for seed in range(6):
        found = names(folder(root, groups=root / "g.csv", validation=2).load(seed=seed))
        assert {"a", "b"} in found.values()
    (root / "g.csv").write_text("name,group\na,1\nb,1\n")
    fails(folder(root, groups=root / "g.csv"), "g.csv: no row for the image 'e'")


def test_the_same_pixels_stay_together_when_divided(tmp_path: Path) -> None:
    twice = noise()
    for name, pixels in (("a", twice), ("b", twice), ("c", noise()), ("d", noise())):
        save(tmp_path / f"images/{name}.png", pixels)
        save(tmp_path / f"masks/{name}.png", mask())
    for seed in range(8):
        found = names(folder(tmp_path, validation=2).load(seed=seed))
        assert any({"a", "b"} <= split for split in found.values())


def test_a_split_seed_keeps_the_split(root: Path) -> None:
    found = [names(folder(root, validation=2, split_seed=1).load(seed=s)) for s in range(4)]
    assert found == [found[0]] * 4
    assert len({str(folder(root, validation=2).load(s).train.names) for s in range(6)}) > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 4}, "size is from 8"),
        ({"names": ["background"]}, "names needs"),
        ({"values": {"255": "crak"}, "names": ["background", "crack"]}, "did you mean 'crack'?"),
        ({"values": {"x": "defect"}}, "'x' is not a mask's value"),
        ({"values": {"#ff00": "defect"}}, "'#ff00' is not a mask's value"),
        ({"values": {"0": "background"}, "ignore": ["#ffffff"]}, "or all are colours"),
        ({"values": {"#ffffff": "defect"}, "ignore": ["#FFFFFF"]}, "is a class as well"),
        ({"test": "20%"}, "data.test: input should be a valid integer, or input should be"),
        ({"validation": 1.5}, "data.validation"),
        ({"validation": -1}, "data.validation"),
        ({"validation": 0}, "data.validation: networks are chosen by the validation images"),
        ({"validation": 0.0}, "there must be some"),
        ({"by_folder": True, "split_file": "s.csv"}, "keep one"),
        ({"images": 3}, "data.images"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(DataSource, {"name": "folder", "images": "i", "masks": "m", **settings}, where="data")
    assert message in str(caught.value)


def test_a_division_without_validation_is_refused() -> None:
    with pytest.raises(DataError, match="leaves the validation split empty"):
        split_by_group([0, 1, 2], validation=0, test=0, seed=0)


@given(
    groups=st.lists(st.integers(0, 8), min_size=4, max_size=40),
    validation=st.integers(1, 6),
    test=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_a_division_is_whole_disjoint_and_the_same_again(
    groups: list[int], validation: int, test: int, seed: int
) -> None:
    try:
        splits = split_by_group(groups, validation, test, seed)
    except DataError:
        assert len(set(groups)) <= validation + test
        return
    assert sorted(i for split in splits.values() for i in split) == list(range(len(groups)))
    assert len(splits["validation"]) >= validation
    assert len(splits["test"]) >= test
    assert splits == split_by_group(groups, validation, test, seed)
    where = {
        group: {n for n, s in splits.items() for i in s if groups[i] == group} for group in groups
    }
    assert all(len(found) == 1 for found in where.values())


@given(keys=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz")), min_size=1))
def test_joined_groups_are_the_connected_ones(keys: list[tuple[str, str]]) -> None:
    import networkx

    first, second = ([pair[index] for pair in keys] for index in (0, 1))
    found = joined(first, second)
    graph = networkx.Graph(keys)
    for i, (one, _) in enumerate(keys):
        for j, (other, _) in enumerate(keys):
            assert (found[i] == found[j]) == networkx.has_path(graph, one, other)


def test_what_a_check_of_the_whole_table_names_is_what_was_got(root: Path) -> None:
    given = {"name": "folder", "images": str(root / "images"), "masks": str(root / "masks")}
    for settings, said in (
        ({"size": 3}, "task.data: size is from 8 to 4096 pixels; got size = 3"),
        ({"values": {"none": 0}}, 'task.data.values: each mask value needs its class, as in { "0"'),
        ({"split_file": "x.csv", "by_folder": True}, "got split_file = 'x.csv', by_folder = True"),
    ):
        with pytest.raises(SpecError) as caught:
            build(DataSource, {**given, **settings}, where="task.data")
        assert said in str(caught.value)
        assert "masks'" not in str(caught.value)

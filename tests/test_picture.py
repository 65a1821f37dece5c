"""Pictures of spaces and architectures."""

import io
import re

import pytest
from PIL import Image
from torch import nn

from nasengine.delivery.picture import draw, render
from nasengine.delivery.picture_layout import CONNECTOR, image_levels, panels
from nasengine.delivery.picture_rows import WIDEST, rows
from nasengine.errors import SpecError
from nasengine.graph import SpaceGraph
from nasengine.space import SearchSpace
from nasengine.spaces.light_sdi import LightSDI
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.spaces.nas_bench_macro import NASBenchMacro

LIGHT, CELLS, CHAIN = LightSDI(width=2), NASBench201(width=2), NASBenchMacro(width=2)


def pooled(channels_in, channels_out):
    return nn.MaxPool2d(2)


def doubled(channels_in, channels_out):
    return nn.Upsample(scale_factor=2)


class Resolutions(SearchSpace):
    """Two resolutions, each of which reads both: what resizes stands between other lanes."""

    def define(self, graph: SpaceGraph) -> None:
        blocks = {"conv": nn.Identity, "relu": lambda i, o: nn.ReLU()}
        high = graph.input(3)
        low = graph.operation("low", high, pooled)
        for step in (1, 2):
            kept = [graph.slot(f"high{step}", high, blocks), graph.slot(f"low{step}", low, blocks)]
            up, down = (
                graph.slot(f"up{step}", low, blocks),
                graph.slot(f"down{step}", high, blocks),
            )
            high = graph.add(f"h{step}", [kept[0], graph.operation(f"double{step}", up, doubled)])
            low = graph.add(f"l{step}", [kept[1], graph.operation(f"pool{step}", down, pooled)])
        graph.output(graph.concat("both", [high, graph.operation("last", low, doubled)]))


class Deep(SearchSpace):
    """A chain of slots with sums over two of them, halved now and then, and one long skip."""

    slots: int = 40

    def define(self, graph: SpaceGraph) -> None:
        blocks = {"conv": lambda i, o: nn.Conv2d(i, o, 1), "other": lambda i, o: nn.Conv2d(i, o, 1)}
        x = first = graph.slot("slot0", graph.input(3), blocks, out=4)
        for step in range(1, self.slots):
            y = graph.slot(f"slot{step}", x, blocks, out=4)
            x = graph.add(f"sum{step}", [x, y]) if step % 2 else y
            if step % 12 == 0:
                x = graph.operation(f"down{step}", x, pooled)
                first = graph.operation(f"skip{step}", first, pooled)
        graph.output(graph.add("end", [x, first]))


class UNet(SearchSpace):
    """A U of seven levels, two slots at each side."""

    def define(self, graph: SpaceGraph) -> None:
        blocks = {"conv": lambda i, o: nn.Conv2d(i, o, 1), "other": lambda i, o: nn.Conv2d(i, o, 1)}
        x, kept = graph.input(3), []
        for level in range(7):
            x = graph.slot(f"down{level}", x, blocks, out=4)
            kept.append(graph.slot(f"skip{level}", x, blocks, out=4))
            x = graph.operation(f"pool{level}", kept[-1], pooled)
        for level in reversed(range(7)):
            x = graph.operation(f"double{level}", x, doubled)
            x = graph.slot(
                f"up{level}", graph.concat(f"both{level}", [x, kept[level]]), blocks, out=4
            )
            x = graph.slot(f"out{level}", x, blocks, out=4)
        graph.output(x)


@pytest.mark.parametrize("space", [LIGHT, CELLS, CHAIN, Resolutions()])
def test_what_fits_in_one_row_is_drawn_in_one(space):
    for panel in panels(space.graph):
        assert rows(panel) == [panel]


@pytest.mark.parametrize("space", [Deep(), Deep(slots=200), UNet()], ids=["40", "200", "unet"])
def test_what_is_too_wide_is_cut_into_rows_that_read_each_other_by_letters(space):
    [whole] = panels(space.graph)
    wires = {(source, box.name) for box in whole.boxes.values() for source in box.reads}
    cut = rows(whole)
    left, right = cut[0].across
    assert len(cut) > 1 and right - left <= WIDEST
    found, letters, begun = set(), {}, {}
    for row in cut:
        assert row.across == (left, right)
        for name, box in row.boxes.items():
            assert left <= box.left and box.right <= right
            found |= {(source, name) for source in box.reads if box.kind != CONNECTOR}
            if box.kind == CONNECTOR and not box.reads:
                assert begun[name] == box.text  # in a row above
            elif box.kind == CONNECTOR:
                begun[box.reads[0]] = box.text
                assert letters.setdefault(box.text, box.reads[0]) == box.reads[0]
    assert found == wires
    assert sum(box.kind != CONNECTOR for row in cut for box in row.boxes.values()) == len(
        space.graph.order
    )


def test_a_row_ends_where_one_wire_crosses():
    """Behind a sum, not between its parts: another wire would have to go on beside the skip's."""
    first, *_ = rows(panels(Deep(slots=24).graph)[0])
    goes_on = [box.reads[0] for box in first.boxes.values() if box.kind == CONNECTOR]
    assert goes_on == ["skip12", "sum5"]


@pytest.mark.parametrize("space", [LIGHT, CELLS, CHAIN, Resolutions(), Deep(), UNet()])
def test_no_two_boxes_overlap(space):
    for panel in (row for whole in panels(space.graph) for row in rows(whole)):
        boxes = list(panel.boxes.values())
        for index, one in enumerate(boxes):
            for other in boxes[index + 1 :]:
                apart = abs(one.x - other.x) >= (one.width + other.width) / 2
                assert apart or abs(one.y - other.y) >= (one.height + other.height) / 2


def test_a_unet_looks_like_a_u():
    boxes = panels(LIGHT.graph)[0].boxes
    for level in range(1, 5):
        encoder, decoder = boxes[f"encoder_{level}"], boxes[f"decoder_{5 - level}"]
        assert encoder.y == decoder.y > boxes[f"encoder_{level + 1}"].y
        assert encoder.x < boxes[f"encoder_{level + 1}"].x < decoder.x
    assert image_levels(LIGHT.graph)["encoder_5"] == 4


def test_a_repeated_cell_is_drawn_once():
    whole, cell = panels(CELLS.graph)
    assert [box.text for box in whole.boxes.values() if box.kind == "cell"] == ["cell x 5"] * 3
    assert sum(box.kind == "slot" for box in cell.boxes.values()) == 6


class Shared(SearchSpace):
    """Two levels of a U, whose sides share a choice; the outer slots stand alone between cuts."""

    def define(self, graph: SpaceGraph) -> None:
        blocks = {"one": lambda i, o: nn.Conv2d(i, o, 1), "two": lambda i, o: nn.Conv2d(i, o, 1)}
        top = graph.slot("enc", graph.input(3), blocks, out=4, shares="level")
        down = graph.operation("down", top, lambda _i, _o: nn.MaxPool2d(2))
        x = graph.slot("bottom", down, blocks, out=4)
        x = graph.operation("up", x, lambda _i, _o: nn.Upsample(scale_factor=2))
        x = graph.slot("dec", graph.concat("cat", [x, top]), blocks, out=4, shares="level")
        graph.output(graph.operation("head", x, lambda i, o: nn.Conv2d(i, o, 1), out=1))


def test_slots_that_share_a_choice_are_drawn_as_slots():
    """Alone between two cuts each was a box named cell, its choice hidden in a panel below."""
    [whole] = panels(Shared().graph)
    kinds = {name: box.kind for name, box in whole.boxes.items()}
    assert kinds["enc"] == kinds["dec"] == kinds["bottom"] == "slot"
    assert "cell" not in kinds.values()


@pytest.mark.parametrize("name", ["unet", "neu_inclusion"])
def test_an_svg_says_what_stands_where(name, tmp_path):
    path = tmp_path / "picture.svg"
    draw(LIGHT, path, LIGHT.reference(name))
    text = path.read_text()
    for slot, choice in LIGHT.reference(name).items():
        assert re.search(rf">\s*{slot}\s*<", text)
        assert re.search(rf">\s*{choice}\s*<", text)
    assert path.read_bytes() == render(LIGHT, "svg", LIGHT.reference(name))


def test_a_png_is_an_image_and_other_choices_make_another():
    plain = render(CELLS, "png")
    assert Image.open(io.BytesIO(plain)).size[0] > 500
    assert len({plain, render(CELLS, "png", CELLS.reference("resnet"))}) == 2


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"a picture is .svg or .png"):
        draw(LIGHT, tmp_path / "picture.jpeg")

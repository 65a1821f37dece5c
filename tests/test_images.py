"""Images and masks of every mode are read right or refused by name; damage is named."""

import random
import struct
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from nasengine.errors import DataError
from nasengine.tasks.images import Reader

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
READER = Reader(size=(8, 8), channels=3, max_pixels=10_000)


def read(path: Path, channels: int = 3) -> np.ndarray:
    return Reader(size=(8, 8), channels=channels, max_pixels=10_000).image(path)[0]


def palette_image() -> Image.Image:
    image = Image.fromarray(GREY // 64)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "pgm", "gif", "webp"])
def test_lossless_formats_keep_grey(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GREY).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert np.abs(read(path, 1)[0] - GREY / 255).max() < 1e-6
    assert np.abs(read(path, 3)[2] - GREY / 255).max() < 1e-6


def test_jpeg_is_close(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.jpg", quality=98)
    assert np.abs(read(tmp_path / "a.jpg") - GREY / 255).max() < 0.05


def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert np.abs(read(tmp_path / "a.png")[1] - GREY / 255).max() < 1e-3


def test_palette_colours_are_looked_up(tmp_path: Path) -> None:
    palette_image().save(tmp_path / "a.png")
    pixels = read(tmp_path / "a.png")
    assert pixels[:, 3, 0].tolist() == [1.0, 0.0, 0.0]


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png")[0], (GREY > 100).astype(np.float32))


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    assert read(tmp_path / "a.tif")[:, 0, 0].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_is_dropped(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(GREY).convert(mode)
    image.save(tmp_path / "a.png")
    assert np.abs(read(tmp_path / "a.png")[0] - GREY / 255).max() < 1e-6


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_are_refused(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(GREY).convert(mode)
    image.putalpha(Image.fromarray(GREY))
    image.save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: has transparent pixels"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize(("mode", "level"), [("L", 4), ("RGB", (4, 4, 4)), ("P", 1)])
def test_a_colour_that_stands_for_transparency_is_alpha(
    tmp_path: Path, mode: str, level: int | tuple[int, ...]
) -> None:
    image = palette_image() if mode == "P" else Image.fromarray(GREY).convert(mode)
    image.save(tmp_path / "a.png", transparency=level)
    with pytest.raises(DataError, match=r"a\.png: has transparent pixels"):
        read(tmp_path / "a.png")
    unused = {"L": 5, "RGB": (5, 6, 7), "P": 9}[mode]
    image.save(tmp_path / "b.png", transparency=unused)
    image.save(tmp_path / "c.png")
    assert np.array_equal(read(tmp_path / "b.png"), read(tmp_path / "c.png"))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_unbounded_values_are_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(GREY.astype(dtype)).save(tmp_path / "a.tif")
    with pytest.raises(
        DataError, match=r"a\.tif: images of mode '[FI]' are not read; allowed: grey"
    ):
        read(tmp_path / "a.tif")


def test_several_frames_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="has 2 frames"):
        read(tmp_path / "a.gif")


def test_a_turned_photograph_is_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    assert np.abs(read(tmp_path / "a.png")[0] - GREY[::-1, ::-1] / 255).max() < 1e-6


def test_a_turned_mask_is_read_as_its_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    read_as_image = read(tmp_path / "a.png")[0] * 255
    assert np.array_equal(READER.mask(tmp_path / "a.png").values, read_as_image.round())
    assert not np.array_equal(READER.mask(tmp_path / "a.png").values, GREY)


def test_size_is_reported_and_changed(tmp_path: Path) -> None:
    Image.new("L", (20, 10), 128).save(tmp_path / "a.png")
    pixels, size, _ = READER.image(tmp_path / "a.png")
    assert pixels.shape == (3, 8, 8)
    assert size == (10, 20)


def test_the_digest_is_of_the_pixels(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    Image.fromarray(GREY).save(tmp_path / "b.bmp")
    Image.fromarray(GREY.T.copy()).save(tmp_path / "c.png")
    a, b, c = (READER.image(tmp_path / name)[2] for name in ("a.png", "b.bmp", "c.png"))
    assert a == b != c


def test_height_stands_before_width(tmp_path: Path) -> None:
    Image.fromarray(np.repeat(GREY, 4, axis=1)).save(tmp_path / "a.png")
    pixels, size, _ = Reader((4, 16), 1, max_pixels=8 * 32).image(tmp_path / "a.png")
    assert (pixels.shape, size) == ((1, 4, 16), (8, 32))
    with pytest.raises(DataError, match="32 x 8 pixels are more than max_pixels = 255"):
        Reader((4, 16), 1, max_pixels=8 * 32 - 1).image(tmp_path / "a.png")


def test_black_of_another_shape_is_another_picture(tmp_path: Path) -> None:
    digests = set()
    for shape in ((8, 4), (4, 8), (2, 16)):
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "a.png")
        digests.add(READER.image(tmp_path / "a.png")[2])
    assert len(digests) == 3


def test_a_photograph_with_a_preview_is_one_picture(tmp_path: Path) -> None:
    """As many cameras save it: a JPEG with another one behind (MPO)."""
    first, preview = Image.fromarray(GREY), Image.fromarray(GREY // 2)
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview], quality=98)
    assert np.abs(read(tmp_path / "a.jpg") - GREY / 255).max() < 0.05


def test_the_digest_of_grey_is_the_same_in_one_band_and_in_three(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    Image.fromarray(GREY).convert("RGB").save(tmp_path / "b.png")
    tinted = np.stack([GREY, GREY, GREY // 2], -1)
    Image.fromarray(tinted).save(tmp_path / "c.png")
    a, b, c = (READER.image(tmp_path / name)[2] for name in ("a.png", "b.png", "c.png"))
    assert a == b != c


def test_a_colour_picture_and_its_grey_copy_are_the_same_where_grey_is_read(
    tmp_path: Path,
) -> None:
    colour = Image.fromarray(np.stack([GREY, GREY // 2, 255 - GREY], -1))
    colour.save(tmp_path / "a.png")
    colour.convert("L").save(tmp_path / "b.png")
    grey = replace(READER, channels=1)
    assert grey.image(tmp_path / "a.png")[2] == grey.image(tmp_path / "b.png")[2]
    assert READER.image(tmp_path / "a.png")[2] != READER.image(tmp_path / "b.png")[2]


def png_header(width: int, height: int) -> bytes:
    """A PNG that states its size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("side", [101, 12_000, 20_000, 2**31 - 1])
def test_oversized_images_are_refused_from_the_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    for function in (READER.image, READER.mask):
        with pytest.raises(DataError, match=r"bomb\.png: .*nothing was decoded"):
            function(tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "gif"])
@pytest.mark.parametrize("kept", [0, 3, 40, -30])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, kept: int) -> None:
    generator = np.random.default_rng(0)
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    Image.fromarray(generator.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(whole)
    path.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(DataError, match=rf"cut\.{suffix}: (not an image|corrupt or truncated)"):
        READER.image(path)


@given(damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif", "bmp"])
def test_damaged_bytes_are_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, damage: list[tuple[float, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    Image.fromarray(np.stack([GREY] * 3, -1)).save(path)
    content = bytearray(path.read_bytes())
    for place, value in damage:
        content[int(place * (len(content) - 1))] = value
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for function in (READER.image, READER.mask):
            try:
                function(path)
            except DataError as error:
                assert path.name in str(error)


def varieties() -> dict[str, Image.Image]:
    colour = Image.fromarray(np.stack([GREY, 255 - GREY, GREY // 2], -1))
    alpha = colour.convert("RGBA")
    alpha.putalpha(Image.fromarray(GREY))
    return {
        "grey.png": Image.fromarray(GREY),
        "sixteen.png": Image.fromarray(GREY.astype(np.uint16) * 257),
        "sixteen.tif": Image.fromarray(GREY.astype(np.uint16) * 257),
        "palette.png": palette_image(),
        "palette.gif": palette_image(),
        "alpha.png": alpha,
        "alpha.webp": alpha,
        "colour.jpg": colour,
        "cmyk.jpg": colour.convert("CMYK"),
        "cmyk.tif": colour.convert("CMYK"),
        "float.tif": Image.fromarray(GREY.astype(np.float32)),
        "bit.png": Image.fromarray(GREY > 128),
    }


def mutants(content: bytes, rng: random.Random) -> bytes:
    """Cut, flip bits, overwrite, repeat or leave out a piece: one to three of them."""
    found = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(max(1, len(found)))
        piece = slice(place, place + rng.randint(1, 16))
        kind = rng.randrange(5)
        if kind == 0:
            del found[place:]
        elif kind == 1 and found:
            found[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            found[piece] = rng.choice([b"\x00", b"\xff", b"\x7f"]) * len(found[piece])
        elif kind == 3:
            found[piece] = found[piece] * 2
        else:
            del found[piece]
    return bytes(found)


@pytest.mark.parametrize("name", [*varieties(), "animated.gif", "animated.png", "pages.tif"])
def test_sixty_mutants_of_every_kind_of_image_are_read_or_named(tmp_path: Path, name: str) -> None:
    """900 damaged files: an array in the asked shape, or an error that names the file."""
    path, rng = tmp_path / name, random.Random(name)
    if name in varieties():
        varieties()[name].save(path)
    else:
        frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    content, refused = path.read_bytes(), 0
    for _ in range(60):
        path.write_bytes(mutants(content, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for read_it, shape in (
                (lambda p: READER.image(p)[0], (3, 8, 8)),
                (lambda p: READER.resized(READER.mask(p).values.astype(np.int64)), (8, 8)),
            ):
                try:
                    assert read_it(path).shape == shape
                except DataError as error:
                    assert str(error).startswith(f"{path}: ")
                    assert "\n" not in str(error)
                    refused += 1
    assert refused > 10


def test_no_such_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        READER.image(tmp_path / "none.png")
    with pytest.raises(DataError, match="corrupt or truncated"):
        READER.image(tmp_path)


def test_pillow_is_left_as_it_was(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    (tmp_path / "bomb.png").write_bytes(png_header(20_000, 20_000))
    with pytest.raises(DataError):
        READER.image(tmp_path / "bomb.png")
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_a_palette_mask_is_its_indices(tmp_path: Path) -> None:
    palette_image().save(tmp_path / "m.png")
    assert np.array_equal(READER.mask(tmp_path / "m.png").values, GREY // 64)


def test_a_grey_mask_in_rgb_is_its_grey(tmp_path: Path) -> None:
    Image.fromarray(GREY).convert("RGB").save(tmp_path / "m.png")
    assert np.array_equal(READER.mask(tmp_path / "m.png").values, GREY)


def test_a_sixteen_bit_mask_keeps_its_values(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 200).save(tmp_path / "m.png")
    assert READER.mask(tmp_path / "m.png").values.max() == 252 * 200


@pytest.mark.parametrize(
    ("name", "settings"), [("m.jpg", {}), ("m.tif", {"compression": "jpeg", "quality": 40})]
)
def test_a_mask_saved_as_jpeg_is_cut_at_half(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    mask = Image.fromarray(np.where(GREY > 100, 255, 0).astype(np.uint8))
    mask.save(tmp_path / name, **settings)
    with Image.open(tmp_path / name) as saved:
        assert set(np.unique(np.asarray(saved))) > {0, 255}
    assert set(np.unique(READER.mask(tmp_path / name).values)) == {0, 255}


@pytest.mark.parametrize(("grey", "expected"), [(127, 0), (128, 255)])
def test_half_of_a_lossy_mask_is_128(tmp_path: Path, grey: int, expected: int) -> None:
    Image.fromarray(np.full((8, 8), grey, np.uint8)).save(tmp_path / "a.jpg", quality=98)
    assert (READER.mask(tmp_path / "a.jpg").values == expected).all()


def test_what_compression_does_to_colours_is_no_colour(tmp_path: Path) -> None:
    tinted = np.full((8, 8, 3), (250, 255, 240), np.uint8)
    Image.fromarray(tinted).save(tmp_path / "a.jpg", quality=98)
    mask = READER.mask(tmp_path / "a.jpg")
    assert (mask.values == 255).all() and not mask.blurred


@pytest.mark.parametrize("values", [(0, 1), (0, 100)])
def test_classes_that_are_saved_lossily_are_doubted(
    tmp_path: Path, values: tuple[int, int]
) -> None:
    Image.fromarray(np.repeat(np.array([values], np.uint8), 8, 0).repeat(4, 1)).save(
        tmp_path / "a.jpg", quality=98
    )
    assert READER.mask(tmp_path / "a.jpg").blurred


def test_a_mask_in_colour_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png: a mask in colour"):
        READER.mask(tmp_path / "m.png")
    Image.new("CMYK", (8, 8)).save(tmp_path / "m.tif")
    with pytest.raises(DataError, match=r"m\.tif: masks of mode 'CMYK'"):
        READER.mask(tmp_path / "m.tif")


def test_masks_are_resized_to_values_that_they_hold() -> None:
    mask = np.zeros((31, 17), np.int64)
    mask[5:20, 3:9] = 3
    for how in ("nearest", "cover"):
        found = replace(READER, mask_resize=how).resized(mask)
        assert found.dtype == np.int64
        assert set(np.unique(found)) == {0, 3}


@given(
    source=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    place=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_cover_keeps_a_defect_of_one_pixel(
    source: tuple[int, int], place: tuple[float, float]
) -> None:
    mask = np.zeros(source, np.int64)
    mask[int(place[0] * source[0]), int(place[1] * source[1])] = 2
    assert set(np.unique(replace(READER, mask_resize="cover").resized(mask))) - {0} == {2}


def test_cover_takes_the_class_that_covers_most_beside_the_background() -> None:
    mask = np.zeros((32, 32), np.int64)
    mask[0, 0], mask[0, 1:3], mask[8:12, 8:12] = 2, 1, 2
    found = replace(READER, mask_resize="cover").resized(mask)
    assert found[0, 0] == 1
    assert found[2, 2] == 2
    assert found.astype(bool).sum() == 2
    assert replace(READER, mask_resize="nearest").resized(mask)[0, 0] == 0

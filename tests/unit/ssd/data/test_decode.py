"""Every kind of file a camera or a tool may leave in a folder becomes the right pixels, or a refusal."""

import contextlib
import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ssd.data.images.decode import Decoding, Refusal, RefusedImageError, decode, measure

RGB = Decoding(side=8, channels=3)
GREY = Decoding(side=8, channels=1)


def quadrants(width: int = 64, height: int = 64, mode: str = "RGB") -> Image.Image:
    """Red, green / blue, white: every rotation and mirroring of it is different."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(pixels).convert(mode)


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def corners(pixels: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """The colours well inside the four quadrants, row by row."""
    side = pixels.shape[1]
    low, high = side // 4, side - 1 - side // 4
    return [tuple(int(v) for v in pixels[:, y, x]) for y in (low, high) for x in (low, high)]


QUADRANTS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.gif"])
def test_lossless_files_give_the_exact_colours(tmp_path: Path, name: str) -> None:
    pixels = decode(saved(quadrants(), tmp_path / name), RGB)
    assert pixels.shape == (3, 8, 8)
    assert pixels.dtype == np.uint8
    assert corners(pixels) == QUADRANTS


@pytest.mark.parametrize(
    ("name", "mode"), [("a.jpg", "RGB"), ("a.jpg", "CMYK"), ("a.webp", "RGB"), ("a.tif", "CMYK")]
)
def test_lossy_files_and_print_colours_give_nearly_the_colours(tmp_path: Path, name: str, mode: str) -> None:
    options = {"quality": 95} if name != "a.tif" else {}
    pixels = decode(saved(quadrants(mode=mode), tmp_path / name, **options), RGB)
    assert np.allclose(corners(pixels), QUADRANTS, atol=12)


def test_palettes_and_bilevel_images_become_colours_and_grey(tmp_path: Path) -> None:
    palette = saved(quadrants().quantize(4), tmp_path / "a.png")
    assert corners(decode(palette, RGB)) == QUADRANTS
    bilevel = Image.fromarray(
        np.array([[0, 255], [255, 0]], dtype=np.uint8).repeat(32, 0).repeat(32, 1)
    ).convert("1")
    assert corners(decode(saved(bilevel, tmp_path / "b.png"), GREY)) == [(0,), (255,), (255,), (0,)]


def test_grey_fills_three_channels_and_colour_becomes_luma(tmp_path: Path) -> None:
    grey = saved(Image.new("L", (20, 20), 77), tmp_path / "grey.png")
    assert (decode(grey, RGB) == 77).all()
    red = saved(Image.new("RGB", (20, 20), (200, 0, 0)), tmp_path / "red.png")
    assert (decode(red, GREY) == round(0.299 * 200)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_seen_on_white(tmp_path: Path, mode: str) -> None:
    if mode == "PA":
        # A palette image with one transparent entry, as GIF and PNG have it.
        image = Image.new("P", (16, 16), 0)
        image.putpalette([10, 20, 30, 200, 100, 0])
        image.paste(1, (8, 0, 16, 16))
        path = saved(image, tmp_path / "a.png", transparency=0)
        assert corners(decode(path, RGB)) == [(255, 255, 255), (200, 100, 0)] * 2
        return
    image = Image.new(mode, (16, 16), (0, 0, 0, 128) if mode == "RGBA" else (0, 128))
    assert (decode(saved(image, tmp_path / "a.png"), RGB) == 127).all()


def test_hidden_colours_of_transparent_pixels_do_not_bleed_into_their_neighbours(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 4), dtype=np.uint8)
    pixels[:, ::2] = (255, 0, 0, 0)
    pixels[:, 1::2] = (255, 255, 255, 255)
    path = saved(Image.fromarray(pixels), tmp_path / "a.png")
    assert (decode(path, RGB) >= 254).all()


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path, name: str) -> None:
    values = np.full((32, 32), 0x1234, dtype=np.uint16)
    values[:, 16:] = 0xFFFF
    path = saved(Image.fromarray(values), tmp_path / name)
    assert corners(decode(path, RGB)) == [(0x12,) * 3, (0xFF,) * 3] * 2


def test_sixteen_bit_colour_is_read(tmp_path: Path) -> None:
    """Pillow cannot write one, so it is made by hand: 8 x 8, RGB, 16 bits."""
    row = b"\x00" + struct.pack(">3H", 0x8000, 0x4000, 0xFFFF) * 8

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">2I5B", 8, 8, 16, 2, 0, 0, 0)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row * 8))
        + chunk(b"IEND", b"")
    )
    assert corners(decode(path, RGB)) == [(0x80, 0x40, 0xFF)] * 4


TURNS = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", TURNS)
def test_the_camera_was_held_some_way_and_the_picture_is_upright(
    tmp_path: Path, name: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = TURNS[orientation](quadrants(96, 64))
    pixels = decode(saved(stored, tmp_path / name, exif=exif), RGB)
    assert np.allclose(corners(pixels), QUADRANTS, atol=30)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_metadata_does_not_lose_a_good_image(tmp_path: Path) -> None:
    path = saved(quadrants(), tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert corners(decode(path, RGB)) == QUADRANTS


def test_the_centre_square_of_a_long_picture_is_kept(tmp_path: Path) -> None:
    pixels = np.zeros((40, 120, 3), dtype=np.uint8)
    pixels[:, 40:80] = (0, 0, 255)
    wide = saved(Image.fromarray(pixels), tmp_path / "wide.png")
    blue = np.array([0, 0, 255])[:, None, None]
    assert (decode(wide, Decoding(side=20, channels=3))[:, :, 1:-1] == blue).all()
    tall = saved(Image.fromarray(pixels.transpose(1, 0, 2).copy()), tmp_path / "tall.png")
    assert (decode(tall, Decoding(side=20, channels=3))[:, 1:-1] == blue).all()


def test_a_big_jpeg_looks_the_same_as_its_full_decode(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize((1600, 1200), Image.Resampling.BICUBIC)
    path = saved(photo, tmp_path / "big.jpg", quality=95)
    fast = decode(path, Decoding(side=32, channels=3)).astype(int)
    exact = decode(saved(photo, tmp_path / "big.png"), Decoding(side=32, channels=3)).astype(int)
    assert np.abs(fast - exact).mean() < 2.0
    assert (measure(path).width, measure(path).height) == (1600, 1200)


def refusal(path: Path, **options: int) -> Refusal:
    with pytest.raises(RefusedImageError) as caught:
        decode(path, Decoding(side=8, channels=3, **options))
    return caught.value.refusal


def test_what_is_no_image_is_refused_for_the_right_reason(tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("these are notes")
    assert refusal(text) is Refusal.NOT_AN_IMAGE
    assert refusal(tmp_path / "absent.png") is Refusal.UNREADABLE
    assert refusal(tmp_path) is Refusal.UNREADABLE
    for name in ("cut.jpg", "cut.png", "cut.webp", "cut.bmp"):
        whole = saved(quadrants(200, 200), tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
        assert refusal(tmp_path / name) is Refusal.CORRUPT, name


def test_formats_that_start_other_programs_are_not_even_tried(tmp_path: Path) -> None:
    script = tmp_path / "a.png"
    script.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    assert refusal(script) is Refusal.NOT_AN_IMAGE


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    whole = bytearray(saved(Image.new("1", (64, 64)), tmp_path / "small.png").read_bytes())
    for width, height in ((12_000, 12_000), (60_000, 60_000)):
        header = b"IHDR" + struct.pack(">2I", width, height) + bytes(whole[24:29])
        whole[12:33] = header + struct.pack(">I", zlib.crc32(header))
        bomb = tmp_path / "bomb.png"
        bomb.write_bytes(bytes(whole))
        assert refusal(bomb) is Refusal.TOO_MANY_PIXELS
    assert (
        refusal(saved(quadrants(100, 100), tmp_path / "a.png"), max_pixels=9_999) is Refusal.TOO_MANY_PIXELS
    )
    decode(tmp_path / "a.png", Decoding(side=8, channels=3, max_pixels=10_000))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"])
def test_hostile_bytes_end_in_pixels_or_a_refusal_and_in_nothing_else(tmp_path: Path, name: str) -> None:
    buffer = io.BytesIO()
    quadrants(40, 30).save(buffer, format=name)
    whole = buffer.getvalue()
    rng = random.Random(7)
    path = tmp_path / f"a.{name}"
    for _ in range(40):
        mutated = bytearray(whole[: rng.randrange(len(whole) // 2, len(whole) + 1)])
        for _ in range(rng.randrange(6)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        path.write_bytes(bytes(mutated))
        with contextlib.suppress(RefusedImageError):
            assert decode(path, RGB).shape == (3, 8, 8)

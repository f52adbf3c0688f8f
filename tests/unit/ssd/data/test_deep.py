"""Pixels of more than 8 bits, and files that are more than pixels: read right, or refused by their name."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from ssd.data.images.decode import Decoding, Refusal, RefusedImageError, decode, measure
from ssd.data.images.deep import OutsideError, Window, extremes, to_bytes
from ssd.data.images.folder import FolderImages, FolderOptions
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_client

SIDE = 32
FORMAT = ImageFormat(size=SIDE, channels=1)


def grey(path: Path, window: Window | None = None) -> NDArray[np.uint8]:
    return decode(path, Decoding(side=SIDE, channels=1, window=window))[0]


def ramp(low: float, high: float, dtype: str) -> NDArray[np.generic]:
    """Every value once, side x side, so that nothing is mixed by scaling."""
    return np.linspace(low, high, SIDE * SIDE).reshape(SIDE, SIDE).astype(dtype)


def tiff(path: Path, values: NDArray[np.generic], sample: int) -> Path:
    """A plain little-endian TIFF [H, W] or [H, W, bands] of one strip; Pillow writes none of these."""
    height, width = values.shape[:2]
    bands = values.shape[2] if values.ndim == 3 else 1
    data = np.ascontiguousarray(values).tobytes()
    tags = {
        256: width,
        257: height,
        259: 1,
        262: 1,
        273: 0,
        277: bands,
        278: height,
        279: len(data),
        339: sample,
    }
    bits = values.dtype.itemsize * 8
    entries, extra = [], b""
    start = 8 + 2 + 12 * (len(tags) + 1) + 4
    for tag, value in sorted({**tags, 258: bits}.items()):
        many = bands if tag in (258, 339) else 1
        if many > 2:
            place = start + len(extra)
            extra += struct.pack(f"<{many}H", *[value] * many)
            entries.append(struct.pack("<HHII", tag, 3, many, place))
        else:
            packed = struct.pack("<HH", value, value if many == 2 else 0) if tag not in (273, 279) else None
            kind = 4 if packed is None else 3
            body = struct.pack("<I", value) if packed is None else packed
            entries.append([struct.pack("<HHI", tag, kind, many), body, tag])  # type: ignore[arg-type]
    place = start + len(extra)
    written = b"".join(
        each
        if isinstance(each, bytes)
        else each[0] + (struct.pack("<I", place) if each[2] == 273 else each[1])
        for each in entries
    )
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + written + b"\0" * 4 + extra + data)
    return path


class TestIntegers:
    def test_without_a_window_16_bits_keep_their_high_byte(self, tmp_path: Path) -> None:
        values = ramp(0, 65535, "uint16")
        for name in ("a.png", "a.tif"):
            Image.fromarray(values).save(tmp_path / name)
            np.testing.assert_array_equal(grey(tmp_path / name), values >> 8)

    def test_twelve_bits_in_sixteen_keep_every_grey_level_that_8_bits_hold(self, tmp_path: Path) -> None:
        values = ramp(0, 4095, "uint16")
        Image.fromarray(values).save(tmp_path / "a.png")
        assert len(np.unique(grey(tmp_path / "a.png"))) == 16
        seen = grey(tmp_path / "a.png", (0, 4095))
        assert len(np.unique(seen)) == 256
        np.testing.assert_array_equal(seen, np.rint(values * (255 / 4095)))

    def test_a_window_cuts_off_what_lies_beyond(self, tmp_path: Path) -> None:
        Image.fromarray(ramp(0, 4095, "uint16")).save(tmp_path / "a.png")
        seen = grey(tmp_path / "a.png", (1000, 2000)).ravel()
        values = ramp(0, 4095, "uint16").ravel()
        assert (seen[values <= 1000] == 0).all()
        assert (seen[values >= 2000] == 255).all()
        assert (np.diff(seen.astype(int)) >= 0).all()

    def test_8_bits_are_not_touched_by_it(self, tmp_path: Path) -> None:
        values = ramp(0, 255, "uint8")
        Image.fromarray(values).save(tmp_path / "a.png")
        np.testing.assert_array_equal(grey(tmp_path / "a.png", (1000, 2000)), values)
        assert measure(tmp_path / "a.png").extremes is None

    @pytest.mark.parametrize(
        ("dtype", "sample", "low", "high"), [("int16", 2, -1024, 3071), ("int32", 2, -1024, 3071), ("int32", 2, 0, 1 << 20)]
    )  # fmt: skip
    def test_signed_and_32_bit_values_need_a_window(
        self, tmp_path: Path, dtype: str, sample: int, low: int, high: int
    ) -> None:
        """Hounsfield units in a TIFF: no high byte says anything of them."""
        values = ramp(low, high, dtype)
        path = tiff(tmp_path / "a.tif", values, sample)
        with pytest.raises(
            RefusedImageError, match=rf"values from {low:g} to .*set \[data\] window"
        ) as refused:
            grey(path)
        assert refused.value.refusal is Refusal.RANGE
        expected = np.rint((values.astype(float) - low) * (255 / (high - low)))
        np.testing.assert_allclose(grey(path, (low, high)), expected, rtol=0, atol=0)


class TestFloatingPoint:
    def test_0_to_1_is_read(self, tmp_path: Path) -> None:
        values = ramp(0, 1, "float32")
        values[0, 0] = np.nan
        Image.fromarray(values).save(tmp_path / "a.tif")
        np.testing.assert_array_equal(
            grey(tmp_path / "a.tif"), np.rint(np.nan_to_num(values).astype(float) * 255)
        )

    @pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1), (0, 1.001), (0, 4095), (-0.01, 0.5)])
    def test_anything_else_needs_a_window_and_is_never_guessed_image_by_image(
        self, tmp_path: Path, low: float, high: float
    ) -> None:
        """A dim picture of a 0-to-255 run has values below 1, too."""
        values = ramp(low, high, "float32")
        Image.fromarray(values).save(tmp_path / "a.tif")
        with pytest.raises(RefusedImageError) as refused:
            grey(tmp_path / "a.tif")
        assert refused.value.refusal is Refusal.RANGE
        expected = np.rint((values.astype(float) - low) * (255 / (high - low))).clip(0, 255)
        np.testing.assert_array_equal(grey(tmp_path / "a.tif", (low, high)), expected)

    @given(
        st.lists(st.floats(width=32), min_size=1, max_size=30),
        st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    )
    def test_whatever_the_values_bytes_come_out_in_order(self, given: list[float], window: Window) -> None:
        values = np.sort(np.array(given, dtype=np.float32))
        seen = to_bytes(values, window)
        assert seen.dtype == np.uint8
        assert (np.diff(seen[~np.isnan(values)].astype(int)) >= 0).all()

    def test_only_finite_values_count_as_outside(self) -> None:
        odd = np.array([np.nan, np.inf, -np.inf, 0.5], dtype=np.float32)
        assert to_bytes(odd, None).tolist() == [0, 255, 0, 128]
        assert (extremes(odd).low, extremes(odd).high) == (0.5, 0.5)
        assert (extremes(odd[:3]).low, extremes(odd[:3]).high) == (0.0, 0.0)
        with pytest.raises(OutsideError):
            to_bytes(np.array([0.5, 1.5], dtype=np.float32), None)


@pytest.mark.parametrize(
    ("shape", "dtype", "sample", "says"),
    [
        ((SIDE, SIDE, 2), "uint16", 1, "2 bands of 16-bit unsigned values"),
        ((SIDE, SIDE, 5), "uint16", 1, "5 bands of 16-bit unsigned values"),
        ((SIDE, SIDE, 5), "uint8", 1, "5 bands of 8-bit unsigned values"),
        ((SIDE, SIDE, 3), "float32", 3, "3 bands of 32-bit floating-point values"),
        ((SIDE, SIDE), "float64", 3, "1 bands of 64-bit floating-point values"),
        ((SIDE, SIDE), "complex64", 6, "1 bands of 64-bit complex values"),
    ],
)
def test_pixels_that_cannot_be_read_right_are_refused_by_their_name(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, sample: int, says: str
) -> None:
    path = tiff(tmp_path / "a.tif", np.ones(shape, dtype), sample)
    with pytest.raises(RefusedImageError, match=says) as refused:
        grey(path)
    assert refused.value.refusal is Refusal.PIXELS


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


class TestWhatStandsBesideThePixels:
    @pytest.fixture
    def whole(self, tmp_path: Path) -> bytes:
        Image.fromarray(ramp(0, 255, "uint8")).save(tmp_path / "whole.png")
        return (tmp_path / "whole.png").read_bytes()

    @pytest.mark.parametrize(
        "beside",
        [
            chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * (3 << 20))),
            chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(b"x" * (3 << 20))),
            b"".join(chunk(b"tEXt", b"note\0" + b"x" * (1 << 20)) for _ in range(66)),
            chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"\0" * (3 << 20))),
        ],
        ids=["zTXt", "iTXt", "many tEXt", "iCCP"],
    )
    def test_a_long_text_or_profile_costs_no_picture(
        self, tmp_path: Path, whole: bytes, beside: bytes
    ) -> None:
        path = tmp_path / "a.png"
        end_of_header = 8 + 25
        path.write_bytes(whole[:end_of_header] + beside + whole[end_of_header:])
        np.testing.assert_array_equal(grey(path), ramp(0, 255, "uint8"))

    def test_pillows_own_writer_agrees(self, tmp_path: Path) -> None:
        text = PngImagePlugin.PngInfo()
        text.add_text("parameters", "x" * (3 << 20), zip=True)
        Image.fromarray(ramp(0, 255, "uint8")).save(tmp_path / "a.png", pnginfo=text)
        np.testing.assert_array_equal(grey(tmp_path / "a.png"), ramp(0, 255, "uint8"))

    def test_pixels_that_are_cut_off_stay_refused(self, tmp_path: Path, whole: bytes) -> None:
        text = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * (3 << 20)))
        path = tmp_path / "a.png"
        for end in (40, len(whole) // 2, len(whole) - 30):
            path.write_bytes(whole[:33] + text + whole[33:end])
            with pytest.raises(RefusedImageError) as refused:
                grey(path)
            assert refused.value.refusal is Refusal.CORRUPT


class TestWhatIsSaid:
    def folder(self, root: Path, high: int, count: int = 3) -> Path:
        for number in range(count):
            path = root / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ramp(0, high, "uint16")).save(path)
        return root

    def test_a_range_that_is_hardly_used_is_a_warning_with_the_setting(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = self.folder(tmp_path / "x", 1465)
        config = DataConfig(kind="folder", folders={"c": folder}, index_dir=tmp_path / "index")
        for _ in range(2):  # the second time out of the index
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                open_client(config, "c", FORMAT)
            assert "use 2.2 % of the range 0 to 65535" in caplog.text
            assert "reach from 0 to 1465" in caplog.text
            assert "set [data] window" in caplog.text
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            open_client(DataConfig(kind="folder", folders={"c": folder}, window=(0, 1465)), "c", FORMAT)
        assert caplog.text == ""

    def test_one_dark_picture_among_others_is_none(self, tmp_path: Path) -> None:
        self.folder(tmp_path / "x", 1465)
        Image.fromarray(ramp(0, 65535, "uint16")).save(tmp_path / "x" / "bright.png")
        assert FolderImages(tmp_path / "x", FORMAT).report.narrow == ""

    def test_another_window_looks_again_at_what_was_refused(self, tmp_path: Path) -> None:
        folder = tmp_path / "x"
        folder.mkdir()
        Image.fromarray(ramp(0, 65535, "uint16")).save(folder / "plain.png")
        tiff(folder / "signed.tif", ramp(-1024, 3071, "int16"), 2)
        index = tmp_path / "index"
        narrow = FolderImages(folder, FORMAT, index_dir=index)
        assert narrow.report.refused == {Refusal.RANGE: 1}
        options = FolderOptions(window=(-1024, 3071), margin=1.0)
        assert len(FolderImages(folder, FORMAT, options, index_dir=index)) == 2
        assert FolderImages(folder, FORMAT, index_dir=index).report.refused == {Refusal.RANGE: 1}


@pytest.mark.parametrize("side", [2048, 40_000])
def test_a_tile_far_larger_than_its_image_is_refused_before_it_is_held(tmp_path: Path, side: int) -> None:
    """libtiff makes room for a whole tile: 40,000 pixels a side are 1.5 GiB for an image of 64 pixels."""
    entries = [
        (256, 8),
        (257, 8),
        (258, 8),
        (259, 1),
        (262, 1),
        (277, 1),
        (322, side),
        (323, side),
        (324, 8),
        (325, 64),
    ]
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    (tmp_path / "a.tif").write_bytes(
        b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + b"\0" * 4 + b"\0" * 64
    )
    with pytest.raises(RefusedImageError, match="tiles of") as refused:
        grey(tmp_path / "a.tif")
    assert refused.value.refusal is Refusal.TOO_MANY_PIXELS


def test_an_image_in_usual_tiles_is_read(tmp_path: Path) -> None:
    values = ramp(0, 255, "uint8")
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={322: 64, 323: 64})
    np.testing.assert_array_equal(grey(tmp_path / "a.tif"), values)

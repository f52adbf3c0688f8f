"""DICOM and NIfTI: every grey level as its file or the operator declares it, and what cannot be read refused by its name."""

from __future__ import annotations

import gzip
import importlib
import io
import logging
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from ssd.data.images import decode as decoding
from ssd.data.images.decode import Decoding, Refusal, RefusedImageError, decode, measure
from ssd.data.images.folder import FolderImages, FolderOptions
from ssd.data.images.source import ImageFormat
from ssd.data.medical import dicom
from ssd.data.medical.plane import Planes
from ssd.data.medical.reading import read_plane

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
VOLUMES = Path(nibabel.__file__).parent / "tests" / "data"
MANY = 10**7


def slice_of(values: np.ndarray[Any, np.dtype[Any]], **elements: object) -> io.BytesIO:
    """A DICOM file of one plane, or of several frames."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.PatientName = "Doe^Jane"
    data.Rows, data.Columns = values.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = 16
    data.BitsStored, data.HighBit = 12, 11
    data.PixelRepresentation = int(values.dtype.kind == "i")
    if values.ndim == 3:
        data.NumberOfFrames = len(values)
    data.PixelData = values.tobytes()
    for name, value in elements.items():
        setattr(data, name, value)
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    out.seek(0)
    return out


def pixels(made: io.BytesIO, window: tuple[float, float] | None = None, frame: int = 0) -> Any:
    content = made.getvalue()
    side = 8
    how = Decoding(side=side, channels=1, window=window)
    return decode(lambda: io.BytesIO(content), how, frame)[0]


RAMP = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 64).astype("<u2")
"""12-bit values from 0 to 4032."""


class TestWindows:
    def test_twelve_bits_keep_their_grey_levels(self) -> None:
        assert len(np.unique(pixels(slice_of(RAMP)))) == 64
        assert pixels(slice_of(RAMP)).max() == round(4032 * 255 / 4095)

    def test_the_rescaled_values_and_the_files_own_window_count(self) -> None:
        made = slice_of(RAMP, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40.5, WindowWidth=401)
        expected = ((RAMP.astype(float) - 1024 + 160) * (255 / 400)).round().clip(0, 255)
        assert np.array_equal(pixels(made), expected)

    def test_the_operators_window_goes_before_the_files(self) -> None:
        made = slice_of(RAMP, RescaleIntercept=-1024, RescaleSlope=1, WindowCenter=40, WindowWidth=400)
        expected = ((RAMP.astype(float) - 1024 + 1000) * (255 / 1400)).round().clip(0, 255)
        assert np.array_equal(pixels(made, (-1000.0, 400.0)), expected)

    def test_of_monochrome1_the_lowest_value_is_the_brightest(self) -> None:
        made = slice_of(RAMP, PhotometricInterpretation="MONOCHROME1")
        assert np.array_equal(pixels(made), 255 - pixels(slice_of(RAMP)))

    def test_signed_values_are_read_as_signed(self) -> None:
        signed = (RAMP.astype(np.int16) // 2 - 1000).astype("<i2")
        found = read_plane(slice_of(signed), 0, MANY, "axial")
        assert found is not None
        assert (found.values.min(), found.scale) == (-1000, (-2048.0, 2047.0))

    def test_a_real_scan_without_a_window_is_a_warning_with_its_values(self, tmp_path: Path) -> None:
        shutil.copy(FILES / "CT_small.dcm", tmp_path)
        report = FolderImages(tmp_path, ImageFormat(size=32, channels=1)).report
        assert "their values reach from -896 to 1167" in report.narrow
        sharp = FolderImages(
            tmp_path, ImageFormat(size=128, channels=1), FolderOptions(margin=1.0, window=(-896.0, 1167.0))
        )
        assert sharp.report.narrow == ""
        assert len(np.unique(sharp.batch([0]).numpy())) > 200


def test_frames_are_images_of_their_own(tmp_path: Path) -> None:
    frames = np.stack([RAMP + 7 * number for number in range(3)]).astype("<u2")
    (tmp_path / "cine.dcm").write_bytes(slice_of(frames).getvalue())
    (tmp_path / "one.dcm").write_bytes(slice_of(RAMP).getvalue())
    image = ImageFormat(size=8, channels=1)
    exact = FolderOptions(margin=1.0)
    every = FolderImages(tmp_path, image, exact, index_dir=tmp_path / "index")
    assert [(each.relative, each.frame) for each in every.files] == [
        ("cine.dcm", 0), ("cine.dcm", 1), ("cine.dcm", 2), ("one.dcm", 0)
    ]  # fmt: skip
    batch = every.batch([0, 1, 2, 3]).numpy()
    assert np.array_equal(batch[0], batch[3])
    assert not np.array_equal(batch[0], batch[1])
    middle = FolderImages(
        tmp_path,
        image,
        FolderOptions(margin=1.0, planes=Planes(which="middle")),
        index_dir=tmp_path / "index",
    )
    assert [each.frame for each in middle.files] == [1, 0]
    assert middle.report.decoded == 0, "the same look through the files serves both"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("examples_palette.dcm", (350, 800, 3)),
        ("SC_rgb_rle_16bit_2frame.dcm", (100, 100, 3)),
        ("SC_ybr_full_422_uncompressed.dcm", (100, 100, 3)),
        ("examples_ybr_color.dcm", (240, 320, 3)),
        ("693_J2KI.dcm", (512, 512)),
        ("MR_small_bigendian.dcm", (64, 64)),
    ],
)
def test_real_files_of_many_kinds_are_read(name: str, shape: tuple[int, ...]) -> None:
    found = read_plane(io.BytesIO((FILES / name).read_bytes()), None, MANY, "axial")
    assert found is not None
    assert found.values.shape == shape
    assert decode(FILES / name, Decoding(side=16, channels=3)).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("name", "refusal", "words"),
    [
        ("JPEGLSNearLossless_16.dcm", Refusal.PIXELS, "compressed as JPEG-LS"),
        ("image_dfl.dcm", Refusal.PIXELS, "deflated"),
        ("rtplan.dcm", Refusal.PIXELS, "without pixels"),
        ("MR_truncated.dcm", Refusal.CORRUPT, "less than expected"),
        ("nested_priv_SQ.dcm", Refusal.CORRUPT, "no attribute 'Rows'"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(name: str, refusal: Refusal, words: str) -> None:
    with pytest.raises(RefusedImageError, match=words) as raised:
        measure(FILES / name)
    assert raised.value.refusal is refusal


def test_every_real_file_is_read_or_refused_and_none_does_anything_else() -> None:
    read = 0
    for path in [*FILES.glob("*.dcm"), *VOLUMES.glob("*.nii*")]:
        try:
            measure(path)
            read += 1
        except RefusedImageError:
            continue
    assert read > 40


def test_more_pixels_than_allowed_are_not_decoded() -> None:
    made = slice_of(RAMP)
    with pytest.raises(RefusedImageError, match="8 x 8 pixels"):
        measure(lambda: io.BytesIO(made.getvalue()), max_pixels=63)
    lies = slice_of(RAMP, Rows=60_000, Columns=60_000)
    with pytest.raises(RefusedImageError, match="60000 x 60000"):
        measure(lambda: io.BytesIO(lies.getvalue()))


def test_what_the_library_finds_odd_and_quotes_reaches_no_log(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    importlib.reload(dicom)  # pytest forgets the filters that a module sets when it is imported
    with caplog.at_level(logging.DEBUG):
        measure(FILES / "MR_small_padded.dcm")
        with pytest.raises(RefusedImageError):
            measure(FILES / "badVR.dcm")
    assert not [record for record in caplog.records if record.name.startswith("pydicom")]
    assert not recwarn.list


class TestVolumes:
    def volume(self, path: Path, **header: float) -> Path:
        values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
        image = nibabel.Nifti1Image(values, np.eye(4))
        for name, value in header.items():
            image.header[name] = value
        nibabel.save(image, path)
        return path

    @pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
    @pytest.mark.parametrize(
        ("axis", "frames", "shape"), [("axial", 6, (5, 4)), ("coronal", 5, (6, 4)), ("sagittal", 4, (6, 5))]
    )
    def test_planes_across_each_axis(
        self, tmp_path: Path, name: str, axis: Any, frames: int, shape: tuple[int, int]
    ) -> None:
        path = self.volume(tmp_path / name)
        with open(path, "rb") as file:
            found = read_plane(file, 2, MANY, axis)
        assert found is not None
        assert (found.frames, found.values.shape) == (frames, shape)
        values = np.arange(120).reshape(4, 5, 6)
        plane = {"axial": values[:, :, 2], "coronal": values[:, 2], "sagittal": values[2]}[axis]
        # Anterior or superior, the second axis, is upwards: the top left corner is its end.
        assert found.values[0, 0] == plane[0, -1]
        assert found.values[-1, -1] == plane[-1, 0]

    def test_scanners_that_store_otherwise_show_the_same(self, tmp_path: Path) -> None:
        values = np.random.default_rng(1).integers(0, 200, (4, 5, 6)).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
        turned = nibabel.Nifti1Image(values[::-1].transpose(2, 0, 1).copy(), np.array(
            [[0, -1, 0, 3], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
        ))  # fmt: skip
        nibabel.save(turned, tmp_path / "b.nii")
        planes = []
        for name in ("a.nii", "b.nii"):
            with open(tmp_path / name, "rb") as file:
                planes.append(read_plane(file, 3, MANY, "axial"))
        assert planes[0] is not None
        assert planes[1] is not None
        assert np.array_equal(planes[0].values, planes[1].values)

    def test_the_headers_window_counts_and_without_one_the_range_is_the_types(self, tmp_path: Path) -> None:
        image = ImageFormat(size=4, channels=1)
        (tmp_path / "a").mkdir()
        self.volume(tmp_path / "a" / "v.nii", cal_min=10, cal_max=100)
        source = FolderImages(tmp_path / "a", image, FolderOptions(margin=1.0))
        assert len(source) == 6
        assert source.report.narrow == ""
        (tmp_path / "b").mkdir()
        self.volume(tmp_path / "b" / "v.nii")
        assert "set [data] window" in FolderImages(tmp_path / "b", image).report.narrow

    def test_a_small_file_that_unpacks_to_more_than_its_header_says_takes_no_memory(
        self, tmp_path: Path
    ) -> None:
        content = self.volume(tmp_path / "v.nii").read_bytes()
        path = tmp_path / "bomb.nii.gz"
        with gzip.open(path, "wb") as out:
            out.write(content)
            for _ in range(64):
                out.write(bytes(1 << 20))
        assert measure(path).frames == 6

    def test_a_header_that_wants_terabytes_is_refused(self, tmp_path: Path) -> None:
        content = bytearray(self.volume(tmp_path / "v.nii").read_bytes())
        content[40:56] = np.array([3, 8000, 8000, 8000, 1, 1, 1, 1], "<i2").tobytes()
        (tmp_path / "v.nii").write_bytes(content)
        with pytest.raises(RefusedImageError, match="the limit is"):
            measure(tmp_path / "v.nii")

    def test_colours_and_complex_numbers_are_refused_by_name(self, tmp_path: Path) -> None:
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.complex64), np.eye(4)), tmp_path / "c.nii")
        with pytest.raises(RefusedImageError, match="complex64 values"):
            measure(tmp_path / "c.nii")


def test_without_the_extra_they_are_other_files_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "reads_medical", lambda: False)
    shutil.copy(FILES / "CT_small.dcm", tmp_path)
    shutil.copy(VOLUMES / "anatomical.nii", tmp_path)
    (tmp_path / "x.png").write_bytes(b"")
    from ssd.data.images.scan import scan

    report = str(scan(tmp_path)[1])
    assert "2 other files (1 .dcm, 1 .nii)" in report
    assert r"pip install '.[medical]'" in report

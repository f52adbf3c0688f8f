"""`ssd.load_encoder` and `ssd.embed`: features of what the encoder takes, and a sentence for what it does not."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import ssd
from ssd.api.encoder import Encoder
from ssd.cli import cli
from ssd.data.images.errors import DataError
from ssd.data.images.source import ImageFormat
from ssd.export.encoder_file import EncoderFileError, encoder_metadata, write_encoder
from ssd.models.registry import ModelConfig, build_initialised

CONFIG = {"model": {"name": "small", "feature_dim": 16, "width": 8}, "image": {"size": 8, "channels": 3}}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    module = build_initialised(
        ModelConfig(name="small", feature_dim=16, width=8), ImageFormat(size=8, channels=3), 1
    )
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items() if "tracked" not in name}
    write_encoder(path, tensors, encoder_metadata(CONFIG))
    return path


@pytest.fixture
def encoder(file: Path) -> Encoder:
    return ssd.load_encoder(file)


def pixels(count: int = 3, size: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def photographs(root: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    for number, (name, (width, height)) in enumerate(sizes.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(content).save(path)
    return root


def test_the_file_says_what_the_encoder_takes(encoder: Encoder) -> None:
    assert (encoder.image, encoder.feature_dim) == (ImageFormat(size=8, channels=3), 16)
    assert "8 × 8" in encoder._repr_html_()


def test_bytes_and_the_same_values_between_0_and_1_give_the_same_features(encoder: Encoder) -> None:
    images = pixels()
    found = ssd.embed(encoder, images)
    assert found.features.shape == (3, 16)
    assert found.features.dtype == np.float32
    assert found.names == ("0", "1", "2")
    for same in (torch.from_numpy(images), images.astype(np.float32) / 255, images.astype(np.float64) / 255):
        np.testing.assert_allclose(ssd.embed(encoder, same).features, found.features, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(
        ssd.embed(encoder, images[1]).features, ssd.embed(encoder, images[1:2]).features
    )


def test_features_are_the_modules_own_whatever_the_batch(encoder: Encoder) -> None:
    images = pixels(5)
    with torch.inference_mode():
        expected = encoder.module(torch.from_numpy(images).float() / 255).flatten(1).numpy()
    for batch in (1, 2, 5, 100):
        np.testing.assert_allclose(
            ssd.embed(encoder, images, batch=batch).features, expected, rtol=0, atol=1e-5
        )
        floats = images.astype(np.float32) / 255
        np.testing.assert_allclose(
            ssd.embed(encoder, floats, batch=batch).features, expected, rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (pixels(size=9), r"takes images \[N, 3, 8, 8\], not \[3, 3, 9, 9\]; scale them"),
        (pixels(channels=1), r"not \[3, 1, 8, 8\]"),
        (pixels().transpose(0, 2, 3, 1), r"the channels come first"),
        (pixels()[0, 0], r"not \[8, 8\]"),
        (pixels()[:0], "no images"),
        (pixels().astype(np.int64), r"uint8, or floating point in \[0, 1\], not int64"),
        (pixels().astype(np.float32), "reach from .* to 25.; these look like bytes: pass them as uint8"),
        (pixels().astype(np.float32) / 255 - 0.5, "reach from -0"),
        (np.full((1, 3, 8, 8), np.nan, np.float32), "reach from nan"),
        (np.full((1, 3, 8, 8), 4096.0), "reach from 4096"),
    ],
)  # fmt: skip
def test_what_the_encoder_was_not_trained_on_is_refused(
    encoder: Encoder, images: np.ndarray, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        ssd.embed(encoder, images)


def test_a_folder_is_brought_to_the_encoders_own_square(encoder: Encoder, tmp_path: Path) -> None:
    """Not to training's larger one, whose margin is for crops."""
    root = photographs(
        tmp_path / "photographs", {"a/one.png": (8, 8), "b/two.png": (40, 20), "three.png": (9, 9)}
    )
    found = ssd.embed(encoder, root)
    assert found.names == ("a/one.png", "b/two.png", "three.png")
    assert found.left_out == ""
    exact = np.asarray(Image.open(root / "a/one.png")).transpose(2, 0, 1)
    np.testing.assert_allclose(found.features[0], ssd.embed(encoder, exact).features[0], rtol=0, atol=1e-6)
    for number, name in enumerate(found.names):
        one = ssd.embed(encoder, root / name)
        assert one.names == (Path(name).name,)
        np.testing.assert_allclose(one.features[0], found.features[number], rtol=0, atol=1e-6)


def test_what_a_folder_holds_beside_is_counted(encoder: Encoder, tmp_path: Path) -> None:
    root = photographs(tmp_path / "photographs", {"one.png": (8, 8), "small.png": (5, 30)})
    (root / "broken.jpg").write_bytes(b"no image")
    (root / "notes.txt").write_text("words")
    found = ssd.embed(encoder, root)
    assert found.names == ("one.png",)
    assert "1 images under" in found.left_out
    assert "too small" in found.left_out
    assert ssd.embed(encoder, root, min_side=1).names == ("one.png", "small.png")


def test_what_is_not_there_or_no_image_is_said(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        ssd.embed(encoder, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no usable image"):
        ssd.embed(encoder, str(tmp_path / "empty"))
    (tmp_path / "words.png").write_text("words")
    with pytest.raises(DataError, match=r"words\.png cannot be used: not an image"):
        ssd.embed(encoder, tmp_path / "words.png")
    with pytest.raises(EncoderFileError):
        ssd.load_encoder(tmp_path / "words.png")


class TestCommand:
    def test_npz_and_csv_hold_the_same(self, file: Path, encoder: Encoder, tmp_path: Path) -> None:
        root = photographs(tmp_path / "photographs", {"b.png": (10, 12), "a, b.png": (30, 9)})
        expected = ssd.embed(encoder, root)
        for name in ("features.npz", "features.csv"):
            done = CliRunner().invoke(cli, ["embed", str(file), str(root), "--out", str(tmp_path / name)])
            assert done.exit_code == 0, done.output
            assert "2 images, 16 features each" in done.output
        with np.load(tmp_path / "features.npz", allow_pickle=False) as archive:
            np.testing.assert_array_equal(archive["features"], expected.features)
            assert tuple(archive["names"]) == expected.names
        with (tmp_path / "features.csv").open(newline="") as table:
            head, *rows = csv.reader(table)
        assert head == ["name", *(f"f{index}" for index in range(16))]
        assert tuple(row[0] for row in rows) == expected.names
        np.testing.assert_array_equal(
            np.array([row[1:] for row in rows], dtype=np.float32), expected.features
        )

    def test_no_name_becomes_a_formula(self, file: Path, tmp_path: Path) -> None:
        root = photographs(tmp_path / "p", {"=HYPERLINK(1).png": (8, 8), "+1.png": (8, 8), "@a.png": (8, 8)})
        done = CliRunner().invoke(cli, ["embed", str(file), str(root), "--out", str(tmp_path / "f.csv")])
        assert done.exit_code == 0, done.output
        with (tmp_path / "f.csv").open(newline="") as table:
            names = [row[0] for row in csv.reader(table)][1:]
        assert sorted(names) == ["./+1.png", "./=HYPERLINK(1).png", "./@a.png"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["{file}", "{root}", "--out", "{tmp}/f.parquet"], "--out ends with .npz or .csv"),
            (["{file}", "{root}", "--out", "{tmp}/there.npz"], "is there already"),
            (["{tmp}/there.npz", "{root}", "--out", "{tmp}/new.npz"], "too short for a safetensors file"),
            (["{file}", "{tmp}/absent", "--out", "{tmp}/new.npz"], "no such file or folder"),
            (["{file}", "{root}", "--out", "{tmp}/new.npz", "--device", "abacus"], "abacus"),
        ],
    )
    def test_mistakes_are_said_and_nothing_is_written(
        self, file: Path, tmp_path: Path, arguments: list[str], words: str
    ) -> None:
        root = photographs(tmp_path / "photographs", {"a.png": (8, 8)})
        (tmp_path / "there.npz").write_bytes(b"mine")
        given = [each.format(file=file, root=root, tmp=tmp_path) for each in arguments]
        command = [sys.executable, "-m", "ssd", "embed", *given]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))
        assert done.returncode in (2, 4)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["photographs", "there.npz"]
        assert (tmp_path / "there.npz").read_bytes() == b"mine"


def test_import_ssd_brings_no_torch_and_names_what_it_has() -> None:
    code = (
        "import sys, ssd; assert 'torch' not in sys.modules and 'grpc' not in sys.modules; print(*dir(ssd))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(ssd.__all__) <= set(done.stdout.split())
    for name in ssd.__all__:
        assert getattr(ssd, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'embedd'"):
        ssd.embedd  # noqa: B018  # the attribute is what is tried

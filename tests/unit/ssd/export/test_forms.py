"""`ssd export`: every form gives the features of the encoder it was made from, and nothing half-written is left."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load as load_tensors

from ssd import cli
from ssd.data.images.source import ImageFormat
from ssd.export import forms, onnx_model
from ssd.export.architecture import module_text
from ssd.export.card import model_card, torchvision_lines
from ssd.export.encoder_file import load_encoder, write_encoder
from ssd.export.onnx_model import OnnxDiffers, onnx_bytes
from ssd.export.source import FormImpossible, Source, read_source
from ssd.models.registry import ModelConfig
from ssd.torch_support.torchvision_compat import torchvision
from training.portable_encoders import COLOUR, FACTS, GREY, PROVENANCE, tensors_of, write

GREY_8, RGB_32 = ImageFormat(size=8, channels=1), ImageFormat(size=32, channels=3)
SMALL = ModelConfig(name="small", feature_dim=6, width=4)
ENCODERS = [
    (SMALL, GREY_8, GREY),
    (ModelConfig(name="fedgen_cnn"), ImageFormat(size=28, channels=1), None),
    (ModelConfig(name="resnet8", width=8), RGB_32, COLOUR),
    (ModelConfig(name="resnet18_cifar"), RGB_32, COLOUR),
    (ModelConfig(name="resnet18"), ImageFormat(size=32, channels=1), GREY),
]
Run = Callable[..., tuple[int, str, str]]


def pictures(image: ImageFormat, count: int = 2) -> torch.Tensor:
    return torch.rand(
        count, image.channels, image.size, image.size, generator=torch.Generator().manual_seed(1)
    )


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["export", *arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return command


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages of the extra are not installed."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write(tmp_path / "encoder.safetensors", SMALL, GREY_8, normalise=GREY, **FACTS)


class TestPlainModules:
    @pytest.mark.parametrize(
        ("model", "image", "normalise"), ENCODERS, ids=lambda each: getattr(each, "name", "")
    )
    def test_the_text_and_the_state_dict_are_the_encoder(
        self, tmp_path: Path, model: ModelConfig, image: ImageFormat, normalise: Any
    ) -> None:
        torchvision()
        path = write(tmp_path / "e.safetensors", model, image, normalise=normalise)
        source = read_source(path)
        (tmp_path / "encoder.pt").write_bytes(forms.state_dict_bytes(source))
        code: dict[str, Any] = {"__file__": str(tmp_path / "encoder.py"), "__name__": "encoder"}
        exec(compile(module_text(source), "encoder.py", "exec"), code)  # the text is what is tested
        expected, images = load_encoder(path)[0], pictures(image)
        with torch.no_grad():
            assert torch.allclose(code["load"]()(images), expected(images), rtol=1e-5, atol=1e-6)
        assert torch.allclose(source.features(images), expected(images), rtol=1e-5, atol=1e-6)
        if forms.is_resnet(source):
            # The same file in torchvision's own module.
            (tmp_path / "tv.pt").write_bytes(forms.torchvision_bytes(source))
            lines = torchvision_lines(source, str(tmp_path / "tv.pt"))
            exec("\n".join(lines), code)  # what the model card prints
            mean, std = (torch.tensor(values)[:, None, None] for values in (source.mean, source.std))
            with torch.no_grad():
                assert torch.allclose(
                    code["encoder"]((images - mean) / std), expected(images), rtol=1e-5, atol=1e-6
                )

    def test_an_encoder_that_normalises_by_its_batch_has_one_form(self, tmp_path: Path) -> None:
        torchvision()
        model = ModelConfig(name="resnet18_cifar")
        source = read_source(write(tmp_path / "e.safetensors", model, RGB_32, statistics=False))
        (tmp_path / "encoder.pt").write_bytes(forms.state_dict_bytes(source))
        code: dict[str, Any] = {"__file__": str(tmp_path / "encoder.py"), "__name__": "encoder"}
        exec(compile(module_text(source), "encoder.py", "exec"), code)  # the text is what is tested
        images = pictures(RGB_32)
        with torch.no_grad():
            assert torch.allclose(
                code["load"]()(images), load_encoder(source.path)[0](images), rtol=1e-5, atol=1e-6
            )
        for refused in (forms.torchvision_bytes, forms.timm_bytes, lambda each: onnx_bytes(each, {})):
            with pytest.raises(FormImpossible, match="without BatchNorm statistics.*state-dict"):
                refused(source)
        assert "depend on the images beside it" in model_card(source, licence="x", files=[])

    @pytest.mark.parametrize(
        ("name", "channels", "digest"),
        [
            ("resnet18", 3, "7e9855e7fc6758a0a3cb02320b219c19f444e5251e04999107b92d6b4601dbf9"),
            ("resnet18", 1, "e16baeddcc0b5b1787aa3e5b4ad16262737290a3708fe9514e168de93a6a6e9a"),
            ("resnet50", 3, "621c7fa3f759d317bc68fd7b18357efed3f8d92d68870aedc2a0f60f78afad87"),
        ],
    )
    def test_names_and_shapes_are_timms(self, tmp_path: Path, name: Any, channels: int, digest: str) -> None:
        """SHA-256 of sorted (name, shape) of `timm.create_model(name, num_classes=0, in_chans=…)`, timm 1.0.31."""
        image = ImageFormat(size=32, channels=channels)
        source = read_source(write(tmp_path / "e.safetensors", ModelConfig(name=name), image))
        held = load_tensors(forms.timm_bytes(source))
        listed = sorted((key, list(value.shape)) for key, value in held.items())
        assert hashlib.sha256(json.dumps(listed).encode()).hexdigest() == digest
        with torch.device("meta"):
            theirs = getattr(torchvision("torchvision.models"), name)().state_dict()
        if channels == 3:
            assert {key: list(value.shape) for key, value in theirs.items() if key[:3] != "fc."} == dict(
                listed
            )
        config = forms.timm_config(source)
        if channels == 1:
            # timm's own stem takes three channels: said in the card, not in a file that would not load.
            assert config is None
            return
        assert config is not None
        assert (config["architecture"], config["num_features"]) == (name, source.feature_dim)
        assert config["pretrained_cfg"]["mean"] == list(source.mean)

    @pytest.mark.parametrize("form", ["torchvision", "timm"])
    def test_what_has_no_equivalent_is_refused(self, run: Run, encoder: Path, form: str) -> None:
        out = encoder.parent / "out"
        code, _, err = run(str(encoder), "--format", form, "--out", str(out))
        assert code == 2
        assert "no architecture like 'small'" in err
        assert "state-dict or onnx" in err
        assert list(encoder.parent.iterdir()) == [encoder]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, bytes, float]:
    """An encoder, its ONNX model and their difference."""
    path = write(tmp_path_factory.mktemp("onnx") / "e.safetensors", SMALL, GREY_8, normalise=GREY, **FACTS)
    source = read_source(path)
    return source, *onnx_bytes(source, {"ssd_run": "run-7"})


class TestOnnx:
    def test_it_computes_the_same_for_every_batch_size(self, made: tuple[Source, bytes, float]) -> None:
        import onnx
        import onnxruntime

        source, model, difference = made
        session = onnxruntime.InferenceSession(model)
        for count in (1, 7):
            images = pictures(GREY_8, count)
            with torch.no_grad():
                expected = load_encoder(source.path)[0](images).numpy()
            (got,) = session.run(None, {"images": images.numpy()})
            assert np.abs(got - expected).max() < 1e-5
        assert 0.0 <= difference < 1e-5
        assert {each.key: each.value for each in onnx.load_from_string(model).metadata_props}[
            "ssd_run"
        ] == "run-7"

    def test_another_encoders_model_is_refused(
        self, made: tuple[Source, bytes, float], tmp_path: Path
    ) -> None:
        """The check is real: without the normalisation the same weights are over the tolerance."""
        other = read_source(write(tmp_path / "e.safetensors", SMALL, GREY_8))
        with pytest.raises(OnnxDiffers, match="differ by up to .* Nothing was written"):
            onnx_model._largest_difference(other, made[1])

    def test_a_refused_model_is_not_written(
        self, run: Run, encoder: Path, made: tuple[Source, bytes, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(onnx_model, "_exported", lambda source, facts: made[1])
        monkeypatch.setattr(onnx_model, "TOLERANCE", -1.0)
        code, _, err = run(str(encoder), "--format", "onnx", "--out", str(encoder.parent / "e.onnx"))
        assert code == 3
        assert "differ" in err
        assert list(encoder.parent.iterdir()) == [encoder]

    def test_missing_packages_are_named(self, run: Run, encoder: Path, no_onnx: None) -> None:
        code, _, err = run(str(encoder), "--format", "onnx", "--out", str(encoder.parent / "e.onnx"))
        assert code == 2
        assert "onnxruntime: pip install '.[onnx]'" in err

    def test_images_that_no_memory_holds_are_not_made(self, tmp_path: Path) -> None:
        image = ImageFormat(size=10**7, channels=3)
        path = write(tmp_path / "e.safetensors", ModelConfig(name="resnet18"), image)
        with pytest.raises(FormImpossible, match="at most 4096"):
            onnx_bytes(read_source(path), {})


@pytest.mark.usefixtures("no_onnx")
class TestFolder:
    def test_it_holds_everything_and_says_what_is_left_out(self, run: Run, encoder: Path) -> None:
        out = encoder.parent / "home"
        code, said, _ = run(str(encoder), "--out", str(out), "--licence", "cc-by-4.0")
        assert code == 0
        assert {path.name for path in out.iterdir()} == {
            "README.md",
            "encoder.pt",
            "encoder.py",
            "lineage.json",
        }
        assert "left out: ONNX needs the package onnxruntime" in said
        card = (out / "README.md").read_text()
        assert 'license: "cc-by-4.0"' in card
        assert "encoder.onnx" not in card.split("## Images")[0]
        lineage = json.loads((out / "lineage.json").read_text())
        assert lineage["encoder"]["provenance"] == PROVENANCE
        assert lineage["files"] == {
            name: hashlib.sha256((out / name).read_bytes()).hexdigest()
            for name in ("encoder.pt", "encoder.py")
        }
        state = torch.load(out / "encoder.pt", weights_only=True)
        for name, value in tensors_of(SMALL, GREY_8).items():
            assert np.array_equal(state[name].numpy(), value)

    def test_a_folder_of_ours_is_replaced_only_by_force_and_a_strangers_never(
        self, run: Run, encoder: Path
    ) -> None:
        out = encoder.parent / "home"
        assert run(str(encoder), "--out", str(out))[0] == 0
        (out / "README.md").write_text("mine")
        code, _, err = run(str(encoder), "--out", str(out))
        assert (code, (out / "README.md").read_text()) == (2, "mine")
        assert "--force" in err
        assert run(str(encoder), "--out", str(out), "--force")[0] == 0
        assert (out / "README.md").read_text() != "mine"
        (out / "thesis.tex").write_text("precious")
        code, _, err = run(str(encoder), "--out", str(out), "--force")
        assert code == 2
        assert "did not write" in err
        assert (out / "thesis.tex").read_text() == "precious"
        assert {path.name for path in encoder.parent.iterdir()} == {"home", "encoder.safetensors"}

    @pytest.mark.parametrize("form", [None, "state-dict"])
    def test_a_full_disk_leaves_what_was_there(
        self, run: Run, encoder: Path, form: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = encoder.parent / "out"
        options = [str(encoder), "--out", str(out), *([] if form is None else ["--format", form])]
        assert run(*options)[0] == 0
        before = {path: path.read_bytes() for path in encoder.parent.rglob("*") if path.is_file()}

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        code, _, err = run(*options, "--force")
        assert code == 4
        assert "No space left on device" in err
        assert {path: path.read_bytes() for path in encoder.parent.rglob("*") if path.is_file()} == before

    def test_places_that_cannot_be(self, run: Run, encoder: Path) -> None:
        folder, file = encoder.parent, encoder.parent / "file"
        file.write_text("mine")
        for expected, words, options in (
            (4, "is no folder: make it first", ["--out", str(folder / "absent" / "home")]),
            (2, "is no folder: without --format", ["--out", str(file), "--force"]),
            (2, "exists: choose another name or add --force", ["--format", "state-dict", "--out", str(file)]),
            (
                2,
                "with --format, --out is one file",
                ["--format", "state-dict", "--out", str(folder), "--force"],
            ),
            (2, "is the encoder itself", ["--format", "state-dict", "--out", str(encoder), "--force"]),
        ):
            code, _, err = run(str(encoder), *options)
            assert (code, words in err) == (expected, True), err
        assert file.read_text() == "mine"
        assert {path.name for path in folder.iterdir()} == {"encoder.safetensors", "file"}

    def test_measures_of_this_encoder_go_into_the_card_and_others_are_refused(
        self, run: Run, encoder: Path
    ) -> None:
        said = {
            "metadata": {"model_digest": "ab" * 32},
            "data": "digits",
            "measures": {"linear_probe_all": 0.987},
        }
        measured, out = encoder.parent / "m.json", encoder.parent / "home"
        measured.write_text(json.dumps(said))
        assert run(str(encoder), "--out", str(out), "--measured", str(measured))[0] == 0
        assert "| `linear_probe_all` | 0.987 |" in (out / "README.md").read_text()
        for content, words in (
            (json.dumps({**said, "metadata": {"model_digest": "00"}}), "measures another version"),
            (json.dumps({**said, "metadata": {}}), "measures another version"),
            ("[]", "is not what"),
            ("[" * 100_000, "is not what"),
            ('{"measures": 3, "metadata": {}}', "is not what"),
        ):
            measured.write_text(content)
            code, _, err = run(
                str(encoder), "--out", str(encoder.parent / "new"), "--measured", str(measured)
            )
            assert (code, words in err) == (2, True), err
        assert not (encoder.parent / "new").exists()


def _spoil(path: Path, damage: str) -> None:
    tensors, meta = tensors_of(SMALL, GREY_8), {"image": '{"size": 8, "channels": 1}'}
    model = {"name": "small", "feature_dim": 6, "width": 4}
    first = next(iter(tensors))
    good = path.read_bytes()
    if damage == "text":
        path.write_text("not a tensor file")
    elif damage == "cut":
        path.write_bytes(good[:200])
    elif damage == "tail":
        path.write_bytes(good[:-8])
    elif damage == "foreign":
        save_file(tensors, path)
    elif damage == "absent":
        path.unlink()
    elif damage == "projector":
        write_encoder(path, tensors, {**meta, "model": json.dumps(model)}, part="projector")
    else:
        if damage == "nan":
            tensors[first] = np.full_like(tensors[first], np.nan)
        elif damage == "shape":
            tensors[first] = tensors[first][:-1]
        elif damage == "missing":
            del tensors[first]
        changed = {
            "no model": {"model": "{}"} | {"image": "{}"},
            "deep": {"model": "[" * 100_000},
            "wide": {"model": json.dumps({**model, "width": 10**7})},
            "wider": {"model": json.dumps({**model, "width": 10**18})},
            "normalise": {"normalise": '{"mean": [NaN], "std": [1.0]}'},
            "infinite": {"normalise": '{"mean": [0.0], "std": [Infinity]}'},
            "provenance": {"provenance": "[]"},
            "deep provenance": {"provenance": "[" * 100_000},
            "config": {"config": "no JSON"},
        }.get(damage, {})
        write_encoder(path, tensors, {**meta, "model": json.dumps(model), **changed})


@pytest.mark.parametrize("damage", ["text", "cut", "tail", "foreign", "absent", "projector", "nan", "shape", "missing",
    "no model", "deep", "wide", "wider", "normalise", "infinite", "provenance", "deep provenance", "config"])  # fmt: skip
def test_a_file_that_is_no_encoder_is_explained_and_nothing_is_written(
    run: Run, encoder: Path, damage: str
) -> None:
    _spoil(encoder, damage)
    before = list(encoder.parent.iterdir())
    code, out, err = run(str(encoder), "--out", str(encoder.parent / "home"))
    assert (code, out) == (4, ""), err
    assert "encoder.safetensors" in err
    assert "ssd-coordinator export --out" in err
    assert list(encoder.parent.iterdir()) == before


def test_the_choices_of_the_command_are_the_forms_there_are() -> None:
    from ssd.export import command
    from ssd.export.card import NO_LICENCE

    assert (command._FORMATS, command._NO_LICENCE) == (forms.FORMATS, NO_LICENCE)

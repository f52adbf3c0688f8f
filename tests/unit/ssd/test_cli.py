"""The `ssd` command: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd import cli
from ssd.data.images.builtin import load_builtin
from ssd.data.images.source import ImageFormat
from ssd.data.partition import partition as partitions
from ssd.export.encoder_file import encoder_metadata, tensors_of_part, write_encoder
from ssd.method.protocol import EvaluationTask
from ssd.method.registry import load

SMALL = {"image": {"size": 8, "channels": 1}, "model": {"name": "small", "feature_dim": 8, "width": 4}}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    method = load("fed_align_uniform", SMALL)
    path = tmp_path_factory.mktemp("encoder") / "small.safetensors"
    write_encoder(path, method.export(method.initial(1, None)), encoder_metadata(method.declare().config))
    return path


@pytest.fixture(scope="module")
def projector(encoder: Path) -> Path:
    method = load("fed_align_uniform", SMALL)
    path, declared = encoder.with_name("projector.safetensors"), method.declare()
    tensors = tensors_of_part(declared.spec, method.initial(1, None), "projector")
    write_encoder(path, tensors, encoder_metadata(declared.config), part="projector")
    return path


def measures(capsys: pytest.CaptureFixture[str], encoder: Path, *arguments: str) -> dict:
    common = ["--data", "digits", "--device", "cpu", "--threads", "1", "--format", "json"]
    code, out, err = run(capsys, "evaluate", str(encoder), *common, *arguments)
    assert code == 0, err
    assert err == "", "a progress bar belongs on a terminal only"
    return json.loads(out)


def test_help_shows_commands_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for word in ("demo", "evaluate", "partition", "ssd partition make --data digits", "Exit codes"):
        assert word in out
    for command in (["demo"], ["evaluate"], ["partition", "make"], ["partition", "show"]):
        code, out, _ = run(capsys, *command, "--help")
        assert code == 0
        assert "Exit codes" in out


def test_help_needs_no_torch() -> None:
    script = (
        "import sys\nfrom ssd.cli import main\n"
        "try:\n    main(['demo', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'sklearn', 'matplotlib', 'grpc', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "ssd", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "No such command" in done.stderr


# partition


def test_a_partition_is_made_shown_and_loadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "digits.json"
    make = ["partition", "make", "--data", "digits", "--clients", "4", "--seed", "3", "--out", str(out)]
    code, text, _ = run(capsys, *make)
    assert code == 0
    assert "client-003" in text
    assert "1437 of 1437 images of digits over 4 clients, Dirichlet(0.1), seed 3" in text
    code, text, _ = run(capsys, "partition", "show", str(out), "--format", "json")
    shown = json.loads(text)
    found = partitions.load(out)
    assert {client: entry["size"] for client, entry in shown["clients"].items()} == {
        client: len(indices) for client, indices in found.clients.items()
    }
    code, _, err = run(capsys, *make)
    assert code == 2, "an existing file is not replaced unasked"
    assert "--force" in err
    assert run(capsys, *make, "--force", "--scheme", "iid")[0] == 0
    assert partitions.load(out).scheme == "iid"


def test_a_partition_may_hold_test_images_and_deal_out_a_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "digits.json"
    make = ["partition", "make", "--data", "digits", "--clients", "4", "--seed", "3"]
    make += ["--out", str(out), "--force"]
    code, text, _ = run(capsys, *make, "--images", "500", "--test", "proportional")
    assert code == 0
    assert "500 of 1437 images of digits over 4 clients" in text
    assert "360 of 360 test images, proportional" in " ".join(text.split())
    found = partitions.load(out)
    assert (found.portion.images, found.portion.take) == (500, "sample")
    _, text, _ = run(capsys, "partition", "show", str(out), "--format", "json")
    shown = json.loads(text)
    assert shown["test"] == "proportional"
    assert sum(entry["test"] for entry in shown["clients"].values()) == 360
    code, text, _ = run(capsys, *make, "--scheme", "fedgen", "--ratio", "0.4", "--test", "owned-classes")
    assert code == 0
    assert "Dirichlet(0.1) as in FedGen's experiments with ratio 0.4" in " ".join(text.split())
    assert partitions.load(out).test.scheme == "owned_classes"
    code, _, err = run(capsys, *make, "--scheme", "fedgen", "--images", "500")
    assert code == 2
    assert "--ratio" in err


def test_impossible_partitions_and_damaged_files_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.json"
    code, _, err = run(
        capsys, "partition", "make", "--data", "digits", "--clients", "5000", "--out", str(out)
    )
    assert (code, out.exists()) == (2, False)
    assert "5000 clients" in err
    out.write_text("{}")
    code, _, err = run(capsys, "partition", "show", str(out))
    assert code == 2
    assert "not a partition file" in err
    assert run(capsys, "partition", "show", str(tmp_path / "nowhere.json"))[0] == 2
    code, _, err = run(capsys, "partition", "make", "--data", "cifar10", "--out", str(tmp_path / "c.json"))
    assert code == 2
    assert "root" in err


# evaluate


def test_an_encoder_is_measured_as_a_table_and_as_json(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = tmp_path / "split.json"
    run(capsys, "partition", "make", "--data", "digits", "--out", str(split))
    common = ["evaluate", str(encoder), "--data", "digits", "--draws", "2", "--labels-per-class", "3"]
    code, text, _ = run(capsys, *common)
    assert code == 0
    assert "linear probe, 3 per class %" in text
    assert "1437 images" in text, "a number without its split and sample says nothing"
    assert "inter-client" not in text
    code, text, _ = run(
        capsys, *common, "--partition", str(split), "--views", "digits", "--format", "json", "--device", "cpu"
    )
    assert code == 0
    value = json.loads(text)
    assert {"linear_probe_all", "knn_3_per_class", "uniformity_inter", "alignment"} <= set(value["measures"])
    assert value["metadata"]["format"] == "ssd-encoder-v1"
    assert value["features"] == ["h"]


def test_both_features_and_both_splits_are_measured_apart(
    encoder: Path, projector: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = measures(
        capsys, encoder, "--projector", str(projector), "--features", "h", "--features", "z", "--split", "train",
        "--split", "test", "--measures", "quality", "--quality-samples", "200",
    )  # fmt: skip
    found = value["measures"]
    for prefix in ("", "z_", "test_", "z_test_"):
        assert found[f"{prefix}uniformity_samples"] == 200
    assert found["effective_rank_samples"] == 1437
    assert found["test_effective_rank_samples"] == 360
    assert found["z_effective_rank"] != found["effective_rank"]
    assert found["test_uniformity_global"] != found["uniformity_global"]
    assert (value["features"], value["splits"]) == (["h", "z"], ["train", "test"])
    only_z = measures(
        capsys, encoder, "--projector", str(projector), "--features", "z", "--measures", "quality",
        "--quality-samples", "200",
    )["measures"]  # fmt: skip
    assert all(name.startswith("z_") for name in only_z)
    assert only_z["z_uniformity_global"] == found["z_uniformity_global"]


def test_what_is_asked_for_is_measured_and_nothing_else(
    encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probes = [
        "--measures",
        "linear_probe_paper",
        "--measures",
        "linear_probe_selected",
        "--measures",
        "knn_paper",
    ]
    found = measures(capsys, encoder, *probes)["measures"]
    assert set(found) == {
        "train_samples", "test_samples", "linear_probe_paper", "linear_probe_selected",
        "linear_probe_selected_validation", "linear_probe_selected_lr", "linear_probe_selected_weight_decay",
        "linear_probe_selected_epochs", "knn_paper",
    }  # fmt: skip
    tuned = [
        "--measures",
        "fine_tune_1",
        "--measures",
        "fine_tune_10",
        "--fine-tune-epochs",
        "2",
        "--test-looks",
    ]
    found = measures(capsys, encoder, *tuned)["measures"]
    assert set(found) == {
        "train_samples", "test_samples", "fine_tune_1", "fine_tune_1_labels", "fine_tune_10", "fine_tune_10_labels",
        "fine_tune_epochs", "fine_tune_1_best_of_4_test_looks", "fine_tune_10_best_of_4_test_looks",
    }  # fmt: skip
    assert (found["fine_tune_1_labels"], found["fine_tune_10_labels"]) == (14, 144)
    code, text, _ = run(capsys, "evaluate", str(encoder), "--data", "digits", *tuned)
    assert code == 0
    assert "best of 4 test looks (optimistic)" in text
    assert "14 and 144 labels, last of 2 epochs" in text


def test_a_classifier_is_tested_as_it_is(encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A layer that always answers 3 is right as often as there is a 3."""
    head = encoder.with_name("head.safetensors")
    always = {"weight": np.zeros((10, 8), np.float32), "bias": np.eye(10, dtype=np.float32)[3]}
    write_encoder(head, always, {}, part="head")
    found = measures(capsys, encoder, "--head", str(head), "--measures", "knn")["measures"]
    assert found["head_accuracy"] == 37 / 360
    assert found["head_samples"] == 360
    code, text, _ = run(
        capsys, "evaluate", str(encoder), "--data", "digits", "--head", str(head), "--measures", "knn"
    )
    assert code == 0
    assert "its own classifier %" in text
    write_encoder(
        head, {"weight": np.zeros((7, 8), np.float32), "bias": np.zeros(7, np.float32)}, {}, part="head"
    )
    code, _, err = run(capsys, "evaluate", str(encoder), "--data", "digits", "--head", str(head))
    assert code == 2
    assert "tells 7 classes apart, 'digits' has 10" in err


def test_an_exported_classifier_is_as_good_as_its_method_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exported with its normalisation, encoder and head give the accuracy that the method measures itself."""
    method = load("fedavg", {**SMALL, "normalise": {"mean": [0.3], "std": [0.1]}})
    declared, vector = method.declare(), method.initial(2, None)
    backbone, head = tmp_path / "encoder.safetensors", tmp_path / "head.safetensors"
    write_encoder(backbone, method.export(vector), encoder_metadata(declared.config))
    tensors = tensors_of_part(declared.spec, vector, "head")
    write_encoder(head, tensors, encoder_metadata(declared.config), part="head")
    probe = load_builtin("digits", ImageFormat(size=8, channels=1)).probe()
    own = method.evaluate(EvaluationTask(run_seed=0, version=0, vector=vector), probe)
    found = measures(capsys, backbone, "--head", str(head), "--measures", "knn")["measures"]
    assert found["head_accuracy"] == own["accuracy"]


def test_a_transfer_is_called_one(encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method = load("fed_align_uniform", SMALL)
    metadata = encoder_metadata(method.declare().config)
    moved = encoder.with_name("moved.safetensors")
    write_encoder(moved, method.export(method.initial(1, None)), {**metadata, "trained_on": "mnist"})
    value = measures(capsys, moved, "--measures", "knn")
    assert (value["trained_on"], value["data"]) == ("mnist", "digits")
    assert value["image"] == {"size": 8, "channels": 1}
    code, text, _ = run(capsys, "evaluate", str(moved), "--data", "digits", "--measures", "knn")
    assert "Trained on mnist, probed on digits (transfer), images as 8 × 8" in text
    code, text, _ = run(capsys, "evaluate", str(encoder), "--data", "digits", "--measures", "knn")
    assert "does not say what the encoder was trained on" in text


def test_a_folder_of_labelled_images_serves_as_probe(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for label, brightness in (("dark", 40), ("light", 200)):
        (tmp_path / "probe" / label).mkdir(parents=True)
        for number in range(12):
            pixels = np.clip(rng.normal(brightness, 10, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "probe" / label / f"{number}.png")
    code, text, err = run(
        capsys,
        "evaluate",
        str(encoder),
        "--data",
        "folder",
        "--probe",
        str(tmp_path / "probe"),
        "--format",
        "json",
    )
    assert code == 0, err
    assert json.loads(text)["measures"]["linear_probe_all"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--data", "folder"], 2, "--probe"),
        (["--data", "folder", "--probe", "x", "--partition", "y"], 2, "--partition"),
        (["--data", "digits", "--device", "cuda:99"], 2, "--device cuda:99"),
        (["--data", "digits", "--partition", "nowhere.json"], 2, "nowhere.json"),
        (["--data", "mnist"], 2, "root"),
        (["--data", "digits", "--features", "z"], 2, "--projector"),
        (["--data", "digits", "--measures", "guess"], 2, "guess"),
        (["--data", "digits", "--projector", "nowhere.safetensors"], 4, "nowhere.safetensors"),
    ],
)
def test_wrong_evaluations_are_explained(
    encoder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    ended, _, err = run(capsys, "evaluate", str(encoder), *arguments)
    assert ended == code
    assert words in err


def test_what_is_no_encoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.safetensors"
    code, _, err = run(capsys, "evaluate", str(path), "--data", "digits")
    assert code == 4
    path.write_bytes(b"nothing of the kind")
    code, _, err = run(capsys, "evaluate", str(path), "--data", "digits")
    assert code == 4
    assert "safetensors" in err


# demo


def test_a_demo_leaves_a_foreign_folder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("")
    code, _, err = run(capsys, "demo", "--out", str(tmp_path))
    assert code == 3
    assert "--out" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "wrong", [["--workers", "0"], ["--workers", "11"], ["--rounds", "0"], ["--seed", "-1"]]
)
def test_a_demo_that_cannot_be_is_a_usage_error(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "demo", *wrong)[0] == 2

"""Folders of photographs, with the example configurations exactly as they stand in deploy/config."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from federation import ROOT, Daemon, Federation

pytestmark = pytest.mark.e2e
EXIF_ORIENTATION = 0x0112


def photograph(
    path: Path, seed: int, *, mode: str = "RGB", size: tuple[int, int] = (160, 120), rotated: bool = False
) -> None:
    """A picture with structure in it, as JPEG or PNG by the name's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    luck = np.random.default_rng(seed)
    coarse = luck.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    if rotated:
        exif[EXIF_ORIENTATION] = 6
    picture.save(path, exif=exif) if path.suffix == ".jpg" else picture.save(path)


def site(root: Path) -> None:
    """Two clients and a probe, with everything real folders hold."""
    for index in range(10):
        photograph(root / f"photographs/garden/{index:02d}.jpg", index, rotated=index % 2 == 0)
        photograph(root / f"photographs/market/stalls/{index:02d}.jpg", 100 + index, size=(300, 200))
    photograph(root / "photographs/garden/grey.png", 50, mode="L")
    photograph(root / "photographs/garden/alpha.png", 51, mode="RGBA")
    photograph(root / "photographs/garden/tiny.jpg", 52, size=(20, 20))
    (root / "photographs/garden/broken.jpg").write_bytes(b"\xff\xd8\xff not a photograph")
    (root / "photographs/garden/notes.txt").write_text("not an image")
    for name in ("cats", "dogs"):
        for index in range(8):
            photograph(root / f"photographs/probe/{name}/{index}.jpg", 200 + index)


def test_the_examples_train_on_folders_of_photographs_and_give_an_encoder(tmp_path: Path) -> None:
    site(tmp_path)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    with Federation(tmp_path) as federation:
        # Certificates where the examples look for them; how hosts come by theirs is the enrolment test's matter.
        assert federation.pki is not None
        shutil.copytree(federation.pki.folder, tmp_path / "deploy/config/pki")
        shutil.copytree(federation.pki.worker("site-north"), tmp_path / "state/worker/identity")
        address = f"127.0.0.1:{federation.port}"
        coordinator = Daemon(
            [
                *("-m", "coordinator", "run", "--config", "deploy/config/coordinator.toml"),
                *("--listen", address, "--rounds", "2"),
                *("--set", f"coordinator.http_listen=127.0.0.1:{federation.http_port}"),
                *("--set", "enrolment.listen="),
                *(
                    "--set",
                    "evaluation.every=2",
                    "--set",
                    "method.config.local_epochs=1",
                    "--set",
                    "log.format=json",
                ),
            ],
            tmp_path / "coordinator.log",
        )
        federation.coordinator = coordinator
        worker = Daemon(
            [
                *("-m", "worker", "run", "--config", "deploy/config/worker.toml", "--coordinator", address),
                *("--set", "worker.http_listen=", "--set", "log.format=json"),
            ],
            tmp_path / "site-north.log",
        )
        federation.workers["site-north"] = worker
        federation.until(
            lambda: (
                "finished" in [each["phase"] for each in coordinator.events("phase")]
                or not coordinator.running
            ),
            "two rounds on photographs",
            patience=300,
        )
        federation.until(lambda: coordinator.events("evaluated"), "the probe is evaluated")
        status = federation.status()
        assert (status.version.number, status.connected_clients) == (2, 2)
        assert {"linear_probe_all", "knn_all"} <= set(status.evaluation)
        # The folder's odd ends are reported, and nothing else was left out.
        (report,) = [each for each in worker.events("images_opened") if each.get("client") == "north-garden"]
        assert report["images"] == 12
        assert report["skipped"] == 2
        export = subprocess.run(
            [
                sys.executable,
                "-m",
                "coordinator",
                "export",
                "--address",
                address,
                "--pki",
                "deploy/config/pki",
                "--out",
                "encoder.safetensors",
            ],
            cwd=tmp_path,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert export.returncode == 0, export.stderr
        tensors = load_file(tmp_path / "encoder.safetensors")
        assert sum(tensor.size for tensor in tensors.values()) > 11_000_000
        assert coordinator.terminate() == 0
        assert worker.terminate() == 0

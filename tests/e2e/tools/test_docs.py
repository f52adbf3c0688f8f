"""The documentation's commands, typed as they stand, in four federations of real processes (`docs_stories.STORIES`)."""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from pages.docs_site import Site, Warm
from pages.docs_stories import STORIES
from ssd.trust.join_token import parse

pytestmark = pytest.mark.e2e
EXIF_ORIENTATION = 0x0112
HOSTS = {"edge-1": "ward-a,ward-b", "edge-2": "ward-c", "edge-3": "ward-d"}
DAEMONS = ("ssd-coordinator", "ssd-worker")
NO_IMAGES = {"SSD_DATA_KIND": "none", "SSD_DATA_FOLDERS": "{}"}
UNUSED = "3f9c01a2b4d5"
"""What the pages have for the beginning of a token's digest."""
SYNTHETIC = {"SSD_METHOD_NAME": "synthetic", "SSD_METHOD_CONFIG": "{ parameters = 2000 }"}


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm() as warm:
        yield warm


def test_digits(tmp_path: Path, warm: Warm) -> None:
    with Site(tmp_path, warm, SSD_RUN_ROUNDS="1", SSD_EVALUATION_EVERY="0") as site:
        for place in STORIES["digits"]:
            if place.startswith("docs/evaluation.md"):
                site.folder = tmp_path / "evaluation"
                site.folder.mkdir()
            site.follow(place)
        assert "linear probe" in site.printed["ssd evaluate digits.safetensors --data digits"]
        assert site.interrupt() == {"ssd-coordinator-0": 0, "ssd-worker-0": 0}


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


def photographs(root: Path) -> None:
    """Two clients and a probe, with everything real folders hold."""
    for index in range(10):
        photograph(root / f"garden/{index:02d}.jpg", index, rotated=index % 2 == 0)
        photograph(root / f"market/stalls/{index:02d}.jpg", 100 + index, size=(300, 200))
    photograph(root / "garden/grey.png", 50, mode="L")
    photograph(root / "garden/alpha.png", 51, mode="RGBA")
    photograph(root / "garden/tiny.jpg", 52, size=(20, 20))
    (root / "garden/broken.jpg").write_bytes(b"\xff\xd8\xff not a photograph")
    (root / "garden/notes.txt").write_text("not an image")
    for name in ("cats", "dogs"):
        for index in range(8):
            photograph(root / f"probe/{name}/{index}.jpg", 200 + index)


def test_photographs(tmp_path: Path, warm: Warm) -> None:
    photographs(tmp_path / "photographs")
    with Site(tmp_path, warm, SSD_RUN_ROUNDS="1", SSD_EVALUATION_EVERY="1") as site:
        site.own["ssd-coordinator"]["SSD_ENROLMENT_LISTEN"] = f"127.0.0.1:{site.ports['enrolment']}"
        site.trained = lambda: (
            1 in [each["version"] for each in site.events("ssd-coordinator-0", "evaluated")]
        )
        for place in STORIES["photographs"]:
            site.follow(place)
        *_, evaluated = site.events("ssd-coordinator-0", "evaluated")
        assert evaluated["version"] == 1
        assert {"linear_probe_all", "knn_all"} <= set(evaluated)
        # The folder's odd ends are reported, and nothing else was left out.
        opened = site.events("ssd-worker-0", "images_opened")
        (garden,) = [each for each in opened if each.get("client") == "north-garden"]
        assert (garden["images"], garden["skipped"]) == (12, 2)
        tensors = load_file(tmp_path / "encoder.safetensors")
        assert sum(tensor.size for tensor in tensors.values()) > 11_000_000
        assert site.interrupt() == {"ssd-coordinator-0": 0, "ssd-worker-0": 0}


class Hospital:
    """A coordinator's machine, and workers' hosts that are folders of their own; `edge-1` of the pages is three of them."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._server = site.root / "etc" / "ssd"
        self._server.mkdir(parents=True)
        self._tokens: dict[str, str] = {}

    def type(self, command: str) -> None:
        """Where it belongs: on the coordinator's machine, or on every worker's."""
        if command.startswith(("ssd-worker", "cp ")) or ("edge-1" in command and "revoke" not in command):
            for name in HOSTS:
                self._type(command, name)
            return
        if UNUSED in command:
            made = self._site.type(
                "ssd-coordinator ca token --worker late --config coordinator.toml", self._server
            )
            command = command.replace(UNUSED, parse(made.strip()).digest[: len(UNUSED)])
        self._site.type(command, self._server)

    def _type(self, command: str, name: str) -> None:
        host = self._site.root / name
        host.mkdir(exist_ok=True)
        line = command.replace("edge-1", name).replace(HOSTS["edge-1"], HOSTS[name])
        if not command.startswith(("ssd-worker", "cp ")):
            self._tokens[name] = self._site.type(line, self._server)
            return
        for file in ("signer.pub", "participants.json"):
            if (self._server / file).exists():
                shutil.copy(self._server / file, host)  # carried there by somebody
        self._site.token = self._tokens.get(name, "").strip()
        clients = json.dumps(HOSTS[name].split(","))
        self._site.type(line, host, SSD_WORKER_NAME=name, SSD_DATA_CLIENTS=clients, **NO_IMAGES)
        if (introduction := host / f"{name}.json").exists():
            shutil.copy(introduction, self._server)


def test_hospital(tmp_path: Path, warm: Warm) -> None:
    settings = {"SSD_RUN_ROUNDS": "12", "SSD_ROUND_COHORT_SIZE": "4", "SSD_ROUND_MIN_UPDATES": "4"}
    with Site(tmp_path, warm, DAEMONS, **SYNTHETIC, **settings) as site:
        hospital = Hospital(site)
        own = site.own["ssd-coordinator"]
        own["SSD_ENROLMENT_LISTEN"] = f"127.0.0.1:{site.ports['enrolment']}"
        site.own["ssd-worker"]["SSD_TRANSPORT_SERVER_NAME"] = "fed.example.org"
        site.trained = lambda: len(site.daemons("ssd-worker")) < len(HOSTS) or "finished" in site.phases()
        for place in STORIES["hospital"]:
            if place.startswith("docs/enrolment.md") and "SSD_SECURE_AGGREGATION_LEVEL" not in own:
                own |= {
                    "SSD_SECURE_AGGREGATION_LEVEL": "active",
                    "SSD_SECURE_AGGREGATION_REGISTRY": "participants.json",
                    "SSD_SECURE_AGGREGATION_REGISTRY_SIGNER": (tmp_path / "etc/ssd/signer.pub")
                    .read_text()
                    .strip(),
                }
            site.follow(place, hospital.type)
        assert "good: 12 rounds" in next(text for line, text in site.printed.items() if " audit " in line)


STAND_INS = {
    "useradd": "exit 0",  # makes users of this machine
    "chown": "exit 0",  # needs those users
    "install": """
        for word; do
            shift
            if [ "$owner" ]; then owner=; elif [ "$word" = -o ] || [ "$word" = -g ]; then owner=1; else set -- "$@" "$word"; fi
        done
        exec /usr/bin/install "$@"
    """,  # without the owner: needs those users
    "sudo": 'shift 2; exec "$@"',  # `sudo -u USER`: needs those users
    "systemctl": 'echo "$@" > "$SITE_STARTED"',  # the test starts the unit's command, in its environment
}
"""Programs of the deployment page that need root or an init system -> the script that stands for them."""
UNIT = re.compile(r"^(ExecStart|Environment)=(.*)$", re.MULTILINE)


class Server:
    """A machine with the repository's systemd units and no systemd."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._started = site.root / "started"
        site.variables["SITE_STARTED"] = str(self._started)
        (site.root / "opt").mkdir()
        (site.root / "opt" / "ssd").symlink_to(site.root / ".venv")
        for folder in (
            "etc/systemd/system",
            "var/lib/ssd-coordinator",
            "var/lib/ssd-worker",
            "srv/photographs",
            "nowhere",
        ):
            (site.root / folder).mkdir(parents=True)
        for name, script in STAND_INS.items():
            file = site.root / ".venv" / "bin" / name
            file.write_text(f"#!/bin/sh\n{script}\n")
            file.chmod(0o755)

    def type(self, command: str) -> None:
        """One command; a unit that it enabled is started."""
        self._site.type(command)
        if self._started.exists():
            verb, *_, unit = self._started.read_text().split()
            self._started.unlink()
            if verb == "reload":
                self._site.reload(unit)
            else:
                self._start(*unit.partition("@")[::2])

    def _start(self, name: str, instance: str) -> None:
        file = self._site.root / "etc/systemd/system" / f"{name}{'@' if instance else ''}.service"
        found = dict(UNIT.findall(file.read_text().replace("%i", instance)))
        variables = dict(each.split("=", 1) for each in self._site.moved(found["Environment"]).split())
        line = self._site.moved(found["ExecStart"]).removeprefix(f"{self._site.root}/opt/ssd/bin/")
        nowhere = self._site.root / "nowhere"
        nowhere.chmod(0o555)  # as `/` is for a service
        self._site.start(name, line, nowhere, {**self._site.own[name], **variables})


def test_server(tmp_path: Path, warm: Warm) -> None:
    with Site(tmp_path, warm, DAEMONS, **SYNTHETIC, SSD_RUN_ROUNDS="2") as site:
        server = Server(site)
        site.own["ssd-coordinator"]["SSD_ENROLMENT_LISTEN"] = f"127.0.0.1:{site.ports['enrolment']}"
        site.own["ssd-worker"]["SSD_TRANSPORT_SERVER_NAME"] = "fed.example.org"
        for place in STORIES["server"]:
            site.follow(place, server.type)
        site.until(
            lambda: bool(site.events("ssd-coordinator-0", "certificate_reloaded")), "the new certificate"
        )
        token = tmp_path / "etc/ssd/operator.token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert len(token.read_text().strip()) >= 32
        # Everything that must last is where the deployment page says.
        assert list((tmp_path / "var/lib/ssd-coordinator").glob("blobs"))
        assert (tmp_path / "var/lib/ssd-worker/gpu-1/identity/worker.pem").exists()
        assert not list((tmp_path / "nowhere").iterdir())

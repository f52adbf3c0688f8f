"""Services of a compose file as processes of a built root: its user, mounts, volumes, environment and commands, no engine."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from deployment.clean_root import bind, command, loopback_only, mount_kernel, remove
from deployment.image_root import Image, copy_tree

PATIENCE = 300.0
"""Seconds until a round has committed."""


@dataclass(frozen=True)
class Mount:
    """One entry of a service's `volumes`."""

    source: str
    target: str
    read_only: bool = False
    subpath: str = ""
    """The folder of the volume that is mounted; empty: all of it."""


def mounted(entry: str | dict[str, Any]) -> Mount:
    """An entry in either of the forms Compose has for it."""
    if isinstance(entry, str):
        source, target, *mode = entry.split(":")
        return Mount(source, target, mode == ["ro"])
    if entry["type"] != "volume" or entry.keys() - {"type", "source", "target", "read_only", "volume"}:
        raise ValueError(f"{entry} is not carried out")
    return Mount(entry["source"], entry["target"], entry.get("read_only", False), entry["volume"]["subpath"])


class Composition:
    """`with Composition(file, image, folder) as composition:` and what was started is gone afterwards.

    Every service gets the root through an overlay of its own, as a container does, and all share one loopback, where
    their names lead. A key of a service that is not carried out here is an error.
    """

    CARRIED_OUT = frozenset(
        {
            "cap_drop", "command", "entrypoint", "environment", "healthcheck", "image", "read_only", "security_opt",
            "stop_grace_period", "tmpfs", "volumes",
        }
    )  # fmt: skip
    LEFT_TO_THE_ENGINE = frozenset({"depends_on", "profiles", "restart", "ulimits"})

    def __init__(self, file: Path, image: Image, folder: Path) -> None:
        self._services: dict[str, dict[str, Any]] = {
            name: service
            for name, service in yaml.safe_load(file.read_text())["services"].items()
            if service["image"].startswith("${SSD_IMAGE")
        }
        for name, service in self._services.items():
            if unknown := service.keys() - self.CARRIED_OUT - self.LEFT_TO_THE_ENGINE:
                raise ValueError(f"{name}: {', '.join(sorted(unknown))} is not carried out")
            if not service["read_only"] or service["cap_drop"] != ["ALL"]:
                raise ValueError(f"{name} is not locked")
        self._beside, self._image, self._folder = file.parent, image, folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        remove(self._folder)
        self._folder.mkdir(parents=True)
        self._network = loopback_only(self._folder / "network")
        self._hosts = self._folder / "hosts"
        self._hosts.write_text(f"127.0.0.1 localhost {' '.join(self._services)}\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, process in self._running.items():
            process.kill()
            process.wait()
            if kind is not None:
                print(f"--- {name}\n" + self._log(name).read_text()[-3000:])

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _view(self, name: str) -> Path:
        """The service's own root, mounted when it is first asked for."""
        view = self._folder / "view" / name
        if view.exists():
            return view
        upper, work = self._folder / "layer" / name / "upper", self._folder / "layer" / name / "work"
        for each in (view, upper, work):
            each.mkdir(parents=True)
        options = f"lowerdir={self._image.root},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(view)], check=True)
        service = self._services[name]
        for place in service["tmpfs"]:
            subprocess.run(
                [
                    "mount",
                    "-t",
                    "tmpfs",
                    "-o",
                    "mode=1777,nosuid,nodev,noexec",
                    "tmpfs",
                    str(view / place[1:]),
                ],
                check=True,
            )
        mount_kernel(view)
        bind(self._hosts, view / "etc/hosts", read_only=True)
        given = [mounted(each) for each in service["volumes"]]
        taken = {mount.target for mount in given}
        given += [
            Mount(f"{name}{each}".replace("/", "-"), each)
            for each in self._image.volumes
            if each not in taken
        ]
        for mount in given:
            own = mount.source.startswith(".")
            place = self._beside / mount.source if own else self._volume(mount.source, mount.target)
            bind(place / mount.subpath, view / mount.target[1:], read_only=mount.read_only)
        subprocess.run(["mount", "-o", "remount,ro", str(view)], check=True)
        return view

    def _volume(self, name: str, target: str) -> Path:
        """A named volume; a new one begins as what the image has at `target`, owner included."""
        place = self._folder / "volume" / name
        # What has no place in the image was filled by another service.
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            copy_tree(self._image.root / target[1:], place)
        return place

    def _command(self, name: str, words: Sequence[str], **more: str) -> list[str]:
        own = {key: str(value) for key, value in self._services[name].get("environment", {}).items()}
        return command(
            self._view(name),
            words,
            {**self._image.environment, **own, **more},
            folder=self._image.folder,
            user=self._image.user,
            locked=True,
            network=self._network,
        )

    def _own_words(self, name: str) -> list[str]:
        service = self._services[name]
        # "$$" is how compose writes a dollar sign.
        words = [*service.get("entrypoint", ()), *service.get("command", self._image.words)]
        return [word.replace("$$", "$") for word in words]

    def run(self, name: str) -> str:
        """`docker compose run NAME`: to its end; what it printed."""
        return self._finish(self._command(name, self._own_words(name)))

    def execute(self, name: str, words: Sequence[str]) -> str:
        """`docker compose exec NAME WORDS`; what it printed."""
        return self._finish(self._command(name, words))

    def _finish(self, words: Sequence[str]) -> str:
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise RuntimeError(f"{words}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, name: str, **more: str) -> None:
        """`docker compose up NAME`, its dependencies apart; `more` stands over its environment."""
        with self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                self._command(name, self._own_words(name), **more),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def until_healthy(self, name: str) -> None:
        """The health check's own command, as often as the file allows."""
        check = self._services[name]["healthcheck"]
        assert check["test"][0] == "CMD"
        for _ in range(check["retries"]):
            try:
                self.execute(name, check["test"][1:])
                return
            except RuntimeError:
                time.sleep(float(check["interval"].removesuffix("s")))
        raise RuntimeError(f"{name} did not become healthy")

    def event(self, name: str, event: str) -> dict[str, Any]:
        """The first of these in its log, waited for."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in self._log(name).read_text().splitlines():
                found: dict[str, Any] = json.loads(line)
                if found.get("event") == event:
                    return found
            for each, process in self._running.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{each} ended with {process.returncode}")
            time.sleep(0.5)
        raise RuntimeError(f"{name}: no {event} in {PATIENCE:.0f} s")

    def stop(self, name: str) -> float:
        """The image's signal, and the grace period of the file; seconds until it had ended by itself."""
        begun = time.monotonic()
        process = self._running.pop(name)
        process.send_signal(signal.Signals[self._image.stop_signal])
        grace = float(self._services[name]["stop_grace_period"].removesuffix("s"))
        if code := process.wait(grace):
            raise RuntimeError(f"{name}: exit code {code}\n{self._log(name).read_text()[-2000:]}")
        return time.monotonic() - begun

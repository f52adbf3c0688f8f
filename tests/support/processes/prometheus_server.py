"""A real Prometheus on loopback, with the repository's rules, for tests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from processes.federation import PATIENCE
from processes.ports import free_port

DEPLOY = Path(__file__).resolve().parents[3] / "deploy" / "prometheus"
_CACHE = Path(tempfile.gettempdir()) / "ssd-test-prometheus"


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`: an installed one, or Debian's package unpacked without installing it."""
    found = shutil.which(name)
    if found:
        return found
    unpacked = _CACHE / "usr" / "bin" / name
    if not unpacked.exists():
        _unpack_debian_package()
    if not unpacked.exists():
        pytest.skip(
            "Prometheus is not installed and Debian's package cannot be fetched: apt-get install prometheus"
        )
    return str(unpacked)


def _unpack_debian_package() -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            ["apt-get", "download", "prometheus"],
            ["apt-get", "update"],
            ["apt-get", "download", "prometheus"],
        ):
            subprocess.run(command, cwd=folder, capture_output=True, check=False)
            packages = list(Path(folder).glob("prometheus_*.deb"))
            if packages:
                whole = Path(tempfile.mkdtemp(prefix=f"{_CACHE.name}-", dir=_CACHE.parent)) / "whole"
                subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(whole)], check=True)
                try:
                    whole.rename(_CACHE)
                except OSError:  # another test process was first
                    shutil.rmtree(whole)
                whole.parent.rmdir()
                return


class Prometheus:
    """Scrapes and evaluates every second; alerts fire at once instead of after their `for`."""

    def __init__(self, root: Path, targets: Mapping[str, int | Sequence[int]]) -> None:
        """`targets`: job -> port or ports on loopback."""
        self._folder = root / "prometheus"
        self._folder.mkdir()
        self._port = free_port()
        rules = []
        for file in sorted((DEPLOY / "rules").glob("*.yml")):
            hurried = re.sub(r"^( +)for: \S+$", r"\1for: 0s", file.read_text(), flags=re.MULTILINE)
            (self._folder / file.name).write_text(hurried)
            rules.append(str(self._folder / file.name))
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": [
                {
                    "job_name": job,
                    "static_configs": [
                        {
                            "targets": [
                                f"127.0.0.1:{port}" for port in ([ports] if isinstance(ports, int) else ports)
                            ]
                        }
                    ],
                }
                for job, ports in targets.items()
            ],
        }
        (self._folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        arguments = [
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen([program("prometheus"), *arguments], stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; none while it does not answer yet."""
        return self._ask("query", query=expression)

    def query_range(self, expression: str, begin: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of a query between two times (Unix seconds), a point every `step` seconds."""
        return self._ask("query_range", query=expression, start=begin, end=end, step=step)

    def _ask(self, call: str, **parameters: str | float) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{self._port}/api/v1/{call}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as reply:
                return json.load(reply)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        except (urllib.error.URLError, ConnectionError):
            return []

    def firing(self) -> frozenset[str]:
        """Names of the alerts that fire."""
        return frozenset(each["metric"]["alertname"] for each in self.query('ALERTS{alertstate="firing"}'))

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.2)
        log = (self._folder / "log").read_text()[-2000:]
        raise AssertionError(f"waited in vain: {what}; firing: {sorted(self.firing())}\n{log}")

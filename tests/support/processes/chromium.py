"""A real Chromium without a window, for tests: Debian's, driven over its DevTools pipe. Nothing else is needed.

https://chromedevtools.github.io/devtools-protocol/: JSON messages, each ended by a zero byte, on descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from processes.federation import PATIENCE

_CACHE = Path(tempfile.gettempdir()) / "ssd-test-chromium"
_PACKAGE = "chromium-headless-shell"
_INSTALLED = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio", "usr/lib/aarch64-linux-gnu",
              "usr/lib/aarch64-linux-gnu/pulseaudio")  # fmt: skip


@cache
def program() -> tuple[str, Mapping[str, str]]:
    """A browser's path and the environment it needs: an installed one, or Debian's package and what it depends on,
    unpacked without installing them (90 MB; ten seconds with a good connection).
    """
    for name in _INSTALLED:
        if found := shutil.which(name):
            return found, dict(os.environ)
    unpacked = _CACHE / "usr" / "lib" / "chromium" / "chromium-headless-shell"
    if not unpacked.exists():
        _unpack_debian_packages()
    if not unpacked.exists():
        pytest.skip(f"no Chromium is installed and Debian's cannot be fetched: apt-get install {_PACKAGE}")
    libraries = os.pathsep.join(str(_CACHE / each) for each in _LIBRARIES)
    return str(unpacked), {**os.environ, "LD_LIBRARY_PATH": libraries}


def _unpack_debian_packages() -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return
    with tempfile.TemporaryDirectory() as folder:
        # Lists of packages may be missing or old.
        for refresh in (False, True):
            if refresh:
                subprocess.run(["apt-get", "update"], capture_output=True, check=False)
            wanted = _missing_packages()
            if not wanted:
                continue
            subprocess.run(["apt-get", "download", *wanted], cwd=folder, capture_output=True, check=False)
            packages = sorted(Path(folder).glob("*.deb"))
            if len(packages) >= len(wanted):
                break
        else:
            return
        whole = Path(tempfile.mkdtemp(prefix=f"{_CACHE.name}-", dir=_CACHE.parent)) / "whole"
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", str(package), str(whole)], check=True)
        try:
            whole.rename(_CACHE)
        except OSError:  # another test process was first
            shutil.rmtree(whole)
        whole.parent.rmdir()


def _missing_packages() -> list[str]:
    """The browser and those of its dependencies that this machine lacks."""
    simulated = subprocess.run(
        ["apt-get", "install", "--simulate", "--no-install-recommends", _PACKAGE],
        capture_output=True,
        text=True,
        check=False,
    )
    return [line.split()[1] for line in simulated.stdout.splitlines() if line.startswith("Inst ")]


class Browser:
    """One browser process with one page."""

    def __init__(self, folder: Path) -> None:
        """`folder`: for its profile, log and downloads."""
        self._folder = folder / "chromium"
        self.downloads = self._folder / "downloads"
        self.said: list[str] = []
        """Errors of scripts, refused loads and violated policies."""
        self.asked: list[str] = []
        """Addresses of all requests."""
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._number = 0
        self._session = ""

    def __enter__(self) -> Browser:
        path, environment = program()
        self.downloads.mkdir(parents=True)
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        arguments = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", "--mute-audio", "--remote-debugging-pipe", f"--user-data-dir={self._folder / 'profile'}",
        ]  # fmt: skip
        shell = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", shell, path, *arguments],
                stdout=log,
                stderr=log,
                env=dict(environment),
                pass_fds=(to_read, to_write),
            )
        os.close(to_read)
        os.close(to_write)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._read)
        os.close(self._write)

    # ---------------------------------------------------------------------------------------------- messages

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._read, 1 << 16) if ready else b""
            if not piece:
                raise AssertionError(f"the browser is silent\n{(self._folder / 'log').read_text()[-2000:]}")
            self._buffer += piece
        first, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(first)

    def _note(self, event: Mapping[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.said.append(json.dumps(parameters["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.said.append(json.dumps(parameters["args"])[:500])
            case "Log.entryAdded":
                self.said.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.asked.append(parameters["request"]["url"])

    # ------------------------------------------------------------------------------------------- as a person

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a script's expression; promises are waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait for an expression to be true."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = self.evaluate(expression)
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited in vain: {expression}\n{self.text('body')[:3000]}\n{self.said}")

    def text(self, selector: str) -> str:
        """What is to be read in an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element; again, if it moved away under the mouse."""
        for _ in range(20):
            if self._click(selector):
                return
            time.sleep(0.05)
        raise AssertionError(f"{selector} cannot be clicked: it is covered, out of sight or never still")

    def _click(self, selector: str) -> bool:
        where = self.evaluate(
            f"""(() => {{
                const wanted = document.querySelector({json.dumps(selector)});
                window.clickedByTest = false;
                wanted.addEventListener("click", () => {{ window.clickedByTest = true; }}, {{once: true, capture: true}});
                wanted.scrollIntoView({{block: "center"}});
                const box = wanted.getBoundingClientRect();
                const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
                const found = document.elementFromPoint(x, y);
                return wanted.contains(found) ? {{x, y}} : null;
            }})()"""
        )
        if not where:
            return False
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where)
        return bool(self.evaluate("window.clickedByTest"))

    def type(self, text: str) -> None:
        """Into whatever has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """A key such as Tab or Enter."""
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        told = {"key": key, "windowsVirtualKeyCode": code, "text": {"Enter": "\r", " ": " "}.get(key, "")}
        self.call("Input.dispatchKeyEvent", type="keyDown", **told)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def prefer(self, scheme: str) -> None:
        """`light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def size(self, width: int, height: int) -> None:
        """Of the window, in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def picture(self, file: Path) -> None:
        """What is seen, as PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

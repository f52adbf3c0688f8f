"""The status page in a real browser, beside a live federation: read, searched, operated by mouse and by keyboard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from processes.chromium import Browser
from processes.federation import Federation
from ssd.export.header import check_header
from ssd_proto.v1 import federation_pb2 as pb

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index}" for index in range(6)]
TOKEN = "t0k3n-" * 8
HOSTILE = "<img src=x onerror=alert(1)><script>1</script>"
SETTINGS = {
    "run.mode": "elastic",
    "run.rounds": 100_000,
    "run.when_done": "serve",
    "round.cohort_size": 4,
    "round.min_updates": 1,
    "evaluation.every": 0,
    "limits.heartbeat_seconds": 0.5,
    "method.config": {"parameters": 2000, "train_seconds": 0.5, "fail_clients": {"client-5": "raise"}},
}


def token_file(folder: Path) -> Path:
    path = folder / "operator.token"
    path.touch(0o600)
    path.write_text(TOKEN)
    return path


def operator_signs_in_and_searches(browser: Browser) -> None:
    """A stranger sees figures; with the token there are names, a list of clients and a search."""
    # A stranger sees figures and no names, and cannot do anything.
    assert "round" in browser.text("#phase")
    assert browser.evaluate("document.querySelectorAll('#map .cell').length") <= 4
    for name in ("w0", "client-"):
        assert name not in browser.evaluate("document.documentElement.outerHTML")
    assert not browser.evaluate("document.querySelector('#controls').offsetParent")
    assert "is not public" in browser.text("#versions")

    # By keyboard: the first stop leads past the header; a wrong token is refused in words.
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.className") == "skip"
    browser.click("#token")
    browser.type("wrong" * 10)
    browser.press("Enter")
    browser.until("document.querySelector('#operator-said').textContent.includes('not the operator')")
    browser.click("#token")
    browser.type(TOKEN)
    browser.click("#token-form button[type=submit]")
    browser.until("document.querySelectorAll('#clients-list tbody tr').length === 6")
    assert "w1" in browser.text("#workers-list")
    browser.until("document.querySelector('#clients-list').innerText.includes('round ')")  # a failure

    # Search.
    browser.click("#clients-list input[type=search]")
    browser.type("T-3")
    browser.until("document.querySelectorAll('#clients-list tbody tr').length === 1")
    assert "client-3" in browser.text("#clients-list tbody")

    browser.evaluate(CLEAR)
    browser.until("document.querySelectorAll('#clients-list tbody tr').length === 6")


def test_an_operator_reads_the_page_and_works_with_it(tmp_path: Path) -> None:
    settings = {**SETTINGS, "coordinator.http_token_file": str(token_file(tmp_path))}
    with Federation(tmp_path, **settings) as federation, Browser(tmp_path) as browser:
        federation.start_coordinator()
        federation.start_worker("w0", CLIENTS[:3])
        lost = federation.start_worker("w1", CLIENTS[3:])
        browser.size(1200, 1000)
        browser.open(f"http://127.0.0.1:{federation.http_port}/")
        browser.until("Number(document.querySelector('#run-progress').value) > 1")

        operator_signs_in_and_searches(browser)

        # A curve has its figures as a table, which opens by keyboard; new versions do not take the focus away.
        browser.evaluate("document.querySelector('#charts summary').focus()")
        seen = browser.evaluate("document.querySelector('#run-progress').value")
        browser.until(f"document.querySelector('#run-progress').value > {seen}")
        browser.until(f"document.querySelector('#versions-list tbody th').innerText > {seen}")
        browser.press("Enter")
        browser.until("document.querySelectorAll('#charts figure table tbody tr').length > 1")

        # Pause and resume.
        browser.click("#pause")
        browser.until("document.querySelector('#phase').textContent === 'Paused'")
        assert federation.status().phase == "paused"
        number = federation.status().version.number
        browser.until(f"document.querySelector('#versions-list tbody th').innerText === '{number}'")

        # The newest model, in one piece and readable.
        browser.click("#versions-list tbody button")
        browser.until("document.querySelector('#download').textContent.includes('in your downloads')")
        taken = browser.downloads / f"version-{number}.safetensors"
        federation.until(taken.exists, "the download is there")
        assert sum(_size(shape) for shape in check_header(taken).values()) == 2000

        with federation.raw_worker("w2", ["client-6"]) as raw:
            raw.attend(capabilities=pb.Capabilities(device=HOSTILE))
            failed = pb.TaskFailed(round=1, attempt=1, client="client-6", reason=HOSTILE)
            raw.up.put(pb.WorkerMessage(task_failed=failed))
            # Devices and reasons are words out of lists; what else it says is not shown at all.
            browser.until("document.querySelector('#workers-list').innerText.includes('other')")
            browser.until("document.querySelector('#clients-list').innerText.includes('failed')")
            assert "onerror" not in browser.evaluate("document.documentElement.outerHTML")
            assert browser.evaluate("document.querySelectorAll('img, #workers-list script').length") == 0

        # A lost worker is told of.
        lost.kill()
        browser.until("document.querySelector('#workers-list').innerText.includes('gone')")
        browser.click("#resume")
        browser.until("document.querySelector('#phase').textContent !== 'Paused'")
        assert "Pause" in [each["action"] for each in federation.coordinator.events("audit")]

        # Nothing came from elsewhere, no policy was violated. (Refusals of the wrong token are told as failed loads.)
        assert all(
            url.startswith((f"http://127.0.0.1:{federation.http_port}/", "blob:", "about:"))
            for url in browser.asked
        )
        assert [line for line in browser.said if "401" not in line] == []

        # When the coordinator is gone the page says so.
        federation.coordinator.kill()
        browser.until("document.querySelector('#trouble').textContent.includes('cannot be reached')")
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            assert json.loads(browser.evaluate(CONTRAST)) == []


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for each in shape:
        size *= each
    return size


CLEAR = """(() => {
  const search = document.querySelector("#clients-list input[type=search]");
  search.value = "";
  search.dispatchEvent(new Event("input"));
})()"""
CONTRAST = """(() => {
  // WCAG 2.1: 4.5 to 1 between every text and what is behind it.
  const parse = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = parse(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const weak = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const front = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(front), luminance(behind(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) weak.add(`${element.tagName} ${element.className} ${front} on ${behind(element)}`);
  }
  return JSON.stringify([...weak]);
})()"""

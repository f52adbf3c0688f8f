"""`ssd demo` with real daemons: what it leaves behind, and that it leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from processes.federation import PATIENCE, ROOT
from ssd.export.encoder_file import load_encoder, read_encoder

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]


def start(out: Path, *arguments: str) -> subprocess.Popen[str]:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A runner in the background of a shell ignores Ctrl-C, and its children with it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")])}
    return subprocess.Popen(
        [sys.executable, "-m", "ssd", "demo", "--out", str(out), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def daemons(out: Path) -> dict[int, str]:
    """Process id -> command line of every daemon of the demo in `out`."""
    found, parents = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                parent = int(stat(entry)[1])
            except OSError:
                continue
            if f"--config {out}" in command:
                found[int(entry.name)], parents[int(entry.name)] = command, parent
    # A child that a daemon is about to start has the daemon's command line until it is its own program.
    return {pid: command for pid, command in found.items() if found.get(parents[pid]) != command}


def stat(process: Path) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, group, session, ...; raises OSError."""
    return (process / "stat").read_text().rpartition(")")[2].split()


def members(sessions: set[int]) -> list[int]:
    """Every process in one of these sessions: the daemons and whatever they started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = stat(entry)
            except OSError:
                continue
            if int(fields[3]) in sessions and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def until(condition: Callable[[], object], demo: subprocess.Popen[str], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert demo.poll() is None, f"the demo ended early: {demo.communicate()[0]}"
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


def events(log: Path) -> list[str]:
    text = log.read_text() if log.exists() else ""
    return [
        json.loads(line)["event"] for line in text.splitlines() if line.startswith("{") and line.endswith("}")
    ]


def test_a_tiny_demo_from_beginning_to_end(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo = start(out, "--rounds", "2", "--workers", "2", "--seed", "5")
    text, _ = demo.communicate(timeout=4 * PATIENCE)
    assert demo.returncode == 0, text
    assert "\x1b" not in text, "a pipe gets plain text"
    assert "SSD: round 2 of 2" in text
    assert "linear probe, 2 per class %" in text

    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["federations"]) == ["fed_align_uniform", "ssd"]
    for method, federation in summary["federations"].items():
        assert [record["round"] for record in federation["rounds"]] == [1, 2]
        assert all(record["accepted"] == 10 for record in federation["rounds"])
        assert federation["model_digest"] == federation["rounds"][-1]["model_digest"]
        assert "2" in federation["evaluations"], "measured by the evaluator, while it ran"
        assert federation["evaluations"]["2"]["uniformity_inter"] > 0
        assert load_encoder(out / method / "encoder.safetensors")[1].size == 8
        metadata = read_encoder(out / method / "encoder.safetensors")[1]
        assert metadata["trained_on"] == "digits"
        known = json.loads(metadata["provenance"])
        assert known["parent_digest"] == federation["rounds"][0]["model_digest"]
        assert (known["rounds"], known["registered_clients"], known["included_clients"]) == (2, 10, 10)
        assert known["total_weight"] == sum(each["statistics"]["weight"] for each in federation["rounds"])
        assert known["evaluation"] == federation["evaluations"]["2"]
        assert (known["secure_aggregation"], known["privacy"]) == ("off", "")
        assert not (out / method / "coordinator").exists()
    dimensions = [set(each["scaled_dimensions"]) for each in summary["federations"]["ssd"]["clients"]]
    assert len(set().union(*dimensions)) == sum(len(each) for each in dimensions) == 60
    # The file the evaluator measured and the file that was exported are the same model.
    live = summary["federations"]["ssd"]["evaluations"]["2"]
    assert live["uniformity_inter"] == pytest.approx(summary["table"]["SSD"]["uniformity_inter"], rel=1e-4)
    assert live["effective_rank"] == pytest.approx(summary["table"]["SSD"]["effective_rank"], rel=1e-4)
    before = summary["table"]["untrained"]["linear_probe_2_per_class"]
    assert summary["table"]["SSD"]["linear_probe_2_per_class"] > before + 0.05
    for name in ("curves.png", "map.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 400
    assert daemons(out) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "demo"
    demo = start(out, "--rounds", "50", "--workers", "2")
    log = out / "fed_align_uniform" / "coordinator.log"
    until(lambda: "round_opened" in events(log), demo, "a round opens")
    running = daemons(out)
    assert len(running) == 4, running
    sessions = set(running)
    demo.send_signal(number)
    text, _ = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 130, text
    assert members(sessions) == []


def test_a_worker_that_dies_ends_the_demo_with_its_last_words(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo = start(out, "--rounds", "50", "--workers", "2")
    log = out / "fed_align_uniform" / "coordinator.log"
    until(lambda: "round_opened" in events(log), demo, "a round opens")
    running = daemons(out)
    (victim,) = (pid for pid, command in running.items() if "worker-2.toml" in command)
    os.kill(victim, signal.SIGKILL)
    text, _ = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 3, text
    assert "worker-2 of FedAlignUniform was killed by signal 9" in text
    assert "What to do" in text
    assert "worker-2.log" in text
    assert members(set(running)) == []

"""Carries out "A server and three GPU hosts" of docs/deployment.md, as printed, on two freshly made Debians.

    python tests/deployment/services_in_clean_root.py [--constraint torch==2.13.0 ...]

For root on Debian, with debootstrap, iproute2 and systemd-container. The server and one GPU host (without a GPU) are
booted with their own systemd, so that the units run as systemd runs them, confinement included; they share a loopback of
their own and no other network. The lines are read from the page. A round must commit, the encoder must be exported,
`systemctl reload` must take up the certificates without a restart, a token must not let a second host in, both must come
back after a restart, and stopping must be clean.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support")]

from deployment.clean_root import (
    SYSTEM_PATH,
    command,
    debian,
    in_own_namespaces,
    lent,
    loopback_only,
    pip_settings,
    remove,
    scratch_folder,
)
from processes.booted import Booted

PATIENCE = 300.0
"""Seconds until a round has committed."""
PACKAGES = ["ca-certificates", "dbus", "python3", "python3-venv", "sudo", "systemd", "systemd-sysv"]
PROGRAM, WORKER = "/opt/ssd/bin/ssd-coordinator", "/opt/ssd/bin/ssd-worker"
PHOTOGRAPHS = """
import numpy as np
from pathlib import Path
from PIL import Image
for folder in ("garden", "market", "probe/cat", "probe/dog"):
    place = Path("/srv/photographs", folder)
    place.mkdir(parents=True)
    for number in range(8):
        pixels = np.random.default_rng([number, len(folder)]).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
"""


def printed() -> tuple[list[str], list[str], list[str]]:
    """The server's lines, a GPU host's, and those for a new certificate."""
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    section = page.split("## A server and three GPU hosts")[1].split("\n## ")[0]
    server, host, renewal = re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return server.splitlines(), host.splitlines(), renewal.splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--release", default="bookworm")
    parser.add_argument(
        "--scratch",
        type=Path,
        help="keep the roots here and begin with what is there; else a temporary folder",
    )
    parser.add_argument("--constraint", action="append", default=[], help="what pip has to keep to")
    asked = parser.parse_args()
    in_own_namespaces()
    server_lines, host_lines, renewal_lines = printed()
    install = server_lines.pop(0)
    assert host_lines.pop(0) == install
    with scratch_folder(asked.scratch) as scratch:
        installed = installed_root(asked.release, install, asked.constraint, scratch)
        live = scratch / "live"
        remove(live)
        live.mkdir()
        network = loopback_only(live / "network")
        with (
            Booted(machine_root(installed, live, "server"), "server", network) as server,
            Booted(machine_root(installed, live, "gpu-1"), "gpu-1", network) as host,
        ):
            word = carry_out(server, server_lines, host, host_lines)
            go_on(server, renewal_lines, host, word)


def installed_root(release: str, install: str, constraints: list[str], scratch: Path) -> Path:
    """Debian with a checkout in /src and the page's first line carried out, which alone needs a package index."""
    root = scratch / f"services-{release}"
    if root.exists():
        return root
    making = root.with_suffix(".new")
    shutil.rmtree(making, ignore_errors=True)
    debian(release, PACKAGES, making)
    check_out(making / "src")
    pip = pip_settings()
    if constraints:
        kept = scratch / "constraints.txt"
        kept.write_text("\n".join(constraints))
        pip["constraint"] = str(kept)
    print(install, flush=True)
    with lent(making, pip=pip):
        words = ("/bin/sh", "-ec", install)
        environment = {"PATH": SYSTEM_PATH, "HOME": "/root", "PIP_NO_CACHE_DIR": "1"}
        subprocess.run(command(making, words, environment, folder="/src"), check=True)
    making.rename(root)
    return root


def check_out(place: Path) -> None:
    """What git has of the working tree, as it stands."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in listed.decode().split("\0")[:-1]:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / name)


def machine_root(installed: Path, live: Path, name: str) -> Path:
    """What is written on the machine lies apart, over `installed`."""
    for each in ("view", "upper", "work"):
        (live / name / each).mkdir(parents=True)
    view = live / name / "view"
    options = f"lowerdir={installed},upperdir={live / name / 'upper'},workdir={live / name / 'work'}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(view)], check=True)
    check_out(view / "src")
    (view / "etc/hosts").write_text(f"127.0.0.1 localhost {name} fed.example.org\n")
    return view


def carry_out(server: Booted, server_lines: list[str], host: Booted, host_lines: list[str]) -> str:
    """Every line in turn, until a round has committed; the token, which is spent by then."""
    for line in server_lines:
        last = step(server, line)
    ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9464/readyz').status)"
    wait(server, f'python3 -c "{ask}"', "200")
    (token,) = re.findall(r"ssdjoin1_\S+", last)
    step(host, f"/opt/ssd/bin/python -c '{PHOTOGRAPHS}'", shown="(photographs in /srv)")
    for line in host_lines:
        step(host, line, f"{token}\n" if "--token-file -" in line else "")
    wait(server, f"{PROGRAM} rounds --pki /etc/ssd/pki --format json", '"committed"')
    step(server, f"{PROGRAM} status --pki /etc/ssd/pki")
    step(server, f"{PROGRAM} export --pki /etc/ssd/pki --out /root/encoder.safetensors")
    return token


def go_on(server: Booted, renewal_lines: list[str], host: Booted, token: str) -> None:
    """What a running federation meets: a new certificate, a token used twice, the doctors, a restart, an end."""
    before = server.run("systemctl show -p MainPID -p NRestarts ssd-coordinator")
    assert "NRestarts=0" in before, before
    for line in renewal_lines:
        step(server, line)
    wait(server, "journalctl -u ssd-coordinator -o cat", "certificate_reloaded")
    assert "certificate_not_reloaded" not in server.run("journalctl -u ssd-coordinator -o cat")
    assert server.run("systemctl show -p MainPID -p NRestarts ssd-coordinator") == before
    step(server, f"{PROGRAM} status --pki /etc/ssd/pki")
    thief = "ssd-worker enroll --state-dir /root/thief --coordinator fed.example.org:7444 --token-file -"
    refused = host.run(f"/opt/ssd/bin/{thief} 2>&1 || echo refused: $?", f"{token}\n")
    assert "refused: 3" in refused, refused
    step(host, f"sudo -u ssd-worker {WORKER} doctor --config /etc/ssd/worker-gpu-1.toml")
    step(server, f"sudo -u ssd-coordinator {PROGRAM} doctor --config /etc/ssd/coordinator.toml")
    step(server, "systemctl restart ssd-coordinator")
    step(host, "systemctl restart ssd-worker@gpu-1")
    wait(server, f"{PROGRAM} status --pki /etc/ssd/pki", "2 of 2 connected")
    for machine, unit in ((host, "ssd-worker@gpu-1"), (server, "ssd-coordinator")):
        step(machine, f"systemctl stop {unit}")
        ended = machine.run(f"systemctl show -p Result -p ExecMainStatus -p NRestarts {unit}")
        assert sorted(ended.split()) == ["ExecMainStatus=0", "NRestarts=0", "Result=success"], ended


def step(machine: Booted, line: str, told: str = "", shown: str = "") -> str:
    print(f"{machine.name}# {shown or line}", flush=True)
    output = machine.run(line, told)
    if output:
        print(re.sub(r"ssdjoin1_\S+", "ssdjoin1_…", output), flush=True)
    return output


def wait(machine: Booted, line: str, wanted: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while wanted not in machine.run(line, check=False):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{machine.name}: {line}: no {wanted} in {PATIENCE:.0f} s")
        time.sleep(1)


if __name__ == "__main__":
    main()

"""Builds deploy/docker/Dockerfile and runs deploy/compose.yaml in clean Debian roots, where no container engine is at hand.

    python tests/deployment/image_in_clean_root.py [--build-arg NAME=VALUE ...] [--without find-links] [--resolve-only]

For root on Debian, with debootstrap, iproute2 and PyYAML. The instructions are read from the Dockerfile and carried out
stage by stage; then the composition's own services run from the built root: the authority's script, the coordinator and
its workers, each as the image's user without capabilities, with a read-only root, the volumes, the environment and the
commands of compose.yaml, on a loopback of their own with no other network. Each must become healthy; a round must
commit; the encoder is exported; and everything must stop by itself in its grace period.

What a container engine would do and this does not: layers, the images of Prometheus and Grafana, seccomp, cgroup limits,
and a network address for each service (they share one, so the workers' HTTP ports are set apart).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support")]

from deployment.clean_root import in_own_namespaces, pip_settings, scratch_folder
from deployment.composition import Composition
from deployment.dockerfile import Stage, parse
from deployment.image_root import Image, build

DOCKER = ROOT / "deploy" / "docker"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--scratch",
        type=Path,
        help="keep the roots here and begin with what is there; else a temporary folder",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        help="a setting of this machine's pip that the build is not told",
    )
    parser.add_argument(
        "--resolve-only", action="store_true", help="let pip find out what it would install, and stop there"
    )
    asked = parser.parse_args()
    in_own_namespaces()
    stages = parse((DOCKER / "Dockerfile").read_text(), dict(each.split("=", 1) for each in asked.build_arg))
    pip = {name: value for name, value in pip_settings().items() if name not in asked.without}
    if asked.resolve_only:
        stages, pip = (before_the_sources(stages[0]),), {**pip, "dry-run": "true"}
    with scratch_folder(asked.scratch) as scratch:
        images = build(stages, ROOT, (DOCKER / "Dockerfile.dockerignore").read_text(), scratch, pip)
        if not asked.resolve_only:
            report(images[stages[-1].name])
            run_composition(images[stages[-1].name], scratch)


def before_the_sources(stage: Stage) -> Stage:
    """What is installed by name; installing the project itself builds it, which a dry run cannot."""
    first = next(index for index, each in enumerate(stage.instructions) if "pyproject.toml" in each.words)
    return replace(stage, instructions=stage.instructions[:first])


def report(image: Image) -> None:
    size = subprocess.run(["du", "-sm", str(image.root)], check=True, capture_output=True, text=True)
    accounts = [line.split(":") for line in (image.root / "etc/passwd").read_text().splitlines()]
    if image.user not in {f"{uid}:{gid}" for _, _, uid, gid, *_ in accounts if uid != "0"}:
        sys.exit(f"USER {image.user} is no account of the image, or root's")
    print(f"built: {size.stdout.split()[0]} MB, user {image.user}, {' '.join(image.words)}", flush=True)


def run_composition(image: Image, scratch: Path) -> None:
    workers = ("worker-one", "worker-two", "worker-three")
    with Composition(ROOT / "deploy" / "compose.yaml", image, scratch / "composition") as composition:
        print("authority: ", composition.run("authority").strip().splitlines()[-1], flush=True)
        composition.start("coordinator")
        composition.until_healthy("coordinator")
        for number, name in enumerate(workers):
            composition.start(name, SSD_WORKER_HTTP_LISTEN=f"127.0.0.1:{9470 + number}")
        committed = composition.event("coordinator", "round_committed")
        print(f"round {committed['round']} committed by {committed['clients']} clients", flush=True)
        for words in (
            ("ssd-coordinator", "status", "--pki", "/pki/coordinator"),
            (
                "ssd-coordinator",
                "export",
                "--pki",
                "/pki/coordinator",
                "--out",
                "/var/lib/ssd/encoder.safetensors",
            ),
        ):
            print(composition.execute("coordinator", words), flush=True)
        for name in (*workers, "coordinator"):
            print(f"{name}: stopped in {composition.stop(name):.1f} s", flush=True)


if __name__ == "__main__":
    main()

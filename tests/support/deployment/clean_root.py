"""Debian systems of their own below a folder, and commands inside: what an image's builder or a fresh host has, and no more.

For root on Debian, with debootstrap, unshare, nsenter and mount. Everything is mounted in a mount namespace of the
script's own, so nothing stays mounted when it ends, however it ends. Where packages come from is asked of this machine's
own apt and pip when it runs, and lent to the root for the length of one command; nothing of it stays inside.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

PYTHON_OF = {"bookworm": "3.11", "trixie": "3.13"}
"""The Python that each Debian release has."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def in_own_namespaces() -> None:
    """Start the running script again with its own mounts and processes: whatever it leaves behind ends with it."""
    marker = "SSD_CLEAN_ROOT_NAMESPACES"
    if os.environ.get(marker):
        return
    if os.geteuid() != 0:
        sys.exit("only root can make and enter a root of its own")
    for program in ("debootstrap", "unshare", "nsenter", "mount", "ip"):
        if shutil.which(program) is None:
            sys.exit(
                f"{program} is missing: apt-get install debootstrap util-linux iproute2 systemd-container"
            )
    os.environ[marker] = "1"
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.execvp(unshare[0], [*unshare, sys.executable, *sys.argv])


def debian(release: str, include: Sequence[str], root: Path) -> None:
    """A minimal system of `release` with `include` at `root`, from the archive this machine's apt takes its own from."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    # Of the sources, the release itself: bookworm and neither bookworm-updates nor bookworm-security.
    archives = [line.split()[1] for line in sorted(set(told.splitlines())) if "-" not in line.split()[0]]
    proxy = subprocess.run(
        ["apt-config", "shell", "http_proxy", "Acquire::http::Proxy"], capture_output=True, text=True
    ).stdout
    own = dict(re.findall(r"(\w+)='([^']*)'", proxy))
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={','.join(include)}", release, str(root), archives[0]],
        check=True, env={**os.environ, **own, "DPKG_FORCE": "unsafe-io"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    # Packages' files are not needed again, and what the machine lent is not the root's.
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    for name in ("etc/resolv.conf", "etc/hostname", "etc/apt/sources.list"):
        (root / name).unlink(missing_ok=True)


def pip_settings() -> dict[str, str]:
    """This machine's settings of pip, whether they come from a file or the environment, by name."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    found = {}
    for line in sorted(told.splitlines()):  # ":env:" sorts before "global": files fill in what is unset
        place, _, value = line.partition("=")
        found.setdefault(place.rpartition(".")[2], " ".join(ast.literal_eval(value).split()))
    return found


def bind(source: Path, target: Path, *, read_only: bool) -> None:
    """`source`, a file or a folder, at `target`, which is made if it is not there."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir() if source.is_dir() else target.touch()
    subprocess.run(["mount", "--bind", str(source), str(target)], check=True)
    if read_only:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(target)], check=True)


def mount_kernel(root: Path) -> None:
    """/proc, and of /dev what a container has."""
    subprocess.run(["mount", "-t", "proc", "proc", str(root / "proc")], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "dev", str(root / "dev")], check=True)
    for device in ("null", "zero", "full", "random", "urandom", "tty"):
        bind(Path("/dev", device), root / "dev" / device, read_only=False)
    (root / "dev/shm").mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "mode=1777,size=64m", "shm", str(root / "dev/shm")], check=True
    )
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (root / "dev" / name).symlink_to(f"/proc/self/fd/{number}")
    (root / "dev/fd").symlink_to("/proc/self/fd")


def remove(folder: Path) -> None:
    """`folder` with everything in it, after everything that is mounted in it; nothing beyond is touched."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for each in reversed(mounted):
        if each.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", each], check=True)
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)


@contextmanager
def scratch_folder(kept: Path | None) -> Iterator[Path]:
    """`kept`, or a temporary folder that is gone after the block."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="ssd-clean-root-"))
    folder.chmod(0o755)  # users inside the roots pass through it
    try:
        yield folder
    finally:
        remove(folder)


@contextmanager
def lent(root: Path, *, pip: Mapping[str, str]) -> Iterator[None]:
    """The kernel's folders, names of hosts, and the package index as `pip` describes it, while the block lasts."""
    number, name = tempfile.mkstemp(prefix="ssd-clean-root-", suffix=".conf")
    os.close(number)
    settings = Path(name)
    settings.chmod(0o644)
    settings.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in pip.items()))
    wanted = {Path("/etc/resolv.conf"): Path("/etc/resolv.conf"), settings: Path("/etc/pip.conf")}
    for word in " ".join(pip.values()).split():
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.exists():
            # An index of files refers to what lies beside it.
            path = path.parent if word.startswith("file://") else path
            wanted[path] = path
    with ExitStack() as stack:
        stack.callback(settings.unlink)
        stack.callback(
            subprocess.run, ["umount", "--recursive", str(root / "dev"), str(root / "proc")], check=True
        )
        mount_kernel(root)
        for source, place in wanted.items():
            target = root / place.relative_to("/")
            new = [each for each in (target, *target.parents) if not each.exists()]
            # Mount points that were not there go again.
            for each in reversed(new):
                stack.callback(each.rmdir if each != target or source.is_dir() else each.unlink)
            bind(source.resolve(), target, read_only=True)
            stack.callback(subprocess.run, ["umount", str(target)], check=True)
        yield


def command(
    root: Path,
    words: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: str = "/",
    user: str = "0:0",
    locked: bool = False,
    network: Path | None = None,
) -> list[str]:
    """What runs `words` inside `root` as `UID:GID`, with `environment` alone.

    `locked` takes away every capability and the way to new ones; `network` is a network namespace's file. The words
    replace every program before them, so a signal to the process reaches them.
    """
    uid, _, gid = user.partition(":")
    enter = ["nsenter", f"--net={network}"] if network else []
    become = ["setpriv", "--reuid", uid, "--regid", gid or uid, "--clear-groups"]
    if locked:
        become += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    own = [f"{name}={value}" for name, value in environment.items()]
    return [*enter, "chroot", str(root), *become, "env", "-i", "-C", folder, *own, *words]


def loopback_only(file: Path) -> Path:
    """A network namespace with nothing but the loopback, kept at `file`."""
    file.touch()
    subprocess.run(["unshare", f"--net={file}", "true"], check=True)
    subprocess.run(["nsenter", f"--net={file}", "ip", "link", "set", "lo", "up"], check=True)
    return file

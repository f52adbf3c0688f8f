"""Seconds per round while somebody attacks, beside the rounds right before and after in the same run.

    python tests/benchmarks/bench_attacks.py [--seconds 10] [--workers 4] [--parameters 300000] [--only hellos]

One coordinator, real worker processes with `synthetic` clients. Each attack comes from a process of its own and is
framed by quiet of the same length; the ratio is the median round under attack over the median of both quiet parts. The
attacker competes for the cores of this machine like everybody else, which is part of the ratio.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import platform
import re
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "proto"), str(_ROOT / "tests" / "support")]

import grpc

from processes.federation import Federation
from ssd_proto.v1 import federation_pb2 as pb
from wire.raw_http2 import RST_STREAM, RawHttp2, frame, message
from wire.raw_worker import RawWorker
from wire.wire_calls import FEDERATION

SECURE = "SSD_BENCH_IDENTITY"
"""Names the folder an attacker finds its certificate in; without it there is no TLS."""
STALL_SECONDS = 5.0
HALF_OPEN = 2000
RECONNECTS_PER_SECOND = 1000


@functools.cache
def _context() -> ssl.SSLContext | None:
    """What the attacker shows: a worker's certificate, the most an attacker of another worker's round can have."""
    if SECURE not in os.environ:
        return None
    folder = Path(os.environ[SECURE])
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "worker.pem", folder / "worker.key")
    context.set_alpn_protocols(["h2"])
    return context


def raw(port: int, *, preface: bool = True, window: int = 1 << 30) -> RawHttp2:
    """A connection; one that says nothing does not shake hands either."""
    return RawHttp2(port, preface=preface, window=window, tls=_context() if preface else None)


def _mallory(port: int) -> RawWorker:
    """A session."""
    worker = RawWorker(f"127.0.0.1:{port}", "mallory", [])
    if SECURE in os.environ:
        folder = Path(os.environ[SECURE])
        files = [(folder / name).read_bytes() for name in ("ca.pem", "worker.key", "worker.pem")]
        worker.channel = grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(*files))
    return worker


def _hello(number: int) -> bytes:
    worker = "mallory" if SECURE in os.environ else f"mallory-{number % 5000}"
    hello = pb.Hello(protocol_min=1, protocol_max=1, worker=worker, instance=f"{number:032x}")
    return message(pb.WorkerMessage(hello=hello).SerializeToString())


def slow_reader(port: int) -> None:
    """Every fetch a session may have, never read; new ones as soon as they are cut off."""
    with _mallory(port) as mallory:
        mallory.attend()
        assert mallory.welcome is not None
        request = pb.FetchBlobRequest(digest=mallory.welcome.version.full.digest).SerializeToString()
        while True:
            with raw(port, window=0) as peer:
                for _ in range(8):
                    call = peer.call(f"{FEDERATION}/FetchBlob", headers=mallory.metadata())
                    peer.data(call, message(request), end=True)
                end = time.monotonic() + STALL_SECONDS + 6
                while time.monotonic() < end and not peer.closed:
                    peer.pump(0.5)


def slow_writer(port: int) -> None:
    """Every upload a session may have, each at a byte a second."""
    with _mallory(port) as mallory:
        mallory.attend()
        while True:
            with raw(port) as peer:
                calls = [
                    peer.call(f"{FEDERATION}/SubmitUpdate", headers=mallory.metadata()) for _ in range(16)
                ]
                for byte in message(bytes(1 << 20))[:10]:
                    for call in calls:
                        peer.data(call, bytes((byte,)), patience=0)
                    peer.pump(1.0)


def half_open(port: int) -> None:
    """Thousands of connections that never say anything; each that is closed is replaced."""
    peers = [raw(port, preface=False) for _ in range(HALF_OPEN)]
    while True:
        for place, peer in enumerate(peers):
            if peer.closed or (not peer.pump(0) and peer.closed):
                peer.socket.close()
                peers[place] = raw(port, preface=False)
        time.sleep(0.2)


def reconnects(port: int) -> None:
    """A thousand new connections a second, each of which says hello and goes."""
    began = time.monotonic()
    for number in itertools.count():
        with raw(port) as peer:
            peer.data(peer.call(f"{FEDERATION}/Attend"), _hello(number), patience=0)
        ahead = (number + 1) / RECONNECTS_PER_SECOND - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
        if number % RECONNECTS_PER_SECOND == 0:
            print(f"{number / (time.monotonic() - began + 1e-9):.0f}", flush=True)


def hellos(port: int) -> None:
    """Hellos under ever new names over one connection, as fast as they are taken."""
    began, number = time.monotonic(), 0
    while True:
        with raw(port) as peer:
            peer.pump(0.2)
            while not peer.closed and peer._streams < 100_000:
                calls = [peer.call(f"{FEDERATION}/Attend") for _ in range(64)]
                for call in calls:
                    peer.data(call, _hello(number), end=True, patience=1)
                    number += 1
                for call in calls:
                    peer.ending(call, patience=1)
                peer.frames.clear()
                if number % 1024 == 0:
                    print(f"{number / (time.monotonic() - began):.0f}", flush=True)


def resets(port: int) -> None:
    """Calls that are reset as they come (CVE-2023-44487), as fast as they are taken."""
    while True:
        with raw(port) as peer:
            while not peer.closed and peer._streams < 1_000_000:
                for _ in range(50):
                    call = peer.call(f"{FEDERATION}/Attend")
                    peer.send(frame(RST_STREAM, 0, call, struct.pack(">I", 8)))
                peer.pump(0.001)
                peer.frames.clear()


def burning_core(_port: int) -> None:
    """No attack at all: a process that keeps one core busy, to tell the attackers' own appetite from their effect."""
    while True:
        pass


ATTACKS: dict[str, Callable[[int], None]] = {
    each.__name__: each
    for each in (burning_core, slow_reader, slow_writer, half_open, reconnects, hellos, resets)
}


def peak(federation: Federation) -> float:
    """VmHWM of the coordinator, MB."""
    assert federation.coordinator is not None
    status = Path(f"/proc/{federation.coordinator.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1e3


def measure(options: argparse.Namespace) -> None:
    """Run every attack against one federation and print the table."""
    names = options.only or list(ATTACKS)
    clients = [f"client-{index:03d}" for index in range(options.workers)]
    spans: list[tuple[str, float, float, float, float, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        federation = Federation(
            Path(scratch),
            insecure=options.insecure,
            **{
                "run.clients": clients,
                "run.rounds": 1_000_000,
                "run.when_done": "serve",
                "round.cohort_size": options.workers,
                "retention.deltas": 2,
                "retention.full_versions": 1,
                "limits.stall_seconds": STALL_SECONDS,
                "method.config": {"parameters": options.parameters},
            },
        )
        with federation:
            coordinator = federation.start_coordinator()
            for index, client in enumerate(clients):
                federation.start_worker(f"worker-{index}", [client])
            federation.until(lambda: federation.status().version.number >= 5, "rounds are under way")
            environment = dict(os.environ)
            if federation.pki is not None:
                environment[SECURE] = str(federation.pki.worker("mallory"))
            for name in names:
                before, memory = time.time(), peak(federation)
                time.sleep(options.seconds)
                log = Path(scratch) / f"{name}.log"
                with log.open("wb") as sink:
                    arguments = [sys.executable, __file__, "--attack", name, "--port", str(federation.port)]
                    attacker = subprocess.Popen(arguments, stdout=sink, stderr=sink, env=environment)
                began = time.time()
                time.sleep(options.seconds)
                ended = time.time()
                grown = peak(federation) - memory
                running = attacker.poll() is None
                attacker.kill()
                attacker.wait()
                if not running:
                    print(f"{name} ended by itself:\n{log.read_text()[-1500:]}")
                time.sleep(options.seconds)
                spans.append((name, before, began, ended, time.time(), grown))
            coordinator.terminate()
            store = federation.store()
            try:
                at = [version.committed_at for version in store.versions()]
            finally:
                store.close()
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, grpcio {grpc.__version__}; {options.workers} workers,"
        f" {options.parameters:,} parameters, {options.seconds:g} s each, {'no' if options.insecure else 'with'} TLS"
    )
    print("| attack | rounds | quiet, s | attacked, s | ratio | slowest, s | memory, MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, before, began, ended, after, grown in spans:
        rounds = [(late, late - early) for early, late in itertools.pairwise(at)]
        attacked = [took for when, took in rounds if began <= when < ended]
        quiet = [took for when, took in rounds if before <= when < began or ended + 1 <= when < after]
        usual, hurt = statistics.median(quiet), statistics.median(attacked) if attacked else float("inf")
        worst = max(attacked, default=float("inf"))
        print(
            f"| {name.replace('_', ' ')} | {len(attacked)} | {usual:.3f} | {hurt:.3f} | {hurt / usual:.2f} | {worst:.2f}"
            f" | +{grown:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--parameters", type=int, default=300_000)
    parser.add_argument("--only", nargs="+", choices=list(ATTACKS))
    parser.add_argument("--insecure", action="store_true", help="without TLS, where everybody gets further")
    parser.add_argument("--attack", choices=list(ATTACKS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        ATTACKS[options.attack](options.port)
    else:
        measure(options)


if __name__ == "__main__":
    main()

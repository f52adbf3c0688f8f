"""The wire floor: the same bytes down and up between as many processes over bare grpcio streams, nothing else.

Run as a script it is one client; `measure` starts the server side here and the clients as processes, under mutual TLS
or without.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(os.environ.get("SSD_BENCH_TREE") or Path(__file__).resolve().parents[2])
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT), str(ROOT / "proto")]

import grpc

from processes.pki import Pki

CHUNK = 1 << 20
OPTIONS = [("grpc.max_receive_message_length", 4 << 20), ("grpc.max_send_message_length", -1)]


def _pieces(size: int) -> list[bytes]:
    block = bytes(CHUNK)
    return [block[: min(CHUNK, size - start)] for start in range(0, size, CHUNK)]


class _Floor:
    """Sends every client its bytes at once, takes theirs back, and times the whole."""

    def __init__(self, clients: int, down: int, up: int) -> None:
        self.clients, self.down, self.up = clients, _pieces(down), up
        self.waiting: list[asyncio.Event] = []
        self.returned = 0
        self.all_back = asyncio.Event()
        self.all_here = asyncio.Event()

    async def fetch(self, _request: bytes, context: object) -> None:
        start = asyncio.Event()
        self.waiting.append(start)
        if len(self.waiting) == self.clients:
            self.all_here.set()
        await start.wait()
        for piece in self.down:
            await context.write(piece)  # type: ignore[attr-defined]

    async def submit(self, _requests: object, context: object) -> None:
        taken = 0
        while taken < self.up:
            taken += len(await context.read())  # type: ignore[attr-defined]
        self.returned += 1
        if self.returned == self.clients:
            self.all_back.set()
        await context.write(b"ok")  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Floor:
    """What a round of pure transport takes."""

    seconds: float
    """The median."""
    cpu_seconds: float
    """Of all processes together, the mean; the handshakes and the start of the clients are not in it."""


def _used() -> float:
    """Processor seconds of this process; the clients report their own."""
    now = resource.getrusage(resource.RUSAGE_SELF)
    return now.ru_utime + now.ru_stime


async def _serve(clients: int, down: int, up: int, rounds: int, pki: Pki | None) -> Floor:
    floor = _Floor(clients, down, up)
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "floor",
                {
                    "Fetch": grpc.unary_stream_rpc_method_handler(floor.fetch),
                    "Submit": grpc.stream_stream_rpc_method_handler(floor.submit),
                },
            ),
        )
    )
    address = "127.0.0.1:0"
    port = (
        server.add_insecure_port(address)
        if pki is None
        else server.add_secure_port(address, pki.server_credentials())
    )
    await server.start()
    identities = [] if pki is None else [str(pki.worker("worker"))]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, __file__, str(port), str(up), str(rounds), *identities,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(clients)
    ]  # fmt: skip
    taken = []
    used = _used()
    try:
        for number in range(rounds):
            await floor.all_here.wait()
            if number == 1:
                used = _used()
            floor.all_here.clear()
            floor.returned = 0
            floor.all_back.clear()
            waiting, floor.waiting = floor.waiting, []
            started = time.perf_counter()
            for each in waiting:
                each.set()
            await floor.all_back.wait()
            taken.append(time.perf_counter() - started)
    finally:
        used = _used() - used
        for process in processes:
            used += float((await process.communicate())[0])
        await server.stop(0)
    return Floor(statistics.median(taken[1:]), used / (rounds - 1))


def measure(clients: int, down: int, up: int, rounds: int = 5, *, insecure: bool = False) -> Floor:
    """A round of pure transport; the first one is not counted."""
    with tempfile.TemporaryDirectory() as scratch:
        pki = None if insecure else Pki(Path(scratch))
        return asyncio.run(_serve(clients, down, up, rounds + 1, pki))


def _channel(port: int, identity: Path | None) -> grpc.aio.Channel:
    address = f"127.0.0.1:{port}"
    if identity is None:
        return grpc.aio.insecure_channel(address, options=OPTIONS)
    files = [(identity / name).read_bytes() for name in ("ca.pem", "worker.key", "worker.pem")]
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(*files), options=OPTIONS)


async def _client(port: int, up: int, rounds: int, identity: Path | None) -> float:
    """The processor seconds of all rounds but the first."""
    pieces = _pieces(up)
    used = 0.0
    async with _channel(port, identity) as channel:
        fetch = channel.unary_stream("/floor/Fetch")
        submit = channel.stream_stream("/floor/Submit")
        for number in range(rounds):
            if number == 1:
                used = _used()
            call = fetch(b"")
            while await call.read() is not grpc.aio.EOF:
                pass
            upload = submit()
            for piece in pieces:
                await upload.write(piece)
            await upload.read()
            await upload.done_writing()
        return _used() - used


if __name__ == "__main__":
    folder = Path(sys.argv[4]) if len(sys.argv) > 4 else None
    print(asyncio.run(_client(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), folder)))

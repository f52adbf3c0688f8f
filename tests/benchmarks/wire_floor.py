"""The wire floor: the same bytes down and up between as many processes over bare grpcio streams, nothing else.

Run as a script it is one client; `measure` starts the server side here and the clients as processes.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

import grpc

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


async def _serve(clients: int, down: int, up: int, rounds: int) -> list[float]:
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
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, __file__, str(port), str(up), str(rounds))
        for _ in range(clients)
    ]
    taken = []
    try:
        for _ in range(rounds):
            await floor.all_here.wait()
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
        for process in processes:
            await process.wait()
        await server.stop(0)
    return taken


def measure(clients: int, down: int, up: int, rounds: int = 5) -> float:
    """Median seconds of a round of pure transport, the first one not counted."""
    return statistics.median(asyncio.run(_serve(clients, down, up, rounds + 1))[1:])


async def _client(port: int, up: int, rounds: int) -> None:
    pieces = _pieces(up)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        fetch = channel.unary_stream("/floor/Fetch")
        submit = channel.stream_stream("/floor/Submit")
        for _ in range(rounds):
            call = fetch(b"")
            while await call.read() is not grpc.aio.EOF:
                pass
            upload = submit()
            for piece in pieces:
                await upload.write(piece)
            await upload.read()
            await upload.done_writing()


if __name__ == "__main__":
    asyncio.run(_client(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))

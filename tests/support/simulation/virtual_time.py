"""An asyncio event loop on virtual time: nothing ever waits, the clock jumps to the next timer.

Work that the product sends to threads runs at once, on the loop's own thread, and its result arrives a turn later,
so that a run depends on nothing but its inputs.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
MOST_TURNS = 100_000
"""Turns of the loop at one instant; more than that is a loop that spins."""


class NothingLeft(Exception):
    """Everybody waits, and no timer is set: a deadlock."""


class Spinning(Exception):
    """The loop turns and turns while time stands still."""


class _NeverBlocks(selectors.SelectSelector):
    """Has no file to look at; where a real selector sleeps, this one moves the clock."""

    def __init__(self, elapse: Callable[[float | None], None]) -> None:
        super().__init__()
        self._elapse = elapse

    def select(self, timeout: float | None = None) -> list[Any]:
        self._elapse(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual seconds since the loop was made."""

    def __init__(self) -> None:
        self.now = 0.0
        self._turns = 0
        self.storage_seconds: Callable[[], float] = lambda: 0.0
        """How long the work in a thread takes that is begun now."""
        super().__init__(_NeverBlocks(self._elapse))

    def time(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass while the loop stands still, as when a thread of the product sleeps."""
        self.now += seconds

    def _elapse(self, timeout: float | None) -> None:
        if timeout is None:
            raise NothingLeft("everybody waits for somebody else, and no timer is set")
        if timeout > 0:
            self.now += timeout
            self._turns = 0
            return
        self._turns += 1
        if self._turns > MOST_TURNS:
            raise Spinning(f"{MOST_TURNS} turns of the loop at {self.now:.3f} s")

    def _write_to_self(self) -> None:
        """Nobody has to be woken: the loop never sleeps."""

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Call `func` now; what it gives arrives after `storage_seconds`."""
        future: asyncio.Future[T] = self.create_future()
        seconds = self.storage_seconds()

        def arrive(settle: Callable[[Any], None], outcome: Any) -> None:
            if not future.done():
                settle(outcome)

        try:
            outcome: Any = func(*args)
            settle: Callable[[Any], None] = future.set_result
        except BaseException as error:  # noqa: BLE001 - a simulated death is one, and travels like any other
            outcome, settle = error, future.set_exception
        self.call_later(seconds, arrive, settle, outcome)
        return future


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """The result of `main` on a loop of its own.

    Raises:
        NothingLeft: a deadlock.
        Spinning: a loop that waits for nothing.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        return runner.run(main(loop))


class InlineExecutor:
    """`concurrent.futures.Executor` without threads, for code that makes one of its own."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> InlineExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, func: Callable[..., T], *args: Any) -> _Done[T]:
        return _Done(func(*args))


class _Done:
    """What `submit` of an `InlineExecutor` gives."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def result(self) -> Any:
        return self._value

    def __class_getitem__(cls, _: Any) -> type[_Done]:
        return cls

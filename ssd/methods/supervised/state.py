"""The state of a client of a supervised method between rounds, and the arrays that the worker stores of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ssd.methods.supervised.training import Cursor

PRIVATE, BUFFERS, MODEL, CURSOR, LR = "private", "buffers", "model", "cursor", "lr"
Vector = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientState:
    """A client's state: all None, and the cursor at the start, until a commit has included the client."""

    private: Vector | None = None
    """Parameters of the private parts (`FlatModel.private`)."""
    buffers: Vector | None = None
    """The client's own BatchNorm statistics (`FlatModel.local`)."""
    model: Vector | None = None
    """The client's own copy of what travels, for methods that go on from it."""
    cursor: Cursor = field(default_factory=Cursor)
    """The next mini-batch of its stream."""
    lr: float | None = None
    """The learning rate of its next visit, where that follows from its last one."""

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[np.generic]]) -> ClientState:
        """The state in a task; the inverse of `arrays`."""

        def vector(name: str) -> Vector | None:
            return np.asarray(arrays[name], dtype=np.float32) if name in arrays else None

        epoch, batch = np.asarray(arrays[CURSOR], np.int64).tolist() if CURSOR in arrays else (0, 0)
        return cls(
            private=vector(PRIVATE),
            buffers=vector(BUFFERS),
            model=vector(MODEL),
            cursor=Cursor(epoch, batch),
            lr=float(np.asarray(arrays[LR], np.float64)[0]) if LR in arrays else None,
        )

    def arrays(self, *, with_cursor: bool) -> dict[str, NDArray[np.generic]]:
        """The arrays that the worker stores; `with_cursor` is for streams of batches only."""
        kept = {PRIVATE: self.private, BUFFERS: self.buffers, MODEL: self.model}
        found: dict[str, NDArray[np.generic]] = {
            n: values for n, values in kept.items() if values is not None
        }
        if with_cursor:
            found[CURSOR] = np.array([self.cursor.epoch, self.cursor.batch], np.int64)
        if self.lr is not None:
            found[LR] = np.array([self.lr], np.float64)
        return found

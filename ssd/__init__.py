"""SSD: one good image encoder out of images that stay where they are, and how it is measured.

    import ssd

    encoder = ssd.load_encoder("encoder.safetensors")
    found = ssd.embed(encoder, "photographs")       # features [N, D], and the names of the files
    run = ssd.Federation(data="digits", rounds=5)   # coordinator and workers on this machine
    result = run.run()
    ssd.connect("127.0.0.1:7443", insecure=True).rounds()

Nothing is imported before it is asked for: `import ssd` needs neither PyTorch nor gRPC.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssd.api.coordinator import Connection, CoordinatorRefused, connect
    from ssd.api.encoder import Embeddings, Encoder, embed, load_encoder
    from ssd.api.federation import Federation, FederationResult, Split

_WHERE = {
    "Connection": "ssd.api.coordinator",
    "CoordinatorRefused": "ssd.api.coordinator",
    "connect": "ssd.api.coordinator",
    "Embeddings": "ssd.api.encoder",
    "Encoder": "ssd.api.encoder",
    "embed": "ssd.api.encoder",
    "load_encoder": "ssd.api.encoder",
    "Federation": "ssd.api.federation",
    "FederationResult": "ssd.api.federation",
    "Split": "ssd.api.federation",
}

__all__ = [
    "Connection",
    "CoordinatorRefused",
    "Embeddings",
    "Encoder",
    "Federation",
    "FederationResult",
    "Split",
    "connect",
    "embed",
    "load_encoder",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

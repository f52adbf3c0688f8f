"""What every simulation is watched for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from secure.key_uses import KeyUses, guarded


@pytest.fixture(autouse=True)
def key_uses(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyUses]:
    """No key of secure aggregation is used twice, through retries, broken uploads and restarts."""
    with guarded(monkeypatch) as uses:
        yield uses

"""What a worker that runs in the test's process wrote into its own log."""

from __future__ import annotations

import pytest


def own_log(caplog: pytest.LogCaptureFixture) -> str:
    """Every event with its fields, one a line."""
    return "\n".join(
        f"{record.getMessage()} {getattr(record, 'ssd_fields', {})}" for record in caplog.records
    )

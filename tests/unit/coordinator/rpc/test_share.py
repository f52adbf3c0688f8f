"""Calls are counted by worker until they have ended."""

from __future__ import annotations

import contextlib

import pytest

from coordinator.errors import ClientFault, Reason
from coordinator.rpc.federation.share import CallShare


def test_each_worker_has_its_own_share_until_its_calls_have_ended() -> None:
    share = CallShare(2, "uploads")
    with contextlib.ExitStack() as calls:
        for worker in ("a", "a", "b"):
            calls.enter_context(share.one_more(worker))
        with pytest.raises(ClientFault, match="2 uploads of this worker") as fault, share.one_more("a"):
            raise AssertionError("it was let in")
        assert fault.value.reason is Reason.NO_ROOM
        with share.one_more("b"):
            pass
        with share.one_more("b"):
            pass
    with share.one_more("a"), share.one_more("a"):
        pass
    assert not share._under_way


def test_a_call_that_fails_counts_no_more() -> None:
    share = CallShare(1, "fetches")
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), share.one_more("a"):
            raise ValueError("broken")

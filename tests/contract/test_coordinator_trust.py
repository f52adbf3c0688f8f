"""Every store of tokens and certificates keeps the Behaviour lines of `coordinator.ports.trust.TrustStore`."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.errors import JournalConflict
from coordinator.identity.revocations import Revocations
from coordinator.ports.trust import KEPT_PER_HOLDER, CertificateRecord, Holder, TokenRecord, TrustStore
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.store.trust import SqliteTrust
from ssd.trust.names import Role, Subject

WORKER = Holder(Role.WORKER, "w1")
TOKEN = TokenRecord(digest="aa" * 32, holder=WORKER, clients=("a", "b"), created_at=10.0, expires_at=100.0)
BOUGHT = CertificateRecord(
    serial="01", holder=WORKER, key_digest="11" * 32, certificate="PEM 1", issued_at=20.0, expires_at=900.0
)


@pytest.fixture(params=[SqliteTrust])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TrustStore]:
    store: TrustStore = request.param(tmp_path)
    yield store
    store.close()


def everything(store: TrustStore) -> object:
    return store.tokens(), store.certificates(), store.revoked()


def refused(store: TrustStore, call: object, *arguments: object, said: str) -> None:
    before = everything(store)
    with pytest.raises(JournalConflict, match=said):
        call(*arguments)  # type: ignore[operator]
    assert everything(store) == before


class TestTokens:
    def test_come_back_as_they_were_made_newest_first(self, store: TrustStore) -> None:
        other = replace(TOKEN, digest="bb" * 32, holder=Holder(Role.EVALUATOR, "e"), clients=())
        store.add_token(TOKEN)
        store.add_token(other)
        assert store.tokens() == (other, TOKEN)
        assert store.token(TOKEN.digest) == TOKEN
        assert store.token("cc" * 32) is None

    def test_a_digest_is_taken_once(self, store: TrustStore) -> None:
        store.add_token(TOKEN)
        refused(
            store, store.add_token, replace(TOKEN, holder=Holder(Role.WORKER, "w2")), said="there already"
        )

    @pytest.mark.parametrize(
        "change", [{"used_at": 1.0}, {"withdrawn_at": 1.0}, {"serial": "1"}, {"expires_at": 10.0}]
    )
    def test_only_fresh_ones_are_taken(self, store: TrustStore, change: dict[str, float]) -> None:
        refused(store, store.add_token, replace(TOKEN, **change), said="token")  # type: ignore[arg-type]

    def test_withdrawing_is_for_ever_and_twice_is_no_error(self, store: TrustStore) -> None:
        store.add_token(TOKEN)
        store.withdraw_token(TOKEN.digest, 30.0)
        store.withdraw_token(TOKEN.digest, 40.0)
        assert store.token(TOKEN.digest) == replace(TOKEN, withdrawn_at=30.0)
        refused(store, store.spend_token, TOKEN.digest, BOUGHT, 50.0, said="expired or withdrawn")
        refused(store, store.withdraw_token, "cc" * 32, 30.0, said="no such token")


class TestSpending:
    def test_burns_the_token_and_records_the_certificate(self, store: TrustStore) -> None:
        store.add_token(TOKEN)
        assert store.spend_token(TOKEN.digest, BOUGHT, 20.0) == BOUGHT
        assert store.token(TOKEN.digest) == replace(TOKEN, used_at=20.0, serial="01")
        assert store.certificates() == (BOUGHT,)
        assert store.certificate("01") == BOUGHT
        refused(store, store.withdraw_token, TOKEN.digest, 30.0, said="revoke the holder")

    def test_the_same_key_gets_the_same_certificate_again_until_the_token_expires(
        self, store: TrustStore
    ) -> None:
        store.add_token(TOKEN)
        store.spend_token(TOKEN.digest, BOUGHT, 20.0)
        before = everything(store)
        again = replace(BOUGHT, serial="02", certificate="PEM 2")
        assert store.spend_token(TOKEN.digest, again, 99.9) == BOUGHT
        assert everything(store) == before
        refused(store, store.spend_token, TOKEN.digest, again, 100.0, said="is used")

    def test_another_key_is_refused(self, store: TrustStore) -> None:
        store.add_token(TOKEN)
        store.spend_token(TOKEN.digest, BOUGHT, 20.0)
        other = replace(BOUGHT, serial="02", key_digest="22" * 32)
        refused(store, store.spend_token, TOKEN.digest, other, 30.0, said="is used")

    def test_unknown_and_expired_tokens_and_other_holders_are_refused(self, store: TrustStore) -> None:
        store.add_token(TOKEN)
        refused(store, store.spend_token, "cc" * 32, BOUGHT, 20.0, said="no such token")
        refused(store, store.spend_token, TOKEN.digest, BOUGHT, 100.0, said="expired")
        for holder in (Holder(Role.EVALUATOR, "w1"), Holder(Role.WORKER, "w2")):
            other = replace(BOUGHT, holder=holder)
            refused(store, store.spend_token, TOKEN.digest, other, 20.0, said="the certificate")

    def test_a_serial_is_recorded_once(self, store: TrustStore) -> None:
        store.add_token(TOKEN)
        store.record_certificate(BOUGHT)
        refused(store, store.record_certificate, BOUGHT, said="UNIQUE")
        refused(store, store.spend_token, TOKEN.digest, BOUGHT, 20.0, said="UNIQUE")

    def test_of_those_that_no_token_bought_a_holders_newest_are_remembered(self, store: TrustStore) -> None:
        """However often it renews; the one its token bought, and everybody else's, stay."""
        store.add_token(TOKEN)
        store.spend_token(TOKEN.digest, BOUGHT, 20.0)
        other = replace(BOUGHT, serial="aa", holder=Holder(Role.EVALUATOR, "w1"), issued_at=1.0)
        store.record_certificate(other)
        for number in range(100):
            store.record_certificate(replace(BOUGHT, serial=f"f{number:03x}", issued_at=100.0 + number))
        kept = [each.serial for each in store.certificates()]
        newest = [f"f{number:03x}" for number in range(100 - KEPT_PER_HOLDER, 100)]
        assert kept == ["aa", BOUGHT.serial, *newest]
        assert store.certificate(BOUGHT.serial) == BOUGHT
        # A clock that went back does not lose the one that was issued just now.
        store.record_certificate(replace(BOUGHT, serial="b1", issued_at=2.0))
        assert store.certificate("b1") is not None

    def test_of_many_at_once_with_keys_of_their_own_one_wins(self, store: TrustStore) -> None:
        store.add_token(TOKEN)
        won, lost = [], []
        start = threading.Barrier(8)

        def spend(number: int) -> None:
            certificate = replace(BOUGHT, serial=f"{number:02x}", key_digest=f"{number:02x}" * 32)
            start.wait()
            try:
                won.append(store.spend_token(TOKEN.digest, certificate, 20.0))
            except JournalConflict:
                lost.append(number)

        threads = [threading.Thread(target=spend, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert len(lost) == 7
        assert store.certificates() == (won[0],)


class TestRevocations:
    def test_are_for_ever_and_told_as_news_once(self, store: TrustStore) -> None:
        assert store.revoked() == frozenset()
        assert store.revoke(WORKER, 30.0)
        assert not store.revoke(WORKER, 40.0)
        assert store.revoked() == {WORKER}

    def test_withdraw_the_holders_open_tokens_and_nobody_elses(self, store: TrustStore) -> None:
        other = replace(TOKEN, digest="bb" * 32, holder=Holder(Role.EVALUATOR, "w1"))
        used = replace(TOKEN, digest="cc" * 32)
        for token in (TOKEN, other, used):
            store.add_token(token)
        store.spend_token(used.digest, BOUGHT, 20.0)
        store.revoke(WORKER, 30.0)
        assert store.token(TOKEN.digest) == replace(TOKEN, withdrawn_at=30.0)
        assert store.token(other.digest) == other
        assert store.token(used.digest) == replace(used, used_at=20.0, serial="01")

    def test_nothing_is_issued_to_a_revoked_holder(self, store: TrustStore) -> None:
        store.add_token(TOKEN)
        store.spend_token(TOKEN.digest, BOUGHT, 20.0)
        store.revoke(WORKER, 30.0)
        refused(store, store.add_token, replace(TOKEN, digest="bb" * 32), said="revoked")
        refused(store, store.record_certificate, replace(BOUGHT, serial="02"), said="revoked")
        refused(store, store.spend_token, TOKEN.digest, BOUGHT, 40.0, said="revoked")


class TestSqlite:
    def test_keeps_everything_over_a_restart(self, tmp_path: Path) -> None:
        store = SqliteTrust(tmp_path)
        store.add_token(TOKEN)
        store.spend_token(TOKEN.digest, BOUGHT, 20.0)
        store.revoke(Holder(Role.OPERATOR, "o"), 30.0)
        before = everything(store)
        store.close()
        store = SqliteTrust(tmp_path)
        assert everything(store) == before
        store.close()

    def test_another_process_writes_while_the_journal_is_open_and_the_mark_tells(
        self, tmp_path: Path
    ) -> None:
        journal, ours, theirs = SqliteJournal(tmp_path), SqliteTrust(tmp_path), SqliteTrust(tmp_path)
        mark = ours.change_mark()
        assert ours.change_mark() == mark
        theirs.add_token(TOKEN)
        journal.set_flag("paused", True)
        assert ours.change_mark() != mark
        assert ours.tokens() == (TOKEN,)
        for each in (journal, ours, theirs):
            each.close()

    def test_a_database_from_before_there_were_certificates_gets_its_tables_and_keeps_its_journal(
        self, tmp_path: Path
    ) -> None:
        journal = SqliteJournal(tmp_path)
        journal.register_clients(["a"], 1.0)
        journal.close()
        db = sqlite3.connect(tmp_path / "state.sqlite3")
        later = (
            "join_tokens",
            "certificates",
            "revocations",
            "bindings",
            "granted_workers",
            "chain",
            "secure_sums",
            "chronicles",
        )
        for table in later:
            db.execute(f"DROP TABLE {table}")
        db.execute("UPDATE schema_version SET version = 1")
        db.commit()
        db.close()
        store = SqliteTrust(tmp_path)
        store.add_token(TOKEN)
        store.close()
        journal = SqliteJournal(tmp_path)
        assert [client.client for client in journal.clients()] == ["a"]
        journal.close()

    def test_a_kill_while_a_token_is_burnt_leaves_it_whole(self, tmp_path: Path) -> None:
        store = SqliteTrust(tmp_path)
        store.add_token(TOKEN)
        store.close()
        program = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [%r, %r]
from tests.contract import test_coordinator_trust as here
store = here.SqliteTrust(Path(%r))
def trace(statement):
    if statement.startswith("UPDATE join_tokens"):
        os.kill(os.getpid(), signal.SIGKILL)
store._db.set_trace_callback(trace)
store.spend_token(here.TOKEN.digest, here.BOUGHT, 20.0)
""" % (str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "proto"), str(tmp_path))  # noqa: UP031
        done = subprocess.run([sys.executable, "-c", program], env={**os.environ})
        assert done.returncode == -signal.SIGKILL
        store = SqliteTrust(tmp_path)
        assert store.token(TOKEN.digest) == TOKEN
        assert store.certificates() == ()
        assert store.spend_token(TOKEN.digest, BOUGHT, 20.0) == BOUGHT
        store.close()


def test_a_revocation_by_another_process_is_known_and_told_once(tmp_path: Path) -> None:
    ours, theirs = SqliteTrust(tmp_path), SqliteTrust(tmp_path)
    theirs.revoke(Holder(Role.WORKER, "gone"), 1.0)
    told: list[frozenset[Holder]] = []
    revocations = Revocations(ours)
    revocations.subscribe(told.append)

    def known(name: str, role: Role = Role.WORKER) -> bool:
        return revocations.is_revoked(Subject("f", role, name))

    assert known("gone")
    assert not known("w1")

    async def scenario() -> None:
        await revocations.refresh()
        theirs.add_token(TOKEN)
        await revocations.refresh()
        assert told == []
        theirs.revoke(WORKER, 2.0)
        await revocations.refresh()
        await revocations.refresh()

    asyncio.run(scenario())
    assert known("w1")
    assert not known("w1", Role.EVALUATOR)
    assert told == [frozenset({WORKER})]
    ours.close()
    theirs.close()

"""`ssd-coordinator ca token|tokens|revoke-token|certificates|revoke` against a state database on disk."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from coordinator.cli.main import main
from coordinator.identity.tokens import enrolment_address
from coordinator.ports.records import RunRecord, VersionRecord
from coordinator.ports.trust import CertificateRecord, Holder
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.store.trust import SqliteTrust
from ssd.trust.authority import fingerprint
from ssd.trust.join_token import parse
from ssd.trust.names import Role, Subject
from ssd_wire.messages import BlobRef


class Place:
    """A folder with an authority and a state directory, and its command line."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.pki = root / "pki"
        self.state = root / "state"
        self._capsys = capsys
        assert self.run("init", "--out", self.pki, "--host", "fed.example.org", "--federation", "f")[0] == 0

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main(["ca", *map(str, arguments)])
        said = self._capsys.readouterr()
        assert isinstance(done.value.code, int)
        return done.value.code, said.out, said.err

    def token(self, *arguments: str | Path) -> tuple[int, str, str]:
        return self.run("token", "--pki", self.pki, "--state-dir", self.state, *arguments)

    def listed(self, what: str) -> list[dict[str, object]]:
        code, out, _ = self.run(what, "--state-dir", self.state, "--format", "json")
        assert code == 0
        return json.loads(out)

    def trust(self) -> SqliteTrust:
        return SqliteTrust(self.state)


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, capsys)


class TestToken:
    def test_prints_the_token_alone_and_says_the_rest_elsewhere(self, place: Place) -> None:
        code, out, err = place.token(
            "--worker", "edge-1", "--clients", "b,a", "--address", "fed.example.org:7444"
        )
        assert code == 0
        token = parse(out)
        assert out == token.text() + "\n"
        assert token.subject == Subject("f", Role.WORKER, "edge-1")
        assert token.address == "fed.example.org:7444"
        assert token.pin.hex() == fingerprint((place.pki / "ca.pem").read_bytes())
        assert "ssd-worker enroll" in err
        assert token.text() not in err

    def test_is_kept_as_a_digest_with_holder_clients_and_end_but_never_itself(self, place: Place) -> None:
        before = time.time()
        _, out, _ = place.token("--worker", "edge-1", "--clients", "b,a,b", "--ttl", "30m")
        token = parse(out)
        store = place.trust()
        (record,) = store.tokens()
        store.close()
        assert record.digest == token.digest
        assert (record.holder, record.clients) == (Holder(Role.WORKER, "edge-1"), ("a", "b"))
        assert 1800 <= record.expires_at - before < 1860
        kept = b"".join(path.read_bytes() for path in place.state.iterdir())
        assert token.digest.encode() in kept
        for secret in (token.secret, token.secret.hex().encode(), token.text().encode()):
            assert secret not in kept

    def test_can_be_made_while_a_coordinator_has_the_journal_open(self, place: Place) -> None:
        journal = SqliteJournal(place.state)
        journal.set_flag("paused", True)
        assert place.token("--worker", "edge-1")[0] == 0
        journal.set_flag("paused", False)
        journal.close()
        assert len(place.listed("tokens")) == 1

    def test_a_folder_that_no_coordinator_has_used_is_warned_of(self, place: Place) -> None:
        """A relative state_dir is another folder wherever the command is typed."""
        for _ in range(2):  # The first time makes the database.
            _, _, err = place.token("--worker", "edge-1")
            assert f"no coordinator has run on {place.state} yet" in err
        blob = BlobRef(digest="ab" * 32, size=4)
        run = RunRecord(
            run_id="r", created_at=1.0, config={}, declaration={}, declaration_blob=blob,
            declaration_digest="",
        )  # fmt: skip
        journal = SqliteJournal(place.state)
        journal.create_run(run, VersionRecord(number=0, model_digest="m", full=blob, delta=None))
        journal.close()
        _, _, err = place.token("--worker", "edge-1")
        assert "no coordinator" not in err

    def test_every_one_is_another(self, place: Place) -> None:
        made = {place.token("--worker", "edge-1")[1] for _ in range(3)}
        assert len(made) == 3

    def test_an_evaluators_names_no_clients(self, place: Place) -> None:
        assert parse(place.token("--worker", "e", "--role", "evaluator")[1]).subject.role is Role.EVALUATOR
        code, out, err = place.token("--worker", "e", "--role", "evaluator", "--clients", "a")
        assert (code, out) == (3, "")
        assert "hosts no clients" in err

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--worker", "two words"), "is no name"),
            (("--worker", ""), "is no name"),
            (("--worker", "w", "--clients", "a,b/c"), "no client id"),
            (("--worker", "w", "--ttl", "soon"), "no duration"),
            (("--worker", "w", "--ttl", "0s"), "no duration"),
            (("--worker", "w", "--ttl", "91d"), "no duration"),
            (("--worker", "w", "--address", "nowhere"), "no address"),
            (("--worker", "w", "--address", "unix:/x"), "host:port"),
            (("--worker", "w", "--role", "operator"), "operator"),
        ],
    )
    def test_refuses_what_makes_no_sense_and_keeps_nothing(
        self, place: Place, arguments: tuple[str, ...], said: str
    ) -> None:
        code, out, err = place.token(*arguments)
        assert code in (2, 3)
        assert out == ""
        assert said in err
        assert place.listed("tokens") == []

    def test_a_client_that_belongs_to_another_worker_is_refused(self, place: Place) -> None:
        journal = SqliteJournal(place.state)
        journal.bind_clients("edge-1", ["a"], 1.0)
        journal.close()
        assert place.token("--worker", "edge-1", "--clients", "a")[0] == 0
        code, out, err = place.token("--worker", "edge-2", "--clients", "b,a")
        assert (code, out) == (3, "")
        assert "belongs to worker edge-1" in err

    def test_without_an_authority_it_says_how_to_make_one(self, place: Place, tmp_path: Path) -> None:
        code, _, err = place.run(
            "token", "--worker", "w", "--pki", tmp_path / "no", "--state-dir", place.state
        )
        assert code == 3
        assert "ca init" in err

    def test_says_when_it_does_not_know_where_to_enrol(self, place: Place) -> None:
        assert "enrolment" in place.token("--worker", "w")[2]

    def test_takes_the_address_from_the_configuration(self, place: Place, tmp_path: Path) -> None:
        config = tmp_path / "coordinator.toml"
        config.write_text(
            f'[coordinator]\nstate_dir = "{place.state}"\n[enrolment]\nlisten = "0.0.0.0:7444"\n'
        )
        code, out, _ = place.run("token", "--worker", "w", "--config", config)
        assert code == 0
        assert parse(out).address == "fed.example.org:7444"
        assert len(place.listed("tokens")) == 1


def test_the_enrolment_address_is_left_open_where_it_cannot_be_known(place: Place) -> None:
    certificate = place.pki / "coordinator.pem"
    assert enrolment_address("", certificate) == ""
    assert enrolment_address("0.0.0.0:0", certificate) == ""
    assert enrolment_address("10.0.0.1:7444", certificate) == "10.0.0.1:7444"
    assert enrolment_address("[::]:7444", certificate) == "fed.example.org:7444"
    assert enrolment_address("[::]:7444", certificate.with_name("missing.pem")) == ""


class TestListsAndRevoking:
    def test_tokens_says_what_became_of_each(self, place: Place) -> None:
        names = ("open", "withdrawn", "used", "expired")
        digests = {name: parse(place.token("--worker", name)[1]).digest for name in names}
        store = place.trust()
        store.spend_token(digests["used"], a_certificate("used"), time.time())
        store._db.execute("UPDATE join_tokens SET expires_at = 2, created_at = 1 WHERE name = 'expired'")
        store.close()
        assert place.run("revoke-token", digests["withdrawn"][:12], "--state-dir", place.state)[0] == 0
        assert {each["name"]: each["state"] for each in place.listed("tokens")} == {
            name: name for name in names
        }
        human = place.run("tokens", "--state-dir", place.state)[1]
        for name in names:
            assert digests[name][:12] in human
            assert digests[name] not in human

    def test_a_used_token_is_not_withdrawn_but_its_holder_can_be_revoked(self, place: Place) -> None:
        digest = parse(place.token("--worker", "w")[1]).digest
        store = place.trust()
        store.spend_token(digest, a_certificate("w"), time.time())
        store.close()
        code, _, err = place.run("revoke-token", digest[:12], "--state-dir", place.state)
        assert code == 3
        assert "ca revoke --role worker --worker w" in err

    @pytest.mark.parametrize("shown", ["", "zz", "abcdefabcdef"])
    def test_an_id_that_names_no_token_is_refused(self, place: Place, shown: str) -> None:
        place.token("--worker", "w")
        code, _, err = place.run("revoke-token", shown, "--state-dir", place.state)
        assert code == 3
        assert "ca tokens" in err

    def test_revoking_withdraws_open_tokens_and_ends_issuing(self, place: Place) -> None:
        place.token("--worker", "w")
        code, out, _ = place.run("revoke", "--worker", "w", "--state-dir", place.state)
        assert (code, out) == (0, "revoked worker w\n")
        assert (
            place.run("revoke", "--worker", "w", "--state-dir", place.state)[1]
            == "worker w was revoked before\n"
        )
        assert [each["state"] for each in place.listed("tokens")] == ["withdrawn"]
        code, _, err = place.token("--worker", "w")
        assert code == 3
        assert "another name" in err
        assert place.token("--worker", "w", "--role", "evaluator")[0] == 0

    def test_certificates_says_which_still_count(self, place: Place) -> None:
        now = time.time()
        store = place.trust()
        for name, serial, end in (("a", "01", now + 60), ("b", "02", now - 60), ("c", "03", now + 60)):
            store.record_certificate(a_certificate(name, serial, end))
        store.revoke(Holder(Role.WORKER, "c"), now)
        store.close()
        assert {each["name"]: each["state"] for each in place.listed("certificates")} == {
            "a": "valid",
            "b": "expired",
            "c": "revoked",
        }
        assert "valid" in place.run("certificates", "--state-dir", place.state)[1]


def a_certificate(name: str, serial: str = "01", end: float = 2e9) -> CertificateRecord:
    return CertificateRecord(
        serial=serial,
        holder=Holder(Role.WORKER, name),
        key_digest="11" * 32,
        certificate="PEM",
        issued_at=1.0,
        expires_at=end,
    )

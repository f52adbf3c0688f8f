"""`ssd-coordinator audit` on the transcripts that real rounds leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.cli.main import main
from secure.masked_place import THREE, Place, committed, play
from ssd.daemon.cli.exit_codes import EXIT_OK, EXIT_REFUSED
from ssd.secagg.audit import transcript
from ssd.secagg.audit.audit import audit as audited
from ssd.secagg.client.receipts import Receipt, to_json
from ssd.secagg.protocol.messages import Opened
from ssd.secagg.protocol.messages import encode as encode_message
from ssd.trust.participants import encode
from ssd.trust.signing import create_key_file, public_hex


def code(*arguments: str) -> object:
    """What `audit` with these arguments exits with."""
    with pytest.raises(SystemExit) as ended:
        main(["audit", *arguments])
    return ended.value.code


def rounds(tmp_path: Path, level: str, number: int) -> tuple[Place, list[Path]]:
    """Rounds of three workers, and what they left."""

    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        place.begin(*workers.values())
        await place.until(committed(place, number))
        await place.until(lambda: len(workers["w1"].said(Opened)) == number)

    place = Place(tmp_path / "state", rounds=number, level=level)
    play(scene, place)
    return place, sorted((tmp_path / "state" / "transcripts").iterdir())


def test_transcripts_of_a_run_follow_one_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, files = rounds(tmp_path, "passive", 3)
    assert code(*map(str, files), "--format", "json") == EXIT_OK
    told = json.loads(capsys.readouterr().out)
    assert [each["round"] for each in told] == [1, 2, 3]
    assert [each["next_model_digest"] for each in told] == place.digests()[1:]
    assert all(each["survivors"] == ["w1", "w2", "w3"] for each in told)
    assert code(str(files[0]), str(files[2])) == EXIT_REFUSED
    assert "does not continue the transcript before it" in capsys.readouterr().err
    twice = tmp_path / "again.transcript"
    first = transcript.read(files[0].read_bytes())
    twice.write_bytes(transcript.write([encode_message(each) for each in first.messages], first.head))
    assert code(str(files[0]), str(twice)) == EXIT_REFUSED
    assert "its round id is that of round 1 again" in capsys.readouterr().err
    content = bytearray(files[1].read_bytes())
    content[len(content) // 2] ^= 1
    files[1].write_bytes(content)
    assert code(str(files[1])) == EXIT_REFUSED


def test_signatures_are_checked_against_the_registry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, files = rounds(tmp_path, "active", 1)
    assert place.registry is not None
    signer = create_key_file(tmp_path / "signer.key")
    registry = tmp_path / "participants.json"
    registry.write_bytes(encode(place.registry, signer))
    known = ["--registry", str(registry), "--signer", public_hex(signer), "--federation", "federation"]
    assert code(str(files[0]), *known) == EXIT_OK
    assert "good: 1 rounds" in capsys.readouterr().out
    assert code(str(files[0])) == EXIT_REFUSED
    assert "registry of participants" in capsys.readouterr().err
    known[3] = "0" * 64
    assert code(str(files[0]), *known) == EXIT_REFUSED


def test_receipts_of_a_worker_are_compared_with_transcripts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, files = rounds(tmp_path, "passive", 1)
    offer = audited(files[0].read_bytes(), None).offer
    receipt = Receipt(
        round_id=offer.round_id,
        base_digest=offer.model_digest,
        round=offer.round,
        attempt=offer.attempt,
        level=offer.level,
        roster=("w1", "w2", "w3"),
        threshold=2,
        corrupt=0,
        signed=("w1", "w2", "w3"),
    )
    for receipts, ends in (
        ([receipt], EXIT_OK),
        ([replace(receipt, signed=("w1", "w2"))], EXIT_REFUSED),
        ([], 3),
    ):
        told = tmp_path / "w1.receipts"
        told.write_text(json.dumps(to_json("w1", receipts)))
        assert code(str(files[0]), "--receipts", str(told)) == ends
    assert "w1 is in the sum and has no receipt of it" in capsys.readouterr().err
    assert code(str(files[0]), "--receipts", str(tmp_path / "none")) == EXIT_REFUSED

"""Bodies of masked uploads, messages in blobs, and who a worker is at level `active`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from processes.instant_trainer import update_of
from secure.secure_identities import SecureIdentities
from ssd.digest import CHUNK_BYTES, chunk_digests, digest_bytes
from ssd.methods.synthetic.method import create
from ssd.privacy.settings import NoisePlace, PrivacySettings
from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masked_plan import MaskedPlan, MaskedSettings
from ssd.secagg.numbers.masked_sum import MaskedSum
from ssd.secagg.numbers.masking import MaskKey
from ssd.trust.registry_pin import PIN_FILE, REGISTRY_FILE, SIGNING_KEY_FILE
from ssd.trust.signing import SigningRefused
from ssd.updates.codec import Encoding
from ssd.updates.fold import FoldPlan, encode_update
from ssd_wire.messages import BlobRef, UpdateKey
from training.straight import Straight
from worker.core.finished import Finished
from worker.downloads.memory_blob import MemoryBlob
from worker.errors import BlobUnavailable, InternalFault, LinkBroken, StorageFailed
from worker.performers.uploads import UploadEffects
from worker.ports import DataAccess
from worker.secure_aggregation.masked_upload import make_body

MASKS = [MaskKey(bytes([7]) * 32, 1), MaskKey(bytes([8]) * 32, -1)]


def plan_of(parameters: int = 512) -> MaskedPlan:
    fold = FoldPlan.create(create({"parameters": parameters}).declare(), Encoding.FLOAT32, 16, 8)
    return MaskedPlan.create(fold, MaskedSettings(clip=0.05, max_client_weight=8, max_cohort=16))


def finished(folder: Path, plan: MaskedPlan, client: str) -> Finished:
    body, weight = update_of(plan.fold, 1, client)
    key = UpdateKey(client=client, round=1, base_digest="b" * 64, task_digest="t")
    path_of(folder)(key).write_bytes(body)
    return Finished(key=key, weight=weight, seconds=1.0, body_size=len(body), chunk_digests=b"")


def path_of(folder: Path) -> Callable[[UpdateKey], Path]:
    return lambda key: folder / f"{key.client}.update"


def rounding(client: str) -> bytes:
    return hashlib.sha256(client.encode()).digest()


def test_a_body_is_the_masked_fold_of_its_updates_and_private(tmp_path: Path) -> None:
    plan, target = plan_of(), tmp_path / "masked.body"
    updates = [finished(tmp_path, plan, client) for client in "abc"]
    before = os.umask(0)
    try:
        body, failures = make_body(plan, updates, path_of(tmp_path), rounding, lambda: MASKS, target)
    finally:
        os.umask(before)
    assert body is not None
    assert not failures
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    content = target.read_bytes()
    assert (body.size, len(content)) == (plan.nbytes, plan.nbytes)
    assert body.chunk_digests == b"".join(chunk_digests(content))
    total, expected = MaskedSum(plan), MaskedFold(plan)
    total.add(content)
    total.subtract(MASKS)
    for client in "abc":
        expected.add_client(*update_of(plan.fold, 1, client), rounding(client))
    opened = total.open(1)
    assert (opened.clients, opened.weight) == (3, expected.weight)


def test_the_same_updates_make_the_same_bytes(tmp_path: Path) -> None:
    plan = plan_of()
    updates = [finished(tmp_path, plan, client) for client in "ab"]
    made = []
    for name in ("one", "two"):
        make_body(plan, updates, path_of(tmp_path), rounding, lambda: MASKS, tmp_path / name, threads=2)
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_noise_is_in_the_body_and_never_the_same(tmp_path: Path) -> None:
    declaration = Straight({"parameters": 4000, "length": 1.0}).declare()
    fold = FoldPlan.create(declaration, Encoding.FLOAT32, 4, 1, clip_norm=1.0)
    terms = PrivacySettings(
        place=NoisePlace.DISTRIBUTED, clip_norm=1.0, noise_multiplier=1.0, delta=1e-5, min_honest=1
    )
    plan = MaskedPlan.create(fold, MaskedSettings(ring_bits=32, max_client_weight=1, max_cohort=4, dp=terms))
    key = UpdateKey(client="a", round=1, base_digest="b" * 64, task_digest="t")
    path_of(tmp_path)(key).write_bytes(encode_update(fold, np.zeros(4000, np.float32), {}))
    update = Finished(key=key, weight=1, seconds=1.0, body_size=16_000, chunk_digests=b"")
    opened = []
    for name in ("one", "two"):
        make_body(plan, [update], path_of(tmp_path), rounding, lambda: MASKS, tmp_path / name)
        total = MaskedSum(plan)
        total.add((tmp_path / name).read_bytes())
        total.subtract(MASKS)
        opened.append(total.open(1).delta.astype(np.float64))
    assert plan.noise is not None
    for delta in opened:
        ratio = delta.var() * 4.0**plan.noise.scale_bits / plan.noise.variance
        assert abs(ratio - 1) < 5 * np.sqrt(2 / delta.size)
    assert abs(np.corrcoef(opened)[0, 1]) < 5 / np.sqrt(4000)


def test_bad_and_missing_updates_are_left_out_and_named(tmp_path: Path) -> None:
    plan = plan_of()
    updates = [finished(tmp_path, plan, client) for client in "abc"]
    body = bytearray((tmp_path / "a.update").read_bytes())
    body[:4] = np.float32(np.inf).tobytes()
    (tmp_path / "a.update").write_bytes(body)
    (tmp_path / "b.update").unlink()
    made, failures = make_body(
        plan, updates, path_of(tmp_path), rounding, lambda: MASKS, tmp_path / "masked.body"
    )
    assert {key.client: reason for key, (reason, _) in failures.items()} == {
        "a": "not_finite",
        "b": "storage",
    }
    assert made is not None
    assert [each.key.client for each in made.updates] == ["c"]


def test_with_nothing_to_mask_the_masks_are_not_even_asked_for(tmp_path: Path) -> None:
    plan = plan_of()
    updates = [finished(tmp_path, plan, "a")]
    (tmp_path / "a.update").unlink()

    def asked() -> list[MaskKey]:
        raise AssertionError("no masks are needed")

    made, failures = make_body(plan, updates, path_of(tmp_path), rounding, asked, tmp_path / "masked.body")
    assert made is None
    assert len(failures) == 1
    assert not (tmp_path / "masked.body").exists()


def test_a_body_that_could_not_be_written_is_made_again_whole(tmp_path: Path) -> None:
    plan, target = plan_of(), tmp_path / "gone" / "masked.body"
    updates = [finished(tmp_path, plan, "a")]
    with pytest.raises(StorageFailed):
        make_body(plan, updates, path_of(tmp_path), rounding, lambda: MASKS, target)
    target.parent.mkdir()
    target.write_bytes(b"what an earlier try left")
    made, _ = make_body(plan, updates, path_of(tmp_path), rounding, lambda: MASKS, target)
    assert made is not None
    assert target.stat().st_size == plan.nbytes


def test_memory_is_one_vector_whatever_the_number_of_clients(tmp_path: Path) -> None:
    plan = plan_of(2_000_000)
    updates = [finished(tmp_path, plan, client) for client in "abcd"]
    tracemalloc.start()
    try:
        make_body(plan, updates, path_of(tmp_path), rounding, lambda: MASKS, tmp_path / "masked.body")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < plan.words_nbytes + (16 << 20)


# -------------------------------------------------------------------------------------------- messages in blobs


def test_a_blob_in_memory_takes_its_chunks_in_order_and_checked() -> None:
    content = os.urandom(CHUNK_BYTES + 5)
    sink = MemoryBlob(BlobRef(digest=digest_bytes(content), size=len(content)))
    sink.expect(len(content), b"".join(chunk_digests(content)))
    with pytest.raises(LinkBroken, match="expected"):
        sink.put(CHUNK_BYTES, content[CHUNK_BYTES:])
    with pytest.raises(LinkBroken, match="damaged"):
        sink.put(0, bytes(CHUNK_BYTES))
    sink.put(0, content[:CHUNK_BYTES])
    assert not sink.complete
    sink.put(CHUNK_BYTES, content[CHUNK_BYTES:])
    assert sink.complete
    assert sink.content() == content
    with pytest.raises(LinkBroken):
        sink.put(len(content), b"more")


@pytest.mark.parametrize("lie", ["size", "chunks", "torn"])
def test_a_blob_in_memory_refuses_another_ones_chunk_list(lie: str) -> None:
    content = b"what was named"
    sink = MemoryBlob(BlobRef(digest=digest_bytes(content), size=len(content)))
    chunks = b"".join(chunk_digests(b"what is served" if lie == "chunks" else content))
    with pytest.raises(BlobUnavailable):
        sink.expect(len(content) + (lie == "size"), chunks[:-1] if lie == "torn" else chunks)
    with pytest.raises(LinkBroken):
        sink.put(0, content)


# ------------------------------------------------------------------------------------------------- level active


@pytest.fixture
def identities(tmp_path: Path) -> SecureIdentities:
    return SecureIdentities(tmp_path, ("w1", "w2"))


def test_key_and_registry_are_read_and_a_newer_registry_is_taken_up(identities: SecureIdentities) -> None:
    own = identities.identity("w1")
    registry, key = own.load()
    assert registry.version == 1
    assert key.public_key() == identities.keys["w1"].public_key()
    assert own.missing() == ""
    identities.publish(2, ("w1",))
    assert own.load()[0].version == 2


def test_an_older_registry_is_refused(identities: SecureIdentities) -> None:
    own = identities.identity("w1")
    identities.publish(2, ("w1", "w2"))
    own.load()
    identities.publish(1, ("w1", "w2"))
    with pytest.raises(SigningRefused, match="older"):
        own.load()


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (SIGNING_KEY_FILE, "ssd-worker identity init"),
        (PIN_FILE, "--signer"),
        (REGISTRY_FILE, r"\[secure_aggregation\] registry"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(identities: SecureIdentities, file: str, says: str) -> None:
    identities.forget("w1", file)
    own = identities.identity("w1")
    with pytest.raises(SigningRefused, match=says):
        own.load()
    assert own.missing()


def test_who_is_not_in_the_registry_is_told_how_to_get_there(identities: SecureIdentities) -> None:
    identities.publish(2, ("w2",))
    assert "identity show" in identities.identity("w1").missing()


def test_a_registry_with_another_key_of_this_worker_is_refused(identities: SecureIdentities) -> None:
    identities.keys["w1"] = Ed25519PrivateKey.generate()
    identities.publish(2, ("w1", "w2"))
    assert "signing key" in identities.identity("w1").missing()


def test_a_forged_registry_is_refused(identities: SecureIdentities, tmp_path: Path) -> None:
    path = tmp_path / "w1" / REGISTRY_FILE
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":3'))
    assert "not signed" in identities.identity("w1").missing()


def test_an_upload_in_the_clear_under_secure_aggregation_is_a_defect_and_sends_nothing() -> None:
    asked: list[str] = []

    class Nobody:
        def __getattr__(self, name: str) -> object:
            asked.append(name)
            raise AssertionError(name)

    nobody: Any = Nobody()
    uploader = UploadEffects(
        access=lambda: (SimpleNamespace(level="passive"), DataAccess(session="s")),  # type: ignore[arg-type,return-value]
        layouts=nobody,
        uploads=nobody,
        secure=nobody,
        clock=nobody,
        metrics=nobody,
        tracing=nobody,
        tasks=nobody,
        post=nobody,
    )
    effect: Any = SimpleNamespace(secure_round=b"", upload=1)
    with pytest.raises(InternalFault, match="in the clear"):
        asyncio.run(uploader.run(effect))
    assert not asked

"""Keys: known answers, one use each, nowhere but in memory, and gone when they are not needed any more."""

from __future__ import annotations

import copy
import hashlib
import hmac
import os
import pickle
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secure import secure_rounds
from secure.secure_rounds import CONFIG, MODEL, Drawn, Federation, Remembered, names_of, offer_for
from ssd.secagg.client.participant import Participant
from ssd.secagg.numbers.masking import MaskKey
from ssd.secagg.protocol import keys, shamir
from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import Kind, Reveal, RevealedShare, SetProof
from ssd.secagg.protocol.signatures import sign_survivors, survivors_are_signed
from ssd.trust.signing import check, public_hex, sign

NAMES = names_of(5)
LEVELS = pytest.mark.parametrize("level", list(Level))


# ------------------------------------------------------------------------------------------------ known answers


def test_x25519_rfc_7748() -> None:
    # Section 5.2, first vector.
    private = X25519PrivateKey.from_private_bytes(
        bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    )
    u = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    shared = keys.agree(private, u)
    assert shared.hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    # Section 6.1.
    alice = X25519PrivateKey.from_private_bytes(
        bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    )
    bob = X25519PrivateKey.from_private_bytes(
        bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    )
    assert keys.public_of(alice).hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert keys.public_of(bob).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    for one, other in ((alice, bob), (bob, alice)):
        agreed = keys.agree(one, keys.public_of(other))
        assert agreed.hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def test_ed25519_rfc_8032() -> None:
    # Section 7.1, test 1: the key and its public part; then one altered bit, and the second spelling of s.
    signer = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    assert public_hex(signer) == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert signer.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd"
        "25bf5f0595bbe24655141438e7a100b"
    )
    signature = bytes.fromhex(sign(signer, "domain", b"content"))
    check(public_hex(signer), "domain", b"content", signature.hex())
    order = 2**252 + 27742317777372353535851937790883648493
    malleable = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    for bad in (bytes([signature[0] ^ 1]) + signature[1:], malleable, bytes(64)):
        with pytest.raises(ValueError, match="signature"):
            check(public_hex(signer), "domain", b"content", bad.hex())


def hkdf_by_hand(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, sections 2.2 and 2.3."""
    prk = hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()
    okm, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        okm += block
    return okm[:length]


def test_hkdf_rfc_5869() -> None:
    # A.1 and A.3 for the one by hand, which then judges ours.
    a1 = hkdf_by_hand(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert a1.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    a3 = hkdf_by_hand(b"\x0b" * 22, b"", b"", 42)
    assert a3.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    info = b"ssd-secagg-v1\0" + b"\0\0\0\5label" + b"\0\0\0\3one" + b"\0\0\0\0"
    assert keys.hkdf(b"secret", bytes(32), "label", b"one", b"") == hkdf_by_hand(
        b"secret", bytes(32), info, 32
    )


def test_no_two_uses_share_a_key() -> None:
    secret, salt = b"s" * 32, b"x" * 32
    derived = [
        keys.self_key(secret, salt, "a"),
        keys.self_key(secret, salt, "b"),
        keys.self_key(secret, b"y" * 32, "a"),
        keys.hkdf(secret, salt, "graph"),
        keys.hkdf(secret, salt, "pair-mask", b"a", b"b"),
        keys.hkdf(secret, salt, "pair-mask", b"ab", b""),
        keys.hkdf(secret, salt, "share-channel", b"a", b"b"),
        keys.hkdf(secret, salt, "share-channel", b"b", b"a"),
    ]
    assert len(set(derived)) == len(derived)


def test_a_pair_agrees_on_one_mask_with_opposite_signs() -> None:
    one, other = (keys.mask_private(bytes([value]) * 32) for value in (1, 2))
    ours = keys.pair_key(one, keys.public_of(other), MODEL, "b", "a")
    assert ours == keys.pair_key(other, keys.public_of(one), MODEL, "a", "b")
    assert ours != keys.pair_key(other, keys.public_of(one), CONFIG, "a", "b")
    assert keys.pair_sign("a", "b") == -keys.pair_sign("b", "a")


def test_rounding_keys_are_the_same_for_the_same_update_and_for_nothing_else() -> None:
    given: dict[str, Any] = {"run_id": "run", "round": 1, "base_digest": MODEL, "client": "c"}
    key = keys.rounding_key(b"s" * 32, **given)
    assert key == keys.rounding_key(b"s" * 32, **given)
    others = [
        keys.rounding_key(b"s" * 32, **(given | changes))
        for changes in ({"run_id": "ru"}, {"round": 2}, {"base_digest": CONFIG}, {"client": "d"})
    ]
    assert len({key, keys.rounding_key(b"t" * 32, **given), *others}) == 6


def test_shares_are_bound_to_round_sender_recipient_and_range() -> None:
    key, nonce = b"k" * 32, b"n" * 12
    about = keys.associated(MODEL, "a", "b")
    sealed = keys.seal(key, nonce, about, b"\1" * 32, b"\2" * 32)
    assert keys.unseal(key, nonce, about, sealed) == (b"\1" * 32, b"\2" * 32)
    too_large = shamir.P.to_bytes(32, "big")
    for arguments in (
        (b"l" * 32, nonce, about, sealed),
        (key, b"m" * 12, about, sealed),
        (key, nonce, keys.associated(CONFIG, "a", "b"), sealed),
        (key, nonce, keys.associated(MODEL, "b", "a"), sealed),
        (key, nonce, keys.associated(MODEL, "ab", ""), sealed),
        (key, nonce, about, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (key, nonce, about, AESGCM(key).encrypt(nonce, b"\1" * 63, about)),
        (key, nonce, about, keys.seal(key, nonce, about, too_large, b"\1" * 32)),
        (key, nonce, about, keys.seal(key, nonce, about, b"\1" * 32, too_large)),
    ):
        with pytest.raises(keys.BadCiphertext):
            keys.unseal(*arguments)


def test_a_signature_for_one_purpose_proves_nothing_for_another() -> None:
    f = Federation(offer=offer_for(5), names=NAMES)
    f.until_uploaded()
    survivors = f.aggregator.close_uploads()
    signer = secure_rounds.signing_key(NAMES[0])
    good = sign_survivors(signer, NAMES[0], survivors)
    assert survivors_are_signed(public_hex(signer), survivors, good)
    advert = f.aggregator._adverts[NAMES[0]]
    assert not survivors_are_signed(public_hex(signer), survivors, replace(good, signature=advert.signature))
    assert not survivors_are_signed(public_hex(signer), replace(survivors, names=NAMES[1:]), good)
    assert not survivors_are_signed("", survivors, good)


# ------------------------------------------------------------------------------------------------ used only once


class Uses:
    """Every AES-GCM key and nonce, and every mask key with who masked with it; a second use fails."""

    def __init__(self) -> None:
        self.sealed: set[bytes] = set()
        self.nonces: set[bytes] = set()
        self.masked: set[tuple[str, bytes]] = set()
        self.pairs: dict[bytes, int] = {}

    def seal(self, key: bytes, nonce: bytes) -> None:
        assert key not in self.sealed, "an AES-GCM key encrypted two messages"
        assert nonce not in self.nonces, "a nonce was used twice"
        self.sealed.add(key)
        self.nonces.add(nonce)

    def mask(self, who: str, masks: list[MaskKey]) -> None:
        for mask in masks:
            assert (who, mask.key) not in self.masked, "a mask was added to two vectors"
            self.masked.add((who, mask.key))
            self.pairs[mask.key] = self.pairs.get(mask.key, 0) + 1
            assert self.pairs[mask.key] <= 2, "a mask is known to three participants"
        assert self.sealed.isdisjoint(mask.key for mask in masks), "a mask key encrypted something"


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Uses]:
    uses = Uses()

    def seal(key: bytes, nonce: bytes, *rest: bytes) -> bytes:
        uses.seal(key, nonce)
        return original_seal(key, nonce, *rest)

    def masks(self: Participant) -> list[MaskKey]:
        made = original_masks(self)
        uses.mask(self._name, made)
        return made

    original_seal, original_masks = keys.seal, Participant.masks
    with monkeypatch.context() as patch:
        patch.setattr(keys, "seal", seal)
        patch.setattr(Participant, "masks", masks)
        yield uses


def attempts(entropy: Any = None) -> None:
    """Three attempts over one memory: abandoned after the uploads, without two participants, and on the next model."""
    memories: dict[str, Remembered] = {}
    for number, (model, uploaders) in enumerate([(MODEL, 10), (MODEL, 8), (CONFIG, 10)]):
        names = names_of(10)
        offer = offer_for(10, round_id=number.to_bytes(16, "big"), model_digest=model)
        f = Federation(offer=offer, names=names, memories=memories)
        if entropy is not None:
            f.participants = {name: f.participant(name, entropy=entropy(name)) for name in names}
        f.advertise(names)
        f.share(names)
        f.deliver(names)
        f.upload(names[:uploaders])
        if number:
            f.survive(names[:uploaders])
            f.reveal(names[:uploaders])
            assert (f.open() == f.expected(names[:uploaders])).all()


def test_no_key_or_nonce_is_used_twice_over_several_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch) as uses:
        attempts(lambda name: os.urandom)
    assert len(uses.sealed) == 3 * 10 * 9
    assert len(uses.masked) == 10 * 10 + 8 * 10 + 10 * 10


def test_the_guard_notices_entropy_that_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch), pytest.raises(AssertionError, match="nonce was used twice"):
        attempts(Drawn)


# --------------------------------------------------------------------------------------------------- not leaked


@LEVELS
def test_nothing_secret_is_printed_copied_or_pickled(level: Level) -> None:
    f = Federation(offer=offer_for(5, level), names=NAMES)
    f.advertise(NAMES)
    own = f[NAMES[0]]._own
    f.share(NAMES)
    f.deliver(NAMES)
    masks = f[NAMES[0]].masks()
    f.upload(NAMES[1:])
    f.upload(NAMES[:1])
    f.survive(NAMES)
    f.reveal(NAMES)
    reveal = f.aggregator._opening.reveals[NAMES[0]]
    secrets = [mask.key for mask in masks] + [entry.share for entry in reveal.entries]
    assert own is not None
    secrets += [own._mask_seed, own._self_secret]
    held = (f[NAMES[0]], own, f.aggregator, f.aggregator._opening, reveal, masks)
    text = repr(held) + str(held)
    assert not any(repr(secret)[2:-1] in text or secret.hex() in text for secret in secrets)
    for each in held[:4]:
        with pytest.raises(TypeError):
            pickle.dumps(each)
        with pytest.raises(TypeError):
            copy.copy(each)
        with pytest.raises(TypeError):
            copy.deepcopy(each)


def everything(participant: Participant) -> str:
    return repr(vars(participant))


@LEVELS
def test_after_the_reveal_and_after_closing_nothing_is_held(level: Level) -> None:
    f = Federation(offer=offer_for(5, level), names=NAMES)
    f.until_uploaded()
    participant = f[NAMES[0]]
    assert participant._own is None
    assert participant._masks == []
    f.survive(NAMES)
    f.reveal(NAMES)
    assert participant._held == {}
    participant.close()
    assert participant._answers == {}
    for step in (
        participant.masks,
        participant.uploaded,
        lambda: participant.survivors(f.aggregator.survivors),
        lambda: participant.proof(SetProof(signatures=())),
        lambda: participant.offer(f.offer, model_digest=MODEL, config_digest=CONFIG),
    ):
        with pytest.raises(Refused) as refused:
            step()
        assert refused.value.reason is AbortReason.UNEXPECTED_MESSAGE


def test_closing_in_the_middle_drops_everything() -> None:
    f = Federation(offer=offer_for(5), names=NAMES)
    f.advertise(NAMES)
    f.share(NAMES)
    f.deliver(NAMES)
    participant = f[NAMES[0]]
    masks = participant.masks()
    participant.close()
    assert (participant._own, participant._held, participant._masks, participant._answers) == (
        None,
        {},
        [],
        {},
    )
    assert masks


def test_a_refusal_drops_everything_and_tells_nothing() -> None:
    f = Federation(offer=offer_for(5), names=NAMES)
    f.advertise(NAMES)
    f.share(NAMES)
    deliveries = f.aggregator.close_shares()
    participant = f[NAMES[0]]
    own, shares = participant._own, participant._held[NAMES[0]]
    assert own is not None
    entries = deliveries[NAMES[0]].entries
    wrong = replace(deliveries[NAMES[0]], entries=(replace(entries[0], nonce=bytes(12)), *entries[1:]))
    with pytest.raises(Refused) as refused:
        participant.delivery(wrong)
    told = "".join(traceback.format_exception(refused.value)) + repr(refused.value)
    for secret in (own._mask_seed, own._self_secret, *shares, entries[0].ciphertext):
        assert repr(secret) not in told
        assert secret.hex() not in told
    assert participant._own is None
    assert participant._held == {}


class Full(Remembered):
    """A disk that is full when shares are about to be revealed, or keys about to be made."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def remember_round(self, round_id: bytes) -> None:
        if self._what == "round":
            raise OSError("full")
        super().remember_round(round_id)

    def remember_opened(self, base_digest: bytes, round_id: bytes, survivor_hash: bytes) -> None:
        if self._what == "opened":
            raise OSError("full")
        super().remember_opened(base_digest, round_id, survivor_hash)


def test_what_cannot_be_remembered_is_not_done() -> None:
    offer = offer_for(5, Level.PASSIVE)
    f = Federation(offer=offer, names=NAMES, memories={NAMES[0]: Full("opened"), NAMES[1]: Full("round")})
    with pytest.raises(OSError, match="full"):
        f.advertise(NAMES[1:2])
    assert f[NAMES[1]]._own is None
    f = Federation(offer=offer, names=NAMES, memories={NAMES[0]: Full("opened")})
    f.until_uploaded()
    survivors = f.aggregator.close_uploads()
    for _ in range(2):
        with pytest.raises((OSError, Refused)):
            f[NAMES[0]].survivors(survivors)
    assert f[NAMES[0]]._held == {}


@LEVELS
def test_what_was_revealed_is_remembered(level: Level) -> None:
    f = Federation(offer=offer_for(5, level), names=NAMES)
    f.until_uploaded()
    assert f.memories[NAMES[0]].bases == {}
    f.survive(NAMES)
    assert bool(f.memories[NAMES[0]].bases) == (level is Level.PASSIVE)
    f.reveal(NAMES)
    assert list(f.memories[NAMES[0]].bases) == [MODEL]


def test_masks_are_the_same_until_the_upload_and_gone_after_it() -> None:
    f = Federation(offer=offer_for(5, Level.PASSIVE), names=NAMES)
    f.advertise(NAMES)
    f.share(NAMES)
    f.deliver(NAMES)
    participant = f[NAMES[0]]
    assert participant.masks() == participant.masks()
    participant.uploaded()
    participant.uploaded()
    with pytest.raises(Refused):
        participant.masks()


def test_an_upload_that_was_not_made_cannot_be_acknowledged() -> None:
    f = Federation(offer=offer_for(5, Level.PASSIVE), names=NAMES)
    f.advertise(NAMES)
    f.share(NAMES)
    f.deliver(NAMES)
    with pytest.raises(Refused) as refused:
        f[NAMES[0]].uploaded()
    assert refused.value.reason is AbortReason.UNEXPECTED_MESSAGE


def test_a_survivor_set_may_come_before_the_acknowledgement() -> None:
    """The upload was taken, and the word of it was lost with the connection: its secrets go all the same."""
    f = Federation(offer=offer_for(5, Level.PASSIVE), names=NAMES)
    f.advertise(NAMES)
    f.share(NAMES)
    f.deliver(NAMES)
    for name in NAMES:
        f[name].masks()
        f.aggregator.uploaded(name)
    survivors = f.aggregator.close_uploads()
    reveal = f[NAMES[0]].survivors(survivors)
    assert isinstance(reveal, Reveal)
    assert f[NAMES[0]]._own is None
    f[NAMES[0]].uploaded()


def test_a_share_is_not_printed() -> None:
    share = RevealedShare(about="a", kind=Kind.SELF, share=b"planted-secret--" * 2)
    assert "planted" not in repr(Reveal(name="a", entries=(share,)))
    assert "planted" not in repr(share)

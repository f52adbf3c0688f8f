"""The participants of a federation: who signs with which key, for which clients, with how much weight at most.

The file is canonical JSON (`ssd.digest.canonical_json`): one spelling for one content, so that a changed, reordered
or padded file is refused before its signature is looked at. The key that signs it belongs to whoever answers for the
participants, never to the coordinator: what the coordinator hands out, each worker checks against the signer's key it
was given by other means (`ssd.trust.registry_pin`).

Every entry carries its own key's signature over federation, worker and key, so that nobody is entered with a key that
is not his.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ssd.digest import canonical_json
from ssd.trust.names import NameRefused, Role, Subject
from ssd.trust.signing import KEY_BYTES, SIGNATURE_BYTES, SigningRefused, check, is_hex, public_hex, sign

Json = Any
FORMAT = "ssd-participants-v1"
POSSESSION = "ssd-participant-key-v1"
MAX_BYTES = 16 << 20
"""Of a registry file: room for 100,000 clients."""
MAX_WEIGHT = 1 << 40
_CLIENT = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RegistryRefused(SigningRefused):
    """A registry of participants that must not be used; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Participant:
    """One worker that signs."""

    worker: str
    key: str
    """Ed25519 public key, 64 hex digits."""
    proof: str
    """Its signature over federation, worker and key."""
    clients: tuple[str, ...]
    """Those it may fold, sorted: a worker refuses any other in level `active`."""
    max_weight: int
    """The most its clients may weigh together in one round: a worker refuses more clients than that allows, each counted
    with the most a client of the run may weigh."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Registry:
    """All participants of a federation.

    Raises:
        RegistryRefused: a name, key, weight or number that cannot be, or one that stands twice.
    """

    federation: str
    version: int
    """1, 2, 3 …: a higher one replaces a lower one, never the other way round."""
    issued_at: int
    """Unix seconds; for people."""
    participants: tuple[Participant, ...] = ()
    """Sorted by worker."""

    def __post_init__(self) -> None:
        if not _is_count(self.version) or not _is_count(self.issued_at):
            raise RegistryRefused("version and time are whole numbers from 1 on")
        _check_name(self.federation, "federation")
        workers = [each.worker for each in self.participants]
        keys = [each.key for each in self.participants]
        clients = [client for each in self.participants for client in each.clients]
        for what, values in (("worker", workers), ("key", keys), ("client", clients)):
            if len(set(values)) != len(values):
                twice = next(value for value in values if values.count(value) > 1)
                raise RegistryRefused(f"the {what} {twice} stands in the registry twice")
        if workers != sorted(workers):
            raise RegistryRefused("the participants are not in the order of their names")
        for participant in self.participants:
            _check_participant(self.federation, participant)


def introduce(federation: str, worker: str, key: Ed25519PrivateKey) -> dict[str, str]:
    """What a worker tells of itself so that it can be entered: federation, worker, key and proof; nothing secret."""
    _check_name(federation, "federation")
    _check_name(worker, "worker")
    public = public_hex(key)
    proof = sign(key, POSSESSION, _introduction(federation, worker, public))
    return {"federation": federation, "worker": worker, "key": public, "proof": proof}


def encode(registry: Registry, signer: Ed25519PrivateKey) -> bytes:
    """The signed file."""
    body = _body(registry)
    signature = sign(signer, FORMAT, canonical_json(body))
    return canonical_json({"registry": body, "signature": signature})


def decode(content: bytes, signer: str, federation: str) -> Registry:
    """The registry of a signed file.

    Args:
        content: of the file.
        signer: the signer's public key, 64 hex digits.
        federation: whose registry it has to be.

    Raises:
        RegistryRefused: any byte of it is not what the signer wrote, or it is another federation's.
    """
    outer = parse_canonical(content)
    if not isinstance(outer, dict) or set(outer) != {"registry", "signature"}:
        raise RegistryRefused("this is no signed registry of participants")
    try:
        check(signer, FORMAT, canonical_json(outer["registry"]), outer["signature"])
    except SigningRefused as error:
        raise RegistryRefused(f"the registry of participants is not signed by its signer: {error}") from error
    registry = registry_of(outer["registry"])
    if registry.federation != federation:
        raise RegistryRefused(
            f"this is the registry of the federation {registry.federation!r}, not of {federation!r}"
        )
    return registry


def parse_canonical(content: bytes) -> Json:
    """The value of a canonical JSON text.

    Raises:
        RegistryRefused: too large, no JSON, or not the one spelling of its content.
    """
    if len(content) > MAX_BYTES:
        raise RegistryRefused(f"a registry of participants has at most {MAX_BYTES} bytes, not {len(content)}")
    try:
        value = json.loads(content)
        same = canonical_json(value) == content
    except (ValueError, TypeError, RecursionError) as error:
        raise RegistryRefused(f"the registry of participants is no JSON: {str(error)[:200]}") from error
    if not same:
        raise RegistryRefused("the registry of participants is not spelt as it was signed: it was edited")
    return value


def registry_of(body: Json) -> Registry:
    """The registry of its JSON form; the signature is not looked at.

    Raises:
        RegistryRefused: it has another form, or contradicts itself.
    """
    fields = _fields(
        body, {"format": str, "federation": str, "version": int, "issued_at": int, "participants": list}
    )
    if fields["format"] != FORMAT:
        raise RegistryRefused(
            f"the registry has the format {str(fields['format'])[:64]!r}, this program knows {FORMAT}"
        )
    form = {"worker": str, "key": str, "proof": str, "clients": list, "max_weight": int}
    return Registry(
        federation=fields["federation"],
        version=fields["version"],
        issued_at=fields["issued_at"],
        participants=tuple(
            Participant(**{**entry, "clients": tuple(entry["clients"])})
            for entry in (_fields(each, form) for each in fields["participants"])
        ),
    )


def _body(registry: Registry) -> dict[str, Json]:
    return {
        "format": FORMAT,
        "federation": registry.federation,
        "version": registry.version,
        "issued_at": registry.issued_at,
        "participants": [
            {
                "worker": each.worker,
                "key": each.key,
                "proof": each.proof,
                "clients": list(each.clients),
                "max_weight": each.max_weight,
            }
            for each in registry.participants
        ],
    }


def _fields(value: Json, form: Mapping[str, type]) -> dict[str, Json]:
    if not isinstance(value, dict) or set(value) != set(form):
        raise RegistryRefused(f"an entry of the registry must have exactly {', '.join(sorted(form))}")
    for name, kind in form.items():
        if type(value[name]) is not kind:
            raise RegistryRefused(f"{name} of the registry must be {kind.__name__}")
        if kind is list and name == "clients" and not all(type(each) is str for each in value[name]):
            raise RegistryRefused("a client id is a text")
    return value


def _check_participant(federation: str, each: Participant) -> None:
    _check_name(each.worker, "worker")
    if not is_hex(each.key, KEY_BYTES) or not is_hex(each.proof, SIGNATURE_BYTES):
        raise RegistryRefused(f"worker {each.worker}: a key is 64, a proof 128 lower-case hex digits")
    if not _is_count(each.max_weight) or each.max_weight > MAX_WEIGHT:
        raise RegistryRefused(f"worker {each.worker}: max_weight must be 1 to {MAX_WEIGHT}")
    if not all(_CLIENT.fullmatch(client) for client in each.clients):
        raise RegistryRefused(f"worker {each.worker}: a client id is 1 to 128 of A-Z a-z 0-9 . _ -")
    if list(each.clients) != sorted(each.clients):
        raise RegistryRefused(f"worker {each.worker}: the clients are not in order")
    try:
        check(each.key, POSSESSION, _introduction(federation, each.worker, each.key), each.proof)
    except SigningRefused as error:
        raise RegistryRefused(
            f"worker {each.worker} has not proved that the key is its own: let it introduce itself again"
        ) from error


def _introduction(federation: str, worker: str, public: str) -> bytes:
    return canonical_json({"federation": federation, "worker": worker, "key": public})


def _check_name(name: str, what: str) -> None:
    try:
        Subject(name if what == "federation" else "x", Role.WORKER, name if what == "worker" else "x")
    except NameRefused as error:
        raise RegistryRefused(str(error)) from error


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value < 1 << 62

"""Signing keys and a signed registry of participants for a federation of one machine, for secure aggregation at level
`active`.

The signer's key never leaves this process. On one machine, in one process, that vouches for nobody: it is there so that
what runs is what an operator would run, whose registry is signed elsewhere (`ssd-coordinator registry`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ssd.trust.participants import MAX_WEIGHT, Participant, Registry, encode, introduce
from ssd.trust.policy.federation_policy import FederationPolicy
from ssd.trust.policy.federation_policy import encode as encode_policy
from ssd.trust.private_files import make_private_folder, replace_private
from ssd.trust.registry_pin import PIN_FILE, REGISTRY_FILE, SIGNING_KEY_FILE, Pin, create_pin
from ssd.trust.signing import create_key_file, public_hex


class Vouching:
    """A new signer; its registry begins without participants.

    Args:
        folder: where the coordinator's copy of the registry goes.
        federation: whose.
    """

    def __init__(self, folder: Path, federation: str) -> None:
        self.registry = folder / REGISTRY_FILE
        self._federation = federation
        self._signer = Ed25519PrivateKey.generate()
        self._version = 0
        self._publish((), ())

    @property
    def signer(self) -> str:
        """Its public key, 64 hex digits."""
        return public_hex(self._signer)

    def enter(self, workers: Mapping[str, tuple[Path, Sequence[str]]]) -> None:
        """Make signing keys and pins for workers, and give everybody a registry of them.

        Args:
            workers: name -> its identity folder and its clients.
        """
        entries = []
        for name, (folder, clients) in sorted(workers.items()):
            make_private_folder(folder)
            for stale in (SIGNING_KEY_FILE, PIN_FILE):
                # Of an earlier attempt in the same folder, under another signer.
                (folder / stale).unlink(missing_ok=True)
            told = introduce(self._federation, name, create_key_file(folder / SIGNING_KEY_FILE))
            create_pin(folder / PIN_FILE, Pin(federation=self._federation, signer=self.signer))
            entries.append(
                Participant(
                    worker=name,
                    key=told["key"],
                    proof=told["proof"],
                    clients=tuple(sorted(clients)),
                    max_weight=MAX_WEIGHT,
                )
            )
        self._publish(tuple(entries), [folder for folder, _ in workers.values()])

    def sign_policy(self, policy: FederationPolicy) -> bytes:
        """The signed file of a policy."""
        return encode_policy(policy, self._signer)

    def _publish(self, participants: tuple[Participant, ...], folders: Sequence[Path]) -> None:
        self._version += 1
        content = encode(
            Registry(
                federation=self._federation,
                version=self._version,
                issued_at=1,
                participants=participants,
            ),
            self._signer,
        )
        for path in (self.registry, *(folder / REGISTRY_FILE for folder in folders)):
            replace_private(path, content)

"""What a worker keeps of the federation policy: the newest version it saw, under the signer that it pins for the registry."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ssd.trust.policy.federation_policy import FederationPolicy, PolicyRefused, decode
from ssd.trust.registry_pin import PIN_FILE, Pin, read_pin, write_pin

POLICY_FILE = "policy.json"
POLICY_PIN_FILE = "policy.pin"
"""Names in a worker's identity folder."""


def accept_policy(folder: Path, content: bytes) -> FederationPolicy:
    """The policy of a signed file, if the signer that is pinned in the folder signed it; the policy's own pin moves on.

    Args:
        folder: with the pin of the registry, where the policy's pin lies, too.
        content: of the file.

    Raises:
        ssd.trust.signing.SigningRefused: no signer is pinned, or the policy is badly signed, another federation's, older
            than one that was seen, or another one with the same number.
        OSError: the pin cannot be written.
    """
    signer, path = read_pin(folder / PIN_FILE), folder / POLICY_PIN_FILE
    seen = read_pin(path) if path.exists() else Pin(federation=signer.federation, signer=signer.signer)
    policy = decode(content, signer.signer, signer.federation)
    digest = hashlib.sha256(content).hexdigest()
    if policy.version < seen.version:
        raise PolicyRefused(
            f"policy version {policy.version} is older than version {seen.version}, which this worker has seen"
        )
    if policy.version == seen.version and digest != seen.digest:
        raise PolicyRefused(
            f"there are two policies of version {seen.version}: its signer must say which counts"
        )
    if policy.version > seen.version:
        pin = Pin(federation=signer.federation, signer=signer.signer, version=policy.version, digest=digest)
        write_pin(path, pin)
    return policy

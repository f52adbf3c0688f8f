"""Level `active` through real daemons: signed adverts and survivor sets under a registry the coordinator did not sign."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes.federation import Federation
from ssd.federation.participant_registry import Vouching
from ssd.method.registry import load
from ssd.trust.policy.federation_policy import FederationPolicy, MethodClause, flat
from ssd.trust.policy.policy_pin import POLICY_FILE

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index}" for index in range(4)]
WORKERS = {"worker-0": CLIENTS[:2], "worker-1": CLIENTS[2:3], "worker-2": CLIENTS[3:]}
ROUNDS = 2
ACTIVE = {"secure_aggregation.level": "active", "secure_aggregation.min_participants": 3}


def policy(federation: str, *, parameters: int, version: int = 1) -> FederationPolicy:
    """One that accepts the run, if it has so many parameters."""
    declared = load("synthetic", {"parameters": parameters}).declare()
    settings = {name: [value] for name, value in flat(declared.config).items()}
    clause = MethodClause(name=declared.method, version=declared.version, settings=settings)
    return FederationPolicy(
        federation=federation,
        version=version,
        issued_at=1,
        methods=(clause,),
        max_rounds=ROUNDS,
        max_client_weight=64,
    )


def test_active_rounds_commit_and_a_worker_without_a_signing_key_goes_away(tmp_path: Path) -> None:
    settings = {
        "run.clients": CLIENTS,
        "run.rounds": ROUNDS,
        "round.cohort_size": 4,
        "wire.update_encoding": "float32",
        "limits.max_client_weight": 64,
        "method.name": "synthetic",
        "method.config": {"parameters": 5000},
        "secure_aggregation.level": "active",
    }
    with Federation(tmp_path, **settings) as federation:
        assert federation.pki is not None
        vouching = Vouching(federation.pki.folder, federation.pki.federation)
        federation.config["secure_aggregation"] |= {
            "registry": str(vouching.registry),
            "registry_signer": vouching.signer,
        }
        federation.start_coordinator()
        # Nobody vouched for it yet: it has no signing key.
        stranger = federation.start_worker("worker-0", WORKERS["worker-0"])
        federation.until(lambda: not stranger.running, "the stranger gives up")
        assert stranger.process.returncode == 3
        assert "ssd-worker identity init" in stranger.log.read_text()
        folders = {name: federation.pki.worker(name) for name in WORKERS}
        vouching.enter({name: (folders[name], WORKERS[name]) for name in WORKERS})
        # Whose policy accepts another method: it attends, and fails every task with the clause in its log only.
        content = vouching.sign_policy(policy(federation.pki.federation, parameters=4999))
        (folders["worker-0"] / POLICY_FILE).write_bytes(content)
        outside = federation.start_worker("worker-0", WORKERS["worker-0"], config=ACTIVE)
        federation.until(lambda: outside.events("task_failed"), "a task outside the policy is refused")
        assert "clause methods, synthetic: parameters" in outside.log.read_text()
        outside.terminate()
        content = vouching.sign_policy(policy(federation.pki.federation, parameters=5000, version=2))
        for folder in folders.values():
            (folder / POLICY_FILE).write_bytes(content)
        for name, clients in WORKERS.items():
            federation.start_worker(name, clients, config=ACTIVE)
        assert federation.finish() == 0
        assert len(set(federation.digests())) == ROUNDS + 1
        for name in WORKERS:
            steps = [event["step"] for event in federation.workers[name].events("secure_step")]
            assert steps == ["offer", "roster", "delivery", "survivors", "proof"] * ROUNDS
            assert not federation.workers[name].events("secure_round_refused")
            # Every worker's store remembers, and none keeps a masked upload.
            assert not list((tmp_path / "workers" / name / "masked").iterdir())
            assert (tmp_path / "workers" / name / "rounding.secret").stat().st_mode & 0o777 == 0o600

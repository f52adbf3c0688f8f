"""A server hook in real processes: the result follows from the set of updates, whoever dies at which instruction.

The synthetic method's hook depends on everything it is given (base, sums, single values in their order, its own state,
the artefacts of the round before), and training depends on the round artefact.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.errors import Reason
from processes.federation import Federation, read_events
from ssd_proto.v1 import operator_pb2 as operator_pb

pytestmark = pytest.mark.e2e
CLIENTS = [f"c{number}" for number in range(10)]
METHOD = {"parameters": 3000, "hook": True, "collect": True}
SETTINGS: dict[str, Any] = {
    "run.clients": CLIENTS,
    "run.rounds": 4,
    "round.cohort_size": 6,
    "method.config": METHOD,
}


def histories(federation: Federation) -> list[tuple[Any, ...]]:
    """All that a commit leaves behind, by version."""
    store = federation.store()
    try:
        return [
            (
                each.model_digest,
                dict(each.server_state),
                each.artefacts,
                each.figures.statistics.get("hook_calls"),
            )
            for each in store.versions()
        ]
    finally:
        store.close()


def finish_with(federation: Federation, groups: list[list[str]]) -> list[tuple[Any, ...]]:
    federation.start_coordinator()
    for number, clients in enumerate(groups):
        federation.start_worker(f"w{number}", clients)
    assert federation.finish() == 0
    return histories(federation)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Any, ...]]]:
    with Federation(tmp_path_factory.mktemp("reference"), **SETTINGS) as federation:
        yield finish_with(federation, [CLIENTS])


def hosts_of(coordinator: int) -> list[int]:
    """Process ids of a coordinator's method host."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == coordinator and b"ssd.method_host.host" in command:
            found.append(int(entry.name))
    return found


def test_every_commit_leaves_state_and_artefact_behind(reference: list[tuple[Any, ...]]) -> None:
    assert [calls for _, _, _, calls in reference] == [None, 1.0, 2.0, 3.0, 4.0]
    for _, state, artefacts, _ in reference[1:]:
        assert {"hook.calls", "hook.chain"} <= set(state)
        assert [(made.name, made.shape) for made in artefacts] == [("drift", (4, 8))]
    assert len({artefacts[0].blob.digest for _, _, artefacts, _ in reference[1:]}) == 4


@pytest.mark.parametrize("change", [{"collect": False}, {"collect": False, "hook": False}])
def test_the_reference_depends_on_hook_and_collected_values(
    tmp_path: Path, reference: list[tuple[Any, ...]], change: dict[str, bool]
) -> None:
    """Otherwise the tests below could not fail."""
    with Federation(tmp_path, **{**SETTINGS, "method.config": {**METHOD, **change}}) as federation:
        assert finish_with(federation, [CLIENTS])[1][0] != reference[1][0]


def test_one_worker_with_ten_clients_and_five_with_two_give_the_same(
    tmp_path: Path, reference: list[tuple[Any, ...]]
) -> None:
    groups = [CLIENTS[start : start + 2] for start in range(0, 10, 2)]
    with Federation(tmp_path, **SETTINGS) as federation:
        assert finish_with(federation, groups) == reference
        assert not list(federation.state_dir.glob("hook-*"))
        assert not list((federation.state_dir / "collected").iterdir())
        refused = Reason.FOLD_NOT_ALLOWED.value
        assert refused not in (federation.root / "coordinator.log").read_text()


@pytest.mark.parametrize(
    ("place", "when", "count"),
    [
        ("coordinator.method_host.collected_updates:Spool.add", "after", 8),
        ("coordinator.store.journal.sqlite:SqliteJournal.close_attempt", "after", 2),
        ("coordinator.method_host.client:SubprocessMethodHost.after_reduce", "before", 2),
        ("coordinator.method_host.client:SubprocessMethodHost.after_reduce", "after", 2),
        ("coordinator.method_host.hook:HookRunner.run", "after", 2),  # blobs written, no version
        ("coordinator.versions.next_version:VersionMaker.make", "after", 2),
        ("coordinator.store.journal.sqlite:SqliteJournal.commit", "before", 2),
        ("coordinator.store.journal.sqlite:SqliteJournal.commit", "after", 2),
        ("coordinator.versions.catalogue:Catalogue.retire", "after", 2),
    ],
)
def test_a_coordinator_that_dies_there(
    tmp_path: Path, reference: list[tuple[Any, ...]], place: str, when: str, count: int
) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        doomed = federation.start_coordinator(fault=[place, when, str(count)])
        federation.start_worker("w0", CLIENTS[:7])
        federation.start_worker("w1", CLIENTS[7:])
        federation.until(lambda: not doomed.running, f"the coordinator dies {when} {place}")
        again = federation.start_coordinator()
        assert federation.finish() == 0
        assert histories(federation) == reference
        assert not again.events("client_reinitialised")


def test_a_host_killed_in_the_middle_of_its_hook_is_asked_again(
    tmp_path: Path, reference: list[tuple[Any, ...]]
) -> None:
    slow = {**SETTINGS, "method.config": {**METHOD, "hook_seconds": 2.0}}
    with Federation(tmp_path, **slow) as federation:
        coordinator = federation.start_coordinator()
        federation.start_worker("w0", CLIENTS)
        hosts = federation.until(
            lambda: (
                list(federation.state_dir.glob("hook-*/in/statistics.npy"))
                and hosts_of(coordinator.process.pid)
            ),
            "a hook runs",
        )
        for host in hosts:
            os.kill(host, signal.SIGKILL)
        federation.until(lambda: coordinator.events("server_hook_lost"), "the death is noticed")
        assert federation.finish() == 0
        assert histories(federation) == reference


def test_nobody_is_cut_off_while_a_hook_takes_longer_than_silence_is_borne(
    tmp_path: Path, reference: list[tuple[Any, ...]]
) -> None:
    slow = {
        **SETTINGS,
        "limits.heartbeat_seconds": 0.5,
        "method.config": {**METHOD, "hook_seconds": 2.0},
    }
    with Federation(tmp_path, **slow) as federation:
        federation.start_coordinator()
        federation.start_worker("w0", CLIENTS)
        federation.until(
            lambda: list(federation.state_dir.glob("hook-*/in/statistics.npy")), "the first hook runs"
        )
        # The loop is live all the while.
        assert federation.status().phase == "committing"
        assert federation.http("/readyz")[0] == 200
        assert federation.finish() == 0
        assert histories(federation) == reference
        assert Reason.SILENT.value not in (federation.root / "coordinator.log").read_text()
        attended = [entry for entry in read_events(federation.root / "w0.log") if "link_lost" in str(entry)]
        assert len(attended) <= 1, "only the coordinator's own end may end the stream"


def test_a_hook_that_fails_halts_the_run_and_a_repaired_one_goes_on(tmp_path: Path) -> None:
    method = tmp_path / "mine.py"
    flag = tmp_path / "broken"
    flag.touch()
    method.write_text(
        "from pathlib import Path\n"
        "from ssd.method.registry import load\n"
        "def create(config):\n"
        "    method = load('synthetic', config)\n"
        "    reduce = method.after_reduce\n"
        "    def failing(reduction):\n"
        f"        if reduction.round == 2 and Path({str(flag)!r}).exists():\n"
        "            raise RuntimeError('no such luck')\n"
        "        return reduce(reduction)\n"
        "    method.after_reduce = failing\n"
        "    return method\n"
    )
    settings = {**SETTINGS, "method.name": str(method)}
    with Federation(tmp_path, **settings) as federation:
        coordinator = federation.start_coordinator()
        federation.start_worker("w0", CLIENTS)
        halted = federation.until(lambda: coordinator.events("halted"), "the run halts")
        assert "server hook of method synthetic failed in round 2" in halted[0]["reason"]
        assert "no such luck" in halted[0]["reason"]
        assert federation.status().phase == "halted"
        assert len(federation.digests()) == 2
        flag.unlink()
        federation.operator("Resume", operator_pb.ResumeRequest(), operator_pb.ResumeReply)
        assert federation.finish() == 0
        assert len(federation.digests()) == 5

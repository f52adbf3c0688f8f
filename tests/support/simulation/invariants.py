"""What holds of every simulated federation, whatever happened to it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import safetensors.numpy

from coordinator.config.derived import plan_of
from coordinator.config.sections import CoordinatorConfig
from coordinator.core.strategies.registry import create as create_strategy
from coordinator.ports.records import AttemptRecord
from coordinator.store.files.blobs import FileBlobs
from coordinator.store.journal import chain
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.versions.next_version import VersionMaker
from simulation.net.uploads import Seen
from simulation.world import Place, World
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration
from ssd.updates.fold import Fold
from worker.store.sqlite import SqliteStore


def check(world: World) -> list[str]:
    """Everything below; the digests of the versions.

    Raises:
        AssertionError: something does not hold, and what.
    """
    assert not world.defects, world.defects
    state_dir = world.root / "coordinator"
    journal = SqliteJournal(state_dir)
    try:
        chain.verify(journal)
        digests = [version.model_digest for version in journal.versions()]
        _no_commit_is_lost(world, digests)
        _attempts_end_once(journal)
        if world.setting.level == "off" and not world.setting.hook:
            _versions_follow_from_their_sets(world, journal, state_dir)
        _one_verdict_each(world)
        _states_advance_with_commits(world, journal)
    finally:
        journal.close()
    return digests


def _no_commit_is_lost(world: World, digests: list[str]) -> None:
    assert len(digests) == world.setting.rounds + 1, "rounds are missing"
    # A commit is repeated with equal arguments if the process died right after it.
    assert dict(world.committed).items() <= dict(enumerate(digests)).items(), "a committed version changed"
    assert len(set(world.committed)) == len(dict(world.committed)), "a round was committed twice, differently"


def _attempts_end_once(journal: SqliteJournal) -> None:
    attempts = journal.attempts()
    ended = Counter((each.round, each.attempt) for each in attempts)
    assert set(ended.values()) <= {1}, "an attempt was journaled twice"
    assert all(each.outcome in ("committed", "abandoned") for each in attempts), "an attempt is still open"
    commits = Counter(each.round for each in attempts if each.outcome == "committed")
    assert set(commits.values()) <= {1}, "a round was committed twice"


def _versions_follow_from_their_sets(world: World, journal: SqliteJournal, state_dir: Path) -> None:
    """The whole run, made anew from version 0 and the journaled sets, with the bodies that the network saw."""
    tables = {**world.setting.tables(), "coordinator": {"state_dir": state_dir}}
    config = CoordinatorConfig.model_validate(tables)
    run = journal.current_run()
    assert run is not None
    declaration = Declaration.from_json(run.declaration)
    plan = plan_of(declaration, config)
    strategy = create_strategy(config.strategy.name, config.strategy.rates)
    maker = VersionMaker(declaration, strategy, Encoding(config.wire.delta_encoding), FileBlobs(state_dir))
    versions = journal.versions()
    full, server_state = versions[0].full, versions[0].server_state
    for attempt in reversed(journal.attempts()):
        if attempt.outcome != "committed":
            continue
        fold = Fold(plan)
        for seen in _folded(world, attempt):
            weight = sum(each.weight for each in seen.envelope.clients)
            if len(seen.clients) > 1:
                fold.add_fold(bytes(seen.body), weight, len(seen.clients))
            else:
                fold.add_update(bytes(seen.body), weight)
        made = maker.make(fold.open(), full, server_state, lambda write: write())
        full, server_state = made.full, made.server_state
        assert made.model_digest == versions[attempt.round].model_digest, (
            f"version {attempt.round} is not what its journaled set {attempt.accepted} makes of the version before"
        )


def _folded(world: World, attempt: AttemptRecord) -> list[Seen]:
    """The uploads that make up a journaled set: the last ones of the life that committed it."""
    missing, found = set(attempt.accepted), []
    for certain in (True, False):
        # The process may have ended between taking an upload and saying so.
        for seen in reversed(list(world.uploads.calls.values())):
            fits = seen.envelope.round == attempt.round and seen.whole and seen.clients <= missing
            if fits and (seen.accepted if certain else not seen.verdicts):
                missing -= seen.clients
                found.append(seen)
    assert not missing, (
        f"{missing} are in the journaled set of round {attempt.round}, and no upload of theirs was seen"
    )
    return found


def _one_verdict_each(world: World) -> None:
    accepted: Counter[tuple[int, int, int, str]] = Counter()
    for seen in world.uploads.calls.values():
        assert len(seen.verdicts) <= 1, f"call {seen.call} has {len(seen.verdicts)} verdicts"
        assert seen.verdicts or seen.status != "ok", f"call {seen.call} ended well without a verdict"
        if seen.accepted:
            attempt = (seen.life, seen.envelope.round, seen.envelope.attempt)
            accepted.update((*attempt, client) for client in seen.clients)
    twice = [where for where, count in accepted.items() if count > 1]
    assert not twice, f"accepted twice (life, round, attempt, client): {twice}"


def _states_advance_with_commits(world: World, journal: SqliteJournal) -> None:
    run = journal.current_run()
    assert run is not None
    records = {record.client: record for record in journal.clients()}
    for place in world.places.values():
        if place.refused:
            continue  # nobody can tell it any more
        store = SqliteStore(place.state_dir)
        try:
            for client in place.clients:
                if client in records and client not in world.revoked:
                    record = records[client]
                    _state_fits(
                        place, store, run.run_id, client, record.last_committed_round, record.rounds_included
                    )
            assert not store.load_run(run.run_id).held, f"{place.name} still holds updates of a finished run"
        finally:
            store.close()


def _state_fits(place: Place, store: SqliteStore, run_id: str, client: str, last: int, included: int) -> None:
    number, path = store.client_state(run_id, client)
    assert number == last, f"{client} on {place.name} is at round {number}, the journal at {last}"
    advanced = 0 if path is None else int(safetensors.numpy.load_file(path)["counter"][0])
    if place.lost_disk:
        assert advanced <= included, f"the state of {client} advanced {advanced} times in {included} commits"
    else:
        assert advanced == included, f"the state of {client} advanced {advanced} times in {included} commits"

"""The journal answers as its model, after any sequence of calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.errors import JournalConflict
from coordinator.ports.journal import Journal
from coordinator.store.journal.sqlite import SqliteJournal
from journals.journal_model import JournalModel, Refused
from journals.journal_runs import (
    SCALING,
    a_run,
    a_version,
    an_attempt,
    everything,
)


@pytest.fixture(params=[SqliteJournal])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    opened: Journal = request.param(tmp_path)
    yield opened
    opened.close()


CLIENTS = st.sampled_from(["a", "b", "c"])


CALLS = st.one_of(
    st.tuples(st.just("register_clients"), st.tuples(st.lists(CLIENTS, max_size=2), st.just(1.0))),
    st.tuples(
        st.just("assign"),
        st.tuples(st.dictionaries(CLIENTS, st.tuples(st.integers(0, 2), st.sampled_from([None, SCALING])))),
    ),
    st.tuples(st.just("revoke_client"), st.tuples(CLIENTS)),
    st.tuples(
        st.just("bind_clients"), st.tuples(st.sampled_from("wx"), st.lists(CLIENTS, max_size=3), st.just(1.0))
    ),
    st.tuples(st.just("move_client"), st.tuples(CLIENTS, st.sampled_from("wx"), st.just(1.0))),
    st.tuples(
        st.just("open_attempt"),
        st.tuples(st.builds(an_attempt, st.integers(1, 2), st.integers(1, 2), st.just(("a", "b")))),
    ),
    st.tuples(
        st.just("close_attempt"),
        st.tuples(st.integers(1, 2), st.integers(1, 2), st.lists(st.sampled_from(["a", "b"]), max_size=2)),
    ),
    st.tuples(
        st.just("abandon_attempt"),
        st.tuples(st.integers(1, 2), st.integers(1, 2), st.sampled_from(["x", "y"]), st.just(3.0)),
    ),
    st.tuples(
        st.just("commit"),
        st.tuples(st.builds(a_version, st.integers(0, 2), st.integers(1, 2)), st.just(4.0)),
    ),
    st.tuples(st.just("forget_version_blobs"), st.tuples(st.lists(st.integers(0, 2), max_size=2))),
    st.tuples(
        st.just("record_evaluation"), st.tuples(st.integers(0, 2), st.just({"knn": 0.5}), st.just(1.0))
    ),
    st.tuples(st.just("finish_run"), st.just(())),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALLS, max_size=25))
def test_after_any_sequence_of_calls_the_journal_answers_as_its_model_and_still_does_when_reopened(
    calls: list[tuple[str, tuple[object, ...]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = SqliteJournal(folder)
    store.create_run(a_run(), a_version(0))
    model = JournalModel(store.federation_id(), a_run(), a_version(0))
    for each in (store, model):
        each.register_clients(["a", "b"], 1.0)
    for name, arguments in calls:
        outcomes = []
        for each, refusal in ((store, JournalConflict), (model, Refused)):
            try:
                getattr(each, name)(*arguments)
                outcomes.append("done")
            except refusal:
                outcomes.append("refused")
        assert outcomes[0] == outcomes[1], name
        assert everything(store) == json.dumps(model.answers(), sort_keys=True)
    store.close()
    store = SqliteJournal(folder)
    assert everything(store) == json.dumps(model.answers(), sort_keys=True)
    store.close()

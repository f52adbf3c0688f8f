"""Single clients' values on disk, for a server hook to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.errors import StorageFailed
from coordinator.method_host.collected_updates import Spool
from rounds.fold_samples import SampleUpdate, sample_declaration, sample_plan, sample_update
from ssd.method_host.npy import read_npy
from ssd.updates.codec import Encoding
from ssd.updates.fold import FoldPlan


def plan(*collected: str, encoding: Encoding = Encoding.FLOAT32) -> FoldPlan:
    declaration = sample_declaration()
    declaration = replace(
        declaration,
        server_hook=True,
        groups=tuple(replace(group, collect=group.name in collected) for group in declaration.groups),
        statistics=tuple(replace(each, collect=each.name in collected) for each in declaration.statistics),
    )
    return sample_plan(encoding, declaration)


def decoded(layout: FoldPlan, update: SampleUpdate) -> np.ndarray:
    values = np.empty(layout.size, np.float32)
    for _, start, piece in layout.iter_update(layout.split_update(update.body)[0]):
        values[start : start + piece.size] = piece
    return values


@pytest.mark.parametrize("encoding", list(Encoding))
def test_exactly_what_is_declared_is_kept_as_it_is_folded(tmp_path: Path, encoding: Encoding) -> None:
    layout = plan("encoder", "buffers", "moments", encoding=encoding)
    update = sample_update(layout, 1)
    spool = Spool(tmp_path / "collected", layout)
    spool.add("a", update.weight, update.body)
    (entry,) = spool.entries()
    assert (entry.client, entry.weight) == ("a", update.weight)
    groups, whole = layout.declaration.spec.groups, decoded(layout, update)
    wanted = np.concatenate([whole[groups["encoder"]], whole[groups["buffers"]]])
    assert read_npy(entry.values).tobytes() == wanted.tobytes()
    assert read_npy(entry.statistics).tolist() == update.statistics["moments"].reshape(-1).tolist()


def test_a_method_may_collect_statistics_alone(tmp_path: Path) -> None:
    layout = plan("loss_sum")
    update = sample_update(layout, 1)
    spool = Spool(tmp_path / "collected", layout)
    spool.add("a", update.weight, update.body)
    (entry,) = spool.entries()
    assert read_npy(entry.values).shape == (0,)
    assert read_npy(entry.statistics).tolist() == [float(update.statistics["loss_sum"])]


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(["b", "a", "c.1", "c-1", "Z"]))
def test_they_come_back_in_client_id_order_whatever_the_order_they_came_in(
    tmp_path_factory: pytest.TempPathFactory, order: list[str]
) -> None:
    layout = plan("encoder")
    updates = dict(zip(sorted(order), [sample_update(layout, seed) for seed in range(5)], strict=True))
    spool = Spool(tmp_path_factory.mktemp("spool") / "collected", layout)
    for client in order:
        spool.add(client, updates[client].weight, updates[client].body)
    where = layout.declaration.spec.groups["encoder"]
    assert [entry.client for entry in spool.entries()] == sorted(order)
    for entry in spool.entries():
        wanted = decoded(layout, updates[entry.client])[where]
        assert read_npy(entry.values).tobytes() == wanted.tobytes()


def test_clearing_leaves_no_file_and_starting_clears(tmp_path: Path) -> None:
    layout = plan("encoder")
    update = sample_update(layout, 1)
    folder = tmp_path / "collected"
    spool = Spool(folder, layout)
    spool.add("a", update.weight, update.body)
    assert list(folder.iterdir())
    spool.clear()
    assert not list(folder.iterdir())
    assert spool.entries() == ()
    spool.add("a", update.weight, update.body)
    assert Spool(folder, layout).entries() == ()
    assert not list(folder.iterdir())


def test_a_medium_that_refuses_once_can_be_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = plan("encoder")
    update = sample_update(layout, 1)
    spool = Spool(tmp_path / "collected", layout)

    def refuse(*_: object) -> None:
        raise OSError(28, "full")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        with pytest.raises(StorageFailed, match="the disk is full"):
            spool.add("a", update.weight, update.body)
    assert spool.entries() == ()
    spool.add("a", update.weight, update.body)
    assert len(spool.entries()) == 1

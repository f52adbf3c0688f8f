"""Clients that are trained together: the same bits as one by one, written now and then, nothing bad in the sum."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from ssd.digest import canonical_json
from ssd.methods.synthetic.method import create
from ssd.updates.codec import Encoding
from ssd.updates.fold import Fold, FoldPlan
from worker.errors import TaskFault
from worker.training import together
from worker.training.client_data import ClientData
from worker.training.together import GrowingFold
from worker.training.train import MethodCache, Trained, train_client

CLIENTS = "abcde"


class Place:
    """A method, its declaration on disk, and a fold whose reports and clock the test holds."""

    def __init__(self, path: Path, encoding: Encoding, **config: Any) -> None:
        method = create({"parameters": 3000, **config})
        declaration = method.declare()
        self.plan = FoldPlan.create(declaration, encoding, 10, 64)
        self.path = path
        (path / "declaration").write_bytes(canonical_json(declaration.to_json()))
        (path / "base").write_bytes(method.initial(1, None).astype("<f4").tobytes())
        self.prepared = {
            "declaration": str(path / "declaration"),
            "declaration_digest": declaration.digest,
            "base": str(path / "base"),
            "artefacts": {},
            "update_encoding": encoding.value,
            "max_cohort": 10,
            "max_client_weight": 64,
            "clip_norm": None,
        }
        self.methods = MethodCache({})
        self.reports: list[dict[str, Any]] = []
        self.now = 0.0
        self.fold = GrowingFold(str(path / "f"), self.reports.append, lambda: self.now)

    def order(self, client: str) -> dict[str, Any]:
        return {
            "client": client,
            "round": 1,
            "rounds": 3,
            "run_seed": 5,
            "values": {},
            "threads": 1,
            "quality": False,
            "expected_clients": 10,
            "scaling": None,
            "state": None,
            "state_out": str(self.path / f"{client}.state"),
            "prepared": self.prepared,
        }

    def trained(self, client: str) -> Trained:
        return train_client(self.order(client), self.methods, ClientData(None, 1), "cpu", lambda *_: None)

    def add(self, clients: str) -> None:
        for client in clients:
            self.fold.add(self.order(client), self.trained(client))

    def file(self, report: dict[str, Any]) -> bytes:
        return (self.path / f"{report['name']}.fold").read_bytes()


@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_fold_is_bit_for_bit_that_of_the_single_updates(tmp_path: Path, encoding: Encoding) -> None:
    place = Place(tmp_path, encoding)
    expected = Fold(place.plan)
    for client in reversed(CLIENTS):
        trained = place.trained(client)
        expected.add_update(trained.body, trained.weight)
    place.add(CLIENTS)
    place.fold.close()
    (report,) = place.reports
    assert place.file(report) == expected.pack()
    assert [member["client"] for member in report["members"]] == list(CLIENTS)
    assert report["closed"]
    assert all((tmp_path / f"{client}.state").is_file() for client in CLIENTS)


def test_each_file_takes_the_place_of_the_one_before_and_has_everybody(tmp_path: Path) -> None:
    place = Place(tmp_path, Encoding.FLOAT32)
    place.add("a")
    place.fold.write_if_due()
    assert not place.reports, "it is too soon"
    place.now += together.LEAST_SECONDS
    place.fold.write_if_due()
    place.add("bc")
    place.fold.close()
    first, second = place.reports
    assert (first["before"], second["before"]) == ("", first["name"])
    assert (first["added"], second["added"]) == (["a"], ["b", "c"])
    assert [member["client"] for member in second["members"]] == ["a", "b", "c"]
    assert not first["closed"]


def test_writing_takes_a_small_part_of_the_time_however_long_it_takes(tmp_path: Path) -> None:
    place = Place(tmp_path, Encoding.FLOAT32)
    place.add("a")
    place.fold._cost = 0.1  # what the file before took
    place.now += together.TIMES_ITS_COST * 0.1 - 0.01
    place.fold.write_if_due()
    assert not place.reports
    place.now += 0.02
    place.fold.write_if_due()
    assert len(place.reports) == 1


def test_closing_with_nothing_new_writes_no_file_again(tmp_path: Path) -> None:
    place = Place(tmp_path, Encoding.FLOAT32)
    place.add("a")
    place.now += together.LEAST_SECONDS
    place.fold.write_if_due()
    place.fold.close()
    first, second = place.reports
    assert first["name"] == second["name"] == second["before"]
    assert second["closed"]
    assert second["added"] == []
    place.add("b")
    place.fold.close()
    assert [member["client"] for member in place.reports[-1]["members"]] == ["b"]
    assert place.reports[-1]["name"] != first["name"]


@pytest.mark.parametrize("failure", ["over_norm", "over_bound", "bad_statistic"])
def test_a_bad_update_leaves_no_trace(tmp_path: Path, failure: str) -> None:
    place = Place(tmp_path, Encoding.FLOAT32, fail_clients={"c": failure})
    expected = Fold(place.plan)
    for client in "ab":
        trained = place.trained(client)
        expected.add_update(trained.body, trained.weight)
    place.add("ab")
    with pytest.raises(TaskFault):
        place.add("c")
    place.fold.close()
    (report,) = place.reports
    assert place.file(report) == expected.pack()
    assert [member["client"] for member in report["members"]] == ["a", "b"]
    assert not (tmp_path / "c.state").exists()


def test_a_full_disk_loses_those_in_no_file_and_the_next_fold_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, Encoding.FLOAT32)
    place.add("a")
    place.now += together.LEAST_SECONDS
    place.fold.write_if_due()
    place.add("b")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(together, "write_whole", full)
        assert place.fold.lost() == ["b"]
        with pytest.raises(OSError, match="no space"):
            place.fold.close()
    place.add("b")
    place.fold.close()
    assert [[m["client"] for m in report["members"]] for report in place.reports] == [["a"], ["b"]]

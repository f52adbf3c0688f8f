"""A coordinator names the method. Whatever it names, a worker runs only its own code and its own operator's files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rounds.worker_harness import federation
from ssd.digest import canonical_json, json_digest
from ssd.methods.self_supervised import ssd
from ssd.methods.synthetic.method import create
from ssd.updates.codec import Encoding
from ssd.updates.fold import FoldPlan, encode_update
from ssd.updates.quality_sums import artefacts, in_declared_form
from training.training_samples import SMALL, train
from worker.errors import TaskFault
from worker.training.train import MethodCache

FILE = """
from pathlib import Path
from ssd.methods.synthetic.method import SyntheticConfig, SyntheticMethod
Path(__file__).with_name("executed").write_text("")
def create(config):
    return SyntheticMethod(SyntheticConfig(**config))
"""
PATHS = (
    "{folder}/evil.py", "evil.py", "./evil.py", "{folder}/evil", "{folder}/evil.PY", "{folder}/../{name}/evil.py",
    "file://{folder}/evil.py", "evil.py\n", "evil.py\0.py", "evil", "ssd.methods.synthetic.method", "os", "",
)  # fmt: skip
"""Ways to name `evil.py` in `{folder}`, which is also the working directory, and names that no method has."""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the file and without a trace of its execution; it is the working directory, too."""
    folder = tmp_path / "planted"
    folder.mkdir()
    for name in ("evil.py", "evil", "evil.PY"):
        # The path is in the text, too: a file of known content is not executed again in one process.
        (folder / name).write_text(f"{FILE}# {folder / name}\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def declared(folder: Path, method: Any) -> tuple[str, str]:
    """A declaration file of that method, in all else the synthetic one's, and the digest it claims."""
    value = create({"parameters": 64}).declare().to_json() | {"method": method}
    path = folder / "declaration"
    path.write_bytes(canonical_json(value))
    return str(path), json_digest(value)


@pytest.mark.parametrize("name", PATHS)
def test_no_name_that_is_received_makes_a_file_run(planted: Path, name: str) -> None:
    path, digest = declared(planted, name.format(folder=planted, name=planted.name))
    with pytest.raises((TaskFault, ValueError)):
        MethodCache({}).get(path, digest)
    assert not (planted / "executed").exists()


@pytest.mark.parametrize("name", [None, 7, ["evil.py"], {"file": "evil.py"}, True])
def test_a_name_that_is_no_text_is_refused(planted: Path, name: Any) -> None:
    with pytest.raises(ValueError, match="no name of a method"):
        MethodCache({}).get(*declared(planted, name))


def test_only_the_operators_own_table_makes_a_file_of_a_name(planted: Path) -> None:
    path, digest = declared(planted, "evil")
    with pytest.raises(TaskFault) as refused:
        MethodCache({"other": str(planted / "evil.py")}).get(path, digest)
    assert refused.value.reason == "method_unavailable"
    assert not (planted / "executed").exists()
    with pytest.raises(TaskFault) as differs:  # it declares itself as synthetic
        MethodCache({"evil": str(planted / "evil.py")}).get(path, digest)
    assert differs.value.reason == "declaration_differs"
    assert (planted / "executed").exists()


def test_a_run_of_an_older_release_goes_on_with_its_own_quality_sums(tmp_path: Path) -> None:
    method = ssd.create({**SMALL, "quality": {"frequencies": 64, "images": 60, "min_images": 30}})
    newer = method.declare()
    value = newer.to_json()
    del value["quality"]["moments"]
    path = tmp_path / "declaration"
    path.write_bytes(canonical_json(value))
    _, declaration = MethodCache({}).get(str(path), json_digest(value))  # declaration_differs before
    assert declaration.quality is not None
    assert not declaration.quality.moments
    made = {**method.artefacts(0), **artefacts(declaration.quality, 0)}
    result = train(method, artefacts=made, quality=True)
    plan = FoldPlan.create(declaration, Encoding.FLOAT32, 4, 1000, quality=True)
    statistics = in_declared_form(result.statistics, declaration.quality)
    encode_update(plan, result.delta, statistics)  # refuses anything that is not declared
    whole = result.statistics["quality_h_gram"] + result.statistics["quality_h_gram_rest"]
    assert (statistics["quality_h_gram"] == whole).all()
    assert in_declared_form(result.statistics, newer.quality) == result.statistics


@pytest.mark.parametrize("name", ["{folder}/evil.py", "evil.py", "evil"])
def test_a_worker_whose_coordinator_names_a_file_refuses_the_task_and_goes_on(
    planted: Path, name: str
) -> None:
    async def scenario() -> None:
        async with federation(planted / "state", ["a"]) as (coordinator, worker):
            coordinator.declare(method=name.format(folder=planted))
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            failed = await stream.receive("task_failed")
            assert failed.reason in {"declaration_unreadable", "method_unavailable"}
            assert not (planted / "executed").exists()
            assert not worker.task.done()

    asyncio.run(asyncio.wait_for(scenario(), 60))

"""Names of images, folders and classes, and numbers of images, do not leave a worker, whatever fails there.

A coordinator chooses image sizes, bounds and methods, so it chooses what fails. Here names, a path and a number are
planted and everything that can fail is made to fail. All that reaches the coordinator, and what the worker's metrics
show, is searched. The worker's own log has to say what happened.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

from processes.own_log import own_log
from rounds.worker_harness import Worker, start_worker
from ssd.method.registry import load
from ssd_proto.v1 import federation_pb2 as pb
from ssd_wire.reasons import OTHER, TASK_FAILURES
from wire.fake_coordinator import FakeCoordinator
from worker.core.public_reasons import SEE_LOG, SENTENCES, public
from worker.training.process import ProcessTrainer, TrainerSettings

PLANTED = ("melanoma", "surname", "given", "1961", "ward-7")
COUNT = 17
CONFIG: dict[str, Any] = {
    "image": {"size": 16, "channels": 3}, "model": {"name": "small", "feature_dim": 8, "width": 4}, "batch_size": 8,
}  # fmt: skip
LEAKY = """
from ssd.methods.synthetic.method import SyntheticConfig, SyntheticMethod
from pathlib import Path
class Leaky(SyntheticMethod):
    def train(self, task, data, progress):
        raise {error}(f"{{__file__}}: 17 images, surname_given_1961-05-05_melanoma.png")
    def evaluate(self, task, probe):
        raise {error}(f"{{__file__}}: 17 images, surname_given_1961-05-05_melanoma.png")
def create(config):
    {create}
    return Leaky(SyntheticConfig(**config))
"""


@dataclass(kw_only=True)
class Place:
    """A worker's images, and how the coordinator has them fail."""

    root: Path
    config: dict[str, Any] = field(default_factory=dict)
    """Of the method, over CONFIG."""
    welcome: dict[str, Any] = field(default_factory=dict)
    method: str = "fed_align_uniform"
    files: dict[str, str] = field(default_factory=dict)
    """The worker's own [methods]."""

    @property
    def folder(self) -> Path:
        return self.root / "ward-7" / "melanoma"

    def images(self, count: int = COUNT, side: int = 24) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(0)
        for number in range(count):
            pixels = draw.integers(0, 255, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.folder / f"surname_given_1961-05-{number:02}_melanoma.png")


def broken(place: Place) -> None:
    place.folder.mkdir(parents=True)
    for number in range(COUNT):
        (place.folder / f"surname_given_1961-05-{number:02}_melanoma.jpg").write_bytes(bytes(400))


def too_small(place: Place) -> None:
    place.images()
    place.config["image"] = {"size": 64, "channels": 3}


def too_few(place: Place) -> None:
    place.images(1)


def no_folder(place: Place) -> None:
    place.root.mkdir(exist_ok=True)


def heavy(place: Place) -> None:
    place.images()
    place.welcome["max_client_weight"] = 1


def own_method(error: str, create: str = "pass") -> Callable[[Place], None]:
    def arrange(place: Place) -> None:
        path = place.root / "ward-7" / "surname.py"
        path.parent.mkdir(parents=True)
        path.write_text(LEAKY.format(error=error, create=create))
        place.method, place.files = "synthetic", {"synthetic": str(path)}

    return arrange


def differing(place: Place) -> None:
    own_method("RuntimeError", "config = dict(config, parameters=17)")(place)


CASES: dict[str, tuple[Callable[[Place], None], str, str]] = {
    "broken files": (broken, "data_missing", "17"),
    "images smaller than asked for": (too_small, "data_missing", "17"),
    "one image": (too_few, "data_missing", "1"),
    "no folder": (no_folder, "data_missing", "ward-7"),
    "a weight over the bound": (heavy, "weight_out_of_range", "allowed are 1 to 1"),
    "a method that fails": (own_method("RuntimeError"), "training_failed", "melanoma"),
    "a method that diverges": (own_method("ArithmeticError"), "training_diverged", "melanoma"),
    "a method without memory": (own_method("MemoryError"), "out_of_memory", "melanoma"),
    "a method that misses a file": (own_method("FileNotFoundError"), "data_missing", "melanoma"),
    "a method that cannot write": (own_method("OSError"), "training_failed", "melanoma"),
    "a method that is not built": (
        own_method("RuntimeError", 'raise ValueError(f"{__file__}: melanoma")'), "method_unavailable", "melanoma",
    ),
    "a method that declares otherwise": (differing, "declaration_differs", "declares other"),
}  # fmt: skip


async def provoked(
    place: Place, asks: Callable[[FakeCoordinator], dict[str, Any]], kind: str
) -> tuple[Any, str]:
    """What a worker answers to what is asked; and all that it said, with its metrics, as text."""
    coordinator = FakeCoordinator()
    if place.method != "synthetic":
        coordinator.use(load(place.method, {**CONFIG, **place.config}))
    for name, value in place.welcome.items():
        setattr(coordinator, name, value)
    data = {
        "kind": "folder", "root": None, "partition": None, "folders": {"a": str(place.folder)}, "test_folders": {},
        "probe": str(place.folder), "index_dir": None, "labels": "none", "classes": [],
    }  # fmt: skip

    def trainer(store: Any, driver: Any) -> ProcessTrainer:
        settings = TrainerSettings(
            device="cpu", stop_seconds=1.0, log_level="warning", data=data, methods=place.files
        )
        return ProcessTrainer(settings, store, driver.post, driver.progress)

    await coordinator.start()
    worker: Worker = start_worker(coordinator.target, place.root / "state", ["a"], trainer=trainer)
    try:
        stream = await coordinator.attended()
        stream.send(**asks(coordinator))
        answer = await stream.receive(kind)
        said = [
            text_format.MessageToString(each, as_utf8=True) for each in (stream.hello, *coordinator.heard)
        ]
        return answer, "\n".join([*said, worker.metrics.render().decode()])
    finally:
        await worker.crash()
        await coordinator.stop()


def nothing_left(text: str, place: Place) -> None:
    for planted in (*PLANTED, str(place.root), str(place.root.parent)):
        assert planted not in text, text


@pytest.mark.parametrize("name", CASES)
def test_a_failed_task_tells_a_reason_and_its_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    arrange, reason, logged = CASES[name]
    place = Place(root=tmp_path / "host")
    arrange(place)
    answer, said = asyncio.run(
        asyncio.wait_for(
            provoked(place, lambda it: {"train": it.train(["a"], values={"lr": 0.05})}, "task_failed"), 60
        )
    )
    assert (answer.reason, answer.detail) == public(reason)
    nothing_left(said, place)
    assert logged in own_log(caplog)


@pytest.mark.parametrize("name", ["a method that fails", "a method that is not built", "broken files"])
def test_a_failed_evaluation_tells_a_reason_and_its_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    arrange, reason, _ = CASES[name]
    place = Place(root=tmp_path / "host")
    arrange(place)

    def asks(coordinator: FakeCoordinator) -> dict[str, Any]:
        return {"evaluate": pb.Evaluate(version=coordinator.version(), run_seed=1)}

    answer, said = asyncio.run(asyncio.wait_for(provoked(place, asks, "evaluation_done"), 60))
    assert answer.error == ": ".join(public(reason))
    nothing_left(said, place)
    assert str(place.root) in own_log(caplog)


def test_every_sentence_is_fixed_and_holds_no_number() -> None:
    assert SENTENCES.keys() == TASK_FAILURES
    for reason, sentence in SENTENCES.items():
        assert public(reason) == (reason, f"{sentence}; {SEE_LOG}")
        assert not re.search(r"[\d{}%]", sentence)
    assert public("surname_given_melanoma")[0] == OTHER

"""Personal models on real images through the real daemons: what is recorded is what the clients' own models are worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from coordinator.store.files.blobs import FileBlobs
from processes.federation import Federation
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_builtin, open_client, open_client_test
from ssd.data.partition.held_out import with_test
from ssd.data.partition.partition import dirichlet, save
from ssd.method.protocol import ClientEvaluationTask
from ssd.method.registry import load
from worker.store.sqlite import SqliteStore

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index:03d}" for index in range(6)]
GREY_8 = ImageFormat(size=8, channels=1)
METHOD = {
    "image": {"size": 8, "channels": 1},
    "model": {"name": "small"},
    "local_epochs": 1,
    "batch_size": 32,
    "lr": 0.05,
}
SETTINGS = {
    "run.clients": CLIENTS,
    "run.rounds": 3,
    "run.seed": 5,
    "round.cohort_size": 4,
    "method.name": "backbone_distillation",
    "method.config": METHOD,
    "evaluation.every": 3,
    "evaluation.workers": ["worker-0"],
}


@pytest.fixture
def partition(tmp_path: Path) -> Path:
    digits = open_builtin(DataConfig(kind="digits"), GREY_8)
    drawn = dirichlet(digits.train.labels.tolist(), 6, 0.3, 1, dataset="digits")
    path = tmp_path / "partition.json"
    save(with_test(drawn, "proportional", digits.test.labels.tolist(), digits.test_identity.name), path)
    return path


def test_the_record_is_the_mean_over_clients_of_their_models_on_their_own_test_images(
    tmp_path: Path, partition: Path
) -> None:
    data = {"data.kind": "digits", "data.partition": partition}
    with Federation(tmp_path, **SETTINGS) as federation:
        federation.start_coordinator()
        for index in range(2):
            config = {**data, "data.evaluates": index == 0}
            federation.start_worker(f"worker-{index}", CLIENTS[index::2], config=config)
        assert federation.finish() == 0
        for worker in federation.workers.values():
            worker.terminate()
        store = federation.store()
        run, newest, measured = store.current_run(), store.versions()[-1], dict(store.evaluations())
        store.close()
        blob = FileBlobs(federation.state_dir).open(newest.full.digest)
        vector = np.frombuffer(blob.read(0, newest.full.size), "<f4")
    assert newest.number == 3
    method = load("backbone_distillation", METHOD)
    where = DataConfig(kind="digits", partition=partition)
    correct, images = [], []
    for index, client in enumerate(CLIENTS):
        own = SqliteStore(tmp_path / "workers" / f"worker-{index % 2}")
        state = own.client_state(run.run_id, client)[1]
        own.close()
        task = ClientEvaluationTask(
            run_seed=5, version=3, client_id=client, vector=vector,
            state={} if state is None else safetensors.numpy.load_file(state),
        )  # fmt: skip
        train, test = open_client(where, client, GREY_8), open_client_test(where, client, GREY_8)
        values = method.evaluate_client(task, train, test)
        correct.append(values["correct"])
        images.append(values["images"])
    assert sum(images) == 360
    accuracies = np.divide(correct, images)
    recorded = measured[3]
    assert recorded["personalised_clients"] == 6
    assert recorded["personalised_accuracy"] == pytest.approx(accuracies.mean())
    assert recorded["personalised_accuracy_std"] == pytest.approx(accuracies.std())
    assert recorded["pooled_client_accuracy"] == pytest.approx(sum(correct) / 360)
    # Personal heads know which classes their client has: version 0 did not.
    assert recorded["personalised_accuracy"] > measured[0]["personalised_accuracy"] + 0.2


def test_a_worker_whose_images_have_no_labels_is_refused_and_both_sides_say_so(tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photographs" / "one.png")
    with Federation(tmp_path, **SETTINGS) as federation:
        coordinator = federation.start_coordinator()
        data = {
            "data.kind": "folder",
            "data.folders": dict.fromkeys(CLIENTS, tmp_path / "photographs"),
        }
        worker = federation.start_worker("unlabelled", CLIENTS, config=data)
        assert worker.wait() == 3
        assert "labels_needed" in worker.log.read_text()
        assert "one sub-folder per class" in worker.log.read_text()
        (told,) = coordinator.events("labels_needed")
        assert (told["worker"], told["clients"]) == ("unlabelled", 6)
        assert [event["reason"] for event in coordinator.events("refused")] == ["labels_needed"]
        evaluator = federation.start_worker("evaluator", [], config={"data.kind": "digits"})
        federation.until(lambda: evaluator.events("connected"), "an evaluator is let in")

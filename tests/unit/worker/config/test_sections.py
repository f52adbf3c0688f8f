"""The configuration tree: precedence, complaints, contradictions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worker.app import secure_settings
from worker.config.hosted_clients import data_fields, has_client_tests, has_labels, hosted_clients
from worker.config.sections import load
from worker.errors import ConfigInvalid

INSECURE = {"transport.insecure": True}
FOLDERS = '[transport]\ninsecure = true\n[data]\nkind = "folder"\nclients = ["*"]\nfolders = { a = "x" }\n'


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def complaint(path: Path, text: str, **flags: object) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        load(write(path / "worker.toml", text), flags, {})
    return str(caught.value)


def test_defaults_need_nothing_but_the_word_insecure() -> None:
    config = load(None, INSECURE, {})
    assert config.worker.coordinator == "127.0.0.1:7443"
    assert config.worker.name
    assert config.data.kind == "none"
    assert not config.evaluates


def test_all_mistakes_are_told_at_once_with_line_and_nearest_name(tmp_path: Path) -> None:
    text = """
[worker]
nmae = "x"
device = "tpu"
[data]
clientz = []
[wroker]
x = 1
"""
    lines = complaint(tmp_path, text).splitlines()
    assert len(lines) == 4
    file = tmp_path / "worker.toml"
    assert f"{file}:3: [worker] nmae: unknown key; did you mean name?" in lines
    assert f"{file}:6: [data] clientz: unknown key; did you mean clients?" in lines
    assert any(f"{file}:7" in line and "unknown table; did you mean worker?" in line for line in lines)
    assert any(f"{file}:4: [worker] device:" in line and "cuda:N" in line for line in lines)


def test_a_key_of_another_table_is_told_where_it_belongs(tmp_path: Path) -> None:
    assert "it belongs into [data]" in complaint(tmp_path, '[worker]\npartition = "p"\n')


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="SSD_WORKER_MAX_CACHED_VERSIONS.*max_cached_versions"):
        load(None, INSECURE, {"SSD_WORKER_MAX_CACHED_VERSIONS": "1"})
    with pytest.raises(ConfigInvalid, match="flag worker.name"):
        load(None, {**INSECURE, "worker.name": "no spaces"}, {})


def test_other_programs_variables_are_not_ours() -> None:
    load(None, INSECURE, {"SSD_COORDINATOR_LISTEN": "x", "SSD_NONSENSE": "x", "HOME": "x"})


def test_data_and_methods_lie_beside_the_file(tmp_path: Path) -> None:
    text = '[data]\nkind = "folder"\nclients = ["*"]\nprobe = "p"\n[data.folders]\na = "a"\nb = "/b"\n[methods]\nm = "m.py"\n'
    config = load(write(tmp_path / "w.toml", text), {"methods.n": "n.py", "data.folders.c": "c"}, {})
    assert config.data.folders == {"a": tmp_path / "a", "b": Path("/b"), "c": Path("c")}
    assert config.data.probe == tmp_path / "p"
    assert config.methods == {"m": tmp_path / "m.py", "n": Path("n.py")}
    assert config.identity_dir == tmp_path / "state" / "worker" / "identity"
    assert "name" not in config.worker.model_fields_set


def test_the_identity_is_in_the_state_directory_unless_said_otherwise() -> None:
    assert load(None, {"worker.state_dir": "/w"}, {}).identity_dir == Path("/w/identity")
    assert load(None, {"transport.identity_dir": "/ids"}, {}).identity_dir == Path("/ids")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[transport]\ninsecure = true\n[worker]\ncoordinator = "10.0.0.1:1"\n', "loopback"),
        ('[transport]\ninsecure = true\n[data]\nkind = "folder"\nclients = ["a"]\n', "needs a folder"),
        (
            '[transport]\ninsecure = true\n[data]\nkind = "folder"\nclients = ["a"]\n[data.folders]\nb = "x"\n',
            "no folder",
        ),
        ('[transport]\ninsecure = true\n[data]\nkind = "digits"\nclients = ["a"]\n', "needs a partition"),
        (
            FOLDERS + 'test_folders = { a = "y" }\n',
            'need labels = "folders"',
        ),
        (
            FOLDERS + 'labels = "folders"\nclasses = ["one", "two"]\ntest_folders = { b = "y" }\n',
            "no folder is given for b",
        ),
        ('[transport]\ninsecure = true\n[data]\nclients = ["*"]\n', "partition"),
        ('[transport]\ninsecure = true\n[data]\nclients = ["a", "a"]\n', "twice"),
        ('[transport]\ninsecure = true\n[data]\nclients = ["a/b"]\n', "no client id"),
        ('[transport]\ninsecure = true\n[worker]\ncoordinator = "nowhere"\n', "host:port"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in complaint(tmp_path, text)


def test_the_resolved_tree_is_json_and_holds_every_setting() -> None:
    tree = json.loads(json.dumps(load(None, INSECURE, {}).resolved()))
    tables = {"worker", "transport", "data", "methods", "secure_aggregation", "privacy", "log", "tracing"}
    assert set(tree) == tables
    assert tree["worker"]["state_dir"] == "state/worker"


def test_who_evaluates(tmp_path: Path) -> None:
    partition = write(tmp_path / "p.json", json.dumps({"clients": {"a": {}, "b": {}}}))
    digits = {**INSECURE, "data.kind": "digits", "data.partition": str(partition), "data.clients": ["*"]}
    assert load(None, digits, {}).evaluates
    assert not load(None, {**digits, "data.evaluates": False}, {}).evaluates
    folder = {**INSECURE, "data.kind": "folder", "data.folders": {"a": "x"}, "data.clients": ["a"]}
    assert not load(None, folder, {}).evaluates
    assert load(None, {**folder, "data.probe": "p"}, {}).evaluates


def test_the_star_hosts_all_clients_there_are(tmp_path: Path) -> None:
    partition = write(tmp_path / "p.json", json.dumps({"clients": {"b": {}, "a": {}}}))
    flags = {**INSECURE, "data.kind": "digits", "data.partition": str(partition)}
    assert hosted_clients(load(None, {**flags, "data.clients": ["*"]}, {}).data) == ("a", "b")
    with pytest.raises(ConfigInvalid, match="does not name c"):
        hosted_clients(load(None, {**flags, "data.clients": ["c"]}, {}).data)
    write(partition, "{}")
    with pytest.raises(ConfigInvalid, match="no partition file"):
        hosted_clients(load(None, {**flags, "data.clients": ["*"]}, {}).data)


def test_what_a_worker_says_of_its_images_is_true(tmp_path: Path) -> None:
    rows = {"a": {"test": []}, "b": {"test": [3]}, "c": {}}
    partition = write(tmp_path / "p.json", json.dumps({"clients": rows}))
    digits = load(
        None, {**INSECURE, "data.kind": "digits", "data.partition": str(partition), "data.clients": ["*"]}, {}
    )
    assert has_labels(digits.data)
    assert has_client_tests(digits.data, ["a", "b"])
    assert not has_client_tests(digits.data, ["a", "c"])
    flags = {**INSECURE, "data.kind": "folder", "data.folders": {"a": "x", "b": "y"}, "data.clients": ["a"]}
    plain = load(None, flags, {}).data
    assert not has_labels(plain)
    assert not has_client_tests(plain, ["a"])
    classes = {**flags, "data.labels": "folders", "data.classes": ["one", "two"]}
    labelled = load(None, {**classes, "data.test_folders": {"b": "z"}}, {}).data
    assert has_labels(labelled)
    assert has_client_tests(labelled, ["b"])
    assert not has_client_tests(labelled, ["a"])
    own = load(None, {**flags, "data.labels": "folders"}, {}).data
    assert not has_labels(own), "every client would number its own classes"
    none = load(None, INSECURE, {}).data
    assert not has_labels(none)
    assert not has_client_tests(none, [])


def test_the_training_process_is_told_of_the_data_in_fields_its_config_has(tmp_path: Path) -> None:
    data_open = pytest.importorskip("ssd.data.open")
    flags = {**INSECURE, "data.kind": "folder", "data.folders": {"a": str(tmp_path)}, "data.clients": ["a"]}
    fields = data_fields(load(None, flags, {}).data, "index")
    assert fields is not None
    known = set(data_open.DataConfig.__dataclass_fields__)
    assert set(fields) <= known
    assert data_fields(load(None, INSECURE, {}).data, "index") is None


@pytest.mark.parametrize(
    ("environ", "ppm"),
    [
        ({}, 0),
        ({"LEVEL": "passive"}, 0),
        ({"LEVEL": "active"}, 100_000),
        ({"LEVEL": "active", "MIN_ASSUMED_CORRUPT": "0"}, 0),
        ({"LEVEL": "active", "MIN_ASSUMED_CORRUPT": "0.2"}, 200_000),
        ({"LEVEL": "passive", "MIN_ASSUMED_CORRUPT": "0.05"}, 50_000),
    ],
)
def test_a_worker_that_does_not_trust_the_coordinator_does_not_let_it_choose_how_many_are_corrupt(
    environ: dict[str, str], ppm: int
) -> None:
    config = load(
        None, INSECURE, {f"SSD_SECURE_AGGREGATION_{name}": value for name, value in environ.items()}
    )
    assert secure_settings(config).policy.min_gamma_ppm == ppm


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('level = "secure"', "'off', 'passive' or 'active'"),
        ("min_participants = 1", "greater than or equal to 2"),
        ("min_assumed_corrupt = 0.5", "less than 0.5"),
        ("max_tolerated_dropout = 1.0", "less than 1"),
        ("ring_bits = [20]", "16, 24 or 32"),
        ("ring_bits = []", "at least 1"),
        ("mask_threads = 0", "greater than or equal to 1"),
        ("min_participant = 3", "did you mean min_participants?"),
    ],
)
def test_what_secure_aggregation_cannot_mean_is_refused(tmp_path: Path, line: str, says: str) -> None:
    told = complaint(tmp_path, f"[transport]\ninsecure = true\n[secure_aggregation]\n{line}\n")
    assert "worker.toml:4: [secure_aggregation]" in told
    assert says in told

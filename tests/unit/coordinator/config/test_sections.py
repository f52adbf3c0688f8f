"""Configuration: every mistake at once and where it stands; what may change on an existing run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from coordinator.config.cross_checks import changed_keys, flatten
from coordinator.config.derived import plan_of, policy_of, settings_of
from coordinator.config.sections import MUTABLE, CoordinatorConfig, is_mutable, load, refuse_changes
from coordinator.errors import ConfigInvalid, RunConfigChanged
from ssd.daemon.address import Address
from ssd.method.registry import load as load_method

EXAMPLES = Path(__file__).parents[4] / "deploy" / "config"
LOCAL = {"transport.insecure": True}


def made(**overrides: Any) -> CoordinatorConfig:
    """Defaults with `table__key` overrides."""
    return load(None, LOCAL | {key.replace("__", "."): value for key, value in overrides.items()}, {})


def mistakes(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """What is said about a file, one mistake per line, without the directory."""
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigInvalid) as caught:
        load(path, LOCAL, environ or {})
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


class TestExamples:
    @pytest.mark.parametrize("path", sorted(EXAMPLES.glob("coordinator*.toml")), ids=lambda path: path.name)
    def test_it_loads_and_its_method_accepts_its_configuration(self, path: Path) -> None:
        config = load(path, {}, {})
        declaration = load_method(config.method.name, config.method.config).declare()
        assert plan_of(declaration, config).update_nbytes < config.limits.staging_disk_bytes
        policy_of(config, declaration)
        settings_of(config)

    def test_there_are_some(self) -> None:
        assert len(sorted(EXAMPLES.glob("coordinator*.toml"))) >= 2

    @pytest.mark.parametrize("path", sorted(EXAMPLES.glob("coordinator*.toml")), ids=lambda path: path.name)
    def test_it_names_no_directory_of_a_particular_machine(self, path: Path) -> None:
        assert not re.search(r'"/(?!metrics)', path.read_text())


class TestSources:
    def test_settings_of_the_method_can_be_given_one_by_one(self, tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.write_text("[method.config]\nlr = 0.1\nmodel = { name = 'small' }\n")
        overrides = LOCAL | {"method.config.lr": "0.2", "method.config.model.width": "16"}
        config = load(path, overrides, {})
        assert config.method.config == {"lr": 0.2, "model": {"name": "small", "width": 16}}

    def test_a_workers_variables_are_left_alone(self) -> None:
        load(None, LOCAL, {"SSD_WORKER_NAME": "x", "SSD_DATA_KIND": "folder"})


class TestMistakes:
    def test_all_of_them_at_once_each_with_its_place(self, tmp_path: Path) -> None:
        text = """
[coordinator]
listn = "127.0.0.1:7443"
cohort_size = 3
[runn]
x = 1
[run]
mode = "reproducible"
clients = ["a b"]
rounds = "10"
[round]
over_selection = 1.5
deadline_seconds = inf
[limits]
max_message_bytes = 1000
[method.config]
when = 2020-01-01
"""
        found = mistakes(tmp_path, text, {"SSD_LOG_LEVEL": "loud"})
        assert sorted(found) == sorted(
            [
                "c.toml:3: [coordinator] listn: unknown key; did you mean listen?",
                "c.toml:4: [coordinator] cohort_size: unknown key; it belongs into [round]",
                "c.toml:5: [runn]: unknown table; did you mean run?",
                "c.toml:9: [run] clients: 'a b' is no client id: use 1 to 128 of A-Z a-z 0-9 . _ -",
                "c.toml:10: [run] rounds: must be a valid integer, not '10'",
                "c.toml:13: [round] deadline_seconds: must be a finite number, not inf",
                "c.toml:15: [limits] max_message_bytes: must be greater than or equal to 1114112, not 1000",
                "c.toml:16: [method] config: when is neither text, finite number, boolean, array nor table",
                "SSD_LOG_LEVEL: [log] level: must be 'debug', 'info', 'warning' or 'error', not 'loud'",
                (
                    "c.toml:12: [round] over_selection: a reproducible run waits for its whole cohort: leave "
                    "over_selection at 1.0, or set mode = elastic"
                ),
            ]
        )

    def test_a_consequence_of_another_mistake_is_not_reported(self, tmp_path: Path) -> None:
        found = mistakes(tmp_path, '[run]\nmode = "reproducible"\nclients = ["a b"]\n')
        assert len(found) == 1

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("run = 3", "[run]: must be a table"),
            ("[run]\nrounds = 0", "must be greater than or equal to 1, not 0"),
            ("[run]\nrounds = true", "must be a valid integer, not True"),
            ("[run]\nrounds = 1.5", "must be a valid integer, not 1.5"),
            ('[run]\nclients = ["a", "a"]', "a client is named twice"),
            ('[run]\nclients = ["a", 3]', "must be a valid string, not 3"),
            ('[run]\nmode = "fast"', "must be 'elastic' or 'reproducible', not 'fast'"),
            ('[coordinator]\nlisten = "7443"', "'7443' is no address"),
            ('[coordinator]\nhttp_listen = "::1:80"', "'::1:80' is no address"),
            ("[round]\ndeadline_quantile = 0", "must be greater than 0, not 0"),
            ("[strategy]\nmomentum = 1.0", "must be less than 1, not 1.0"),
            ("[limits]\nstaging_ram_bytes = 0\nstaging_disk_bytes = 0", "both budgets are 0"),
            ("[method.config]\nlr = nan", "lr is neither"),
        ],
    )
    def test_values(self, tmp_path: Path, text: str, said: str) -> None:
        (found,) = mistakes(tmp_path, text)
        assert said in found


class TestContradictions:
    def test_without_tls_it_must_be_said_and_stay_on_this_machine(self) -> None:
        assert not load(None, {"coordinator.listen": "0.0.0.0:7443"}, {}).transport.insecure
        for listen in ("0.0.0.0:7443", "192.168.1.7:7443", "coordinator.example:7443", "[::]:7443"):
            with pytest.raises(ConfigInvalid, match="open to other machines"):
                made(coordinator__listen=listen)
        for listen in ("127.0.0.1:0", "127.3.2.1:1", "[::1]:7443", "localhost:7443", "unix:/run/c.sock"):
            assert made(coordinator__listen=listen).coordinator.listen == listen

    def test_certificates_and_state_lie_beside_the_file_unless_their_paths_are_whole(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "site" / "c.toml"
        file.parent.mkdir()
        file.write_text('[transport]\ncertificate = "own.pem"\nkey = "/keys/own.key"\n')
        config = load(file, {}, {})
        assert config.transport.authority == file.parent / "pki" / "ca.pem"
        assert config.transport.certificate == file.parent / "own.pem"
        assert config.transport.key == Path("/keys/own.key")
        assert config.coordinator.state_dir == file.parent / "state" / "coordinator"
        assert load(None, {}, {}).transport.authority == Path("pki/ca.pem")

    def test_https_takes_a_certificate_and_its_key(self) -> None:
        with pytest.raises(ConfigInvalid, match="takes both"):
            made(coordinator__http_certificate="c.pem")
        assert made().http_identity is None
        both = made(coordinator__http_certificate="c.pem", coordinator__http_key="k.pem")
        assert both.http_identity == (Path("c.pem"), Path("k.pem"))

    def test_more_updates_than_a_cohort_has(self) -> None:
        with pytest.raises(ConfigInvalid, match=r"\[round\] min_updates: .*5 updates of a cohort of 4"):
            made(round__min_updates=5, round__cohort_size=4)

    def test_a_cohort_larger_than_the_clients(self) -> None:
        with pytest.raises(ConfigInvalid, match=r"a cohort of 3 cannot be drawn from 2 clients"):
            made(round__cohort_size=3, run__clients=["a", "b"])
        with pytest.raises(ConfigInvalid, match=r"a cohort of 3 cannot be drawn from 2 clients"):
            made(round__cohort_size=3, run__expected_clients=2)
        made(round__cohort_size=3, run__clients=["a", "b"], run__expected_clients=3)

    def test_fewer_expected_than_named(self) -> None:
        with pytest.raises(ConfigInvalid, match="1 are expected but 2 are named"):
            made(run__expected_clients=1, run__clients=["a", "b"])

    def test_a_reproducible_run_has_no_deadline_no_spare_clients_and_knows_its_clients(self) -> None:
        known = {"run__mode": "reproducible", "run__clients": ["a"], "round__cohort_size": 1}
        made(**known)
        made(run__mode="reproducible", run__expected_clients=10)
        with pytest.raises(ConfigInvalid, match=r"over_selection at 1\.0"):
            made(**known, round__over_selection=1.2)
        with pytest.raises(ConfigInvalid, match="remove deadline_quantile"):
            made(**known, round__deadline_quantile=0.5)
        with pytest.raises(ConfigInvalid, match="must know its clients"):
            made(run__mode="reproducible")

    def test_differential_privacy_where_it_cannot_hold(self) -> None:
        with pytest.raises(ConfigInvalid, match=r"\[privacy\] mechanism: .*set mode = elastic"):
            made(privacy__mechanism="central", run__mode="reproducible", run__expected_clients=10)
        with pytest.raises(ConfigInvalid, match="mechanism = distributed"):
            made(privacy__mechanism="central", secure_aggregation__level="passive")
        with pytest.raises(ConfigInvalid, match=r"mechanism = central"):
            made(privacy__mechanism="distributed")
        masked = {"privacy__mechanism": "distributed", "secure_aggregation__level": "passive"}
        # Ten clients, of which one is assumed corrupt.
        made(**masked, privacy__min_honest=9)
        with pytest.raises(ConfigInvalid, match=r"\[privacy\] min_honest: 10 honest workers and 1"):
            made(**masked, privacy__min_honest=10)
        made(**masked, privacy__min_honest=10, secure_aggregation__assumed_corrupt=0.0)
        for wrong in (0, -1.0, "nan", 1e400):
            with pytest.raises(ConfigInvalid):
                made(privacy__noise_multiplier=wrong)

    def test_the_terms_of_differential_privacy_are_fixed_for_the_run(self) -> None:
        before = made(privacy__mechanism="central")
        for change in ({"noise_multiplier": 2.0}, {"clip_norm": 2.0}, {"delta": 1e-6}, {"mechanism": "off"}):
            after = made(
                **{"privacy__mechanism": "central"} | {f"privacy__{k}": v for k, v in change.items()}
            )
            with pytest.raises(RunConfigChanged, match=r"privacy\."):
                refuse_changes(before.run_config(), after)


class TestTree:
    def test_it_is_frozen(self) -> None:
        config = made()
        with pytest.raises(ValidationError):
            config.run.rounds = 3  # type: ignore[misc]  # that is the point
        with pytest.raises(ValidationError):
            config.run = config.run  # type: ignore[misc]  # that is the point

    def test_resolved_is_plain_json_and_loads_again(self) -> None:
        config = made(
            run__clients=["a"], round__cohort_size=1, method__config={"lr": 0.1, "model": {"width": 3}}
        )
        tree = json.loads(json.dumps(config.resolved()))
        assert tree["coordinator"]["state_dir"] == "state/coordinator"
        again = load(None, {key: value for key, value in flatten(tree).items() if value is not None}, {})
        assert again == config

    def test_every_setting_is_documented(self) -> None:
        for name, info in CoordinatorConfig.model_fields.items():
            section = info.annotation
            assert isinstance(section, type)
            assert issubclass(section, BaseModel)
            for key, field in section.model_fields.items():
                assert field.description, f"{name}.{key}"

    def test_addresses_are_taken_apart(self) -> None:
        assert made().listen == Address(host="127.0.0.1", port=7443)
        assert made(coordinator__http_listen="").http_listen is None
        assert made().http_listen == Address(host="127.0.0.1", port=9464)


class TestChanges:
    def test_the_same_configuration_is_accepted(self) -> None:
        config = made(run__clients=["b", "a"], round__cohort_size=1)
        stored = json.loads(json.dumps(config.run_config()))
        refuse_changes(stored, made(run__clients=["a", "b"], round__cohort_size=1))

    def test_what_may_change_is_not_stored(self) -> None:
        stored = set(flatten(made(run__clients=["a"], round__cohort_size=1).run_config()))
        everything = set(flatten(made().resolved()))
        assert {key for key in everything - stored if not is_mutable(key)} == set()
        assert {key for key in stored if is_mutable(key)} == set()
        assert "run.rounds" in stored
        assert "run.warm_start" not in stored

    def test_mutable_settings_exist(self) -> None:
        everything = set(flatten(made().resolved()))
        for key in MUTABLE:
            table = key.removesuffix(".*")
            assert key in everything or any(name.startswith(f"{table}.") for name in everything), key

    def test_differences_are_named_with_both_values(self) -> None:
        stored = made(run__seed=1, run__rounds=10, method__config={"lr": 0.1, "old": 1}).run_config()
        config = made(
            run__seed=2,
            run__rounds=9,
            round__deadline_seconds=5,
            log__level="debug",
            coordinator__listen="unix:/x",
            method__config={"lr": 0.2, "new": {"deep": 1}},
        )
        with pytest.raises(RunConfigChanged) as caught:
            refuse_changes(stored, config)
        assert str(caught.value).splitlines()[1:-1] == [
            "  method.config.lr: the run has 0.1, now 0.2",
            "  method.config.new.deep: the run has nothing, now 1",
            "  method.config.old: the run has 1, now nothing",
            "  run.rounds: the run has 10, now 9 (it may only grow)",
            "  run.seed: the run has 1, now 2",
        ]
        assert "put the stored values back" in str(caught.value)

    def test_rounds_may_grow(self) -> None:
        refuse_changes(made(run__rounds=10).run_config(), made(run__rounds=11))

    def test_a_setting_the_run_is_too_old_to_know_had_its_default(self) -> None:
        stored = made().run_config()
        del stored["run"]["threads"]
        refuse_changes(stored, made())
        (change,) = changed_keys(stored, made(run__threads=4).run_config(), made().run_config())
        assert (change.key, change.stored, change.new) == ("run.threads", 1, 4)

"""`[secure_aggregation]` of a coordinator: what contradicts what, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.config.derived import plan_of, secure_settings, settings_of
from coordinator.config.sections import CoordinatorConfig, load, refuse_changes
from coordinator.errors import ConfigInvalid, RunConfigChanged
from ssd.method.registry import load as load_method

DECLARATION = load_method("synthetic", {"parameters": 64}).declare()


def made(**changes: Any) -> CoordinatorConfig:
    base = {"transport.insecure": True, "secure_aggregation.level": "passive"}
    return load(None, base | {key.replace("__", "."): value for key, value in changes.items()}, {})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"round__cohort_size": 1}, r"min_participants.*one participant alone would be laid open"),
        ({"secure_aggregation__min_participants": 11}, r"at least 11 workers.*a cohort of 10"),
        ({"secure_aggregation__min_participants": 1}, "min_participants"),
        ({"secure_aggregation__ring_bits": 20}, "ring_bits"),
        ({"secure_aggregation__tolerated_dropout": 0.5}, "tolerated_dropout"),
        ({"secure_aggregation__clip": 0.0}, "clip"),
        ({"secure_aggregation__level": "active"}, r"proven identities(.|\n)*signed registry"),
        ({"secure_aggregation__level": "paranoid"}, "level"),
        ({"secure_aggregation__keys": "never"}, "keys"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigInvalid, match=said):
        made(**changes)


def test_active_takes_a_registry_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "coordinator.toml"
    file.write_text(
        '[secure_aggregation]\nlevel = "active"\nregistry = "participants.json"\nregistry_signer = "ab"\n'
    )
    assert load(file, {}, {}).secure_aggregation.registry == tmp_path / "participants.json"


def test_sums_that_could_wrap_around_are_refused_before_anything_is_masked() -> None:
    plan_of(DECLARATION, made())
    narrow = {"secure_aggregation__ring_bits": 16, "secure_aggregation__max_client_weight": 65536}
    with pytest.raises(ConfigInvalid, match=r"could wrap around.*raise secure_aggregation\.ring_bits"):
        plan_of(DECLARATION, made(**narrow, round__cohort_size=40000))


def test_updates_are_not_encoded_before_they_are_masked() -> None:
    assert settings_of(made()).update_encoding == "float32"
    assert settings_of(made(secure_aggregation__level="off")).update_encoding == "float16"


def test_a_weight_is_capped_by_the_smaller_of_two() -> None:
    found = secure_settings(made(limits__max_client_weight=8))
    assert found is not None
    assert found.max_client_weight == found.masking.max_client_weight == 8
    assert secure_settings(made(secure_aggregation__level="off")) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("level", "off"), ("clip", 0.5), ("ring_bits", 32), ("min_participants", 3), ("assumed_corrupt", 0.0)],
)
def test_a_run_keeps_what_its_sums_mean(key: str, value: object) -> None:
    stored = made().run_config()
    with pytest.raises(RunConfigChanged, match=f"secure_aggregation.{key}"):
        refuse_changes(stored, made(**{f"secure_aggregation__{key}": value}))
    refuse_changes(stored, made(secure_aggregation__phase_seconds=1.0, secure_aggregation__threads=1))
    refuse_changes(stored, made(secure_aggregation__keys="late"))
    assert secure_settings(made(secure_aggregation__keys="late")).rules.keys == "late"

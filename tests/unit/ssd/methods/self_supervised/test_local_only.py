"""Starting from one's own model: what a client keeps, what it sends, and that nobody learns from anybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssd.methods.self_supervised import fed_align_uniform, local_only_ssl, ssd
from ssd.settings import SettingsError
from training.training_samples import SMALL, train


def test_a_client_goes_on_from_its_own_model_whatever_it_receives() -> None:
    method = local_only_ssl.create(SMALL)
    base = method.initial(0, None)
    first = train(method)
    assert np.allclose(first.state["parameters"], base + first.delta, atol=1e-7)
    others = method.initial(9, None)
    for received in (base, others):
        second = train(method, round=2, base=received, state=first.state)
        assert np.array_equal(second.state["parameters"], after_two(method, first.state))
        assert np.array_equal(second.delta, second.state["parameters"] - received)
    assert not np.array_equal(after_two(method, first.state), first.state["parameters"])


def after_two(method: local_only_ssl.LocalOnly, state: dict[str, np.ndarray]) -> np.ndarray:
    return train(method, round=2, state=state).state["parameters"]


def test_the_first_visit_is_fed_align_uniforms() -> None:
    ours, base = (
        train(method, base=method.initial(5, None))  # the run's seed
        for method in (local_only_ssl.create(SMALL), fed_align_uniform.create(SMALL))
    )
    assert np.array_equal(ours.delta, base.delta)
    assert base.state == {}


def test_a_client_that_joins_late_learns_from_nobody_either() -> None:
    method = local_only_ssl.create(SMALL)
    others = method.initial(9, None) + np.float32(0.25)
    late, early = train(method, round=7, base=others), train(method, round=7)
    assert np.array_equal(late.state["parameters"], early.state["parameters"])


def test_a_warm_start_that_late_clients_would_not_get_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no warm start"):
        local_only_ssl.create(SMALL).initial(0, tmp_path / "encoder.safetensors")


def test_two_visits_alone_are_two_visits_to_a_federation_of_one() -> None:
    """With one client the average is its model, so both ways give one result (up to the delta's rounding)."""
    alone, together = local_only_ssl.create(SMALL), fed_align_uniform.create(SMALL)
    base = together.initial(5, None)  # the run's seed
    first = train(alone, base=base)
    own = train(alone, round=2, state=first.state).state["parameters"]
    version = base + train(together, base=base).delta
    version = version + train(together, round=2, base=version).delta
    assert np.allclose(own, version, atol=1e-5)


def test_its_state_is_declared_and_holds_statistics_too_if_they_stay_local() -> None:
    assert local_only_ssl.create(SMALL).declare().persists_client_state
    assert not fed_align_uniform.create(SMALL).declare().persists_client_state
    assert set(train(local_only_ssl.create(SMALL)).state) == {"parameters"}
    both = train(local_only_ssl.create({**SMALL, "buffers": "local"})).state
    assert set(both) == {"parameters", "buffers"}
    assert both["parameters"].dtype == np.float32


def test_every_method_of_the_family_can_start_from_its_own_model() -> None:
    method = ssd.create({**SMALL, "start": "own"})
    first = train(method)
    second = train(method, round=2, state=first.state)
    assert not np.array_equal(second.state["parameters"], first.state["parameters"])


def test_a_received_start_is_refused_with_the_method_to_use() -> None:
    with pytest.raises(SettingsError, match="fed_align_uniform"):
        local_only_ssl.create({**SMALL, "start": "received"})

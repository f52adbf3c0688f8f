"""Which runs a worker takes part in: levels of secure aggregation, terms of privacy, and what may not change within a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secure.secure_session import Machine, private, welcome
from ssd.privacy.settings import PrivacySettings
from worker.core import effects, events
from worker.core.state import Link, SecureTerms


@pytest.mark.parametrize(("least", "offered"), [("passive", "off"), ("active", "off"), ("active", "passive")])
def test_a_run_below_the_own_level_is_left_for_good_with_what_to_change(least: str, offered: str) -> None:
    machine = Machine(terms=SecureTerms(least=least, cannot_sign=""))
    machine.attend(level=offered)
    (declined,) = machine.asked(effects.Decline)
    assert isinstance(declined, effects.Decline)
    assert "[secure_aggregation] level" in declined.detail
    assert machine.session.stopped
    assert not machine.asked(effects.OpenSession)
    assert not machine.asked(effects.Redial)


@pytest.mark.parametrize("offered", ["off", "passive", "active"])
def test_a_worker_that_asks_for_nothing_takes_part_in_every_run(offered: str) -> None:
    machine = Machine(terms=SecureTerms(least="off", cannot_sign=""))
    machine.attend(level=offered)
    assert machine.session.link is Link.ATTENDING
    assert machine.session.level == offered


def told_of_privacy(terms: SecureTerms, *offers: PrivacySettings | None) -> Machine:
    """A machine that attends runs with these terms one after the other, always the same run."""
    machine = Machine(terms=terms)
    for offer_ in offers:
        news = welcome()
        machine.tell(events.DialDue(), replace(news, welcome=replace(news.welcome, privacy=offer_)))
        if not machine.session.stopped and offer_ is not offers[-1]:
            machine.tell(events.LinkLost(reason="silent"))
    return machine


@pytest.mark.parametrize(
    ("least", "noise", "offered", "said"),
    [
        ("central", 0.0, private("off"), "[privacy] mechanism"),
        ("distributed", 0.0, private("central"), "[privacy] mechanism"),
        ("off", 0.5, private("off"), "min_noise_multiplier"),
        ("off", 0.5, private("central", 0.49), "min_noise_multiplier"),
    ],
)
def test_a_run_with_less_noise_than_asked_for_is_left_for_good(
    least: str, noise: float, offered: PrivacySettings | None, said: str
) -> None:
    machine = told_of_privacy(SecureTerms(privacy=least, min_noise_multiplier=noise), offered)
    (declined,) = machine.asked(effects.Decline)
    assert isinstance(declined, effects.Decline)
    assert said in declined.detail
    assert machine.session.stopped


@pytest.mark.parametrize("offered", ["off", "central", "distributed"])
def test_a_worker_that_asks_for_no_noise_takes_what_the_run_has(offered: str) -> None:
    machine = told_of_privacy(SecureTerms(), private(offered))
    assert machine.session.link is Link.ATTENDING
    assert machine.session.privacy == private(offered)


def test_the_terms_of_differential_privacy_do_not_change_within_a_run() -> None:
    assert not told_of_privacy(SecureTerms(), private("central"), private("central")).session.stopped
    for changed in (private("off"), private("central", 0.9)):
        machine = told_of_privacy(SecureTerms(), private("central"), changed)
        (declined,) = machine.asked(effects.Decline)
        assert isinstance(declined, effects.Decline)
        assert "within a run" in declined.detail


def test_the_numbers_of_masked_sums_do_not_change_within_a_run() -> None:
    told = welcome()
    masking = told.welcome.masking
    assert masking is not None
    for changes in ({}, {"ring_bits": 32}, {"clip": 2.0}, {"max_client_weight": 5}):
        machine = Machine()
        machine.attend()
        machine.tell(events.LinkLost(reason="silent"))
        now = replace(told.welcome, masking=replace(masking, **changes))
        machine.tell(events.DialDue(), replace(told, welcome=now))
        assert machine.session.stopped is bool(changes)
        assert bool(machine.asked(effects.Decline)) is bool(changes)


def test_who_cannot_sign_leaves_an_active_run_with_what_to_do() -> None:
    machine = Machine(terms=SecureTerms(cannot_sign="run `ssd-worker identity init`"))
    machine.attend(level="active")
    (declined,) = machine.asked(effects.Decline)
    assert isinstance(declined, effects.Decline)
    assert "run `ssd-worker identity init`" in declined.detail


def test_who_hosts_nobody_needs_no_signing_key() -> None:
    machine = Machine("", terms=SecureTerms(cannot_sign="run `ssd-worker identity init`"))
    machine.attend(level="active")
    assert machine.session.link is Link.ATTENDING


def test_a_run_whose_level_sinks_is_left() -> None:
    machine = Machine()
    machine.attend(level="passive")
    machine.tell(events.LinkLost(reason="silent"))
    machine.attend(level="off")
    assert machine.asked(effects.Decline)
    assert machine.session.stopped


def test_the_level_of_a_run_is_remembered_before_it_is_worked_for() -> None:
    machine = Machine()
    machine.attend(level="passive")
    assert machine.asked(effects.RememberLevel) == [effects.RememberLevel(level="passive")]
    machine.redial()
    assert not machine.asked(effects.RememberLevel)


def test_a_run_that_was_left_and_comes_back_with_less_is_left_for_good() -> None:
    machine = Machine()
    machine.tell(events.DialDue())
    stored = events.StoredRun(run_id="run-2", level="passive")
    machine.tell(replace(welcome(level="off", run="run-2"), stored=stored))
    assert machine.asked(effects.Decline)
    assert machine.session.stopped

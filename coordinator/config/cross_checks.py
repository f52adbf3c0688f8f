"""Checks over several settings at once, and what changed between two configurations. Plain JSON in, text out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ssd.daemon.address import parse_address
from ssd.daemon.config_sources import Key

Json = Any
_FASTEST_ADAPTIVE = 0.5


def cross_checks(tree: Mapping[str, Json]) -> Iterator[tuple[tuple[Key, ...], str]]:
    """What contradicts what in a tree whose settings are valid one by one.

    Yields:
        (the settings concerned, the first being the one to report; what is wrong and what to do).
    """
    yield from _transport(tree)
    yield from _clients(tree["run"], tree["round"])
    yield from _rounds(tree["run"], tree["round"])
    yield from _strategy(tree["strategy"])
    yield from _secure(tree)
    yield from _privacy(tree)
    ram, disk = tree["limits"]["staging_ram_bytes"], tree["limits"]["staging_disk_bytes"]
    if ram + disk == 0:
        keys = (("limits", "staging_ram_bytes"), ("limits", "staging_disk_bytes"))
        yield keys, "uploads need room in memory or on disk: both budgets are 0"


def _transport(tree: Mapping[str, Json]) -> Iterator[tuple[tuple[Key, ...], str]]:
    insecure, listen = ("transport", "insecure"), ("coordinator", "listen")
    own = tree["coordinator"]
    if tree["transport"]["insecure"] and not parse_address(own["listen"]).is_local:
        yield (
            (listen, insecure),
            (
                f"{own['listen']} is open to other machines, which insecure does not allow: leave insecure out and "
                "make certificates with `ssd-coordinator ca init`, or listen on 127.0.0.1, [::1] or unix:/path"
            ),
        )
    if tree["transport"]["insecure"] and tree["enrolment"]["listen"]:
        yield (
            (("enrolment", "listen"), insecure),
            "without TLS there are no certificates to enrol for: leave insecure out, or this",
        )
    certificate, key = ("coordinator", "http_certificate"), ("coordinator", "http_key")
    if (own["http_certificate"] is None) != (own["http_key"] is None):
        yield (certificate, key), "HTTPS takes both http_certificate and http_key"


def _clients(run: Mapping[str, Json], rounds: Mapping[str, Json]) -> Iterator[tuple[tuple[Key, ...], str]]:
    clients, expected, cohort = ("run", "clients"), ("run", "expected_clients"), ("round", "cohort_size")
    named = len(run["clients"])
    if run["expected_clients"] is not None and run["expected_clients"] < named:
        yield (expected, clients), f"{run['expected_clients']} are expected but {named} are named in clients"
    elif rounds["cohort_size"] > (known := max(named, run["expected_clients"] or 0)) > 0:
        yield (
            (cohort, clients, expected),
            (
                f"a cohort of {rounds['cohort_size']} cannot be drawn from {known} clients: lower it, or raise "
                "run.expected_clients or name more in run.clients"
            ),
        )
    if run["mode"] == "reproducible" and not named and run["expected_clients"] is None:
        yield (
            (("run", "mode"), clients, expected),
            "a reproducible run must know its clients: name them in run.clients, or give run.expected_clients",
        )


def _strategy(own: Mapping[str, Json]) -> Iterator[tuple[tuple[Key, ...], str]]:
    if own["name"] in ("adagrad", "adam", "yogi") and own["learning_rate"] > _FASTEST_ADAPTIVE:
        yield (
            (("strategy", "learning_rate"), ("strategy", "name")),
            (
                f"{own['name']} moves every parameter by about the rate in each round, and {own['learning_rate']:g} would "
                "destroy any model: set it, 0.001 to 0.1"
            ),
        )


def _rounds(run: Mapping[str, Json], rounds: Mapping[str, Json]) -> Iterator[tuple[tuple[Key, ...], str]]:
    mode, cohort = ("run", "mode"), ("round", "cohort_size")
    if rounds["min_updates"] > rounds["cohort_size"]:
        yield (
            (("round", "min_updates"), cohort),
            f"a round cannot ask for {rounds['min_updates']} updates of a cohort of {rounds['cohort_size']}",
        )
    if run["mode"] != "reproducible":
        return
    if rounds["over_selection"] != 1:
        yield (
            (("round", "over_selection"), mode),
            "a reproducible run waits for its whole cohort: leave over_selection at 1.0, or set mode = elastic",
        )
    if rounds["deadline_quantile"] is not None:
        yield (
            (("round", "deadline_quantile"), mode),
            "a reproducible run has no deadline: remove deadline_quantile, or set mode = elastic",
        )


def _secure(tree: Mapping[str, Json]) -> Iterator[tuple[tuple[Key, ...], str]]:
    own, rounds = tree["secure_aggregation"], tree["round"]
    if own["level"] == "off":
        return
    level, least = ("secure_aggregation", "level"), ("secure_aggregation", "min_participants")
    invited = math.ceil(rounds["cohort_size"] * rounds["over_selection"])
    if own["min_participants"] > invited:
        yield (
            (least, ("round", "cohort_size"), level),
            (
                f"a sum over at least {own['min_participants']} workers cannot be had from a cohort of {invited}"
                " clients: one participant alone would be laid open. Raise round.cohort_size"
            ),
        )
    if own["level"] != "active":
        return
    if tree["transport"]["insecure"]:
        yield (
            (level, ("transport", "insecure")),
            "level active stands on proven identities: leave insecure out, or set level = passive",
        )
    if own["registry"] is None or not own["registry_signer"]:
        yield (
            (("secure_aggregation", "registry"), ("secure_aggregation", "registry_signer"), level),
            (
                "level active needs the signed registry of participants and its signer's key: make them with"
                " `ssd-coordinator registry`, or set level = passive"
            ),
        )


def _privacy(tree: Mapping[str, Json]) -> Iterator[tuple[tuple[Key, ...], str]]:
    own, secure, rounds = tree["privacy"], tree["secure_aggregation"], tree["round"]
    mechanism, level = ("privacy", "mechanism"), ("secure_aggregation", "level")
    if own["mechanism"] == "off":
        return
    if tree["run"]["mode"] == "reproducible":
        yield (
            (mechanism, ("run", "mode")),
            "a reproducible run can be made again bit by bit, noise that hides anything cannot: set mode = elastic",
        )
    if own["mechanism"] == "central":
        if secure["level"] != "off":
            yield (
                (mechanism, level),
                (
                    "central noise is for a coordinator that sees the updates: under secure aggregation set mechanism ="
                    " distributed"
                ),
            )
        return
    if secure["level"] == "off":
        yield (
            (mechanism, level),
            (
                "workers' parts of the noise hide nothing unless only their sum is seen: set secure_aggregation.level, or"
                " mechanism = central"
            ),
        )
    invited = math.ceil(rounds["cohort_size"] * rounds["over_selection"])
    corrupt = max(math.floor(invited * secure["assumed_corrupt"]), 1 if secure["assumed_corrupt"] else 0)
    if own["min_honest"] + corrupt > invited:
        yield (
            (("privacy", "min_honest"), ("round", "cohort_size")),
            (
                f"{own['min_honest']} honest workers and {corrupt} that are assumed corrupt cannot be had from a cohort of"
                f" {invited} clients: raise round.cohort_size, or lower it"
            ),
        )


def not_json(value: Json, name: str = "") -> str:
    """The first part of a value that JSON cannot hold (a date, an infinity), as a dotted name; else ""."""
    if isinstance(value, Mapping):
        found = (not_json(item, f"{name}.{key}" if name else str(key)) for key, item in value.items())
        return next(filter(None, found), "")
    if isinstance(value, list | tuple):
        found = (not_json(item, f"{name}[{number}]") for number, item in enumerate(value))
        return next(filter(None, found), "")
    if isinstance(value, float):
        return "" if math.isfinite(value) else name
    return "" if value is None or isinstance(value, str | int) else name


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A setting that differs from what a run was created with."""

    key: str
    stored: Json
    new: Json

    def __str__(self) -> str:
        """One line for the operator."""
        only = " (it may only grow)" if self.key == "run.rounds" else ""
        return f"{self.key}: the run has {_show(self.stored)}, now {_show(self.new)}{only}"


def changed_keys(
    stored: Mapping[str, Json], new: Mapping[str, Json], defaults: Mapping[str, Json]
) -> tuple[Change, ...]:
    """The settings an existing run does not accept, in alphabetical order.

    Args:
        stored: the run's `run_config()`.
        new: the present one's.
        defaults: the value of settings that `stored` is too old to have.
    """
    before, after = flatten(stored), flatten(new)
    for key, value in flatten(defaults).items():
        if not key.startswith("method.config"):
            before.setdefault(key, value)
    result = []
    for key in sorted({*before, *after}):
        old, now = before.get(key), after.get(key)
        grown = key == "run.rounds" and isinstance(old, int) and isinstance(now, int) and now >= old
        if old != now and not grown:
            result.append(Change(key=key, stored=old, new=now))
    return tuple(result)


def flatten(tree: Mapping[str, Json], prefix: str = "") -> dict[str, Json]:
    """Nested tables as dotted keys. An empty table has none."""
    result: dict[str, Json] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            result.update(flatten(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result


def _show(value: Json) -> str:
    return "nothing" if value is None else repr(value)

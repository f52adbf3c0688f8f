"""What a federation agrees to run: methods, the ranges of their settings, rounds, weights, privacy; signed by whoever signs
the registry of participants, never by the coordinator.

The file is canonical JSON, as the registry is (`ssd.trust.participants`), under the same key. A sum hides who said what
only if nobody's part in it can be made much larger than all others'; settings that do that are told to everybody alike,
so no digest shows them. Somebody other than the coordinator has to say beforehand which settings are meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ssd.digest import canonical_json
from ssd.trust.names import NameRefused, Role, Subject
from ssd.trust.participants import RegistryRefused, parse_canonical
from ssd.trust.signing import SigningRefused, check, is_hex, sign

Json = Any
FORMAT = "ssd-federation-policy-v1"
MECHANISMS = ("off", "central", "distributed")
"""Of noise, from the weakest to the strongest."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_BODY = frozenset(
    {"format", "federation", "version", "issued_at", "methods", "max_rounds", "max_client_weight", "privacy"}
)
_METHOD = frozenset({"name", "version", "declarations", "settings"})
_PRIVACY = frozenset({"mechanism", "min_noise_multiplier", "max_clip_norm", "max_delta"})


class PolicyRefused(SigningRefused):
    """A federation policy that must not be used; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodClause:
    """One method that may be run, and how."""

    name: str
    version: int
    """Of the method, as it declares it."""
    declarations: tuple[str, ...] = ()
    """Digests of whole declarations that are accepted, 64 hex digits each."""
    settings: Mapping[str, Json] | None = None
    """Dotted setting -> the list of its accepted values, or `{"min": a, "max": b}`. Of a declaration whose digest is not
    listed every setting has to be in here, and within. None: only listed digests are accepted."""

    def outside(self, config: Mapping[str, Json]) -> str:
        """The first setting of a configuration that the clause does not accept, and why; empty: it accepts all."""
        if self.settings is None:
            return "its declaration is not listed"
        for name, value in sorted(flat(config).items()):
            if name not in self.settings:
                return f"{name} is not listed"
            if not _within(value, self.settings[name]):
                return f"{name} is {value!r:.80}, accepted is {self.settings[name]!r:.200}"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FederationPolicy:
    """All clauses.

    Raises:
        PolicyRefused: a clause that cannot be.
    """

    federation: str
    version: int
    """1, 2, 3 …: a higher one replaces a lower one, never the other way round."""
    issued_at: int
    """Unix seconds; for people."""
    methods: tuple[MethodClause, ...]
    max_rounds: int
    """Of a run."""
    max_client_weight: int
    """The most one client may weigh in a masked sum."""
    mechanism: str = "off"
    """The least differential privacy."""
    min_noise_multiplier: float = 0.0
    max_clip_norm: float | None = None
    """The largest bound of one client's influence; None: any."""
    max_delta: float | None = None
    """The largest probability with which the guarantee may fail; None: any."""

    def __post_init__(self) -> None:
        for number in (self.version, self.issued_at, self.max_rounds, self.max_client_weight):
            if type(number) is not int or not 1 <= number < 1 << 62:
                raise PolicyRefused(
                    "version, issued_at, max_rounds and max_client_weight are whole numbers from 1 on"
                )
        try:
            Subject(self.federation, Role.WORKER, "x")
        except NameRefused as error:
            raise PolicyRefused(str(error)) from error
        if self.mechanism not in MECHANISMS:
            raise PolicyRefused(f"privacy.mechanism is one of {', '.join(MECHANISMS)}")
        if self.min_noise_multiplier is None:
            raise PolicyRefused("privacy.min_noise_multiplier is a number; 0 asks for no noise")
        for bound in (self.min_noise_multiplier, self.max_clip_norm, self.max_delta):
            if bound is not None and not (_is_number(bound) and bound >= 0):
                raise PolicyRefused("the bounds of privacy are finite numbers, not negative")
        for clause in self.methods:
            _check_clause(clause)

    def clauses(self, name: str, version: int) -> tuple[MethodClause, ...]:
        """Those for a method."""
        return tuple(each for each in self.methods if (each.name, each.version) == (name, version))


def flat(config: Mapping[str, Json], prefix: str = "") -> dict[str, Json]:
    """Nested tables as dotted settings; an empty table is a setting itself."""
    found: dict[str, Json] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return found


def encode(policy: FederationPolicy, signer: Ed25519PrivateKey) -> bytes:
    """The signed file."""
    body = body_of(policy)
    return canonical_json({"policy": body, "signature": sign(signer, FORMAT, canonical_json(body))})


def decode(content: bytes, signer: str, federation: str) -> FederationPolicy:
    """The policy of a signed file.

    Args:
        content: of the file.
        signer: the signer's public key, 64 hex digits.
        federation: whose policy it has to be.

    Raises:
        PolicyRefused: any byte of it is not what the signer wrote, or it is another federation's.
    """
    try:
        outer = parse_canonical(content)
    except RegistryRefused as error:
        raise PolicyRefused(
            "the federation policy is not spelt as a policy is signed: it was edited"
        ) from error
    if not isinstance(outer, dict) or set(outer) != {"policy", "signature"}:
        raise PolicyRefused("this is no signed federation policy")
    try:
        check(signer, FORMAT, canonical_json(outer["policy"]), outer["signature"])
    except SigningRefused as error:
        raise PolicyRefused(f"the federation policy is not signed by its signer: {error}") from error
    policy = policy_of(outer["policy"])
    if policy.federation != federation:
        raise PolicyRefused(
            f"this is the policy of the federation {policy.federation!r}, not of {federation!r}"
        )
    return policy


def body_of(policy: FederationPolicy) -> dict[str, Json]:
    """The JSON form, without a signature."""
    return {
        "format": FORMAT,
        "federation": policy.federation,
        "version": policy.version,
        "issued_at": policy.issued_at,
        "methods": [
            {
                "name": each.name,
                "version": each.version,
                "declarations": list(each.declarations),
                "settings": None if each.settings is None else dict(each.settings),
            }
            for each in policy.methods
        ],
        "max_rounds": policy.max_rounds,
        "max_client_weight": policy.max_client_weight,
        "privacy": {
            "mechanism": policy.mechanism,
            "min_noise_multiplier": policy.min_noise_multiplier,
            "max_clip_norm": policy.max_clip_norm,
            "max_delta": policy.max_delta,
        },
    }


def policy_of(body: Json) -> FederationPolicy:
    """The policy of its JSON form.

    Raises:
        PolicyRefused: it has another form, or a clause that cannot be.
    """
    fields = _exactly(body, _BODY, "the policy")
    if fields["format"] != FORMAT:
        raise PolicyRefused(
            f"the policy has the format {fields['format']!r:.64}, this program knows {FORMAT}"
        )
    if not isinstance(fields["methods"], list):
        raise PolicyRefused("methods is a list")
    clauses = [_exactly(each, _METHOD, "a method") for each in fields["methods"]]
    if not all(isinstance(each["declarations"], list) for each in clauses):
        raise PolicyRefused("declarations is a list of digests")
    privacy = _exactly(fields["privacy"], _PRIVACY, "privacy")
    return FederationPolicy(
        federation=fields["federation"],
        version=fields["version"],
        issued_at=fields["issued_at"],
        methods=tuple(
            MethodClause(**{**each, "declarations": tuple(each["declarations"])}) for each in clauses
        ),
        max_rounds=fields["max_rounds"],
        max_client_weight=fields["max_client_weight"],
        mechanism=privacy["mechanism"],
        min_noise_multiplier=privacy["min_noise_multiplier"],
        max_clip_norm=privacy["max_clip_norm"],
        max_delta=privacy["max_delta"],
    )


def _exactly(value: Json, names: frozenset[str], what: str) -> dict[str, Json]:
    if not isinstance(value, dict) or set(value) != names:
        raise PolicyRefused(f"{what} must have exactly {', '.join(sorted(names))}")
    return value


def _check_clause(clause: MethodClause) -> None:
    # They come out of a file: a type that is written down is none yet.
    name: object = clause.name
    if not isinstance(name, str) or not _NAME.fullmatch(name) or type(clause.version) is not int:
        raise PolicyRefused("a method has a name and a whole number for its version")
    if not all(is_hex(each, 32) for each in clause.declarations):
        raise PolicyRefused(f"method {clause.name}: a declaration's digest is 64 lower-case hex digits")
    if clause.settings is None:
        return
    settings: object = clause.settings
    if not isinstance(settings, Mapping):
        raise PolicyRefused(f"method {clause.name}: settings is a table, or null")
    for setting, accepted in settings.items():
        is_range = (
            isinstance(accepted, Mapping)
            and bool(accepted)
            and set(accepted) <= {"min", "max"}
            and all(map(_is_number, accepted.values()))
        )
        if not is_range and not isinstance(accepted, list):
            raise PolicyRefused(
                f'method {clause.name}: {setting} needs a list of values, or {{"min": …, "max": …}}'
            )


def _within(value: Json, accepted: Json) -> bool:
    if isinstance(accepted, list):
        # By type, too: 1 and true are equal in Python and not the same setting.
        return any(canonical_json(each) == canonical_json(value) for each in accepted)
    if not _is_number(value):
        return False
    return bool(accepted.get("min", value) <= value <= accepted.get("max", value))


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(
        value
    )  # an int of any length is finite, and is not made a float

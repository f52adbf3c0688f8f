"""The names certificates carry.

A leaf certificate names its holder in exactly one URI of its subject alternative name:

    ssd://FEDERATION/ROLE/NAME

FEDERATION is the authority's own name, ROLE one of `Role`, NAME what the operator calls the holder. Nothing else in
a certificate is ever read as an identity, and no message field either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

SCHEME = "ssd"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class NameRefused(ValueError):
    """A name that cannot stand in a certificate, or a certificate that names nobody."""


class Role(StrEnum):
    """What the holder of a certificate may be."""

    COORDINATOR = "coordinator"
    WORKER = "worker"
    """Trains the clients bound to it."""
    EVALUATOR = "evaluator"
    """Measures versions; hosts no client and uploads nothing."""
    OPERATOR = "operator"
    OBSERVER = "observer"
    """Reads: status, health, reflection."""


@dataclass(frozen=True, order=True, slots=True)
class Subject:
    """The holder of a certificate."""

    federation: str
    role: Role
    name: str

    def __post_init__(self) -> None:
        for what, value in (("federation", self.federation), ("name", self.name)):
            if not _NAME.fullmatch(value):
                raise NameRefused(
                    f"{value!r} is no {what}: 1 to 64 of A-Z, a-z, 0-9, dot, underscore and hyphen, beginning with a"
                    " letter or digit"
                )

    @property
    def uri(self) -> str:
        """`ssd://FEDERATION/ROLE/NAME`."""
        return f"{SCHEME}://{self.federation}/{self.role.value}/{self.name}"

    @classmethod
    def parse(cls, uri: str) -> Subject:
        """The inverse of `uri`.

        Raises:
            NameRefused: anything but exactly such a name.
        """
        scheme, separator, rest = uri.partition("://")
        parts = rest.split("/")
        if scheme != SCHEME or not separator or len(parts) != 3 or parts[1] not in set(Role):
            raise NameRefused(f"{uri[:200]!r} is no identity of the form {SCHEME}://FEDERATION/ROLE/NAME")
        return cls(parts[0], Role(parts[1]), parts[2])


def subject_of(alternative_names: list[str]) -> Subject:
    """The holder named by the alternative names of a verified certificate.

    Raises:
        NameRefused: none of them, or more than one, is an identity. Names of other kinds (hosts) do not count.
    """
    found = [name for name in alternative_names if name.startswith(f"{SCHEME}:")]
    if len(found) != 1:
        raise NameRefused(f"a certificate must name exactly one identity, this one names {len(found)}")
    return Subject.parse(found[0])

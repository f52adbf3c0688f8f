"""The join token: one line an operator gives to a worker's host, worth one certificate.

    ssdjoin1_<base64url of: federation, role, name, address, 32-byte pin, 32-byte secret, 4-byte checksum>

The secret is what the coordinator knows the hash of. The pin, SHA-256 of the authority's certificate, is how the host
knows the coordinator before it says anything to it. The checksum finds slips of copying, not forgeries: whoever could
forge a token could as well make one up, and its secret is unknown.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass, field

from ssd.trust.names import NameRefused, Role, Subject

PREFIX = "ssdjoin1_"
SECRET_BYTES = 32
PIN_BYTES = 32
_CHECK_BYTES = 4
_LONGEST_TEXT = 255
_LONGEST_TOKEN = 2048


class TokenRefused(ValueError):
    """A text that is no join token; the message says what to do."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a join token says."""

    subject: Subject
    """Whom its certificate will name."""
    address: str
    """Where to enrol, host:port; empty if whoever made the token did not know."""
    pin: bytes
    """SHA-256 of the authority's certificate."""
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.pin) != PIN_BYTES or len(self.secret) != SECRET_BYTES:
            raise TokenRefused("a join token has a pin and a secret of 32 bytes each")
        if len(self.address.encode()) > _LONGEST_TEXT:
            raise TokenRefused("the enrolment address is too long for a join token")

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the secret: what the coordinator keeps and looks up."""
        return secret_digest(self.secret)

    def text(self) -> str:
        """The line that is handed over. It is a secret until it is used."""
        subject = self.subject
        fields = (subject.federation, subject.role.value, subject.name, self.address)
        body = b"".join(bytes((len(part),)) + part for part in (text.encode() for text in fields))
        body += self.pin + self.secret
        return PREFIX + base64.urlsafe_b64encode(body + _check(body)).rstrip(b"=").decode()


def new_secret() -> bytes:
    """256 bits from the operating system."""
    return secrets.token_bytes(SECRET_BYTES)


def secret_digest(secret: bytes) -> str:
    """Hex SHA-256 of a token's secret. It has 256 bits of its own, so that nothing slower is needed."""
    return hashlib.sha256(secret).hexdigest()


def parse(text: str) -> JoinToken:
    """The inverse of `JoinToken.text`; white space around it is forgiven, nothing else.

    Raises:
        TokenRefused: it is not exactly such a line.
    """
    line = text.strip()
    if not line.startswith(PREFIX) or len(line) > _LONGEST_TOKEN:
        raise TokenRefused(
            f"this is no join token: it begins with {PREFIX}; `ssd-coordinator ca token` makes one"
        )
    encoded = line.removeprefix(PREFIX)
    try:
        content = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise TokenRefused(_DAMAGED) from error
    body, check = content[:-_CHECK_BYTES], content[-_CHECK_BYTES:]
    # Several texts decode to the same bytes; only one of them is the token.
    if check != _check(body) or base64.urlsafe_b64encode(content).rstrip(b"=").decode() != encoded:
        raise TokenRefused(_DAMAGED)
    try:
        return _read(body)
    except (IndexError, UnicodeDecodeError, NameRefused, ValueError) as error:
        raise TokenRefused(_DAMAGED) from error


_DAMAGED = (
    "the join token is damaged: copy the whole line, or have a new one made with `ssd-coordinator ca token`"
)


def _read(body: bytes) -> JoinToken:
    fields, position = [], 0
    for _ in range(4):
        end = position + 1 + body[position]
        fields.append(body[position + 1 : end].decode())
        position = end
    federation, role, name, address = fields
    if len(body) != position + PIN_BYTES + SECRET_BYTES:
        raise TokenRefused(_DAMAGED)
    subject = Subject(federation, Role(role), name)
    return JoinToken(subject, address, body[position : position + PIN_BYTES], body[position + PIN_BYTES :])


def _check(body: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode() + body).digest()[:_CHECK_BYTES]

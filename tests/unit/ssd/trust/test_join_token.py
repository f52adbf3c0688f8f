"""A join token reads back, any slip of copying is refused, and its secret is never shown."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd.trust.join_token import PREFIX, JoinToken, TokenRefused, new_secret, parse
from ssd.trust.names import Role, Subject

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
SUBJECTS = st.builds(Subject, NAMES, st.sampled_from(Role), NAMES)
TOKENS = st.builds(
    JoinToken,
    SUBJECTS,
    st.sampled_from(["", "fed.example.org:7444", "[2001:db8::1]:7444"]),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
)
ONE = JoinToken(Subject("f", Role.WORKER, "w1"), "host:7444", bytes(range(32)), bytes(range(32, 64)))


@given(TOKENS)
def test_every_token_reads_back_from_its_one_line(token: JoinToken) -> None:
    line = token.text()
    assert line.isascii()
    assert not any(character.isspace() for character in line)
    assert parse(line) == token
    assert parse(f"  {line}\r\n") == token


@given(TOKENS, st.data())
def test_any_changed_character_is_refused(token: JoinToken, data: st.DataObject) -> None:
    line = token.text()
    place = data.draw(st.integers(0, len(line) - 1))
    other = data.draw(st.sampled_from([each for each in ALPHABET + "=+/. " if each != line[place]]))
    changed = line[:place] + other + line[place + 1 :]
    if changed.strip() == line:
        return
    with pytest.raises(TokenRefused):
        parse(changed)


def test_every_place_and_every_character_of_one_token() -> None:
    line = ONE.text()
    for place, right in enumerate(line):
        for other in ALPHABET:
            if other != right:
                with pytest.raises(TokenRefused):
                    parse(line[:place] + other + line[place + 1 :])


@given(TOKENS, st.data())
def test_lost_doubled_and_swapped_characters_are_refused(token: JoinToken, data: st.DataObject) -> None:
    line = token.text()
    place = data.draw(st.integers(0, len(line) - 2))
    swapped = line[:place] + line[place + 1] + line[place] + line[place + 2 :]
    for changed in (
        line[:place] + line[place + 1 :],
        line[: place + 1] + line[place:],
        swapped,
        line[:place],
    ):
        if changed != line:
            with pytest.raises(TokenRefused):
                parse(changed)


@given(st.binary(max_size=300))
def test_a_right_checksum_alone_makes_no_token(body: bytes) -> None:
    check = hashlib.sha256(PREFIX.encode() + body).digest()[:4]
    line = PREFIX + base64.urlsafe_b64encode(body + check).rstrip(b"=").decode()
    with contextlib.suppress(TokenRefused):
        assert parse(line).text() == line


@given(st.text(max_size=200))
def test_any_other_text_is_refused_with_advice(text: str) -> None:
    with pytest.raises(TokenRefused, match="ca token"):
        parse(text)


def test_an_endless_line_is_not_decoded() -> None:
    with pytest.raises(TokenRefused):
        parse(PREFIX + "A" * 100_000)


def test_the_secret_shows_in_nothing_but_the_line() -> None:
    assert "secret" not in repr(ONE)
    assert ONE.secret.hex() not in repr(ONE)
    assert repr(ONE.secret)[2:-1] not in repr(ONE)
    assert ONE.digest == hashlib.sha256(ONE.secret).hexdigest()
    with pytest.raises(TokenRefused) as refused:
        parse(ONE.text()[:-1] + "!")
    assert ONE.text()[9:40] not in str(refused.value)


def test_secrets_are_256_bits_and_never_the_same() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(each) for each in made} == {32}


def test_a_pin_or_secret_of_another_length_is_refused() -> None:
    for pin, secret in ((b"", ONE.secret), (ONE.pin, b"x" * 31)):
        with pytest.raises(TokenRefused):
            JoinToken(ONE.subject, "", pin, secret)

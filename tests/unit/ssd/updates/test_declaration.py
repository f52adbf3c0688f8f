"""A declaration as another machine sent it: what is longer, deeper or other than ours is refused with a sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ssd.digest import canonical_json
from ssd.methods.synthetic.method import create
from ssd.updates.declaration import MAX_BYTES, MAX_DEPTH, Declaration, DeclarationError

OURS = create({"parameters": 64}).declare()


def sent(**changes: Any) -> bytes:
    return canonical_json(OURS.to_json() | changes)


def nested(depth: int) -> Any:
    value: Any = 1
    for at in range(depth):
        value = [value] if at % 2 else {"x": value}
    return value


def test_our_own_comes_back() -> None:
    assert Declaration.from_bytes(sent()) == OURS
    assert Declaration.from_bytes(sent()).digest == OURS.digest


def test_steerable_settings_are_declared_and_their_absence_leaves_digests_as_they_were() -> None:
    steered = replace(OURS, steerable=("lr_lag",))
    assert Declaration.from_bytes(canonical_json(steered.to_json())) == steered
    assert steered.digest != OURS.digest
    assert "steerable" not in OURS.to_json()


@pytest.mark.parametrize("opening", ["[", '{"x":', '[{"x":'])
@pytest.mark.parametrize("depth", [900, 100_000])
def test_a_hundred_thousand_brackets_are_a_refusal_and_no_death(opening: str, depth: int) -> None:
    closing = "".join({"[": "]", "{": "}"}.get(each, "") for each in reversed(opening))
    value = opening * depth + "1" + closing * depth
    for content in (value, sent().decode()[:-1] + f',"config":{value}}}', opening * depth):
        with pytest.raises(DeclarationError, match=r"no JSON|nested deeper"):
            Declaration.from_bytes(content.encode())


def test_the_depth_that_is_allowed_is_read() -> None:
    within = nested(MAX_DEPTH - 2)
    assert Declaration.from_bytes(sent(config={"image": within})).config["image"] == within
    with pytest.raises(DeclarationError, match="nested deeper"):
        Declaration.from_bytes(sent(config={"image": nested(MAX_DEPTH - 1)}))


def test_one_byte_too_many_is_not_even_parsed() -> None:
    with pytest.raises(DeclarationError, match="at most"):
        Declaration.from_bytes(b" " * (MAX_BYTES + 1))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"null", b"[]", b"7", b'"text"', b"\xff\xfe", b"{}", b'{"a": 1', b"9" * 5000, sent(groups=7), sent(spec=[]),
        sent(groups=[{"name": "x"}]), sent(statistics={"a": 1}), sent(scaling=[1]), sent(quality="x"), sent(stranger=1),
        sent(groups=[{**OURS.groups[0].to_json(), "reducer": "evil"}]), sent(method=None), sent(artefacts=7), sent(steerable="lr"), sent(steerable=[[1]]),
        json.dumps({**OURS.to_json(), "spec": {}}).encode(),
    ],
)  # fmt: skip
def test_whatever_else_is_sent_is_a_refusal(content: bytes) -> None:
    with pytest.raises(DeclarationError):
        Declaration.from_bytes(content)

"""Random bytes, mutated messages and absurd but well-formed ones to every handler: no crash, no hang, no bit moved."""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wire import fuzzing
from wire.fuzz_firing import FuzzSite, recorded
from wire.fuzzing import CALLERS, METHODS, Input, tamed
from wire.wire_calls import reflected

pytestmark = pytest.mark.e2e
BATCH, EXAMPLES = 20, 40
"""Calls under way at once, and batches per test; three tests make 2,400 inputs."""

patient = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzSite]:
    with FuzzSite(tmp_path_factory.mktemp("fuzz")) as site:
        yield site


# -------------------------------------------------------------------------------------------------- inputs

WORDS = st.sampled_from(
    [
        "",
        "client-000",
        "client-003",
        "alpha",
        "../../x",
        "\0",
        "0" * 32,
        "f" * 64,
        "float16",
        "é" * 40,
        "9" * 300,
    ]
)
INTEGERS = st.sampled_from([0, 1, 2, 3, 7, 40, 127, 128, 65536, 1 << 20, (1 << 20) + 1, 1 << 31])
WIDE = st.sampled_from([(1 << 53) + 1, 1 << 63, (1 << 64) - 1])
FLOATS = st.sampled_from([0.0, -1.0, 1e308, float("nan"), float("inf"), 5e-324])


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Anything a field of this type can hold, the awkward first."""
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return messages(field.message_type._concrete_class)
        case FieldDescriptor.TYPE_STRING:
            return WORDS | st.text(max_size=20)
        case FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=100)
        case FieldDescriptor.TYPE_DOUBLE:
            return FLOATS
        case FieldDescriptor.TYPE_UINT64:
            return INTEGERS | WIDE
        case FieldDescriptor.TYPE_INT32:
            return st.sampled_from([0, 1, -1, (1 << 31) - 1, -(1 << 31)])
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_ENUM:
            return st.integers(0, 4)
    return INTEGERS


@st.composite
def messages(draw: st.DrawFn, kind: type[Message]) -> Any:
    """A well-formed message of this kind with whatever fields."""
    message: Any = kind()
    for field in kind.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        target = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            target.update(draw(st.dictionaries(st.text(max_size=5), FLOATS, max_size=3)))
        elif hasattr(target, "extend"):
            target.extend(draw(st.lists(values(field), max_size=4)))
        elif field.message_type is not None:
            target.CopyFrom(draw(values(field)))
        else:
            setattr(message, field.name, draw(values(field)))
    return message


@st.composite
def well_formed(draw: st.DrawFn) -> Input:
    return made(draw, draw(st.sampled_from(list(METHODS))), lambda kind: messages(kind).map(serialised))


@st.composite
def raw(draw: st.DrawFn) -> Input:
    return made(draw, draw(st.sampled_from(list(METHODS))), lambda _: st.binary(max_size=200))


def serialised(message: Message) -> bytes:
    return message.SerializeToString()


def made(draw: st.DrawFn, call: str, of: Any) -> Input:
    parts = draw(st.lists(of(METHODS[call].request), min_size=1, max_size=3 if METHODS[call].streams else 1))
    return Input(call, tamed(call, parts), draw(st.sampled_from(CALLERS.get(call, ["operator"]))))


def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Some bytes flipped, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(0, len(changed) - 1)))
        match draw(st.integers(0, 3)):
            case 0:
                changed[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del changed[place : place + draw(st.integers(1, 8))]
            case 2:
                changed[place:place] = changed[place : place + draw(st.integers(1, 40))]
            case _:
                changed[place:place] = draw(st.binary(max_size=12))
    return bytes(changed)


# --------------------------------------------------------------------------------------------------- tests


@patient
@given(inputs=st.lists(raw(), min_size=BATCH, max_size=BATCH))
def test_random_bytes(site: FuzzSite, inputs: list[Input]) -> None:
    site.fire(inputs)


@patient
@given(inputs=st.lists(well_formed(), min_size=BATCH, max_size=BATCH))
def test_messages_of_any_content(site: FuzzSite, inputs: list[Input]) -> None:
    site.fire(inputs)


@patient
@given(data=st.data())
def test_mutations_of_proper_calls(site: FuzzSite, data: st.DataObject) -> None:
    proper = recorded_once(site)
    inputs = []
    for _ in range(BATCH):
        each = data.draw(st.sampled_from(proper))
        parts = tamed(each.call, [mutated(data.draw, part) for part in each.messages])
        inputs.append(Input(each.call, parts, each.caller))
    site.fire(inputs)


@functools.cache
def recorded_once(site: FuzzSite) -> list[Input]:
    return recorded(site)


def test_there_are_inputs_for_every_method_the_coordinator_has(site: FuzzSite) -> None:
    """Those it names itself, and the enrolment port, which has no reflection."""
    with site.federation.channel() as channel:
        offered = reflected(channel) | {"/ssd_proto.v1.Enrolment/Enroll"}
    assert {method.path for method in METHODS.values()} == offered


def test_ten_thousand_inputs_of_all_kinds(site: FuzzSite) -> None:
    """Structure-aware and mutated real traffic, in every state of every call; memory does not grow with them."""
    fuzzer = fuzzing.Fuzzer(seed=0, recorded=recorded_once(site))
    stream = fuzzer.inputs(10_000)
    before, reached = 0.0, collections.Counter[str]()
    while batch := list(itertools.islice(stream, 40)):
        reached.update(site.fire(batch))
        if reached.total() == 2_000:
            before = site.federation.metric("ssd_coordinator_memory_peak_bytes")
    assert reached.total() == 10_000
    assert min(reached[call] for call in METHODS) > 30, reached
    assert before
    assert site.federation.metric("ssd_coordinator_memory_peak_bytes") - before < 48 << 20
    site.federation.until(
        lambda: {each.worker for each in site.federation.status().workers} == {"alpha", "beta"},
        "every worker of the fuzzer is seen out",
    )


KEPT = fuzzing.corpus(Path(__file__).with_name("corpus"))


@pytest.mark.parametrize("kept", KEPT, ids=range(len(KEPT)))
def test_inputs_that_once_hurt_or_might_have(site: FuzzSite, kept: Input) -> None:
    site.fire([kept])
    site.well()


def test_the_round_commits_as_if_nothing_had_happened(site: FuzzSite) -> None:
    site.check_end()

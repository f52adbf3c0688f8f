"""Ids that both sides derive, what a stranger may say about them, spans that stay small, and a collector's address."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.daemon.tracing.context import (
    SpanContext,
    attempt_context,
    client_context,
    is_sampled,
    parse_traceparent,
    phase_context,
    traceparent,
)
from ssd.daemon.tracing.setup import TracingUnavailable, check_endpoint, open_exporter
from ssd.daemon.tracing.spans import MOST_EVENTS, MOST_LINKS, MOST_TEXT, OpenSpan

ROOT = attempt_context("run", 3, 1)


def test_ids_are_the_same_wherever_they_are_derived() -> None:
    assert SpanContext("e7e9f3c995d32022fad238b1fc6d3e19", "3ad85f45f4d1753b") == ROOT


def test_every_name_has_an_id_of_its_own() -> None:
    found = [
        ROOT,
        attempt_context("run", 3, 2),
        attempt_context("run", 31, 1),
        attempt_context("run3", 1, 1),
        phase_context(ROOT, "training"),
        phase_context(ROOT, "training", 1),
        phase_context(ROOT, "committing"),
        client_context(ROOT, "training"),
        client_context(ROOT, "a"),
        client_context(attempt_context("run", 3, 2), "a"),
    ]
    assert len({each.span_id for each in found}) == len(found)
    assert phase_context(ROOT, "training").trace_id == ROOT.trace_id


def test_the_form_on_the_wire_comes_back() -> None:
    context = client_context(ROOT, "a")
    assert traceparent(context) == f"00-{context.trace_id}-{context.span_id}-01"
    assert parse_traceparent(traceparent(context)) == context


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        "",
        "00",
        f"00-{'a' * 32}-{'b' * 16}",
        f"00-{'a' * 32}-{'b' * 16}-01-more",
        f"00-{'A' * 32}-{'b' * 16}-01",
        f"00-{'g' * 32}-{'b' * 16}-01",
        f"01-{'a' * 32}-{'b' * 16}-01",
        f"ff-{'a' * 32}-{'b' * 16}-01",
        f"00-{'a' * 32}-{'b' * 16}-00",
        f"00-{'0' * 32}-{'b' * 16}-01",
        f"00-{'a' * 32}-{'0' * 16}-01",
        f"00-{'a' * 31}\n-{'b' * 16}-01",
        f"00-{'a' * 32}-{'b' * 16}-0\n",
        f"00-{'٣' * 32}-{'b' * 16}-01",
        "0" * 1_000_000,
    ],
)
def test_anything_else_says_nothing(value: object) -> None:
    assert parse_traceparent(value) is None


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f-]{50,60}", fullmatch=True))
def test_no_text_makes_it_fail(value: str) -> None:
    found = parse_traceparent(value)
    assert found is None or traceparent(found)[:-2] == value[:-2]


def test_a_share_of_the_traces_holds_every_smaller_share() -> None:
    traces = [attempt_context("run", number, 1).trace_id for number in range(2000)]
    tenth = {trace for trace in traces if is_sampled(trace, 0.1)}
    half = {trace for trace in traces if is_sampled(trace, 0.5)}
    assert tenth < half
    assert 140 < len(tenth) < 260
    assert 900 < len(half) < 1100
    assert all(is_sampled(trace, 1.0) for trace in traces)
    assert not any(is_sampled(trace, 0.0) for trace in traces)


def test_what_a_span_holds_is_bounded() -> None:
    span = OpenSpan("n", ROOT, None, 5, links=(ROOT,) * 1000, attributes={"text": "x" * 10_000})
    span.say({"more": "y" * 10_000, "count": 7})
    for number in range(1000):
        span.note("note", number, {"text": "z" * 10_000})
    over = span.end(9, error="e" * 10_000)
    assert (len(over.links), len(over.events), len(over.error)) == (MOST_LINKS, MOST_EVENTS, MOST_TEXT)
    assert over.attributes == {"text": "x" * MOST_TEXT, "more": "y" * MOST_TEXT, "count": 7}
    assert over.events[0].attributes == {"text": "z" * MOST_TEXT}


def test_a_clock_that_is_set_back_makes_no_span_of_negative_length() -> None:
    over = OpenSpan("n", ROOT, None, 50).end(40)
    assert (over.start, over.end) == (50, 50)


@pytest.mark.parametrize(
    "value", ["", "http://127.0.0.1:4317", "https://[::1]:4317", "http://collector:4317/"]
)
def test_addresses_of_collectors(value: str) -> None:
    assert check_endpoint(value) == value.rstrip("/")


@pytest.mark.parametrize(
    "value",
    [
        "collector:4317",
        "grpc://collector:4317",
        "http://collector",
        "http://:4317",
        "http://collector:4317/v1/traces",
        "http://collector:4317?x=1",
        "http://name:secret@collector:4317",
        "http://collector:99999",
        "http://collector:port",
    ],
)
def test_other_addresses_are_refused(value: str) -> None:
    with pytest.raises(ValueError):
        check_endpoint(value)


def test_without_the_optional_packages_the_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.split(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "ssd.daemon.tracing.exporter", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(TracingUnavailable, match=r"pip install '\.\[tracing\]'"):
        open_exporter("http://127.0.0.1:4317", None, {})


def test_root_certificates_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TracingUnavailable, match=r"absent\.pem: No such file"):
        open_exporter("https://127.0.0.1:4317", tmp_path / "absent.pem", {})
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----")
    with pytest.raises(TracingUnavailable, match="holds no PEM certificate"):
        open_exporter("https://127.0.0.1:4317", tmp_path / "key.pem", {})

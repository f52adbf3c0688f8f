"""Nothing that is somebody's secret stands in a log, a metric, a status or the text of a refusal."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ssd.updates.fold import encode_update
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import operator_pb2 as operator_pb
from wire.hostile import Site
from wire.wire_calls import FEDERATION, OPERATOR, ask

pytestmark = pytest.mark.e2e
VALUE = 0.0123456789
"""A number no configuration has, put into every place of an update."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, insecure=True, **{"log.level": "debug", "wire.update_encoding": "float32"}) as site:
        yield site


def forms(data: bytes) -> set[str]:
    """How bytes look when somebody prints them."""
    return {data.hex(), repr(data)[2:-1], str(list(data))[1:-1]}


def test_planted_secrets_come_out_nowhere(site: Site) -> None:
    plan = site.alpha.plan
    assert plan is not None
    planted = {site.alpha.session, site.beta.session}
    # Tensors: one value throughout, refused for a bad statistic, for its norm, and as garbage in every call.
    delta = np.full(plan.size, VALUE, np.float32)
    statistics = {each.name: np.zeros(each.shape) for each in plan.statistics}
    body = bytearray(encode_update(plan, delta, statistics))
    body[plan.codec.nbytes : plan.codec.nbytes + 8] = struct.pack("<d", float("nan"))
    planted |= {f"{VALUE:.8f}"[:9], f"{np.float32(VALUE)!r}"} | forms(struct.pack("<4f", *[VALUE] * 4))
    client = site.cohort[0]
    heard: list[str] = []

    def note(*outcomes: object) -> None:
        heard.extend(map(repr, outcomes))

    note(site.submit(site.alpha, site.envelope(client, bytes(body)), bytes(body)))
    note(site.upload(site.alpha, [bytes(body[:4000])]))
    note(site.attend([bytes(body[:4000])]))
    note(site.submit(site.alpha, site.envelope(client, bytes(body), chunk_digests=b"x" * 32), bytes(body)))
    # A token that is void, half of one, and one that is another worker's.
    request = pb.FetchBlobRequest(digest=site.task.base.full.digest)
    stolen = "5ec2e7" * 5 + "00"
    planted.add(stolen)
    for token in (stolen, site.alpha.session[:-1] + "g", site.alpha.session + "0"):
        metadata = (("ssd-session", token),)
        note(ask(site.alpha.channel, f"{FEDERATION}/FetchBlob", request, pb.BlobPart, metadata=metadata))
    for call in ("Status", "Clients", "Rounds", "Revoke", "Download"):
        note(
            ask(
                site.alpha.channel,
                f"{OPERATOR}/{call}",
                bytes(body[:300]),
                operator_pb.StatusReply,
                metadata=site.alpha.metadata(),
            )
        )
    note(site.federation.status())
    note(*(site.federation.http(path) for path in ("/metrics", "/readyz", "/livez", "/nothing")))
    # A worker that leaves in the middle and comes again has a token of its own.
    again = site.worker("gamma", [])
    planted.add(again.session)
    again.close()
    site.check_end()
    written = [path.read_text(errors="replace") for path in site.federation.root.glob("*.log")]
    assert any('"level": "info"' in text for text in written)
    assert any("not_finite" in text for text in written), "the planted update was not even judged"
    for text in (*heard, *written):
        for secret in planted:
            assert secret not in text, (secret, text[:2000])


def test_tokens_are_long_and_never_the_same(site: Site) -> None:
    tokens = set()
    for _ in range(20):
        worker = site.worker("gamma", [])
        tokens.add(worker.session)
        worker.close()
    assert len(tokens) == 20
    assert {len(token) for token in tokens} == {32}

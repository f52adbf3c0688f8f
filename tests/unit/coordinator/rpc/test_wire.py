"""Hand-read and hand-written protobuf equals protobuf's own, and nothing makes a deserialiser raise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.rpc.serving.wire import ChunkPart, blob_part, tolerant, upload_part
from ssd_proto.v1 import federation_pb2 as pb
from ssd_wire.errors import Malformed

LIMIT = 4096
read = upload_part(LIMIT)
offsets = st.integers(0, 2**64 - 1) | st.sampled_from([0, 127, 128, 1 << 20, 2**64 - 1])


@given(offset=offsets, data=st.binary(min_size=1, max_size=300))
def test_a_chunk_is_read_without_protobuf(offset: int, data: bytes) -> None:
    part = read(pb.UploadPart(chunk=pb.Chunk(offset=offset, data=data)).SerializeToString())
    assert isinstance(part, ChunkPart)
    assert (part.offset, bytes(part.data)) == (offset, data)


@given(
    raw=st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\x12" + bytes([len(tail)]) + tail)
)
def test_whatever_it_reads_is_what_protobuf_reads(raw: bytes) -> None:
    part, usual = read(raw), tolerant(pb.UploadPart, LIMIT)(raw)
    if isinstance(part, Malformed):
        assert isinstance(usual, Malformed)
        assert (part.reason, part.detail) == (usual.reason, usual.detail)
        return
    if not isinstance(part, ChunkPart):
        assert part == usual
        return
    assert isinstance(usual, pb.UploadPart)
    assert usual.WhichOneof("kind") == "chunk"
    assert (part.offset, bytes(part.data)) == (usual.chunk.offset, usual.chunk.data)


@pytest.mark.parametrize(
    "raw",
    [
        pb.UploadPart(chunk=pb.Chunk()).SerializeToString(),
        pb.UploadPart(chunk=pb.Chunk(offset=7)).SerializeToString(),
        pb.UploadPart(envelope=pb.Envelope(round=3)).SerializeToString(),
        # The data before the offset, and the chunk twice: proper protobuf, but not what anybody writes.
        b"\x12\x05\x12\x01x\x08\x05",
        b"\x12\x03\x12\x01x\x12\x03\x12\x01y",
    ],
)
def test_the_unusual_is_left_to_protobuf(raw: bytes) -> None:
    assert read(raw) == pb.UploadPart.FromString(raw)


def test_the_limit_holds_for_chunks_too() -> None:
    raw = pb.UploadPart(chunk=pb.Chunk(data=bytes(LIMIT))).SerializeToString()
    refused = read(raw)
    assert isinstance(refused, Malformed)
    assert (refused.reason, refused.detail) == (
        "message_too_large",
        f"a message of {len(raw)} bytes is over the limit",
    )


@given(offset=offsets, data=st.binary(max_size=300))
def test_a_blob_part_is_written_as_protobuf_writes_it(offset: int, data: bytes) -> None:
    assert blob_part(offset, data) == pb.BlobPart(offset=offset, data=data).SerializeToString()

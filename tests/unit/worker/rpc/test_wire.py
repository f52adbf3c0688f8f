"""Hand-made protobuf bytes against the generated classes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssd_proto.v1 import federation_pb2 as pb
from worker.rpc.wire import Part, blob_part, upload_chunk

OFFSETS = st.integers(0, 2**64 - 1)


@given(OFFSETS, st.binary(max_size=300))
def test_an_upload_chunk_is_exactly_protobufs(offset: int, data: bytes) -> None:
    expected = pb.UploadPart(chunk=pb.Chunk(offset=offset, data=data)).SerializeToString()
    assert upload_chunk(offset, data) == expected
    assert upload_chunk(offset, memoryview(bytearray(data))) == expected


@given(OFFSETS, OFFSETS, st.binary(max_size=100), st.binary(max_size=300))
def test_a_blob_part_is_read_as_protobuf_reads_it(
    size: int, offset: int, digests: bytes, data: bytes
) -> None:
    raw = pb.BlobPart(chunk_digests=digests, size=size, offset=offset, data=data).SerializeToString()
    part = blob_part(raw)
    assert part is not None
    assert (part.chunk_digests, part.size, part.offset, bytes(part.data)) == (digests, size, offset, data)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_protobuf_reads_them_or_not_at_all(raw: bytes) -> None:
    try:
        message = pb.BlobPart.FromString(raw)
    except Exception:  # noqa: BLE001  # whatever protobuf refuses must be refused
        assert blob_part(raw) is None
        return
    part = blob_part(raw)
    assert part == Part(message.chunk_digests, message.size, message.offset, memoryview(message.data))


def test_fields_this_version_does_not_know_are_skipped() -> None:
    raw = pb.BlobPart(offset=7, data=b"abc").SerializeToString() + b"\xf8\x07\x01"
    part = blob_part(raw)
    assert part is not None
    assert (part.offset, bytes(part.data)) == (7, b"abc")


def test_a_whole_chunk_is_not_copied() -> None:
    raw = pb.BlobPart(offset=1 << 20, data=bytes(1 << 20)).SerializeToString()
    part = blob_part(raw)
    assert part is not None
    assert part.data.obj is raw

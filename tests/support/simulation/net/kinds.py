"""What a message on the network is, told from its bytes."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError, Message

from ssd_proto.v1 import federation_pb2 as pb

_MESSAGES: dict[tuple[str, bool], type[Message]] = {
    ("Attend", True): pb.WorkerMessage,
    ("Attend", False): pb.CoordinatorMessage,
    ("FetchBlob", True): pb.FetchBlobRequest,
    ("FetchBlob", False): pb.BlobPart,
    ("SubmitUpdate", True): pb.UploadPart,
    ("SubmitUpdate", False): pb.UploadReply,
}


def kind_of(method: str, up: bool, raw: bytes) -> tuple[str, Any]:
    """Its kind (the set field of its `oneof`; `request`, `head` or `part` of a blob; `message` of any other call) and
    the message.
    """
    parser = _MESSAGES.get((method, up))
    if parser is None:
        return "message", None
    try:
        message: Any = parser.FromString(bytes(raw))
    except DecodeError:
        return "malformed", None
    if method == "FetchBlob":
        return ("request" if up else "part" if message.data else "head"), message
    return message.WhichOneof("kind") or "empty", message

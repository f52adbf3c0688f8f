from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BlobRef(_message.Message):
    __slots__ = ("digest", "size")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size: int
    def __init__(self, digest: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("number", "model_digest", "full", "deltas")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    number: int
    model_digest: str
    full: BlobRef
    deltas: _containers.RepeatedCompositeFieldContainer[Delta]
    def __init__(self, number: _Optional[int] = ..., model_digest: _Optional[str] = ..., full: _Optional[_Union[BlobRef, _Mapping]] = ..., deltas: _Optional[_Iterable[_Union[Delta, _Mapping]]] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("number", "blob", "model_digest")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    number: int
    blob: BlobRef
    model_digest: str
    def __init__(self, number: _Optional[int] = ..., blob: _Optional[_Union[BlobRef, _Mapping]] = ..., model_digest: _Optional[str] = ...) -> None: ...

class Artefact(_message.Message):
    __slots__ = ("name", "blob", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    blob: BlobRef
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., blob: _Optional[_Union[BlobRef, _Mapping]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

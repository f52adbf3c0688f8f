"""A simulated run as text: every event of every machine with its effects, every message on the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from google.protobuf.message import Message

from coordinator.telemetry.tracing import NoTracing as NoRoundTracing
from simulation import virtual_time
from simulation.coordinator import threadless
from simulation.invariants import check
from simulation.net.network import Passed
from simulation.play import temporary_folder
from simulation.setting import Setting
from simulation.virtual_time import VirtualLoop
from simulation.world import World
from ssd.secagg.protocol.messages import decode
from ssd_proto.v1 import federation_pb2 as pb
from worker.telemetry.tracing import NoTracing as NoTaskTracing

UNSAID = frozenset(
    {
        *("now", "uniform", "seconds", "upload_within", "upload_within_seconds", "level", "fields", "detail"),
        *("run_id", "round_id", "model_digest", "task_digest", "config_digest", "sample_digest", "run_seed"),
        *("hello", "welcome", "stored", "rounds", "threads", "expected_clients"),
    }
)
"""Fields that are left out: times, chance, digests, and what follows from the others."""
IDLE = frozenset({"Tick"})
"""Events that are left out unless something follows from them."""
BLOB_KINDS = frozenset({"head", "part", "request"})


class Transcript:
    """Lines, in the order in which things happen. Prepares a `World` to be listened to."""

    def __init__(self, world: World) -> None:
        self.lines: list[str] = []
        self.open = True
        self._now: Callable[[], float] = world.loop.time
        world.network.observers.append(self._passed)
        world.coordinator_tracing = lambda: _Rounds(self)
        world.worker_tracing = lambda name: _Tasks(self, name)

    def stepped(self, who: str, event: Any, todo: Sequence[Any]) -> None:
        """A machine made a step."""
        if not todo and type(event).__name__ in IDLE:
            return
        self._add(f"{who}: {said(event)}")
        for effect in todo:
            if self.open:
                self.lines.append(f"              {said(effect)}")

    def _passed(self, passed: Passed) -> None:
        if passed.kind in ("heartbeat", "progress") or passed.peer == "operator":
            return
        if passed.method == "FetchBlob" or (passed.method == "SubmitUpdate" and passed.kind == "status"):
            return  # what is fetched is in the task, and the status of an upload follows its verdict
        arrow = f"{passed.peer} -> coordinator" if passed.up else f"coordinator -> {passed.peer}"
        lost = "" if passed.fate == "arrives" else f" ({passed.fate})"
        self._add(f"    {arrow}: {message_said(passed)}{lost}")

    def _add(self, line: str) -> None:
        if self.open:
            self.lines.append(f"{self._now():8.3f}  {line}".rstrip())

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines) + "\n"


class _Rounds(NoRoundTracing):
    """`coordinator.telemetry.tracing.Tracing` into a transcript."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript

    def stepped(self, before: Any, event: Any, after: Any, todo: Sequence[Any]) -> None:
        self._transcript.stepped("coordinator", event, todo)


class _Tasks(NoTaskTracing):
    """`worker.telemetry.tracing.Tracing` into a transcript."""

    def __init__(self, transcript: Transcript, worker: str) -> None:
        self._transcript = transcript
        self._worker = worker

    def stepped(self, run_id: str, event: Any, todo: Sequence[Any]) -> None:
        self._transcript.stepped(self._worker, event, todo)


def said(record: Any) -> str:
    """An event or effect: its name, and what is short enough to read."""
    values = (each for each in fields(record) if each.name not in UNSAID)
    words = (_field(each.name, getattr(record, each.name)) for each in values)
    return " ".join((type(record).__name__, *(word for word in words if word)))


def _field(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name.replace("_", " ") if value else ""
    told = _value(value)
    return f"{name}={told}" if told else ""


def _value(value: Any) -> str:
    match value:
        case bool() | None:
            return ""
        case Enum():
            return str(value.value)
        case int():
            return str(value)
        case str():
            return value if value and len(value) <= 48 and " " not in value else f'"{value}"' if value else ""
        case bytes() | bytearray() | memoryview() | float():
            return ""
        case Mapping():
            inner = [f"{_value(key)}:{_value(each)}" for key, each in sorted(value.items())]
            return f"({' '.join(inner)})" if inner else ""
        case tuple() | frozenset():
            items = sorted(value) if isinstance(value, frozenset) else value
            inner = [
                ":".join(map(_value, each)) if isinstance(each, tuple) else _value(each) for each in items
            ]
            return f"({' '.join(each for each in inner if each)})" if any(inner) else ""
    return _record(value)


def _record(value: Any) -> str:
    """Records inside records, by what tells one from another."""
    if not is_dataclass(value):
        return ""
    name = type(value).__name__
    match name:
        case "UpdateKey":
            return f"{value.client}@{value.round}"  # type: ignore[attr-defined]
        case "Finished":
            return _record(value.key)  # type: ignore[attr-defined]
        case "TaskClient":
            return str(value.client)  # type: ignore[attr-defined]
        case "Train":
            return f"{value.round}.{value.attempt}{_value(value.clients)}"  # type: ignore[attr-defined]
        case "Verdict":
            return f"{value.fate.value} {value.reason}".strip()  # type: ignore[attr-defined]
        case "VersionOffer" | "ModelVersion" | "Version":
            return f"v{value.number}"  # type: ignore[attr-defined]
    return name


def message_said(passed: Passed) -> str:
    """A message: its kind, and what is in it that a reader follows a round by."""
    message = passed.message
    if not isinstance(message, Message):
        return f"{passed.kind} {message or ''}".rstrip()
    inner: Any = getattr(message, passed.kind)
    match passed.kind:
        case "hello":
            hosted = " ".join(f"{each.client}:{each.last_committed_round}" for each in inner.clients)
            held = " ".join(f"{each.client}@{each.round}" for each in inner.held_updates)
            return f"hello {hosted}{f' holding {held}' if held else ''}"
        case "welcome":
            fates = " ".join(
                pb.HeldFate.Fate.Name(each.fate).removeprefix("FATE_").lower() for each in inner.held_fates
            )
            return f"welcome v{inner.version.number}{f' fates {fates}' if fates else ''}"
        case "train":
            clients = " ".join(each.client for each in inner.clients)
            return f"train {inner.round}.{inner.attempt} ({clients}) on v{inner.base.number}"
        case "committed":
            return f"committed {inner.round} including ({' '.join(inner.included)})"
        case "cancel":
            return f'cancel {inner.round}.{inner.attempt} "{inner.reason}"'
        case "task_failed":
            return f"task_failed {inner.round}.{inner.attempt} {inner.client} {inner.reason}"
        case "version_held":
            return f"version_held v{inner.number}"
        case "envelope":
            clients = " ".join(f"{each.client}*{each.weight}" for each in inner.clients)
            return f"envelope {inner.round}.{inner.attempt} ({clients})"
        case "chunk":
            return f"chunk at {inner.offset}"
        case "proceed":
            return f"proceed from {inner.offset}"
        case "verdict":
            return f"verdict {pb.Verdict.Fate.Name(inner.fate).removeprefix('FATE_').lower()} {inner.reason}".rstrip()
        case "secure_aggregation":
            return f"secure_aggregation {_secure(inner)}"
    return passed.kind


def _secure(message: Any) -> str:
    return "by blob" if message.HasField("blob") else type(decode(message.message)).__name__


TWO = (("w1", ("a", "b")), ("w2", ("c",)))
THREE = (("w1", ("a",)), ("w2", ("b",)), ("w3", ("c",)))
ROUNDS = {
    "plain": Setting(rounds=1, hosts=TWO),
    "elastic_deadline": Setting(
        mode="elastic", rounds=1, hosts=THREE, deadline_seconds=10.0, slow=(("c", 60.0),)
    ),
    "masked": Setting(rounds=1, hosts=THREE, level="passive"),
    "server_hook": Setting(rounds=1, hosts=TWO, hook=True),
}


def transcript(setting: Setting) -> str:
    """What happens from the first hello to the last worker's knowing of the commit."""
    with temporary_folder() as root, threadless():

        async def scene(loop: VirtualLoop) -> str:
            world = World(setting, root, loop)
            kept = Transcript(world)
            world.begin()
            await world.over()
            kept.open = False
            await world.finish()
            check(world)
            return kept.text

        return virtual_time.run(scene)

"""The worker's configuration: one frozen typed tree out of a TOML file, the environment and flags.

`load` reports every mistake at once, each with file, line, table, key and the nearest valid name. The docstring
under each setting is its documentation.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from ssd.daemon.tracing.setup import check_endpoint
from worker.address import parse
from worker.config_sources import Key, RawConfig, read
from worker.errors import ConfigInvalid

Json = Any
_WORKER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CLIENT = re.compile(r"[A-Za-z0-9._-]{1,128}")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def _to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _to_path(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) and value else value


def _to_paths(value: object) -> object:
    return {key: _to_path(item) for key, item in value.items()} if isinstance(value, dict) else value


def _address(value: str) -> str:
    return str(parse(value))


def _optional_address(value: str) -> str:
    return _address(value) if value else value


def _worker_name(value: str) -> str:
    if _WORKER.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no worker name: use 1 to 64 of A-Z a-z 0-9 . _ -")
    return value


def _device(value: str) -> str:
    if _DEVICE.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no device: use auto, cpu, cuda or cuda:N")
    return value


def _client_ids(value: tuple[str, ...]) -> tuple[str, ...]:
    if value == ("*",):
        return value
    for client in value:
        _client_id(client)
    if len(set(value)) != len(value):
        raise ValueError("a client is named twice")
    return value


def _client_id(client: str) -> None:
    if _CLIENT.fullmatch(client) is None:
        raise ValueError(f"{client!r} is no client id: use 1 to 128 of A-Z a-z 0-9 . _ -")


def _folder_ids(value: Mapping[str, Path]) -> Mapping[str, Path]:
    for client in value:
        _client_id(client)
    return value


def default_name() -> str:
    """The host's name, with what no worker name may have replaced."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "worker"


ConfigPath = Annotated[Path, BeforeValidator(_to_path)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_to_tuple)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class WorkerSection(_Section):
    """`[worker]`: who it is, whom it works for, where it keeps its state."""

    name: Annotated[str, AfterValidator(_worker_name)] = Field(default_factory=default_name)
    """Unique among the coordinator's workers; the host's name if not given."""
    coordinator: Annotated[str, AfterValidator(_address)] = "127.0.0.1:7443"
    """host:port or unix:/path."""
    state_dir: ConfigPath = Path("state/worker")
    """Finished updates, client states, cached versions. One worker at a time."""
    http_listen: Annotated[str, AfterValidator(_optional_address)] = ""
    """Where /metrics, /livez and /readyz are served; empty: nowhere."""
    device: Annotated[str, AfterValidator(_device)] = "auto"
    """`auto` takes a CUDA device if the method can use one and there is one."""
    max_cached_versions: Annotated[int, Field(ge=2, le=1000)] = 2
    """Model versions kept on disk to start from."""
    accept_rollback: bool = False
    """Work for a coordinator whose run has another history than this worker remembers. For one start, when the
    operator has restored an older backup on purpose."""
    max_open_clients: Annotated[int, Field(ge=1)] = 64
    """Clients whose images stay open in the training process."""


class TransportSection(_Section):
    """`[transport]`."""

    insecure: bool = False
    """Talk without TLS, to this machine only."""
    identity_dir: ConfigPath | None = None
    """Folder with ca.pem, worker.pem and worker.key; without it, `identity` in the state directory. New files are taken
    up on the next connection."""
    server_name: str = ""
    """The name the coordinator's certificate must carry; empty: the host part of its address, `localhost` for a
    Unix socket."""


class DataSection(_Section):
    """`[data]`: the clients hosted here and where their images are."""

    kind: Literal["none", "digits", "cifar10", "cifar100", "mnist", "folder"] = "none"
    """`none` is for methods that need no images."""
    clients: Annotated[tuple[str, ...], BeforeValidator(_to_tuple), AfterValidator(_client_ids)] = ()
    """Ids of the hosted clients; ["*"]: every client of the partition file or of `folders`."""
    root: ConfigPath | None = None
    """Where torchvision's data sets are."""
    partition: ConfigPath | None = None
    """Which images of a built-in set are whose."""
    folders: Annotated[Mapping[str, Path], BeforeValidator(_to_paths), AfterValidator(_folder_ids)] = Field(
        default_factory=dict
    )
    """For `folder`: client id -> its folder of images."""
    test_folders: Annotated[Mapping[str, Path], BeforeValidator(_to_paths), AfterValidator(_folder_ids)] = (
        Field(default_factory=dict)
    )
    """For `folder` with `labels = "folders"` and `classes`: client id -> its folder of test images, to measure what a
    model is worth to that client."""
    probe: ConfigPath | None = None
    """For `folder`: labelled images to evaluate on."""
    evaluates: bool | None = None
    """Offer to evaluate. By default if there are labelled images: a built-in set, or `probe`."""
    download: bool = False
    """Let torchvision fetch what is missing."""
    labels: Literal["none", "folders"] = "none"
    """For `folder`: `folders` takes an image's sub-folder for its class."""
    classes: Texts = ()
    """With `labels = "folders"`: the classes of the whole federation, in order."""
    margin: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.15
    """For `folder`: how much larger than needed images are decoded before they are cropped."""
    min_side: Annotated[int, Field(ge=1)] | None = None
    """For `folder`: images with a shorter side are left out."""
    max_pixels: Annotated[int, Field(ge=1)] | None = None
    """For `folder`: images with more pixels are left out."""


class SecureAggregationSection(_Section):
    """`[secure_aggregation]`: what this worker asks of a run before it takes part (docs/secure-aggregation.md)."""

    level: Literal["off", "passive", "active"] = "off"
    """The least it works under. With `off` it works for every run, and takes part in whatever the run demands."""
    min_participants: Annotated[int, Field(ge=2, le=10_000)] = 2
    """Its updates are only ever part of a sum over at least so many workers, itself among them."""
    min_assumed_corrupt: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    """The least share of corrupt participants that the run's thresholds must withstand; not set: 0.1 with level `active`,
    where the coordinator is not trusted to choose it, else 0."""
    max_tolerated_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """The largest share of participants that may be missing from a sum: whoever picks the missing ones makes the sum
    smaller."""
    ring_bits: Annotated[tuple[Literal[16, 24, 32], ...], BeforeValidator(_to_tuple), Field(min_length=1)] = (
        16,
        24,
        32,
    )
    """Widths of the ring it masks in: with fewer bits an update is rounded more coarsely."""
    allow_sparse_graph: bool = True
    """Take part when, above 200 participants or so, everybody shares keys with some of the others only."""
    registry: ConfigPath | None = None
    """For `active`: the signed registry of participants; without it, `participants.json` in the identity folder. A
    newer one is taken up in the next round."""
    mask_threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads that make the masks of an upload."""

    @property
    def least_assumed_corrupt(self) -> float:
        """`min_assumed_corrupt`, or what stands for it."""
        if self.min_assumed_corrupt is not None:
            return self.min_assumed_corrupt
        return 0.1 if self.level == "active" else 0.0


class PrivacySection(_Section):
    """`[privacy]`: what differential privacy this worker asks of a run (docs/differential-privacy.md)."""

    mechanism: Literal["off", "central", "distributed"] = "off"
    """The least it works under: `central` trusts the coordinator with the noise, `distributed` does not. With `off` it
    works for every run."""
    min_noise_multiplier: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0
    """It works for no run with less noise than so many times a client's largest influence."""


class LogSection(_Section):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe events written."""
    format: Literal["auto", "human", "json"] = "auto"
    """`auto`: human on a terminal, JSON otherwise."""


class TracingSection(_Section):
    """`[tracing]`: traces of rounds for an OpenTelemetry collector (docs/tracing.md)."""

    endpoint: Annotated[str, AfterValidator(check_endpoint)] = ""
    """The collector's OTLP/gRPC address: http://host:4317 or https://host:4317; empty: no traces."""
    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    """Of the attempts at rounds, how many are traced. Daemons with the same share trace the same ones."""
    service_name: Annotated[str, Field(min_length=1, max_length=128)] = "ssd-worker"
    """Under which it appears in the collector."""
    root_certificates: ConfigPath | None = None
    """PEM file of who may vouch for an https collector; without it, whom gRPC trusts by itself."""


class WorkerConfig(_Section):
    """The whole tree. Components receive their own section, never the root."""

    worker: WorkerSection = Field(default_factory=WorkerSection)
    transport: TransportSection = TransportSection()
    data: DataSection = DataSection()
    methods: Annotated[Mapping[str, Path], BeforeValidator(_to_paths)] = Field(default_factory=dict)
    """`[methods]`: name of a method that is not built in -> this operator's own Python file of it."""
    secure_aggregation: SecureAggregationSection = SecureAggregationSection()
    privacy: PrivacySection = PrivacySection()
    log: LogSection = LogSection()
    tracing: TracingSection = TracingSection()

    def resolved(self) -> dict[str, Json]:
        """The tree as a JSON object, every setting present."""
        result: dict[str, Json] = self.model_dump(mode="json")
        return result

    @property
    def identity_dir(self) -> Path:
        """Where this worker's certificate is."""
        return self.transport.identity_dir or self.worker.state_dir / "identity"

    @property
    def evaluates(self) -> bool:
        """Whether this worker offers to evaluate."""
        if self.data.evaluates is not None:
            return self.data.evaluates
        return self.data.probe is not None if self.data.kind == "folder" else self.data.kind != "none"


def load(
    path: Path | None, flags: Mapping[str, Json] | None = None, environ: Mapping[str, str] | None = None
) -> WorkerConfig:
    """The configuration from a file, the environment and flags (flag over environment over file over default).

    Args:
        path: the TOML file, or None.
        flags: `table.key` -> value; None counts as not given.
        environ: None: the process environment.

    Raises:
        ConfigInvalid: with one line for every mistake.
    """
    raw = read(path, flags or {}, os.environ if environ is None else environ, _text_keys())
    try:
        config = WorkerConfig.model_validate(raw.values)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise ConfigInvalid("\n".join(dict.fromkeys(_describe(raw, detail) for detail in details))) from None
    problems = [f"{raw.where(key)}: [{key[0]}] {key[1]}: {text}" for key, text in _contradictions(config)]
    if problems:
        raise ConfigInvalid("\n".join(problems))
    return config


def _contradictions(config: WorkerConfig) -> list[tuple[Key, str]]:
    """What is wrong between settings that are fine by themselves."""
    found: list[tuple[Key, str]] = []
    data = config.data
    if config.transport.insecure and not parse(config.worker.coordinator).is_local:
        found.append(
            (
                ("worker", "coordinator"),
                "without TLS the coordinator must be on this machine (loopback or unix:): leave insecure out",
            )
        )
    if data.kind == "folder":
        missing = sorted(set(data.clients) - set(data.folders) - {"*"})
        if not data.folders:
            found.append((("data", "folders"), 'kind "folder" needs a folder for each client'))
        elif missing:
            found.append((("data", "clients"), f"no folder is given for {', '.join(missing[:5])}"))
    elif data.clients == ("*",) and data.partition is None:
        found.append((("data", "clients"), '["*"] needs a partition file, or kind "folder"'))
    elif data.kind != "none" and data.clients and data.partition is None:
        found.append((("data", "partition"), f'kind "{data.kind}" needs a partition file'))
    if data.kind != "folder" and (data.folders or data.test_folders):
        key = "folders" if data.folders else "test_folders"
        found.append((("data", key), 'only kind "folder" has folders'))
    if data.test_folders and (data.labels != "folders" or not data.classes):
        found.append(
            (("data", "test_folders"), 'they need labels = "folders" and the federation\'s classes in order')
        )
    strangers = sorted(set(data.test_folders) - set(data.folders))
    if data.kind == "folder" and strangers:
        found.append((("data", "test_folders"), f"no folder is given for {', '.join(strangers[:5])}"))
    return found


def _describe(raw: RawConfig, detail: ErrorDetails) -> str:
    key = tuple(str(part) for part in detail["loc"])
    name = f"[{key[0]}] {'.'.join(key[1:])}" if len(key) > 1 else f"[{key[0]}]"
    return f"{raw.where(key)}: {name}: {_explain(detail, key)}"


def _explain(detail: ErrorDetails, key: Key) -> str:
    if detail["type"] == "extra_forbidden":
        if len(key) == 1:
            return f"unknown table{_nearest(key[0], list(WorkerConfig.model_fields))}"
        return f"unknown key{_hint(key)}"
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    if detail["type"] in {"model_type", "model_attributes_type"}:
        return "must be a table"
    return f"{detail['msg'].replace('Input should be', 'must be')}, not {detail['input']!r}"


def _hint(key: Key) -> str:
    for table, names in _keys().items():
        if table != key[0] and key[1] in names:
            return f"; it belongs into [{table}]"
    return _nearest(key[1], _keys().get(key[0], []))


def _nearest(name: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1)
    return f"; did you mean {close[0]}?" if close else f"; valid are {', '.join(sorted(valid))}"


def _keys() -> dict[str, list[str]]:
    sections = {name: info.annotation for name, info in WorkerConfig.model_fields.items()}
    return {
        name: list(section.model_fields)
        for name, section in sections.items()
        if isinstance(section, type) and issubclass(section, BaseModel)
    }


def _text_keys() -> dict[str, frozenset[str]]:
    """Table -> keys whose value is text, for variables and flags."""
    out = {}
    for name, info in WorkerConfig.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            out[name] = frozenset(key for key, f in section.model_fields.items() if _is_text(f.annotation))
    return out


def _is_text(kind: object) -> bool:
    if getattr(kind, "__origin__", None) in {tuple, Mapping}:
        return False
    return any(part in {str, Path} or isinstance(part, str) for part in (kind, *get_args(kind)))

"""The worker's configuration: one frozen typed tree out of a TOML file, the environment and flags.

`load` reports every mistake at once, each with file, line, table, key and the nearest valid name. The docstring
under each setting is its documentation.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ssd.daemon import config_loading
from ssd.daemon.address import BY_ENVIRONMENT, check_proxy, parse_address
from ssd.daemon.config_loading import (
    AddressText,
    ConfigPath,
    LogSection,
    OptionalAddressText,
    PathTable,
    Section,
    as_tuple,
    check_client_ids,
)
from ssd.daemon.config_sources import ConfigError, Key
from ssd.daemon.suggest import nearest
from ssd.data.manifest.table import COLUMNS
from worker.errors import ConfigInvalid

Json = Any
_WORKER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


FILES = ("folder", "manifest")
"""Kinds of data that are files of the operator's."""
Window = tuple[Annotated[float, Field(allow_inf_nan=False)], Annotated[float, Field(allow_inf_nan=False)]]


def _rising(value: Window) -> Window:
    if value[0] >= value[1]:
        raise ValueError(f"a window goes from black to a larger white, not from {value[0]:g} to {value[1]:g}")
    return value


def _columns(value: dict[str, str]) -> dict[str, str]:
    for column, name in value.items():
        if column not in COLUMNS:
            raise ValueError(f"a manifest has no {column!r}{nearest(column, COLUMNS)}")
        if not 1 <= len(name) <= 256:
            raise ValueError(f"the name of the column {column!r} has 1 to 256 characters")
    return value


def _worker_name(value: str) -> str:
    if _WORKER.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no worker name: use 1 to 64 of A-Z a-z 0-9 . _ -")
    return value


def _device(value: str) -> str:
    if _DEVICE.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no device: use auto, cpu, cuda or cuda:N")
    return value


def _client_ids(value: tuple[str, ...]) -> tuple[str, ...]:
    if value != ("*",):
        check_client_ids(value)
    return value


def _folder_ids(value: Mapping[str, Path]) -> Mapping[str, Path]:
    check_client_ids(value)
    return value


def default_name() -> str:
    """The host's name, with what no worker name may have replaced."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "worker"


Folders = Annotated[PathTable, AfterValidator(_folder_ids)]


class WorkerSection(Section):
    """`[worker]`: who it is, whom it works for, where it keeps its state."""

    name: Annotated[str, AfterValidator(_worker_name)] = Field(default_factory=default_name)
    """Unique among the coordinator's workers; the host's name if not given."""
    coordinator: AddressText = "127.0.0.1:7443"
    """host:port or unix:/path."""
    state_dir: ConfigPath = Path("state/worker")
    """Finished updates, client states, cached versions. One worker at a time."""
    http_listen: OptionalAddressText = ""
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


class TransportSection(Section):
    """`[transport]`."""

    insecure: bool = False
    """Talk without TLS, to this machine only."""
    identity_dir: ConfigPath | None = None
    """Folder with ca.pem, worker.pem and worker.key; without it, `identity` in the state directory. New files are taken
    up on the next connection."""
    server_name: str = ""
    """The name the coordinator's certificate must carry; empty: the host part of its address, `localhost` for a
    Unix socket."""
    proxy: Annotated[str, AfterValidator(check_proxy)] = BY_ENVIRONMENT
    """`env`: through the HTTP proxy of `https_proxy` and `http_proxy`, but for hosts of `no_proxy`, as gRPC reads them;
    `off`: directly; `http://host:port`: through that one, which must allow CONNECT. TLS goes through unopened. A
    coordinator on this machine is always called directly."""


class DataSection(Section):
    """`[data]`: the clients hosted here and where their images are."""

    kind: Literal["none", "digits", "cifar10", "cifar100", "mnist", "folder", "manifest"] = "none"
    """`none` is for methods that need no images."""
    clients: Annotated[tuple[str, ...], BeforeValidator(as_tuple), AfterValidator(_client_ids)] = ()
    """Ids of the hosted clients; ["*"]: every client of the partition file, of `folders`, or of the manifest's rows."""
    root: ConfigPath | None = None
    """Where torchvision's data sets are; for `manifest` the folder (or .zip or .tar file) that its paths begin at. Not set:
    the manifest's own folder."""
    partition: ConfigPath | None = None
    """Which images of a built-in set are whose."""
    folders: Folders = Field(default_factory=dict)
    """For `folder`: client id -> its folder of images, or its .zip or .tar file, which is read where it is."""
    manifest: ConfigPath | None = None
    """For `manifest`: a table of images, one row each, as CSV or Parquet (docs/images.md)."""
    columns: Annotated[dict[str, str], AfterValidator(_columns)] = Field(default_factory=dict)
    """For `manifest`: what its columns are called, as `{ path = "file", client = "hospital" }`. Not given: `path`, `label`,
    `client` and `split`."""
    test_folders: Folders = Field(default_factory=dict)
    """For `folder` with `labels = "folders"` and `classes`: client id -> its folder of test images, to measure what a
    model is worth to that client."""
    probe: ConfigPath | None = None
    """For `folder` and `manifest`: labelled images to evaluate on. A manifest without it: its rows of the split `test`."""
    evaluates: bool | None = None
    """Offer to evaluate. By default if there are labelled images: a built-in set, or `probe`."""
    download: bool = False
    """Let torchvision fetch what is missing."""
    labels: Literal["none", "folders", "column"] = "none"
    """`folders` (for `folder`) takes an image's sub-folder for its class, `column` (for `manifest`) what its row says."""
    classes: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    """With labels: the classes of the whole federation, in order."""
    axis: Literal["axial", "coronal", "sagittal"] = "axial"
    """Of medical volumes (extra `medical`): across which axis planes are cut."""
    frames: Literal["all", "middle"] = "all"
    """Of medical volumes and DICOM files of several frames: every plane is an image, or the one in the middle."""
    margin: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.15
    """For `folder`: how much larger than needed images are decoded before they are cropped."""
    min_side: Annotated[int, Field(ge=1)] | None = None
    """For `folder`: images with a shorter side are left out."""
    max_pixels: Annotated[int, Field(ge=1)] | None = None
    """For `folder`: images with more pixels are left out."""
    window: Annotated[Window, BeforeValidator(as_tuple), AfterValidator(_rising)] | None = None
    """For `folder`: which values of pixels of more than 8 bits become black and white, as `[0, 4095]` for 12 bits in
    16-bit files. By default 0 and 65535 for integers, 0 and 1 for floating point; other values are refused. 8-bit
    images are not touched."""


class SecureAggregationSection(Section):
    """`[secure_aggregation]`: what this worker asks of a run before it takes part (docs/secure-aggregation.md)."""

    level: Literal["off", "passive", "active"] = "off"
    """The least it works under. With `off` it works for every run, and takes part in whatever the run demands."""
    min_participants: Annotated[int, Field(ge=2, le=10_000)] = 2
    """Its updates are only ever part of a sum over at least so many workers, itself among them."""
    min_assumed_corrupt: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    """The least share of corrupt participants that the run's thresholds must withstand: in `active` of the whole registry,
    all of them in every roster. Not set: 0.1 with level `active`, where the coordinator is not trusted to choose it, else 0."""
    min_set_change: Annotated[int, Field(ge=1, le=10_000)] = 1
    """The participants of a sum are those of a sum that it signed lately, or differ from them by so many. Above 1 a single
    worker that comes or goes costs attempts until as many others did."""
    min_honest_others: Annotated[int, Field(ge=1, le=10_000)] = 1
    """For `active`: when the tolerated dropouts and `min_assumed_corrupt` of the *registry* are taken from a roster, so many
    others are left at least. Its update is only ever in a sum with so many honest ones."""
    max_weight_ratio: Annotated[int, Field(ge=1, le=1 << 20)] = 1024
    """It takes part in no run in which one client's part of a masked sum may weigh so many times another's and more: what
    weighs most of a sum is not hidden by it."""
    max_tolerated_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """The largest share of participants that may be missing from a sum: whoever picks the missing ones makes the sum
    smaller."""
    ring_bits: Annotated[tuple[Literal[16, 24, 32], ...], BeforeValidator(as_tuple), Field(min_length=1)] = (
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
    policy: ConfigPath | None = None
    """The signed federation policy; without it, `policy.json` in the identity folder. A newer one is taken up with the next
    task. Where there is one it counts, at any level."""
    require_policy: bool | None = None
    """Take part in nothing without a federation policy; not set: yes with level `active`, else no."""
    mask_threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads that make the masks of an upload."""

    @property
    def needs_policy(self) -> bool:
        """`require_policy`, or what stands for it."""
        return self.level == "active" if self.require_policy is None else self.require_policy

    @property
    def least_assumed_corrupt(self) -> float:
        """`min_assumed_corrupt`, or what stands for it."""
        if self.min_assumed_corrupt is not None:
            return self.min_assumed_corrupt
        return 0.1 if self.level == "active" else 0.0


class PrivacySection(Section):
    """`[privacy]`: what differential privacy this worker asks of a run (docs/differential-privacy.md)."""

    mechanism: Literal["off", "central", "distributed"] = "off"
    """The least it works under: `central` trusts the coordinator with the noise, `distributed` does not. With `off` it
    works for every run."""
    min_noise_multiplier: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0
    """It works for no run with less noise than so many times a client's largest influence."""


class TracingSection(config_loading.TracingSection):
    """`[tracing]`: traces of rounds for an OpenTelemetry collector (docs/tracing.md)."""

    service_name: Annotated[str, Field(min_length=1, max_length=128)] = "ssd-worker"
    """Under which it appears in the collector."""


class WorkerConfig(Section):
    """The whole tree. Components receive their own section, never the root."""

    worker: WorkerSection = Field(default_factory=WorkerSection)
    transport: TransportSection = TransportSection()
    data: DataSection = DataSection()
    methods: PathTable = Field(default_factory=dict)
    """`[methods]`: name of a method that is not built in -> this operator's own Python file of it."""
    secure_aggregation: SecureAggregationSection = SecureAggregationSection()
    privacy: PrivacySection = PrivacySection()
    log: LogSection = LogSection()
    tracing: TracingSection = TracingSection()

    @property
    def identity_dir(self) -> Path:
        """Where this worker's certificate is."""
        return self.transport.identity_dir or self.worker.state_dir / "identity"

    @property
    def evaluates(self) -> bool:
        """Whether this worker offers to evaluate."""
        if self.data.evaluates is not None:
            return self.data.evaluates
        return self.data.probe is not None if self.data.kind in FILES else self.data.kind != "none"


def load(
    path: Path | None, flags: Mapping[str, Json] | None = None, environ: Mapping[str, str] | None = None
) -> WorkerConfig:
    """The configuration from a file, the environment and flags (flag over environment over file over default).

    Args:
        path: the TOML file, or None for defaults.
        flags: dotted key -> value, as of `ssd.daemon.config_loading.load`.
        environ: where SSD_<TABLE>_<KEY> is looked up; None: the process environment.

    Raises:
        ConfigInvalid: with one line for every mistake.
    """
    try:
        return config_loading.load(WorkerConfig, path, flags, environ, _contradictions)
    except ConfigError as error:
        raise ConfigInvalid(str(error)) from None


def _contradictions(config: WorkerConfig) -> Iterator[tuple[tuple[Key, ...], str]]:
    coordinator, insecure = ("worker", "coordinator"), ("transport", "insecure")
    if config.transport.insecure and not parse_address(config.worker.coordinator).is_local:
        yield (
            (coordinator, insecure),
            "without TLS the coordinator must be on this machine (loopback or unix:): leave insecure out",
        )
    for concerned, text in _data_contradictions(config.data):
        yield tuple(("data", name) for name in concerned), text


def _data_contradictions(data: DataSection) -> Iterator[tuple[tuple[str, ...], str]]:
    """(keys of `[data]`, what is wrong between them)."""
    if data.kind == "folder":
        missing = sorted(set(data.clients) - set(data.folders) - {"*"})
        strangers = sorted(set(data.test_folders) - set(data.folders))
        if not data.folders:
            yield ("folders", "kind"), 'kind "folder" needs a folder for each client'
        elif missing:
            yield ("clients", "folders", "kind"), f"no folder is given for {', '.join(missing[:5])}"
        if strangers:
            yield (
                ("test_folders", "folders", "kind"),
                f"no folder is given for {', '.join(strangers[:5])}",
            )
    elif data.kind == "manifest":
        if data.manifest is None:
            yield ("manifest", "kind"), 'kind "manifest" needs the table of images'
    elif data.clients == ("*",) and data.partition is None:
        yield ("clients", "partition", "kind"), '["*"] needs a partition file, or kind "folder" or "manifest"'
    elif data.kind != "none" and data.clients and data.partition is None:
        yield ("partition", "clients", "kind"), f'kind "{data.kind}" needs a partition file'
    if data.kind != "folder" and (data.folders or data.test_folders):
        key = "folders" if data.folders else "test_folders"
        yield (key, "kind"), 'only kind "folder" has folders'
    if data.kind != "manifest" and (data.manifest is not None or data.columns):
        yield (
            ("manifest" if data.columns == {} else "columns", "kind"),
            'only kind "manifest" has a table of images',
        )
    wrong = {"folder": "column", "manifest": "folders"}.get(data.kind)
    if data.labels == wrong:
        right = "folders" if wrong == "column" else "column"
        yield ("labels", "kind"), f'kind "{data.kind}" has labels = "none" or "{right}"'
    if data.test_folders and (data.labels != "folders" or not data.classes):
        yield (
            ("test_folders", "labels", "classes"),
            'they need labels = "folders" and the federation\'s classes in order',
        )

"""The coordinator's configuration: one frozen typed tree out of TOML, environment and flags.

`load` reports every mistake at once, each with file, line, table, key and what to write instead. Settings that
would change what a run computes are fixed when the run is created (`run_config`); `refuse_changes` names those
that differ later. The docstring under each setting is its documentation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from coordinator.address import Address, parse_address
from coordinator.config.cross_checks import changed_keys, cross_checks, not_json
from coordinator.config_sources import Key, Sources, gather
from coordinator.errors import ConfigInvalid, RunConfigChanged
from ssd.daemon.suggest import nearest
from ssd.daemon.tracing.setup import check_endpoint

Json = Any
MIB = 1 << 20
_CLIENT = re.compile(r"[A-Za-z0-9._-]{1,128}")


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _as_path(value: object) -> object:
    return Path(value) if isinstance(value, str) and value else value


def _address(value: str) -> str:
    return str(parse_address(value))


def _http_address(value: str) -> str:
    return _address(value) if value else value


def _enrolment_address(value: str) -> str:
    if value.startswith("unix:"):
        raise ValueError("hosts that enrol come over the network: give host:port")
    return _http_address(value)


def _client_names(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if _CLIENT.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no client id: use 1 to 128 of A-Z a-z 0-9 . _ -")
    if len(set(value)) != len(value):
        raise ValueError("a client is named twice")
    return tuple(sorted(value))


def _plain_json(value: Mapping[str, Json]) -> Mapping[str, Json]:
    found = not_json(value)
    if found:
        raise ValueError(f"{found} is neither text, finite number, boolean, array nor table")
    return value


ConfigPath = Annotated[Path, BeforeValidator(_as_path)]
AddressText = Annotated[str, AfterValidator(_address)]
HttpAddressText = Annotated[str, AfterValidator(_http_address)]
EnrolmentAddressText = Annotated[str, AfterValidator(_enrolment_address)]
ClientNames = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), AfterValidator(_client_names)]
EndpointText = Annotated[str, AfterValidator(check_endpoint)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Encoding = Literal["float32", "float16", "int8"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class CoordinatorSection(_Section):
    """`[coordinator]`: where it listens and keeps its state. May change between starts."""

    listen: AddressText = "127.0.0.1:7443"
    """Where workers and operators connect: host:port or unix:/path; port 0 takes any free one."""
    http_listen: HttpAddressText = "127.0.0.1:9464"
    """Where /metrics, /livez, /readyz and the status page are served: host:port or unix:/path; empty: nowhere."""
    http_certificate: ConfigPath | None = None
    """PEM certificate for HTTPS on that address; a new one is taken up on SIGHUP. Without it: plain HTTP."""
    http_key: ConfigPath | None = None
    """The key to it."""
    http_token_file: ConfigPath | None = None
    """Holds the operator's token for the status page (docs/status-page.md): who shows it sees names, pauses, resumes and
    takes models. A new one is taken up on SIGHUP. Without it nobody does the latter three."""
    state_dir: ConfigPath = Path("state/coordinator")
    """Journal, registry and blobs. One directory is one federation."""


class TransportSection(_Section):
    """`[transport]`. May change between starts."""

    insecure: bool = False
    """Serve without TLS. Only on a loopback address or a Unix socket."""
    authority: ConfigPath = Path("pki/ca.pem")
    """Certificate of the federation's authority; whoever calls must have one that it signed. Relative paths of this
    table begin at the configuration file's folder."""
    certificate: ConfigPath = Path("pki/coordinator.pem")
    """The coordinator's own certificate. A new one is taken up on SIGHUP."""
    key: ConfigPath = Path("pki/coordinator.key")
    """The key to it."""


class EnrolmentSection(_Section):
    """`[enrolment]`: a port of its own where a host with a join token gets its certificate. May change."""

    listen: EnrolmentAddressText = ""
    """host:port; port 0 takes any free one; empty: nobody can enrol."""
    authority_key: ConfigPath = Path("pki/ca.key")
    """The authority's key; a relative path begins at the configuration file's folder. The coordinator reads it for enrolling and renewing alone."""
    certificate_days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = 30.0
    """How long the certificates it issues are valid. Workers renew theirs when two thirds have passed."""


class RunSection(_Section):
    """`[run]`: the training job."""

    mode: Literal["elastic", "reproducible"] = "elastic"
    """`reproducible`: the final model depends on nothing but configuration and data. `elastic`: rounds take
    whoever is connected and close at a goal count or deadline."""
    rounds: Annotated[int, Field(ge=1)] = 100
    """How many rounds to commit. May only grow on an existing run."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """All randomness of the run derives from it."""
    clients: ClientNames = ()
    """Client ids known in advance; a client's place among scaling vectors is its rank in the sorted list."""
    expected_clients: Annotated[int, Field(ge=1)] | None = None
    """How many clients the run is laid out for; without it, as many as are named."""
    when_done: Literal["serve", "exit"] = "serve"
    """After the last round: keep serving the model, or exit with code 0. May change."""
    warm_start: ConfigPath | None = None
    """An encoder file (safetensors) version 0 starts from. Read when the run is created, never after."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Intra-operation threads of every client's training. Part of the task: it changes bits."""


class RoundSection(_Section):
    """`[round]`: how rounds open and close."""

    cohort_size: Annotated[int, Field(ge=1)] = 10
    """Updates a round wants."""
    over_selection: Annotated[float, Field(ge=1, le=10, allow_inf_nan=False)] = 1.0
    """Invite this many times the cohort size; the round closes at the cohort size. Elastic only."""
    min_updates: Annotated[int, Field(ge=1)] = 1
    """Fewest updates a round may commit with when its deadline passes."""
    deadline_seconds: Positive = 600.0
    """Coordinator up-time after which an elastic round closes. May change."""
    deadline_quantile: Annotated[float, Field(gt=0, le=1)] | None = None
    """Close at this quantile of recent report times instead, never later than the deadline. Elastic only."""
    wait_for_clients_seconds: NotNegative = 0.0
    """How long to wait for enough clients before the run halts; 0: for ever. May change."""
    retry_seconds: NotNegative = 5.0
    """Pause before an abandoned round is tried again. May change."""
    max_client_failures: Annotated[int, Field(ge=1)] = 3
    """Failures of one client in one attempt after which a reproducible run halts."""


class StrategySection(_Section):
    """`[strategy]`: how the mean update moves the model."""

    name: Literal["average", "momentum"] = "average"
    """`average`: by the mean itself. `momentum`: by a running sum of means."""
    learning_rate: Positive = 1.0
    """Factor on the step."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much of the previous step stays; `momentum` only."""


class WireSection(_Section):
    """`[wire]`: how parameters travel."""

    update_encoding: Encoding = "float16"
    """Clients' updates, up."""
    delta_encoding: Encoding = "float16"
    """Steps of the model, down."""


class LimitsSection(_Section):
    """`[limits]`: what one peer may take, and what the coordinator may use."""

    max_client_weight: Annotated[int, Field(ge=1, le=1 << 32)] = 65536
    """Largest aggregation weight one client may claim; fixes the precision of the sum."""
    max_message_bytes: Annotated[int, Field(ge=MIB + (64 << 10), le=64 * MIB)] = 2621440
    """Largest gRPC message. A chunk is 1 MiB."""
    staging_ram_bytes: Annotated[int, Field(ge=0)] = 64 * MIB
    """Memory for uploads in flight. May change."""
    staging_disk_bytes: Annotated[int, Field(ge=0)] = 8 << 30
    """Disk for uploads in flight that do not fit in memory. May change."""
    min_free_bytes: Annotated[int, Field(ge=0)] = 64 * MIB
    """Free space of the state directory below which no round opens. May change."""
    heartbeat_seconds: Positive = 5.0
    """How often workers report; three silent intervals end a session. May change."""
    max_connections: Annotated[int, Field(ge=1, le=1 << 20)] = 8192
    """Connections the port has open at once; a worker needs two. One too many is closed as it comes. May change."""
    calls_per_connection: Annotated[int, Field(ge=2, le=1 << 16)] = 128
    """Calls a connection has open at once; a further one waits or is reset. May change."""
    uploads_per_worker: Annotated[int, Field(ge=1, le=1 << 16)] = 16
    """Uploads a worker has under way at once. May change."""
    fetches_per_worker: Annotated[int, Field(ge=1, le=1 << 10)] = 8
    """Blobs a worker reads at once. May change."""
    staging_bytes_per_worker: Annotated[int, Field(ge=0)] = 1 << 30
    """Room one worker's uploads take at once; the next one is held. A single upload always may. May change."""
    messages_per_second: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 100.0
    """Messages, in units of 16 KiB, that are read from a worker's control stream, after a burst of twenty seconds'
    worth. What comes faster waits. May change."""
    handshake_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 10.0
    """How long a connection may take to become one. May change."""
    idle_seconds: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 600.0
    """A connection without a call is closed after this time. May change."""
    stall_seconds: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 60.0
    """A transfer that does not move on by 64 KiB in this time is ended and loses its room; it may come again.
    May change."""


class RetentionSection(_Section):
    """`[retention]`: what is kept of old versions. May change."""

    full_versions: Annotated[int, Field(ge=1)] = 3
    """Whole models kept, newest first."""
    deltas: Annotated[int, Field(ge=0)] = 20
    """Deltas kept, newest first."""


class EvaluationSection(_Section):
    """`[evaluation]`. May change."""

    every: Annotated[int, Field(ge=0)] = 5
    """Evaluate every so many versions, and the last one, on a worker that holds probe data, and, if the method can be
    measured on clients' own test images, on the workers that host them; 0: never."""
    wait_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    """How long clients whose worker is away are waited for before a version's measures are written without them."""


class MethodSection(_Section):
    """`[method]`: what is trained."""

    name: Annotated[str, Field(min_length=1)] = "ssd"
    """A built-in method, or the path of a Python file that has `create(config)`."""
    config: Annotated[Mapping[str, Json], AfterValidator(_plain_json)] = Field(default_factory=dict)
    """`[method.config]`: handed to the method, which checks it."""


class SecureAggregationSection(_Section):
    """`[secure_aggregation]`: what the coordinator can see of an update (docs/secure-aggregation.md)."""

    level: Literal["off", "passive", "active"] = "off"
    """`off`: the coordinator sees every update. `passive`: only the sum of all workers' updates, as long as it keeps to
    the protocol. `active`: also if it does not; needs a signed registry of participants."""
    ring_bits: Literal[16, 24, 32] = 24
    """Bits of a masked value on the wire. More bits round less; how much is lost depends on cohort and weights too."""
    clip: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0
    """Each element of a client's update is clipped to this magnitude before it is masked."""
    max_client_weight: Annotated[int, Field(ge=1, le=1 << 20)] = 1024
    """A client weighs at most this much in the sum, or `limits.max_client_weight` if that is less. Less weight leaves
    more bits to the values."""
    min_participants: Annotated[int, Field(ge=2, le=10000)] = 2
    """Fewest workers a sum may be over. Each worker insists on a number of its own as well."""
    assumed_corrupt: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Fraction of the participants that may collude with whoever is to learn nothing."""
    tolerated_dropout: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """Fraction of the participants that may go away in the middle of a round without costing it."""
    keys: Literal["early", "late"] = "early"
    """`early`: keys are exchanged while the clients train. `late`: when they are all but trained; whoever goes away in
    training has then shared nothing, but the exchange is waited for. May change."""
    phase_seconds: Positive = 60.0
    """Elastic: how long a phase of the key exchange waits for those that are late. May change."""
    registry: ConfigPath | None = None
    """`active`: the signed registry of participants. Relative paths begin at the configuration file's folder. May
    change."""
    registry_signer: str = ""
    """`active`: public key of whoever signed it, 64 hex digits. May change."""
    threads: Annotated[int, Field(ge=1, le=256)] = 2
    """How many threads take the masks out of a sum. May change."""
    transcript: bool = True
    """Keep what an auditor needs to verify every opened round, in `transcripts` of the state directory. May change."""


class PrivacySection(_Section):
    """`[privacy]`: differential privacy for each client's whole contribution (docs/differential-privacy.md)."""

    mechanism: Literal["off", "distributed", "central"] = "off"
    """Who adds noise to each round's sum. `distributed`: every worker its part, under secure aggregation. `central`: the
    coordinator, which sees the updates."""
    clip_norm: Positive = 1.0
    """Largest L2 norm of one client's update; a longer one is scaled down to it."""
    noise_multiplier: Positive = 1.0
    """Standard deviation of the noise over `clip_norm`. More noise, less epsilon, a worse model."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """The probability with which the guarantee may fail: well below one over the number of clients."""
    min_honest: Annotated[int, Field(ge=1, le=10000)] = 2
    """`distributed`: the fewest honest workers of a sum, beside `secure_aggregation.assumed_corrupt`; they alone add all
    the noise that is promised, and a sum over fewer is not opened."""


class LogSection(_Section):
    """`[log]`. May change."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe events written."""
    format: Literal["auto", "human", "json"] = "auto"
    """`auto`: human on a terminal, JSON otherwise."""


class TracingSection(_Section):
    """`[tracing]`: traces of rounds for an OpenTelemetry collector (docs/tracing.md). May change between starts."""

    endpoint: EndpointText = ""
    """The collector's OTLP/gRPC address: http://host:4317 or https://host:4317; empty: no traces."""
    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    """Of the attempts at rounds, how many are traced. Daemons with the same share trace the same ones."""
    service_name: Annotated[str, Field(min_length=1, max_length=128)] = "ssd-coordinator"
    """Under which it appears in the collector."""
    root_certificates: ConfigPath | None = None
    """PEM file of who may vouch for an https collector; without it, whom gRPC trusts by itself."""


class CoordinatorConfig(_Section):
    """The whole tree. Components receive their own section, never the root."""

    coordinator: CoordinatorSection = CoordinatorSection()
    transport: TransportSection = TransportSection()
    enrolment: EnrolmentSection = EnrolmentSection()
    run: RunSection = RunSection()
    round: RoundSection = RoundSection()
    strategy: StrategySection = StrategySection()
    wire: WireSection = WireSection()
    limits: LimitsSection = LimitsSection()
    retention: RetentionSection = RetentionSection()
    evaluation: EvaluationSection = EvaluationSection()
    method: MethodSection = MethodSection()
    secure_aggregation: SecureAggregationSection = SecureAggregationSection()
    privacy: PrivacySection = PrivacySection()
    log: LogSection = LogSection()
    tracing: TracingSection = TracingSection()

    @property
    def listen(self) -> Address:
        """`coordinator.listen`, taken apart."""
        return parse_address(self.coordinator.listen)

    @property
    def http_listen(self) -> Address | None:
        """`coordinator.http_listen`, taken apart; None if HTTP is off."""
        return parse_address(self.coordinator.http_listen) if self.coordinator.http_listen else None

    @property
    def enrolment_listen(self) -> Address | None:
        """`enrolment.listen`, taken apart; None if nobody can enrol."""
        return parse_address(self.enrolment.listen) if self.enrolment.listen else None

    @property
    def http_identity(self) -> tuple[Path, Path] | None:
        """Certificate and key for HTTPS; None if it is plain HTTP."""
        own = self.coordinator
        if own.http_certificate is None or own.http_key is None:
            return None
        return own.http_certificate, own.http_key

    def resolved(self) -> dict[str, Json]:
        """The tree as a JSON object, every setting present."""
        result: dict[str, Json] = self.model_dump(mode="json")
        return result

    def run_config(self) -> dict[str, Json]:
        """The part that is fixed when a run is created, as a JSON object (`RunRecord.config`)."""
        return {
            table: kept
            for table, section in self.resolved().items()
            if (kept := {key: value for key, value in section.items() if not is_mutable(f"{table}.{key}")})
        }


MUTABLE = frozenset(
    {
        "coordinator.*", "transport.*", "enrolment.*", "log.*", "tracing.*", "retention.*", "evaluation.*",
        "limits.staging_ram_bytes", "limits.staging_disk_bytes", "limits.min_free_bytes", "limits.heartbeat_seconds",
        "limits.max_connections", "limits.calls_per_connection", "limits.uploads_per_worker",
        "limits.fetches_per_worker", "limits.staging_bytes_per_worker", "limits.messages_per_second",
        "limits.handshake_seconds", "limits.idle_seconds", "limits.stall_seconds",
        "run.when_done", "run.warm_start",
        "secure_aggregation.keys", "secure_aggregation.phase_seconds", "secure_aggregation.registry", "secure_aggregation.registry_signer",
        "secure_aggregation.threads", "secure_aggregation.transcript",
        "round.deadline_seconds", "round.wait_for_clients_seconds", "round.retry_seconds",
    }
)  # fmt: skip
"""Settings an existing run accepts in any value. `run.rounds` is not among them: it may only grow."""


def is_mutable(key: str) -> bool:
    """Whether the setting `table.key` may differ from what a run was created with."""
    return key in MUTABLE or f"{key.partition('.')[0]}.*" in MUTABLE


def load(
    path: Path | None,
    overrides: Mapping[str, Json] | None = None,
    environ: Mapping[str, str] | None = None,
) -> CoordinatorConfig:
    """The configuration from a file, the environment and flags (flag over environment over file over default).

    Args:
        path: the TOML file, or None for defaults.
        overrides: dotted key -> value, for example {"run.rounds": 5, "log.level": "debug"}. Text is read as a
            TOML value where the setting is not itself text.
        environ: where SSD_<TABLE>_<KEY> is looked up; None: the process environment.

    Raises:
        ConfigInvalid: with one line for every mistake.
    """
    tables = {name: _holds_text(name) for name in CoordinatorConfig.model_fields}
    sources = gather(path, overrides or {}, os.environ if environ is None else environ, tables)
    problems: list[str] = []
    wrong: set[Key] = set()
    try:
        config = CoordinatorConfig.model_validate(sources.values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key = tuple(str(part) for part in detail["loc"])
            wrong.add(key[:2])
            problems.append(_problem(sources, key, _explain(detail)))
        # The rest of the tree is sound: its own contradictions are worth hearing about in the same breath.
        config = CoordinatorConfig.model_validate(_without(sources.values, wrong))
    config = _beside(config, path)
    for keys, message in cross_checks(config.resolved()):
        if not any(key[: len(bad)] == bad for key in keys for bad in wrong):
            problems.append(_problem(sources, keys[0], message))
    if problems:
        raise ConfigInvalid("\n".join(problems))
    return config


def _beside(config: CoordinatorConfig, file: Path | None) -> CoordinatorConfig:
    """The configuration with the paths of certificates and keys, where they are relative, from the file's folder on."""
    if file is None:
        return config
    own, enrolment = config.transport, config.enrolment
    paths = {name: file.parent / getattr(own, name) for name in ("authority", "certificate", "key")}
    signing = {"authority_key": file.parent / enrolment.authority_key}
    changed: dict[str, _Section] = {
        "transport": own.model_copy(update=paths),
        "enrolment": enrolment.model_copy(update=signing),
    }
    if (registry := config.secure_aggregation.registry) is not None:
        beside = {"registry": file.parent / registry}
        changed["secure_aggregation"] = config.secure_aggregation.model_copy(update=beside)
    return config.model_copy(update=changed)


def refuse_changes(stored: Mapping[str, Json], config: CoordinatorConfig) -> None:
    """Refuses a configuration the current run was not created with.

    Args:
        stored: `run_config()` of the configuration the run was created with. A setting it lacks, because it
            was written by an older version, counts as having had its default.
        config: the present configuration.

    Raises:
        RunConfigChanged: naming every setting that differs, with both values.
    """
    changes = changed_keys(stored, config.run_config(), CoordinatorConfig().run_config())
    if changes:
        listed = "\n".join(f"  {change}" for change in changes)
        raise RunConfigChanged(
            f"the run in {config.coordinator.state_dir} was created with other settings:\n{listed}\n"
            "put the stored values back, or start a new run in another state_dir"
        )


def _problem(sources: Sources, key: Key, message: str) -> str:
    table, *rest = key
    name = f"[{table}] {'.'.join(rest)}" if rest else f"[{table}]"
    return f"{sources.where(key)}: {name}: {message}"


def _explain(detail: ErrorDetails) -> str:
    *parents, name = detail["loc"]
    if detail["type"] == "extra_forbidden":
        return f"unknown {'key' if parents else 'table'}{_hint(str(name), [str(part) for part in parents])}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return message
    if detail["type"] in {"model_type", "model_attributes_type"}:
        return "must be a table"
    return f"{message.replace('Input should be', 'must be')}, not {detail['input']!r}"


def _hint(name: str, parents: list[str]) -> str:
    if not parents:
        return nearest(name, list(CoordinatorConfig.model_fields))
    for table, info in CoordinatorConfig.model_fields.items():
        section = info.annotation
        if table != parents[0] and isinstance(section, type) and name in section.model_fields:
            return f"; it belongs into [{table}]"
    own = CoordinatorConfig.model_fields[parents[0]].annotation
    return nearest(name, list(own.model_fields)) if isinstance(own, type) else ""


def _holds_text(table: str) -> Callable[[str], bool]:
    section = CoordinatorConfig.model_fields[table].annotation
    fields = section.model_fields if isinstance(section, type) else {}
    return lambda key: key in fields and _is_text(fields[key].annotation)


def _is_text(kind: object) -> bool:
    """Whether a value of this type is written as text: `str`, `Path | None`, a choice of words."""
    if get_origin(kind) in {Annotated, Literal, Union, UnionType}:
        return any(_is_text(part) for part in get_args(kind))
    return kind in {str, Path} or isinstance(kind, str)


def _without(values: Mapping[str, Json], wrong: set[Key]) -> dict[str, Json]:
    kept: dict[str, Json] = {}
    for table, section in values.items():
        if (table,) in wrong:
            continue
        kept[table] = {key: value for key, value in section.items() if (table, key) not in wrong}
    return kept

"""The coordinator's configuration: one frozen typed tree out of TOML, environment and flags.

`load` reports every mistake at once, each with file, line, table, key and what to write instead. Settings that
would change what a run computes are fixed when the run is created (`run_config`); `refuse_changes` names those
that differ later. The docstring under each setting is its documentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from coordinator.config.cross_checks import changed_keys, cross_checks, not_json
from coordinator.core.strategies.registry import Rates
from coordinator.errors import ConfigInvalid, RunConfigChanged
from ssd.daemon import config_loading
from ssd.daemon.address import Address, parse_address
from ssd.daemon.config_loading import (
    AddressText,
    ConfigPath,
    OptionalAddressText,
    Section,
    as_tuple,
    check_client_ids,
)
from ssd.daemon.config_sources import ConfigError, Key

Json = Any
MIB = 1 << 20


def _enrolment_address(value: str) -> str:
    if value.startswith("unix:"):
        raise ValueError("hosts that enrol come over the network: give host:port")
    return value


def _client_names(value: tuple[str, ...]) -> tuple[str, ...]:
    check_client_ids(value)
    return tuple(sorted(value))


def _plain_json(value: Mapping[str, Json]) -> Mapping[str, Json]:
    found = not_json(value)
    if found:
        raise ValueError(f"{found} is neither text, finite number, boolean, array nor table")
    return value


ClientNames = Annotated[tuple[str, ...], BeforeValidator(as_tuple), AfterValidator(_client_names)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Encoding = Literal["float32", "float16", "int8"]


class CoordinatorSection(Section):
    """`[coordinator]`: where it listens and keeps its state. May change between starts."""

    listen: AddressText = "127.0.0.1:7443"
    """Where workers and operators connect: host:port or unix:/path; port 0 takes any free one."""
    http_listen: OptionalAddressText = "127.0.0.1:9464"
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


class TransportSection(Section):
    """`[transport]`. May change between starts."""

    insecure: bool = False
    """Serve without TLS. Only on a loopback address or a Unix socket."""
    authority: ConfigPath = Path("pki/ca.pem")
    """Certificate of the federation's authority; whoever calls must have one that it signed."""
    certificate: ConfigPath = Path("pki/coordinator.pem")
    """The coordinator's own certificate. A new one is taken up on SIGHUP."""
    key: ConfigPath = Path("pki/coordinator.key")
    """The key to it."""


class EnrolmentSection(Section):
    """`[enrolment]`: a port of its own where a host with a join token gets its certificate. May change."""

    listen: Annotated[OptionalAddressText, AfterValidator(_enrolment_address)] = ""
    """host:port; port 0 takes any free one; empty: nobody can enrol."""
    authority_key: ConfigPath = Path("pki/ca.key")
    """The authority's key. The coordinator reads it for enrolling and renewing alone."""
    certificate_days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = 30.0
    """How long the certificates it issues are valid. Workers renew theirs when two thirds have passed."""


class RunSection(Section):
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


class RoundSection(Section):
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
    """How long to wait for enough clients before the run halts; 0: without limit. May change."""
    retry_seconds: NotNegative = 5.0
    """Pause before an abandoned round is tried again. May change."""
    max_client_failures: Annotated[int, Field(ge=1)] = 3
    """Failures of one client in one attempt after which a reproducible run halts."""


class StrategySection(Section):
    """`[strategy]`: how the mean update moves the model."""

    name: Literal["average", "momentum", "nesterov", "adagrad", "adam", "yogi"] = "average"
    """`average`: by the mean itself. `momentum`: by a running sum of means (FedAvgM); `nesterov`: the same, one step ahead.
    `adagrad`, `adam`, `yogi`: with a rate of its own for every parameter (arXiv 2003.00295)."""
    learning_rate: Positive = 1.0
    """Factor on the step. `adagrad`, `adam` and `yogi` move every parameter by about so much a round: 0.1 at most."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much of the previous step stays; not for `average`. The paper sets it to 0 for `adagrad`."""
    second_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """How much of the mean of squared updates stays; `adam` and `yogi` only."""
    adaptivity: Positive = 1e-3
    """Added to the root of squared updates: the smaller, the more alike all steps are; `adagrad`, `adam` and `yogi` only."""

    @property
    def rates(self) -> Rates:
        """The numbers, for `coordinator.core.strategies.registry.create`."""
        return Rates(**self.model_dump(exclude={"name"}))


class WireSection(Section):
    """`[wire]`: how parameters travel."""

    update_encoding: Encoding = "float16"
    """Clients' updates, up."""
    delta_encoding: Encoding = "float16"
    """Steps of the model, down."""


class LimitsSection(Section):
    """`[limits]`: what one peer may take, and what the coordinator may use."""

    max_client_weight: Annotated[int, Field(ge=1, le=1 << 32)] = 65536
    """Largest aggregation weight one client may claim; fixes the precision of the sum."""
    max_weight_ratio: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 20.0
    """How many times the weight of the median client one may claim, of the clients of earlier rounds; 0: any number of times.
    Weights that are masked are not looked at. May change."""
    max_message_bytes: Annotated[int, Field(ge=MIB + (64 << 10), le=64 * MIB)] = 2621440
    """Largest gRPC message. A chunk is 1 MiB."""
    staging_ram_bytes: Annotated[int, Field(ge=0)] = 64 * MIB
    """Memory for uploads in flight; an upload waits two seconds for it before it goes to the disk. May change."""
    staging_disk_bytes: Annotated[int, Field(ge=0)] = 8 << 30
    """Disk for uploads in flight that do not fit in memory. May change."""
    min_free_bytes: Annotated[int, Field(ge=0)] = 64 * MIB
    """Free space of the state directory below which no round opens. May change."""
    heartbeat_seconds: Annotated[float, Field(ge=0.05, le=3600)] = 5.0
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


class RetentionSection(Section):
    """`[retention]`: what is kept of old versions. May change."""

    full_versions: Annotated[int, Field(ge=1)] = 3
    """Whole models kept, newest first."""
    deltas: Annotated[int, Field(ge=0)] = 20
    """Deltas kept, newest first."""


class EvaluationSection(Section):
    """`[evaluation]`. May change."""

    every: Annotated[int, Field(ge=0)] = 5
    """Evaluate every so many versions, and the last one, on a worker that holds probe data, and, if the method can be
    measured on clients' own test images, on the workers that host them; 0: never."""
    workers: ClientNames = ()
    """Workers whose offer to measure on probe data is taken, beside whoever has a certificate of the role evaluator. What
    they say a version is worth is believed."""
    evaluators: Annotated[int, Field(ge=1, le=16)] = 1
    """How many of them measure each version, if so many are connected. Of several the middle value is kept."""
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    """How far apart the values of several may lie before the log and a metric say that they disagree: so much for measures
    up to 1, and so large a share of larger ones."""
    answer_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1800.0
    """How long one may take to measure a version. Then the next one is asked."""
    wait_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    """How long clients whose worker is away are waited for before a version's measures are written without them."""


class MethodSection(Section):
    """`[method]`: what is trained."""

    name: Annotated[str, Field(min_length=1)] = "ssd"
    """A built-in method, or a Python file that has `create(config)`: part of the run's identity, so a relative one is taken as
    it is written and looked for in the working directory."""
    config: Annotated[Mapping[str, Json], AfterValidator(_plain_json)] = Field(default_factory=dict)
    """`[method.config]`: handed to the method, which checks it."""


class SecureAggregationSection(Section):
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
    """`active`: the signed registry of participants. May change."""
    registry_signer: str = ""
    """`active`: public key of whoever signed it, 64 hex digits. May change."""
    threads: Annotated[int, Field(ge=1, le=256)] = 2
    """How many threads take the masks out of a sum. May change."""
    transcript: bool = True
    """Keep what an auditor needs to verify every opened round, in `transcripts` of the state directory. May change."""


class PrivacySection(Section):
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


class LogSection(config_loading.LogSection):
    """`[log]`. May change."""


class TracingSection(config_loading.TracingSection):
    """`[tracing]`: traces of rounds for an OpenTelemetry collector (docs/tracing.md). May change between starts."""

    service_name: Annotated[str, Field(min_length=1, max_length=128)] = "ssd-coordinator"
    """Under which it appears in the collector."""


class CoordinatorConfig(Section):
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
        "limits.max_weight_ratio", "limits.staging_ram_bytes", "limits.staging_disk_bytes", "limits.min_free_bytes", "limits.heartbeat_seconds",
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
        overrides: dotted key -> value, as of `ssd.daemon.config_loading.load`.
        environ: where SSD_<TABLE>_<KEY> is looked up; None: the process environment.

    Raises:
        ConfigInvalid: with one line for every mistake.
    """
    try:
        return config_loading.load(CoordinatorConfig, path, overrides, environ, _contradictions)
    except ConfigError as error:
        raise ConfigInvalid(str(error)) from None


def _contradictions(config: CoordinatorConfig) -> Iterator[tuple[tuple[Key, ...], str]]:
    return cross_checks(config.resolved())


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

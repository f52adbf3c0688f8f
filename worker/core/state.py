"""The session's state: frozen records, replaced and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ssd.privacy.settings import PrivacySettings
from ssd_wire.messages import Evaluate, EvaluationDone, Masking, Train, UpdateKey
from worker.core.backoff import Backoff
from worker.core.events import SecureHeard, Summed
from worker.core.finished import Finished


class Link(StrEnum):
    """The control stream."""

    OFFLINE = "offline"
    DIALLING = "dialling"
    """The hello is on its way."""
    ATTENDING = "attending"


class Stage(StrEnum):
    """Whether the work's base version is here."""

    UNPREPARED = "unprepared"
    PREPARING = "preparing"
    PREPARED = "prepared"


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """An upload that has no verdict yet."""

    number: int
    keys: tuple[UpdateKey, ...]
    active: bool = True
    """False: its session ended; it resumes when the coordinator asks for the work again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What the training process does now: a client's training or an evaluation."""

    key: UpdateKey | None = None
    """Of clients that are trained together: with an empty client."""
    version: int | None = None
    stopping: bool = False
    together: frozenset[str] = frozenset()
    """Clients that are trained one after the other and added up where they are trained."""
    fold: str = ""
    """The newest file of the fold that still grows; empty: none of it is written."""
    ending: bool = False
    """It was told to end after the client that it trains now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The task of the newest `Train`."""

    train: Train
    stage: Stage = Stage.UNPREPARED
    live: bool = True
    """The coordinator asked for it in the present session."""
    failed: frozenset[str] = frozenset()
    """Clients that could not be trained, reported; trained again only when asked again."""
    settled: frozenset[str] = frozenset()
    """Clients whose upload was rejected, or not wanted, in this attempt."""
    delivered: frozenset[str] = frozenset()
    """Clients the coordinator has, according to a verdict of this session."""
    eager: bool = False
    """Upload what is finished without waiting for the rest."""
    singly: bool = False
    """A fold was refused: upload its parts one by one."""
    apart: bool = False
    """Train the clients one by one: together they were refused, or the training process died of one of them."""
    upload: Upload | None = None

    @property
    def clients(self) -> tuple[str, ...]:
        """Every client of the task, in the order it was asked for."""
        return tuple(task.client for task in self.train.clients)


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureRound:
    """A part in one try at opening one sum."""

    round_id: bytes
    round: int
    attempt: int
    task_digest: str
    """Of the task it was joined for."""
    ready: bool = False
    """The masks are fixed."""
    sent: tuple[UpdateKey, ...] | None = None
    """What the one masked upload is made of; None: none was begun."""
    waiting: SecureHeard | None = None
    """Came while the masked upload was under way."""
    over: bool = False
    """Refused, aborted or opened: there are no keys any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureTerms:
    """Which levels of secure aggregation this worker takes part in."""

    least: str = "off"
    """It works for no run with less."""
    cannot_sign: str = "this worker has no signing key"
    """Why it cannot take part in `active`, and what to do about it; empty: it can."""
    privacy: str = "off"
    """The least differential privacy: `off`, `central` or `distributed`."""
    min_noise_multiplier: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Everything the machine knows."""

    clients: Mapping[str, int]
    """Hosted client -> last committed round in the current run."""
    run_id: str = ""
    held: Mapping[UpdateKey, Finished] = field(default_factory=dict)
    """Finished updates in the store whose fate is open."""
    versions: Mapping[int, str] = field(default_factory=dict)
    """Verified versions on disk: number -> model digest."""
    individual_updates: bool = False
    """The run takes no folds: each client's update is uploaded alone, as soon as it is finished."""
    newest: tuple[int, str] = (0, "")
    """Number and model digest of the newest version the worker heard of; remembered across restarts."""
    accepts_rollback: bool = False
    """The operator says that the run's history may be another than the one remembered, once."""
    adds_up: bool = False
    """The training process may add up clients itself where the run allows it."""
    max_versions: int = 2
    backoff: Backoff = field(default_factory=Backoff)
    link: Link = Link.OFFLINE
    failures: int = 0
    """Times in a row the link was lost or refused without a welcome in between."""
    hello_held: tuple[UpdateKey, ...] = ()
    """The held updates the last hello named, in its order."""
    work: Work | None = None
    job: Job | None = None
    uploads: int = 0
    """Uploads started so far; numbers them."""
    evaluations: tuple[Evaluate, ...] = ()
    """Waiting for the training process, oldest first."""
    unsent: tuple[EvaluationDone, ...] = ()
    """Results that came while offline."""
    terms: SecureTerms = SecureTerms()
    level: str = "off"
    """Of secure aggregation in the current run. Under another than `off` nothing is uploaded in the clear."""
    secure: SecureRound | None = None
    let_go: bytes = b""
    """Round id whose attempt ended last while it was neither refused, aborted nor opened: word of its opening may still
    come, as it is sent after the commit."""
    summed: frozenset[Summed] = frozenset()
    """What went into masked uploads of this run: no other state is promoted under secure aggregation."""
    declaration_digest: str = ""
    """Of the current run's method, as the last welcome named it."""
    privacy: PrivacySettings | None = None
    """Of the current run."""
    masking: Masking | None = None
    """Of the current run."""
    stopped: bool = False

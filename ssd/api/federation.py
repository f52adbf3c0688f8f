"""A whole federation on this machine, from Python: the daemons of `ssd demo`, with one's own images and settings.

Coordinator and workers are processes of their own with files of their own, in reproducible mode and over mutual TLS.
They end with the call that started them, also when the notebook's cell is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd.api.rows import Rows, facts_html
from ssd.data.images.builtin import KINDS, load_builtin
from ssd.data.images.errors import DataError
from ssd.data.images.source import ImageFormat
from ssd.data.partition import partition as partitions
from ssd.demo.settings import EVALUATOR, TRAINING
from ssd.federation.children import Children
from ssd.federation.configs import Tables, worker_tables
from ssd.federation.federation import Federation as Daemons
from ssd.federation.hosting import deal
from ssd.federation.plan import FederationPlan
from ssd.federation.records import Progress

Json = Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A public data set, split unevenly over clients that do not exist elsewhere."""

    dataset: str = "digits"
    """`digits`, `cifar10`, `cifar100` or `mnist`."""
    clients: int = 10
    alpha: float = 0.1
    """Concentration of the Dirichlet split; smaller is more uneven."""
    root: Path | str | None = None
    """Where the files are, for another set than `digits`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FederationResult:
    """What a federation made."""

    encoder: Path
    """File of the newest encoder; `ssd.load_encoder` reads it."""
    model_digest: str
    """SHA-256 of the whole model: the same for the same seed, clients and settings, whatever was killed meanwhile."""
    rounds: Rows
    """One record for each committed round, oldest first."""
    evaluations: Rows
    """A row for each measured version; empty if nothing was measured."""
    clients: Rows
    seconds: float
    """From the first round's opening to the last commit."""

    def _repr_html_(self) -> str:
        last = dict(self.evaluations[-1]) if self.evaluations else {}
        shown = {
            "encoder": str(self.encoder),
            "digest": self.model_digest[:16],
            "rounds": len(self.rounds),
            **last,
        }
        return facts_html("Federation", shown)


class Federation:
    """Call `run` once; make another object for another run.

    Args:
        data: a `Split` of a public data set, or its name for the usual split; or client name -> its folder of images.
        method: name of a built-in method (docs/methods.md), or the path of a Python file.
        config: `[method.config]`; None: the demo's for digits, else it has to be said.
        rounds: how many.
        seed: of everything: split, initial weights, batches, views.
        workers: processes that train; the clients are dealt among them.
        folder: a new or empty folder for configurations, logs, state and the encoder.
        probe: for folders of images: labelled images to evaluate on.
        evaluate_every: rounds between two evaluations; 0: none.
        secure_aggregation: `off`, `passive` or `active`.
        device: `cpu`, `cuda`, `cuda:N` or `auto`.

    Raises:
        DataError: the data are not there, or do not fit what is asked for.
        ValueError: an impossible number.
        FileExistsError: the folder holds something.
    """

    def __init__(
        self,
        data: Split | str | Mapping[str, Path | str] = "digits",
        *,
        method: str = "ssd",
        config: Mapping[str, Json] | None = None,
        rounds: int = 20,
        seed: int = 1,
        workers: int = 2,
        folder: Path | str = "runs/federation",
        probe: Path | str | None = None,
        evaluate_every: int | None = None,
        secure_aggregation: str = "off",
        device: str = "cpu",
    ) -> None:
        _check(rounds=rounds, workers=workers, seed=seed)
        if secure_aggregation not in ("off", "passive", "active"):
            raise ValueError(f"secure_aggregation is off, passive or active, not {secure_aggregation!r}")
        data = Split(dataset=data) if isinstance(data, str) else data
        settings = _settings(data, method, config)
        self.folder = Path(folder).absolute()
        if self.folder.exists() and any(self.folder.iterdir()):
            raise FileExistsError(f"{self.folder} holds something; name a new folder")
        self._device = device
        measured = isinstance(data, Split) or probe is not None
        if isinstance(data, Split):
            self._data, sizes = _dealt(data, settings, seed, self.folder)
        else:
            self._data, sizes = _folders(data, probe)
        if workers > len(sizes):
            raise ValueError(f"{len(sizes)} clients cannot be dealt among {workers} workers")
        self._hosted = deal(sizes, workers)
        every = max(1, rounds // 5) if evaluate_every is None else evaluate_every
        self._plan = FederationPlan(
            title=method if not method.endswith(".py") else Path(method).stem,
            folder=self.folder,
            method=method,
            config=settings,
            clients=tuple(sorted(sizes)),
            cohort_size=len(sizes),
            rounds=rounds,
            seed=seed,
            evaluate_every=every if measured else 0,
            overrides={}
            if secure_aggregation == "off"
            else {"secure_aggregation": {"level": secure_aggregation}},
            trained_on=data.dataset if isinstance(data, Split) else "",
        )
        self._ran = False

    def run(self, show: Callable[[Progress], None] | None = None) -> FederationResult:
        """Start everything, wait until all rounds are committed, take the encoder out, stop everything.

        Args:
            show: called several times a second with how far it is; None: a line for each phase and each few rounds.

        Raises:
            DaemonFailed: a process ended early or nothing moves; `.log` is its log, `.lines` its last words.
            RuntimeError: it was called before.
        """
        if self._ran:
            raise RuntimeError("this federation ran already; make another one")
        self._ran = True
        with Children() as children:
            daemons = Daemons(self._plan, children)
            daemons.launch()
            remains = daemons.run(self._workers, show or Lines(self._plan.evaluate_every or 5).show)
        assert remains.encoder is not None  # the plan exports it
        return FederationResult(
            encoder=remains.encoder,
            model_digest=remains.model_digest,
            rounds=Rows(dict(each) for each in remains.rounds),
            evaluations=Rows({"version": number, **remains.evaluations[number]} for number in sorted(remains.evaluations)),
            clients=Rows(dict(each) for each in remains.clients),
            seconds=remains.seconds,
        )  # fmt: skip

    def _workers(self, address: str) -> Mapping[str, Tables]:
        hosted: dict[str, Sequence[str]] = {EVALUATOR: ()} if self._plan.evaluate_every else {}
        hosted |= {f"worker-{number}": clients for number, clients in enumerate(self._hosted, start=1)}
        return {
            name: worker_tables(
                self._plan,
                name,
                address,
                clients,
                self._data,
                evaluates=name == EVALUATOR,
                device=self._device,
                methods={Path(self._plan.method).stem: Path(self._plan.method).absolute()}
                if self._plan.method.endswith(".py")
                else None,
            )
            for name, clients in hosted.items()
        }


class Lines:
    """Progress as printed lines: each new phase, and every few rounds."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._said = ("", 0)

    def show(self, progress: Progress) -> None:
        """Print what is new and worth a line."""
        phase, said = self._said
        if progress.phase != phase:
            print(f"[{progress.seconds:6.1f} s] {progress.phase}", flush=True)
        if progress.round >= said + self._every or said < progress.round == progress.rounds:
            said = progress.round
            loss = progress.losses.get("loss")
            shown = "" if loss is None else f", loss {loss:.4f}"
            print(f"[{progress.seconds:6.1f} s] round {said} of {progress.rounds}{shown}", flush=True)
        self._said = (progress.phase, said)


def _check(*, rounds: int, workers: int, seed: int) -> None:
    if rounds < 1 or workers < 1:
        raise ValueError(f"a federation has at least one round and one worker, not {rounds} and {workers}")
    if seed < 0:
        raise ValueError(f"a seed is not negative, got {seed}")


def _settings(
    data: Split | Mapping[str, Path | str], method: str, config: Mapping[str, Json] | None
) -> Mapping[str, Json]:
    if isinstance(data, Split) and data.dataset not in KINDS:
        known = ", ".join(KINDS)
        raise DataError(
            f"there is no data set {data.dataset!r}; known are {known}, or a folder for each client"
        )
    if config is not None:
        if "image" not in config and not method.endswith(".py"):
            raise ValueError('config has no "image", such as {"size": 96, "channels": 3}')
        return config
    if not isinstance(data, Split) or data.dataset != "digits":
        raise ValueError("config says image, model and training; only digits has a default (docs/methods.md)")
    return {**TRAINING, "preset": "official"} if method == "ssd" else TRAINING


def _dealt(
    data: Split, settings: Mapping[str, Json], seed: int, folder: Path
) -> tuple[dict[str, Json], dict[str, int]]:
    root = None if data.root is None else Path(data.root)
    image = ImageFormat(**settings.get("image", TRAINING["image"]))
    labels = load_builtin(data.dataset, image, root=root).train.labels
    assert labels is not None  # a built-in set is labelled
    made = partitions.dirichlet(labels.tolist(), data.clients, data.alpha, seed, dataset=data.dataset)
    folder.mkdir(parents=True, exist_ok=True)
    partitions.save(made, folder / "partition.json")
    tables: dict[str, Json] = {"kind": data.dataset, "partition": str(folder / "partition.json")}
    if root is not None:
        tables["root"] = str(root.absolute())
    return tables, {client: len(indices) for client, indices in made.clients.items()}


def _folders(
    data: Mapping[str, Path | str], probe: Path | str | None
) -> tuple[dict[str, Json], dict[str, int]]:
    if not data:
        raise DataError("there is no client: give a folder of images for each, by the client's name")
    folders = {client: Path(path).absolute() for client, path in data.items()}
    for client, path in folders.items():
        if not path.is_dir():
            raise DataError(f"the folder of client {client!r} is not there: {path}")
    tables: dict[str, Json] = {
        "kind": "folder",
        "folders": {client: str(path) for client, path in folders.items()},
    }
    if probe is not None:
        tables["probe"] = str(Path(probe).absolute())
    sizes = {client: sum(1 for each in path.rglob("*") if each.is_file()) for client, path in folders.items()}
    return tables, sizes

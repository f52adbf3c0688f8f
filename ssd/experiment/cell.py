"""One cell from its partition to its result, as a process of its own: `python -m ssd.experiment.cell TASK.json`.

It takes up whatever it finds: a partition, state directories of daemons that were killed, a finished training, some
measures. Its exit code is 0 when `result.json` is complete. What it has to say goes to standard output as JSON lines.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssd.daemon.cli.exit_codes import EXIT_INTERRUPTED, EXIT_REFUSED
from ssd.data.partition import partition as partitions
from ssd.digest import digest_bytes
from ssd.experiment.layout import CODE, CONFIG, RESULT, TRAINED, missing_measures, read_json, write_json
from ssd.experiment.measuring import answer, measure_arguments, measured, partition_arguments
from ssd.experiment.references import FLOORS, STAND_INS, partition_for, write_untrained
from ssd.experiment.stale import end_daemons_of
from ssd.federation.children import Children, interruptible
from ssd.federation.configs import COORDINATOR, WORKERS, Tables, worker_tables
from ssd.federation.failure import readable
from ssd.federation.federation import Federation
from ssd.federation.hosting import deal
from ssd.federation.plan import FederationPlan
from ssd.federation.provenance import code_version, machine, packages_digest, processor_seconds, versions
from ssd.federation.records import DaemonFailed, Progress, Remains

Json = Any
FORMAT = "ssd-experiment-result"
VERSION = 1
_PREDECESSOR_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CellTask:
    """Everything a cell's process needs to know; what decides its numbers is in `config` and `measures`."""

    name: str
    folder: str
    partition: str
    config: Mapping[str, Json]
    measures: Mapping[str, Mapping[str, Json]]
    exports: Sequence[str]
    """Parts of the final model to take out."""
    file: str | None = None
    root: str | None = None
    device: str = "auto"
    workers: int = 1
    keep: bool = False
    stall_seconds: float = 7200.0


def main(path: str) -> int:
    """Run the cell of a task file."""
    task = CellTask(**json.loads(Path(path).read_text(encoding="utf-8")))
    folder = Path(task.folder)
    say = Saying(task.name)
    try:
        with interruptible(), (folder / ".lock").open("a") as lock, Children() as children:
            _take(lock.fileno())
            end_daemons_of(folder)
            run_cell(task, children, say)
    except DaemonFailed as failed:
        say(
            phase="failed",
            error=str(failed),
            words=[readable(line) for line in failed.lines],
            log=str(failed.log),
        )
        return EXIT_REFUSED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _take(lock: int) -> None:
    """Wait for a process of a killed runner that is still ending its daemons."""
    deadline = time.monotonic() + _PREDECESSOR_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DaemonFailed("another process is at work on this cell") from None
            time.sleep(0.2)


class Saying:
    """Progress as JSON lines, only when there is news."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said: tuple[object, ...] = ()

    def __call__(self, **facts: Json) -> None:
        """One line."""
        print(json.dumps({"event": "cell", "cell": self._name, **facts}), flush=True)

    def progress(self, progress: Progress) -> None:
        """A federation has moved, perhaps."""
        news = (progress.phase, progress.round, len(progress.notes))
        if news != self._said:
            self._said = news
            loss = progress.losses.get("loss")
            note = progress.notes[-1] if progress.notes else ""
            self(phase=progress.phase, round=progress.round, rounds=progress.rounds, loss=loss, note=note)


def run_cell(task: CellTask, children: Children, say: Saying) -> None:
    """Do what is not done yet.

    Raises:
        DaemonFailed: a process failed, or nothing moved any more.
    """
    folder = Path(task.folder)
    write_json(folder / CONFIG, task.config)
    result = read_json(folder / RESULT) or read_json(folder / TRAINED)
    if result is None:
        trained = task.config.get("reference") not in FLOORS
        result = (_train if trained else _untrained)(task, folder, children, say)
        write_json(folder / TRAINED, result)
    for name in missing_measures(result, task.measures):
        say(phase=f"measuring {name}".strip())
        how = task.measures[name]
        partition = Path(task.partition) if how["data"] == task.config["data"] else None
        arguments = measure_arguments(
            how,
            folder,
            task.exports,
            partition,
            task.root,
            seed=task.config["seed"],
            threads=task.config["threads"],
            device=task.device,
            stand_in=task.config.get("reference") if task.config.get("reference") in STAND_INS else None,
        )
        values = measured(children, name, arguments, folder)
        result["measures"][name] = {"how": dict(how), "values": values, "code": code_version()}
    write_json(folder / RESULT, result)
    (folder / TRAINED).unlink(missing_ok=True)
    if not task.keep:
        for state in (COORDINATOR, WORKERS):
            shutil.rmtree(folder / state, ignore_errors=True)
    say(phase="done")


def _untrained(task: CellTask, folder: Path, children: Children, say: Saying) -> dict[str, Json]:
    """The result of a row that needs no federation."""
    partition, digest = _owners(task, children, say)
    method = task.file or task.config["method"]["name"]
    try:
        found = write_untrained(task.config, method, task.exports, folder)
    except (ValueError, OSError) as error:
        raise DaemonFailed(f"version 0 cannot be made: {error}") from error
    return {
        "format": FORMAT,
        "version": VERSION,
        "cell": task.name,
        "config": dict(task.config),
        "partition_digest": digest,
        "split": None if partition is None else _split(partition),
        **found,
        "measures": {},
        "versions": versions(),
        "machine": {**machine(), "device": task.device, "workers": task.workers},
        "code": code_of(folder),
        "packages": packages_digest(),
    }


def _train(task: CellTask, folder: Path, children: Children, say: Saying) -> dict[str, Json]:
    started, used = time.monotonic(), processor_seconds()
    partition, digest, shares = _partition(task, children, say)
    config = task.config
    clients = partitions.client_ids(config["clients"]) if partition is None else tuple(partition.clients)
    plan = FederationPlan(
        title=task.name,
        folder=folder,
        method=task.file or config["method"]["name"],
        config=config["config"],
        clients=clients,
        cohort_size=config["cohort_size"],
        rounds=config["rounds"],
        seed=config["seed"],
        evaluate_every=config["evaluate_every"],
        evaluators=("worker-1",),
        threads=config["threads"],
        overrides=config["coordinator"],
        exports=tuple(task.exports),
        trained_on=config["data"],
        stall_seconds=task.stall_seconds,
    )
    resumed = (folder / COORDINATOR).exists()
    code = code_of(folder)
    with children:
        federation = Federation(plan, children)
        federation.launch()
        remains = federation.run(
            lambda address: _workers(task, plan, partition, shares, address), say.progress
        )
    return {
        "format": FORMAT,
        "version": VERSION,
        "cell": task.name,
        "config": dict(config),
        "run_id": remains.run_id,
        "model_version": remains.version,
        "model_digest": remains.model_digest,
        "partition_digest": digest,
        "split": None if partition is None else _split(partition),
        "rounds": list(remains.rounds),
        "evaluations": {str(number): dict(values) for number, values in sorted(remains.evaluations.items())},
        "cost": _cost(remains, time.monotonic() - started, processor_seconds() - used, resumed=resumed),
        "clients": list(remains.clients),
        "measures": {},
        "versions": versions(),
        "machine": {**machine(), "device": task.device, "workers": task.workers},
        "code": code,
        "packages": packages_digest(),
    }


def code_of(folder: Path) -> str:
    """The version of the code that trains a cell, behind those that trained it before an interruption."""
    known = (read_json(folder / CODE) or {"versions": []})["versions"]
    now = code_version()
    if known[-1:] != [now]:
        known = [*known, now]
        write_json(folder / CODE, {"versions": known})
    return now if known == [now] else ", then ".join(each or "an installed package" for each in known)


def _cost(remains: Remains, wall: float, processor: float, *, resumed: bool) -> dict[str, Json]:
    """Seconds and bytes. What the rounds took is the coordinator's; wall and processor time are of this process."""
    return {
        "wall_seconds": round(wall, 2),
        "processor_seconds": round(processor, 2),
        "resumed": resumed,
        "round_seconds": round(sum(float(each["seconds"]) for each in remains.rounds), 2),
        "bytes_up": sum(int(each["bytes_up"]) for each in remains.rounds),
        "bytes_down": sum(int(each["bytes_down"]) for each in remains.rounds),
    }


def _split(partition: partitions.Partition) -> dict[str, Json]:
    return {
        "dataset": asdict(partition.dataset),
        "scheme": partition.scheme,
        "sizes": {client: len(indices) for client, indices in partition.clients.items()},
    }


def _partition(
    task: CellTask, children: Children, say: Saying
) -> tuple[partitions.Partition | None, str, Path]:
    """Who trains on what, the digest of its file, and where that is."""
    owners, digest = _owners(task, children, say)
    path, reference = Path(task.partition), task.config.get("reference")
    if owners is None or reference is None:
        return owners, digest, path
    again = Path(task.folder) / "partition.json"
    made = partition_for(reference, owners, task.config["seed"])
    partitions.save(made, again)
    return made, digest_bytes(again.read_bytes()), again


def _owners(task: CellTask, children: Children, say: Saying) -> tuple[partitions.Partition | None, str]:
    """The setting's partition, made if nobody did yet, and the digest of its file."""
    config, path = task.config, Path(task.partition)
    if config["data"] == "none":
        return None, ""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            say(phase="partition")
            clients = config.get("owners", config["clients"])
            make = partition_arguments(
                config["data"], task.root, config["partition"], clients, config["seed"], path
            )
            answer(children, "partition", make, Path(task.folder))
    return partitions.load(path), digest_bytes(path.read_bytes())


def _workers(
    task: CellTask, plan: FederationPlan, partition: partitions.Partition | None, shares: Path, address: str
) -> Mapping[str, Tables]:
    """Configurations by worker; the first one also evaluates, so that no further process takes a core."""
    data: dict[str, Json] = {"kind": task.config["data"]}
    sizes = dict.fromkeys(plan.clients, 1)
    if partition is not None:
        data["partition"] = str(shares.absolute())
        sizes = {client: len(indices) for client, indices in partition.clients.items()}
    if task.root is not None:
        data["root"] = task.root
    methods = {} if task.file is None else {task.config["method"]["name"]: Path(task.file)}
    hosted = deal(sizes, min(task.workers, len(sizes)))
    return {
        f"worker-{number}": worker_tables(
            plan, f"worker-{number}", address, clients, data,
            evaluates=number == 1 and plan.evaluate_every > 0, device=task.device, methods=methods,
        )
        for number, clients in enumerate(hosted, start=1)
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

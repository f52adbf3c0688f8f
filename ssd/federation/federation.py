"""One federation: start the daemons, watch them, take the results out, drain.

The daemons are processes with configuration files of their own; what is known about them is what an operator
knows: their logs, their metrics page, and what `python -m coordinator` answers.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssd.daemon.child_process import python
from ssd.daemon.toml_text import document
from ssd.federation.children import Child, Children, environment
from ssd.federation.configs import PKI, Tables, coordinator_tables
from ssd.federation.identities import Identities
from ssd.federation.participant_registry import Vouching
from ssd.federation.plan import ENCODER, FederationPlan
from ssd.federation.records import DaemonFailed, Progress, Remains
from ssd.federation.telemetry import LogFollower, labelled, scrape
from ssd.settings import merge

Json = Any
POLL_SECONDS = 0.2
SCRAPE_SECONDS = 0.6
VERB_SECONDS = 300.0
"""An export of a large model on a busy machine takes its time."""
_METRIC = "ssd_coordinator_"
Workers = Callable[[str], Mapping[str, Tables]]
"""The coordinator's address -> each worker's configuration by its name, in the order they are to be started."""


class Federation:
    """Call `launch`, then `run`, once each.

    State directories of an earlier attempt in the same folder are taken up where they are.

    Args:
        plan: what it is to be.
        children: what the daemons are started with.
        clock: monotonic seconds.
    """

    def __init__(
        self, plan: FederationPlan, children: Children, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan = plan
        self._children = children
        self._clock = clock
        self._daemons: list[Child] = []
        self._workers: Workers = _no_workers
        self._identities: Identities | None = None
        self._vouching: Vouching | None = None
        self._follower: LogFollower | None = None
        self._address = self._http = ""
        self._evaluated = self._finished = False
        self._first_opened = self._last_committed = 0.0
        self.progress = Progress(title=plan.title, rounds=plan.rounds, clients=len(plan.clients))

    def launch(self) -> None:
        """Start the coordinator, which takes a while to make version 0, and return."""
        self.progress.phase = "starting"
        # A log of an earlier attempt stays, but its news are old.
        self._follower = LogFollower(self._plan.folder / "coordinator.log", from_now=True)
        self._identities = Identities(self._plan.folder / PKI, dt.datetime.now(dt.UTC))
        tables = coordinator_tables(self._plan)
        if self._plan.secure_aggregation == "active":
            self._vouching = Vouching(self._plan.folder / PKI, self._identities.federation)
            paths = {
                "registry": str(self._vouching.registry),
                "registry_signer": self._vouching.signer,
            }
            tables = merge(tables, {"secure_aggregation": paths})
        self._start("coordinator", "coordinator", tables)

    def run(
        self,
        workers: Workers,
        show: Callable[[Progress], None],
        trained: Callable[[], None] = lambda: None,
        untrained: Path | None = None,
    ) -> Remains:
        """Run it to its end.

        Args:
            workers: who is to attend, asked once when the coordinator listens.
            show: called several times a second.
            trained: called once when the last round is committed, before the last evaluation is in; must be quick,
                because nothing is watched meanwhile.
            untrained: also write the encoder of version 0 there, from which all methods start.

        Raises:
            DaemonFailed: a process ended early, the run halted, or nothing moves any more.
        """
        assert self._follower is not None  # launched
        self._workers = workers
        started = moved = self._clock()
        last_scrape = -SCRAPE_SECONDS
        announced = False
        while not (self._finished and self._evaluated):
            events = self._follower.read()
            for event in events:
                self._on_event(event)
            now = self._clock()
            if self._http and (events or now - last_scrape > SCRAPE_SECONDS):
                self._read_metrics()
                last_scrape = now
            if any(event["event"] not in _IDLE for event in events):
                moved = now
            elif now - moved > self._plan.stall_seconds:
                seconds = f"{self._plan.stall_seconds:.0f} seconds"
                raise self._failure(self._daemons[0], f"nothing has happened for {seconds}")
            self._check_alive()
            self.progress.seconds = now - started
            show(self.progress)
            if self._finished and not announced:
                announced = True
                trained()
            time.sleep(POLL_SECONDS)
        self._read_metrics()
        self.progress.phase = "exporting"
        show(self.progress)
        remains = self._take_out(untrained)
        self._drain()
        self.progress.phase = "done"
        show(self.progress)
        return remains

    # Starting.

    def _listening(self, event: Mapping[str, Json]) -> None:
        self._address, self._http = str(event["address"]), str(event["http"])
        self.progress.phase = "workers are joining"
        self.progress.round = int(event.get("version", 0))
        self._evaluated = self._plan.evaluate_every == 0
        if self.progress.round >= self._plan.rounds:
            # An earlier attempt came as far as that; only the last evaluation may be missing.
            self._finished = True
        assert self._identities is not None
        workers = self._workers(self._address)
        clients = {name: tables["data"]["clients"] for name, tables in workers.items()}
        folders = {name: self._identities.worker(name, trains=bool(clients[name])) for name in workers}
        if self._vouching is not None:
            self._vouching.enter(
                {name: (folders[name], hosted) for name, hosted in clients.items() if hosted}
            )
        for name, tables in workers.items():
            self._start(name, "worker", tables)

    def _start(self, name: str, program: str, tables: Tables) -> None:
        config = self._plan.folder / f"{name}.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(document(tables), encoding="utf-8")
        arguments = ["-m", program, "run", "--config", str(config)]
        log = self._plan.folder / f"{name}.log"
        self._daemons.append(self._children.start(f"{name} of {self._plan.title}", arguments, log))

    # Watching.

    def _on_event(self, event: Mapping[str, Json]) -> None:
        progress = self.progress
        match event["event"]:
            case "listening":
                self._listening(event)
            case "round_opened":
                self._first_opened = self._first_opened or self._clock()
                progress.phase = "training"
            case "round_committed":
                progress.round = int(event["round"])
                self._last_committed = self._clock()
            case "run_finished":
                self._finished = True
                progress.phase = "evaluating"
            case "measured" if event.get("version") == self._plan.rounds:
                self._evaluated = True
            case "evaluation_failed":
                progress.notes.append(f"evaluation failed: {event.get('detail', '')}")
            case "task_failed":
                detail = event.get("detail", "")
                progress.notes.append(f"{event.get('client')} failed ({event.get('reason')}): {detail}")
            case "round_abandoned":
                progress.notes.append(f"round {event.get('round')} is tried again: {event.get('reason')}")
            case "halted":
                raise self._failure(self._daemons[0], f"the run halted: {event.get('reason', '')}")
            case _:
                pass

    def _read_metrics(self) -> None:
        samples = scrape(self._http)
        progress = self.progress
        progress.connected = int(samples.get(f"{_METRIC}connected_clients", progress.connected))
        progress.bytes_up = samples.get(f'{_METRIC}transfer_bytes_total{{direction="up"}}', progress.bytes_up)
        progress.bytes_down = samples.get(
            f'{_METRIC}transfer_bytes_total{{direction="down"}}', progress.bytes_down
        )
        progress.losses |= labelled(samples, f"{_METRIC}loss", "term")
        measures = labelled(samples, f"{_METRIC}evaluation", "measure")
        if measures:
            progress.evaluations[int(samples[f"{_METRIC}evaluated_version"])] = measures

    def _check_alive(self) -> None:
        for daemon in self._daemons:
            code = daemon.exit_code
            if code is not None:
                how = f"ended with exit code {code}" if code >= 0 else f"was killed by signal {-code}"
                raise self._failure(daemon, f"{daemon.name} {how}")

    @staticmethod
    def _failure(daemon: Child, what: str) -> DaemonFailed:
        return DaemonFailed(what, log=daemon.log, lines=daemon.tail())

    # Taking out what it made.

    def _take_out(self, untrained: Path | None) -> Remains:
        status = self._ask("status")
        records = self._ask("rounds", "--limit", str(10 * self._plan.rounds))
        committed = sorted(
            (record for record in records if record["outcome"] == "committed"),
            key=lambda record: int(record["round"]),
        )
        for part in self._plan.exports:
            self._export(part)
        zero = None if untrained is None else self._ask("export", "--version", "0", "--out", str(untrained))
        return Remains(
            run_id=str(status["run_id"]),
            version=int(status["version"]),
            model_digest=str(status["model_digest"]),
            rounds=tuple(committed),
            evaluations={int(each["version"]): each["values"] for each in self._ask("evaluations")},
            clients=tuple(self._ask("clients")),
            encoder=self._plan.folder / f"{ENCODER}.safetensors" if ENCODER in self._plan.exports else None,
            untrained_digest="" if zero is None else str(zero["model_digest"]),
            seconds=self._last_committed - self._first_opened,
        )

    def _export(self, part: str) -> None:
        arguments = ["--force", "--out", str(self._plan.folder / f"{part}.safetensors")]
        if part != ENCODER:
            arguments += ["--part", part]
        if self._plan.trained_on:
            arguments += ["--trained-on", self._plan.trained_on]
        if self._plan.method.endswith(".py"):
            arguments += ["--method", self._plan.method]
        self._ask("export", *arguments)

    def _drain(self) -> None:
        self._ask("drain")
        for daemon in self._daemons[1:]:
            daemon.process.terminate()
        deadline = self._clock() + VERB_SECONDS
        while any(daemon.exit_code is None for daemon in self._daemons):
            if self._clock() > deadline:
                raise DaemonFailed(
                    f"{self._plan.title} did not stop after draining", log=self._daemons[0].log
                )
            time.sleep(POLL_SECONDS / 4)
        # Nobody trusts them any more, and folders of results are passed around.
        shutil.rmtree(self._plan.folder / PKI, ignore_errors=True)

    def _ask(self, verb: str, *arguments: str) -> Json:
        """The answer of `ssd-coordinator VERB --format json`."""
        pki = str(self._plan.folder / PKI)
        where = ["--address", self._address, "--pki", pki, "--format", "json"]
        command = ["-m", "coordinator", verb, *where, *arguments]
        try:
            done = subprocess.run(
                python(*command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=VERB_SECONDS,
                env=environment(os.environ),
                check=True,
            )
        except subprocess.TimeoutExpired as error:
            raise DaemonFailed(
                f"ssd-coordinator {verb} did not answer within {VERB_SECONDS:.0f} seconds",
                log=self._daemons[0].log,
            ) from error
        except subprocess.CalledProcessError as error:
            words = error.stderr.decode("utf-8", "replace").splitlines()
            raise DaemonFailed(
                f"ssd-coordinator {verb} ended with exit code {error.returncode}",
                log=self._daemons[0].log,
                lines=words[-12:],
            ) from error
        return json.loads(done.stdout)


_IDLE = frozenset({"waiting", "phase", "server_hook_slow"})
"""Events that do not show that anything moves."""


def _no_workers(_: str) -> Mapping[str, Tables]:
    return {}

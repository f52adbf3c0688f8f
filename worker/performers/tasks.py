"""Carries out what has to do with tasks: preparing them, training clients, evaluating a version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ssd.secagg.protocol.errors import Refused
from ssd_wire import messages
from ssd_wire.messages import UpdateKey
from worker.connection.background import NamedTasks
from worker.core import effects, events
from worker.core.secagg_client import OFF
from worker.core.state import Session
from worker.downloads.prepare import Preparation
from worker.errors import SessionEnded, StorageFailed, TaskFault
from worker.ports import Access, Clock, DataAccess, Performers, Post, PreparedTask, Trainer
from worker.secure_aggregation.task_checks import Admission
from worker.telemetry.metrics import Metrics
from worker.telemetry.tracing import Tracing


class TaskEffects:
    """Brings a task's files to this host and gives them to the training process.

    Args:
        access: returns the welcome in use and what a data call needs.
        preparation: fetches and verifies what a task needs.
        trainer: the training process.
        clock: for durations.
        metrics: where preparing is measured.
        tasks: where preparing runs, for training and for evaluation.
        tracing: says where the calls belong.
        session: returns the session machine's present state, which is only read.
        admission: what is taken part in under secure aggregation.
        post: takes the events.
    """

    def __init__(
        self,
        *,
        access: Access,
        preparation: Preparation,
        trainer: Trainer,
        clock: Clock,
        metrics: Metrics,
        tasks: NamedTasks,
        tracing: Tracing,
        session: Callable[[], Session],
        admission: Admission,
        post: Post,
    ) -> None:
        self._access = access
        self._preparation = preparation
        self._trainer = trainer
        self._clock = clock
        self._metrics = metrics
        self._tasks = tasks
        self._tracing = tracing
        self._session = session
        self._admission = admission
        self._post = post
        self._task: PreparedTask | None = None
        self.performers: Performers = {
            effects.Prepare: self._prepare,
            effects.StopPreparing: self._stop_preparing,
            effects.TrainClient: self._train_client,
            effects.TrainTogether: self._train_together,
            effects.EndTogether: self._end_together,
            effects.StopTraining: self._stop_training,
            effects.RunEvaluation: self._run_evaluation,
        }

    async def _prepare(self, effect: effects.Prepare) -> None:
        self._tasks.spawn("prepare", self._prepare_task(effect.train))

    async def _stop_preparing(self, _: effects.StopPreparing) -> None:
        self._tasks.cancel("prepare")

    async def _prepare_task(self, task: messages.Train) -> None:
        key = task.key("")
        started = self._clock.monotonic()
        try:
            welcome, access = self._access()
            access = replace(access, parent=self._tracing.preparing)
            if welcome.level != OFF:
                await self._check(task, welcome, access)
            prepared = await self._preparation.prepare(
                welcome, access, task.base, task.artefacts, self._session().versions
            )
        except SessionEnded as ended:
            self._post(events.PrepareFailed(key=key, reason=ended.reason, detail=ended.detail, retry=True))
        except TaskFault as fault:
            self._post(events.PrepareFailed(key=key, reason=fault.reason, detail=fault.detail, retry=False))
        except StorageFailed as error:
            self._post(events.PrepareFailed(key=key, reason="storage", detail=str(error), retry=False))
        else:
            self._task = prepared
            self._metrics.prepare_seconds.observe(self._clock.monotonic() - started)
            self._post(events.Prepared(key=key, number=task.base.number))

    async def _check(self, task: messages.Train, welcome: messages.Welcome, access: DataAccess) -> None:
        """Look at the task before anything is trained for a masked sum.

        Raises:
            SessionEnded: the declaration has to be fetched, in a new session.
            TaskFault: this worker does not agree to it, or the declaration cannot be had.
        """
        declaration = await self._preparation.declaration(welcome, access)
        try:
            self._admission.check(declaration, welcome, task)
        except Refused as refused:
            raise TaskFault("not_agreed", str(refused), whole_task=True) from refused
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # The declaration is a stranger's: whatever else it makes a check do is a refusal, too, and no worker's end.
            name = type(error).__name__
            raise TaskFault("not_agreed", f"the task cannot be judged ({name})", whole_task=True) from error

    async def _train_client(self, effect: effects.TrainClient) -> None:
        assert self._task is not None  # the session trains what was prepared
        await self._trainer.train(effect.train, effect.client, self._task)

    async def _train_together(self, effect: effects.TrainTogether) -> None:
        assert self._task is not None  # the session trains what was prepared
        await self._trainer.train_together(effect.train, effect.clients, self._task)

    async def _end_together(self, _: effects.EndTogether) -> None:
        await self._trainer.end_together()

    async def _stop_training(self, _: effects.StopTraining) -> None:
        self._tasks.cancel("evaluate")
        await self._trainer.stop()

    async def _run_evaluation(self, effect: effects.RunEvaluation) -> None:
        self._tasks.spawn("evaluate", self._measure_version(effect.evaluate))

    async def _measure_version(self, evaluate: messages.Evaluate) -> None:
        number = evaluate.version.number
        try:
            welcome, access = self._access()
            prepared = await self._preparation.prepare(
                welcome, access, evaluate.version, evaluate.artefacts, self._session().versions
            )
        except SessionEnded:
            self._post(events.EvaluationEnded(version=number, lost=True))
            return
        except (TaskFault, StorageFailed) as error:
            nobody = () if evaluate.clients else None
            reason = error.reason if isinstance(error, TaskFault) else "storage"
            ended = events.EvaluationEnded(
                version=number, error=f"{error.code}: {error}", reason=reason, clients=nobody
            )
            self._post(ended)
            return
        key = UpdateKey(client="", round=0, base_digest=evaluate.version.model_digest, task_digest="")
        self._post(events.Prepared(key=key, number=number))
        if not evaluate.clients:
            await self._trainer.evaluate(number, evaluate.run_seed, prepared)
            return
        # A client that a later commit included has moved on: its state is no longer the version's.
        rounds = self._session().clients
        clients = tuple(task for task in evaluate.clients if rounds.get(task.client, number + 1) <= number)
        await self._trainer.evaluate_clients(replace(evaluate, clients=clients), prepared)

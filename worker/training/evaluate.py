"""What the training process does to measure a version, on probe data or on the clients' own test images.

torch comes in here, if at all, through the method and the data; this module imports neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ssd.daemon.logs import event as log_event
from ssd.evaluation.client_measures import BadMeasures, add_client
from ssd.method.protocol import ClientEvaluationTask, EvaluatesClients, EvaluationTask
from ssd.scaling import ScalingVector
from ssd.updates.declaration import Declaration
from worker.errors import TaskFault
from worker.training.client_data import ClientData
from worker.training.train import MethodCache, array, describe_failure, read_state, vector

Json = Any
_log = logging.getLogger(__name__)


def evaluate(
    order: Mapping[str, Json], methods: MethodCache, data: ClientData, device: str
) -> dict[str, float]:
    """The named scalars of a version on the probe data."""
    prepared = order["prepared"]
    method, declaration = methods.get(prepared["declaration"], prepared["declaration_digest"])
    task = EvaluationTask(
        run_seed=order["run_seed"],
        version=order["version"],
        vector=vector(prepared["base"], declaration.spec.size),
        device=methods.device(device),
    )
    values = method.evaluate(task, data.probe(declaration))
    return {name: float(value) for name, value in values.items()}


def evaluate_clients(
    order: Mapping[str, Json],
    methods: MethodCache,
    data: ClientData,
    device: str,
    check: Callable[[], None],
) -> tuple[dict[str, float], list[str]]:
    """Sums over the clients, and the clients that are in them.

    A client without test images or of which the method measures nothing is left out, and one whose measuring fails,
    which the log tells. `check` is called
    between clients; what it raises ends the job.

    Raises:
        TaskFault: the method cannot be built here or measures no clients, or the device failed.
    """
    prepared = order["prepared"]
    method, declaration = methods.get(prepared["declaration"], prepared["declaration_digest"])
    if not isinstance(method, EvaluatesClients):
        raise TaskFault("method_unavailable", f"method {declaration.method!r} measures no clients")
    sums: dict[str, float] = {}
    measured: list[str] = []
    for client in order["clients"]:
        check()
        try:
            try:
                values = _measure(method, declaration, order, client, data, methods.device(device))
            except Exception as error:
                if type(error).__name__ != "FolderChanged":  # by its name: see `worker.training.child`
                    raise
                data.forget()
                values = _measure(method, declaration, order, client, data, methods.device(device))
            if not values:
                continue
            sums = add_client(sums, values)
        except Exception as error:  # whatever a method raises costs this client only
            reason, detail = _failure(error)
            log_event(
                _log,
                logging.WARNING,
                "client_not_measured",
                client=client["client"],
                version=order["version"],
                reason=reason,
                detail=detail,
            )
            if reason == "device_fault":
                raise TaskFault(reason, detail) from error
        else:
            measured.append(client["client"])
    return sums, measured


def _measure(
    method: EvaluatesClients,
    declaration: Declaration,
    order: Mapping[str, Json],
    client: Mapping[str, Json],
    data: ClientData,
    device: str,
) -> Mapping[str, float] | None:
    """One client's numbers; None without test images."""
    name, prepared = client["client"], order["prepared"]
    test = data.open_test(name, declaration)
    if test is None and declaration.needs_images:
        return None
    task = ClientEvaluationTask(
        run_seed=order["run_seed"],
        version=order["version"],
        client_id=name,
        vector=vector(prepared["base"], declaration.spec.size),
        scaling=None if client["scaling"] is None else ScalingVector.from_json(client["scaling"]),
        artefacts={each: array(path, shape) for each, (path, shape) in prepared["artefacts"].items()},
        state=read_state(client["state"], name),
        device=device,
        threads=order["threads"],
    )
    return method.evaluate_client(task, data.open(name, declaration), test)


def _failure(error: Exception) -> tuple[str, str]:
    if isinstance(error, TaskFault):
        return error.reason, error.detail
    if isinstance(error, BadMeasures):
        return "bad_measures", str(error)
    return describe_failure(error)

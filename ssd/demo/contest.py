"""The demo's federations: the same clients, images and seed for every contender."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from ssd.data.partition.partition import client_ids
from ssd.demo.records import Outcome
from ssd.demo.settings import CLIENTS, DATASET, EVALUATOR, Contender, DemoSettings
from ssd.federation.children import Children
from ssd.federation.configs import Tables, worker_tables
from ssd.federation.federation import Federation
from ssd.federation.plan import FederationPlan
from ssd.federation.records import Progress


def plan_of(settings: DemoSettings, contender: Contender) -> FederationPlan:
    """What a contender's federation is to be."""
    return FederationPlan(
        title=contender.title,
        folder=(settings.out / contender.method).absolute(),
        method=contender.method,
        config=contender.config,
        clients=client_ids(CLIENTS),
        cohort_size=CLIENTS,
        rounds=settings.rounds,
        seed=settings.seed,
        evaluate_every=settings.evaluate_every,
        # Version 0 is exported at the end, as the untrained encoder.
        full_versions=settings.rounds + 1,
        overrides=secure_tables(settings.secure_aggregation),
        trained_on=DATASET,
    )


def secure_tables(level: str) -> Mapping[str, Mapping[str, str]]:
    """The coordinator's settings of secure aggregation."""
    return {} if level == "off" else {"secure_aggregation": {"level": level}}


def attending(
    plan: FederationPlan, partition: Path, hosted: Sequence[Sequence[str]], address: str
) -> Mapping[str, Tables]:
    """The configurations of an evaluator, and of workers that host `hosted`."""
    data = {"kind": DATASET, "partition": str(partition.absolute())}
    workers = {f"worker-{number}": list(clients) for number, clients in enumerate(hosted, start=1)}
    # The evaluator first, so that it is there before version 1 takes the place of version 0.
    return {
        name: worker_tables(plan, name, address, clients, data, evaluates=name == EVALUATOR)
        for name, clients in {EVALUATOR: list[str](), **workers}.items()
    }


class Contest:
    """One contender's federation. Call `launch`, then `run`, once each."""

    def __init__(self, settings: DemoSettings, contender: Contender, children: Children) -> None:
        self._settings = settings
        self._contender = contender
        self._plan = plan_of(settings, contender)
        self._federation = Federation(self._plan, children)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._federation.progress

    def launch(self) -> None:
        """Start the coordinator and return."""
        self._federation.launch()

    def run(
        self,
        hosted: Sequence[Sequence[str]],
        show: Callable[[Progress], None],
        trained: Callable[[], None] = lambda: None,
        untrained: Path | None = None,
    ) -> Outcome:
        """Run it to its end with one worker for each of `hosted`; see `Federation.run`."""

        def workers(address: str) -> Mapping[str, Tables]:
            return attending(self._plan, self._settings.partition, hosted, address)

        remains = self._federation.run(workers, show, trained, untrained)
        return Outcome(
            contender=self._contender, **{each.name: getattr(remains, each.name) for each in fields(remains)}
        )

"""FedGen: clients learn from latent vectors that a server-side generator makes up (arXiv 2105.10056).

After every round the server trains a conditional generator until the clients' heads read its vectors as the labels
they were made for, and lends it to the next round's clients, who then train on vectors of labels they hold no image
of. Round 1 has no generator and is plain FedAvg; so is a run with `alpha = beta = 0`, bit for bit. `teacher` says how
much of a client the server sees: sums in the default and in `label_weighted_heads`, every head in `individual_heads`.
See `fedgen_config` for where the paper and its official code differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ssd.losses.generated import generated_loss, guidance
from ssd.method.protocol import Reduction, ReductionResult
from ssd.methods.fedgen.config import FedGenConfig, resolve_fedgen
from ssd.methods.fedgen.server import GeneratorReport, GeneratorState, train_generator
from ssd.methods.fedgen.teacher import (
    LABEL_COUNTS,
    LABEL_HEADS,
    counted_labels,
    distribution,
    scaled_heads,
    teacher_of,
)
from ssd.methods.supervised.base import Batch, Context, Loss, Supervised
from ssd.models.classifier import BACKBONE, HEAD
from ssd.models.flat import FlatModel
from ssd.models.generator import GENERATOR, flat_generator, initial_vector, spec_of
from ssd.random_stream import RandomStream
from ssd.torch_support.determinism import deterministic
from ssd.updates.declaration import Declaration, Json, RoundArtefactDeclaration, StatisticDeclaration

NAME = "fedgen"
VERSION = 1
LABEL_PRIOR = "label_prior"
SEEN = "seen"


@dataclass
class Visit:
    """What one client's visit needs beyond the model."""

    counts: Tensor
    """[C] labels of the real images trained on so far."""
    generator: nn.Module | None
    """In evaluation mode and without gradients; None in round 1."""
    prior: Tensor
    """[C] the distribution of the labels of generated vectors."""


class FedGen(Supervised[FedGenConfig]):
    """The method; also a `ServerHook`."""

    def __init__(self, config: FedGenConfig) -> None:
        super().__init__(NAME, VERSION, config)
        weights = {"generated": config.alpha, "guidance": config.beta}
        self.terms = tuple(term for term, weight in weights.items() if weight != 0)
        self._generator_spec = spec_of(
            config.generator, classes=config.classes, latent_dim=config.feature_dim
        )
        self._generators: dict[torch.device, FlatModel] = {}

    def private_parts(self) -> tuple[str, ...]:
        """See `Supervised.private_parts`."""
        return (BACKBONE,) if self.config.share == "head" else ()

    def private_seed(self, run_seed: int, client: str, part: str) -> int:
        """All clients start from the same backbone: heads are only averaged over latent spaces that have an origin in
        common.
        """
        return RandomStream("initial", part, run_seed).seed64()

    def declare(self) -> Declaration:
        """See `Method.declare`."""
        declared = super().declare()
        collect = self.config.teacher == "individual_heads"
        return replace(
            declared,
            groups=tuple(replace(each, collect=collect and each.name == HEAD) for each in declared.groups),
            statistics=tuple(
                replace(each, collect=collect and each.name == LABEL_COUNTS) for each in declared.statistics
            ),
            server_hook=True,
            round_artefacts=(
                RoundArtefactDeclaration(name=GENERATOR, shape=(self._generator_spec.size,)),
                RoundArtefactDeclaration(name=LABEL_PRIOR, shape=(self.config.classes,)),
            ),
        )

    def extra_statistics(self) -> tuple[StatisticDeclaration, ...]:
        """`label_counts`, and `label_heads` for the teacher that needs them."""
        config = self.config
        most = float(config.max_label_count + config.count_smoothing)
        found = [StatisticDeclaration(name=LABEL_COUNTS, shape=(config.classes,), max_abs=most)]
        if config.teacher == "label_weighted_heads":
            bound = most * config.bounds.parameter_max_abs
            found.append(
                StatisticDeclaration(
                    name=LABEL_HEADS, shape=(config.classes, config.head_size), max_abs=bound
                )
            )
        return tuple(found)

    # On a client.

    def begin(self, context: Context) -> Visit:
        """Put the round's generator to work.

        Raises:
            ValueError: a round after the first comes without one.

        """
        counts = torch.zeros(self.config.classes, dtype=torch.int64, device=context.device)
        if GENERATOR not in context.task.artefacts:
            if context.task.round > 1:
                raise ValueError(f"the task of round {context.task.round} carries no generator")
            return Visit(counts, None, torch.empty(0))
        room = self._room(context.device)
        room.load(np.asarray(context.task.artefacts[GENERATOR]))
        prior = torch.tensor(np.asarray(context.task.artefacts[LABEL_PRIOR], np.float64))
        return Visit(counts, room.parts[GENERATOR].eval().requires_grad_(False), prior)

    def loss(self, batch: Batch, context: Context) -> Loss:
        """Cross-entropy, plus the two terms on generated vectors while there are any."""
        loss = super().loss(batch, context)
        visit: Visit = context.own
        visit.counts += one_hot(batch.labels, self.config.classes).sum(dim=0)
        limit = self.config.generated_steps
        if visit.generator is None or not self.terms or (limit is not None and context.step >= limit):
            nothing = loss.value.new_zeros(())
            return replace(loss, terms=dict.fromkeys(self.terms, nothing))
        return self._with_generated(loss, batch, context, visit.generator, visit.prior)

    def _with_generated(
        self, loss: Loss, batch: Batch, context: Context, generator: nn.Module, prior: Tensor
    ) -> Loss:
        values, config = context.task.values, self.config
        terms: dict[str, Tensor] = {}
        total = loss.value
        if "generated" in self.terms:
            count = config.generated_batch or config.batch_size
            random = context.generator("generated")
            labels = torch.multinomial(prior, count, replacement=True, generator=random).to(context.device)
            latents = generator(config.generator.draw(count, random).to(context.device), labels)
            terms["generated"] = generated_loss(context.model.logits(latents), labels)
            total = total + (count / config.batch_size) * values["alpha"] * terms["generated"]
        if "guidance" in self.terms:
            noise = config.generator.draw(len(batch.labels), context.generator("guidance"))
            with torch.no_grad():
                target = context.model.logits(generator(noise.to(context.device), batch.labels))
            terms["guidance"] = guidance(target, loss.logits)
            total = total + values["beta"] * terms["guidance"]
        return replace(loss, value=total, terms=terms)

    def summary(self, context: Context) -> Mapping[str, NDArray[np.float64]]:
        """The label counts of the visit, and the heads scaled by them if the teacher needs those."""
        config, visit = self.config, context.own
        counted = visit.counts if config.count == "drawn" else _histogram(context.labels, config.classes)
        counts = counted.cpu().numpy().astype(np.float64)
        found = {LABEL_COUNTS: counts}
        if config.teacher == "label_weighted_heads":
            head = context.flat.trainable[context.flat.where(HEAD)].detach().cpu().numpy()
            found[LABEL_HEADS] = scaled_heads(head, counts, config.count_smoothing)
        return found

    # On the server.

    def after_reduce(self, reduction: Reduction) -> ReductionResult:
        """One round of generator training; the averaged update stays as it is.

        A cohort whose label counts add up to nothing, which takes a client that lies, leaves the generator as it was.

        Raises:
            GeneratorDiverged: the generator's loss stopped being finite.

        """
        config = self.config
        counts = counted_labels(reduction)
        seen = np.asarray(reduction.state.get(SEEN, np.zeros(config.classes)), np.float32) + (counts > 0)
        state = self._generator_state(reduction)
        metrics = {"generator_labels": float(np.count_nonzero(counts))}
        if counts.any():
            state, report = self._train_generator(state, reduction, counts)
            metrics |= {
                "generator_teacher_loss": report.teacher,
                "generator_diversity_loss": report.diversity,
            }
        # Clients are asked about labels of the whole federation as far as they are known, not of one cohort.
        known = counts if config.labels == "counts" else seen.astype(np.float64)
        return ReductionResult(
            state={**state.to_arrays(), SEEN: np.minimum(seen, np.float32(1))},
            artefacts={
                GENERATOR: state.vector,
                LABEL_PRIOR: distribution(known, config.labels).astype(np.float32),
            },
            metrics=metrics,
        )

    def _train_generator(
        self, state: GeneratorState, reduction: Reduction, counts: NDArray[np.float64]
    ) -> tuple[GeneratorState, GeneratorReport]:
        config = self.config
        with deterministic(torch.device("cpu"), 1):
            return train_generator(
                self._room(torch.device("cpu")),
                state,
                teacher_of(reduction, self._spec.groups[HEAD], config),
                distribution(counts, config.labels),
                noise=config.generator,
                training=config.server,
                lr=reduction.values["generator_lr"],
                seed=RandomStream("generator", "steps", reduction.run_seed, reduction.round).seed64(),
            )

    def _generator_state(self, reduction: Reduction) -> GeneratorState:
        if GENERATOR in reduction.state:
            return GeneratorState.from_arrays(reduction.state)
        config = self.config
        vector = initial_vector(
            config.generator,
            classes=config.classes,
            latent_dim=config.feature_dim,
            seed=RandomStream("generator", "initial", reduction.run_seed).seed64(),
        )
        return GeneratorState.fresh(vector, self._generator_spec.groups[GENERATOR].stop)

    def _room(self, device: torch.device) -> FlatModel:
        """The generator kept for one device; what it holds does not matter."""
        if device not in self._generators:
            config = self.config
            self._generators[device] = flat_generator(
                config.generator, classes=config.classes, latent_dim=config.feature_dim, device=device
            )
        return self._generators[device]


def _histogram(labels: Tensor, classes: int) -> Tensor:
    return torch.bincount(labels, minlength=classes)


def create(config: Mapping[str, Json]) -> FedGen:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return FedGen(resolve_fedgen(config))

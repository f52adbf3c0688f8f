"""What follows from the configuration: policies, plans and limits that components are given."""

from __future__ import annotations

import math

from coordinator.config.run_settings import Settings
from coordinator.config.sections import CoordinatorConfig
from coordinator.config.secure_settings import SecureSettings
from coordinator.core.policy import Mode, RoundPolicy
from coordinator.errors import ConfigInvalid
from ssd.privacy.noise import NoisePlan
from ssd.privacy.settings import NoisePlace, PrivacyRefused, PrivacySettings
from ssd.scaling import block_size
from ssd.secagg.numbers.masked_plan import MaskedPlan
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration
from ssd.updates.fixed_point import OverflowRisk
from ssd.updates.fold import FoldConfigError, FoldPlan


def policy_of(config: CoordinatorConfig, declaration: Declaration) -> RoundPolicy:
    """The round machine's settings for a run of this method."""
    section = config.round
    return RoundPolicy(
        mode=Mode(config.run.mode),
        rounds=config.run.rounds,
        cohort_size=section.cohort_size,
        seed=config.run.seed,
        min_updates=section.min_updates,
        over_selection=section.over_selection,
        deadline_seconds=section.deadline_seconds,
        deadline_quantile=section.deadline_quantile,
        wait_for_clients_seconds=section.wait_for_clients_seconds,
        retry_seconds=section.retry_seconds,
        max_client_failures=section.max_client_failures,
        expected_clients=None if config.run.clients else config.run.expected_clients,
        named_clients=config.run.clients,
        min_participants=0
        if config.secure_aggregation.level == "off"
        else config.secure_aggregation.min_participants,
        max_clients=max_clients(config, declaration),
    )


def settings_of(config: CoordinatorConfig) -> Settings:
    """What a run's parts need of the configuration."""
    return Settings(
        run=config.run,
        wire=config.wire,
        limits=config.limits,
        retention=config.retention,
        evaluation=config.evaluation,
        update_encoding=update_encoding(config).value,
        expected_clients=expected_clients(config),
        secure=secure_settings(config),
        privacy=privacy_settings(config),
    )


def update_encoding(config: CoordinatorConfig) -> Encoding:
    """Of updates as they leave a client.

    Under secure aggregation they never leave their host: nothing is saved. Under differential privacy they are clipped,
    and rounding them afterwards could bring them over the bound again.
    """
    if config.secure_aggregation.level != "off" or config.privacy.mechanism != "off":
        return Encoding.FLOAT32
    return Encoding(config.wire.update_encoding)


def secure_settings(config: CoordinatorConfig) -> SecureSettings | None:
    """What the driver needs for secure aggregation; None: it is off."""
    section = config.secure_aggregation
    if section.level == "off":
        return None
    return SecureSettings(
        section=section,
        max_client_weight=min(section.max_client_weight, max_client_weight(config)),
        max_cohort=max_cohort(config),
        elastic=config.run.mode == "elastic",
        privacy=privacy_settings(config),
    )


def privacy_settings(config: CoordinatorConfig) -> PrivacySettings | None:
    """The terms of differential privacy; None: it is off."""
    section = config.privacy
    if section.mechanism == "off":
        return None
    place = NoisePlace(section.mechanism)
    return PrivacySettings(
        place=place,
        clip_norm=section.clip_norm,
        noise_multiplier=section.noise_multiplier,
        delta=section.delta,
        min_honest=section.min_honest if place is NoisePlace.DISTRIBUTED else 1,
    )


def noise_plan_of(plan: FoldPlan, config: CoordinatorConfig) -> NoisePlan | None:
    """How much noise a sum holds; None: none.

    Raises:
        ConfigInvalid: the noise cannot be drawn, or does not fit.
    """
    privacy, secure = privacy_settings(config), secure_settings(config)
    if privacy is None:
        return None
    try:
        if secure is not None:
            return MaskedPlan.create(plan, secure.numbers).noise
        return NoisePlan.of(privacy, plan.size, plan.groups[0].scale_bits)
    except (PrivacyRefused, OverflowRisk, FoldConfigError) as error:
        raise ConfigInvalid(f"[privacy] cannot hold: {error}") from error


def max_client_weight(config: CoordinatorConfig) -> int:
    """The most often a client counts: under differential privacy all count once."""
    return config.limits.max_client_weight if config.privacy.mechanism == "off" else 1


def max_cohort(config: CoordinatorConfig) -> int:
    """The most clients one round's sum may hold."""
    return math.ceil(config.round.cohort_size * config.round.over_selection)


def expected_clients(config: CoordinatorConfig) -> int:
    """How many clients scaling vectors are laid out for."""
    return config.run.expected_clients or len(config.run.clients) or config.round.cohort_size


def max_clients(config: CoordinatorConfig, declaration: Declaration) -> int | None:
    """How many clients the run can ever hold; None: any number."""
    scaling = declaration.scaling
    if scaling is None or scaling.allocation != "disjoint" or scaling.assignment == "position":
        return None
    return scaling.dimension // block_size(scaling.dimension, expected_clients(config), scaling.block)


def plan_of(declaration: Declaration, config: CoordinatorConfig) -> FoldPlan:
    """The sums' layout and scale.

    Raises:
        ConfigInvalid: the caps could overflow a sum.
    """
    try:
        plan, measuring = (
            FoldPlan.create(
                declaration,
                update_encoding(config),
                max_cohort(config),
                max_client_weight(config),
                quality=quality,
                clip_norm=None if config.privacy.mechanism == "off" else config.privacy.clip_norm,
            )
            # Whether rounds measure quality may change with a restart: those must not overflow either.
            for quality in (False, True)
        )
    except (OverflowRisk, FoldConfigError) as error:
        raise ConfigInvalid(
            f"the sums of this run could overflow: {error}. Lower limits.max_client_weight or round.cohort_size."
        ) from error
    secure = secure_settings(config)
    if secure is not None:
        try:
            MaskedPlan.create(measuring, secure.numbers)
        except (OverflowRisk, FoldConfigError) as error:
            raise ConfigInvalid(
                f"the masked sums of this run could wrap around: {error}. Lower secure_aggregation.max_client_weight or"
                " round.cohort_size, or raise secure_aggregation.ring_bits."
            ) from error
    return plan

"""FedGen as a method: what travels, what clients learn from it, and what the server makes of what comes back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from ssd.method.protocol import ClientEvaluationTask, ServerHook
from ssd.method.registry import load
from ssd.method.schedule import resolve
from ssd.methods.fedgen.config import resolve_fedgen
from ssd.methods.fedgen.method import LABEL_PRIOR, SEEN
from ssd.methods.fedgen.server import FIRST, SECOND, STEPS
from ssd.methods.fedgen.teacher import LABEL_COUNTS, LABEL_HEADS, distribution, teacher_of
from ssd.models.generator import GENERATOR, flat_generator
from ssd.settings import SettingsError, to_json
from ssd.torch_support.determinism import deterministic
from ssd.updates.codec import Encoding
from ssd.updates.fold import Fold, encode_update
from ssd.updates.fold_plan import FoldPlan
from training.small_fedgen import CONFIG, SmallFederation, digits_of, fedgen, three_clients

TEACHERS = ["averaged_head", "label_weighted_heads", "individual_heads"]
FEDGEN_ONLY = ("generator", "server", "generator_lr")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with deterministic(torch.device("cpu"), 1):
        yield


def federation(**changes: Any) -> SmallFederation:
    return SmallFederation(fedgen(**changes), three_clients())


def after_rounds(rounds: int, **changes: Any) -> SmallFederation:
    small = federation(**changes)
    for _ in range(rounds):
        small.round()
    return small


def fedavg_vector(rounds: int) -> np.ndarray:
    """What FedAvg makes of the same clients."""
    plain = load("fedavg", {name: value for name, value in CONFIG.items() if name not in FEDGEN_ONLY})
    small = federation()
    plan = FoldPlan.create(plain.declare(), Encoding.FLOAT32, 16, 1 << 20)
    for _ in range(rounds):
        fold, states = Fold(plan), {}
        for client, data in small.clients.items():
            result = plain.train(small.task(client), data, lambda *seen: None)
            room = bytearray(plan.update_nbytes)
            fold.add_update(encode_update(plan, result.delta, result.statistics, room), result.weight)
            states[client] = result.state
        small.client_states |= states
        small.vector = small.vector + fold.open().delta
        small.number += 1
    return small.vector


def latents() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    wanted = torch.randint(0, 8, (64,), generator=random)  # (of the labels that somebody holds)
    return torch.randn(64, 12, generator=random).requires_grad_(), wanted


def heads_of(small: SmallFederation, results: Mapping[str, Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    where = small.declaration.spec.groups["head"]
    values = [torch.tensor((small.vector + results[name].delta)[where]) for name in sorted(results)]
    return [(head[:120].view(10, 12), head[120:]) for head in values]


# ------------------------------------------------------------------------------------------------- what is declared


def test_the_generator_and_the_label_prior_are_made_every_round() -> None:
    declared = fedgen().declare()
    assert declared.server_hook
    assert declared.needs_labels
    sizes = {each.name: each.shape for each in declared.round_artefacts}
    # 14 inputs (4 noise, 10 labels), 16 hidden with BatchNorm, 12 out; running statistics behind.
    assert sizes == {GENERATOR: (14 * 16 + 16 + 32 + 16 * 12 + 12 + 32,), LABEL_PRIOR: (10,)}
    assert isinstance(fedgen(), ServerHook)


@pytest.mark.parametrize("teacher", TEACHERS)
def test_only_individual_heads_collect_and_only_heads_and_counts(teacher: str) -> None:
    declared = fedgen(teacher=teacher).declare()
    collected = {each.name for each in (*declared.groups, *declared.statistics) if each.collect}
    assert collected == ({"head", LABEL_COUNTS} if teacher == "individual_heads" else set())
    assert declared.collects == bool(collected)
    heads = {each.name: each.shape for each in declared.statistics}.get(LABEL_HEADS)
    assert heads == ((10, 130) if teacher == "label_weighted_heads" else None)


def test_with_head_sharing_only_the_head_is_in_the_vector() -> None:
    method = fedgen(share="head")
    assert [tensor.name for tensor in method.declare().spec.tensors] == ["head.weight", "head.bias"]
    small = SmallFederation(method, three_clients())
    results, _ = small.round()
    assert results["a"].delta.shape == (130,)
    assert set(results["a"].state) == {"private", "buffers"}
    backbone = np.array(results["a"].state["private"])
    again, _ = small.round()
    assert not np.array_equal(again["a"].state["private"], backbone)
    task = ClientEvaluationTask(
        run_seed=5, version=2, client_id="a", vector=small.vector, state=small.client_states["a"]
    )
    measured = small.method.evaluate_client(task, small.clients["a"], digits_of([0, 1, 2], 20))
    assert measured["images"] == 20


def test_with_head_sharing_all_clients_start_from_the_backbone_of_full_sharing() -> None:
    small, whole = federation(share="head", lr=0.0), federation()
    results, _ = small.round()
    begun = whole.vector[whole.declaration.spec.groups["backbone"]]
    for client in small.clients:  # (at a rate of zero, nothing but the statistics moves)
        assert np.array_equal(results[client].state["private"], begun)


# ----------------------------------------------------------------------------------------------- what clients learn


def test_without_generated_terms_it_is_fedavg_bit_for_bit() -> None:
    small = after_rounds(3, alpha=0.0, beta=0.0)
    assert small.method.terms == ()
    assert GENERATOR in small.artefacts
    assert small.vector.tobytes() == fedavg_vector(3).tobytes()
    assert after_rounds(3).vector.tobytes() != small.vector.tobytes()


def test_round_1_has_no_generator_and_is_fedavg() -> None:
    small = federation()
    assert small.artefacts == {}
    results, _ = small.round()
    assert small.vector.tobytes() == fedavg_vector(1).tobytes()
    assert float(results["a"].statistics["generated_sum"]) == 0.0
    later, _ = small.round()
    assert float(later["a"].statistics["generated_sum"]) > 0.0
    assert float(later["a"].statistics["guidance_sum"]) > 0.0


def test_a_later_round_without_a_generator_is_an_error() -> None:
    small = after_rounds(1)
    small.artefacts = {}
    with pytest.raises(ValueError, match="round 2 carries no generator"):
        small.train("a")


def test_generated_vectors_stop_after_the_configured_steps() -> None:
    never = after_rounds(2, generated_steps=0)
    assert never.vector.tobytes() == fedavg_vector(2).tobytes()
    sums = []
    for steps in (1, 2, None):
        results, _ = after_rounds(1, generated_steps=steps).round()
        sums.append(float(results["a"].statistics["generated_sum"]))
    assert 0 < sums[0] < sums[1] < sums[2]


def test_the_loss_on_generated_vectors_moves_the_head_and_guidance_moves_the_backbone() -> None:
    """After one step: what flows into which part."""
    moved = {}
    for name, weights in {
        "plain": {"alpha": 0.0, "beta": 0.0},
        "generated": {"alpha": 10.0, "beta": 0.0},
        "guidance": {"alpha": 0.0, "beta": 10.0},
    }.items():
        small = after_rounds(1, local_steps=1, **weights)
        moved[name] = small.train("a").delta
    backbone, head = small.declaration.spec.groups["backbone"], small.declaration.spec.groups["head"]
    assert np.array_equal(moved["generated"][backbone], moved["plain"][backbone])
    assert not np.array_equal(moved["generated"][head], moved["plain"][head])
    assert not np.allclose(moved["guidance"][backbone], moved["plain"][backbone], atol=1e-5)


def test_the_weight_of_the_generated_batch_is_relative_to_the_real_one() -> None:
    small = after_rounds(1, local_steps=1, alpha=2.0, beta=0.0, generated_batch=8)
    (result, plain) = (
        small.train("a"),
        after_rounds(1, local_steps=1, alpha=0, beta=0, generated_batch=8).train("a"),
    )
    total, real = float(result.statistics["loss_sum"]), float(plain.statistics["loss_sum"])
    generated = float(result.statistics["generated_sum"])
    assert total == pytest.approx(real + 8 / 16 * 2.0 * generated, rel=1e-5)


def test_a_clients_head_keeps_labels_it_holds_no_image_of() -> None:
    """Its answers on generated vectors of the others' labels, after its own training."""
    lost = {}
    for name, weight in (("with", 10.0), ("without", 0.0)):
        small = federation(local_steps=10, server={"steps": 50}, alpha=weight, beta=0.0)
        for _ in range(4):
            small.round()
        config = small.method.config.generator
        generator = flat_generator(config, classes=10, latent_dim=12)
        generator.load(small.artefacts[GENERATOR])
        wanted = torch.tensor([3, 4, 5, 6, 7]).repeat(40)
        with torch.no_grad():
            noise = config.draw(len(wanted), torch.Generator().manual_seed(0))
            z = generator.parts[GENERATOR].eval()(noise, wanted)
        ((weights, biases),) = heads_of(small, {"a": small.train("a")})
        lost[name] = float(cross_entropy(z @ weights.T + biases, wanted))
    assert lost["with"] < 0.8 * lost["without"]


def test_label_counts_are_of_the_batches_drawn_or_of_all_images() -> None:
    drawn = federation(count="drawn").train("b").statistics[LABEL_COUNTS]
    assert drawn.sum() == 3 * 16
    assert set(np.flatnonzero(drawn)) <= {2, 3, 4}
    images = federation(count="images")
    counts = images.train("b").statistics[LABEL_COUNTS]
    assert counts.tolist() == torch.bincount(images.clients["b"].labels, minlength=10).tolist()


def test_a_client_with_less_than_a_batch_takes_part() -> None:
    clients = {**three_clients(), "few": digits_of([8], 5)}
    small = SmallFederation(fedgen(drop_last=True), clients)
    small.round()
    results, made = small.round()
    assert results["few"].statistics[LABEL_COUNTS][8] == 3 * 5
    assert made.artefacts[LABEL_PRIOR][8] > 0


# -------------------------------------------------------------------------------------------- what the server makes


def test_the_default_teacher_is_equation_4_of_the_individual_heads() -> None:
    """From the aggregate alone, and under the weights of the aggregation: loss and gradient within 1e-6."""
    small = after_rounds(1)
    results = {client: small.train(client) for client in small.clients}
    reduction = small.reduction(results)
    z, wanted = latents()
    weights = torch.tensor([float(results[name].weight) for name in sorted(results)])
    logits = torch.stack([z @ w.T + b for w, b in heads_of(small, results)])
    mean = (weights[:, None, None] * logits).sum(dim=0) / weights.sum()
    eq4 = cross_entropy(mean, wanted)
    found = teacher_of(reduction, small.declaration.spec.groups["head"], small.method.config)(z, wanted)
    assert float(found.detach()) == pytest.approx(float(eq4.detach()), abs=1e-6)
    (ours,), (theirs,) = torch.autograd.grad(found, z), torch.autograd.grad(eq4, z)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_label_weighted_heads_need_only_sums_and_never_lose_to_individual_heads() -> None:
    losses = {}
    z, wanted = latents()
    for teacher in ("label_weighted_heads", "individual_heads"):
        small = after_rounds(1, teacher=teacher, matched_shares=True, alpha=0, beta=0)
        results = {client: small.train(client) for client in small.clients}
        reduction = small.reduction(results)
        assert bool(reduction.collected) == (teacher == "individual_heads")
        where = small.declaration.spec.groups["head"]
        losses[teacher] = float(teacher_of(reduction, where, small.method.config)(z, wanted).detach())
    counts = torch.tensor(
        np.stack([results[name].statistics[LABEL_COUNTS] + 1 for name in sorted(results)]),
        dtype=torch.float32,
    )
    shares = (counts / counts.sum(dim=0))[:, wanted]
    logits = torch.stack([z @ w.T + b for w, b in heads_of(small, results)])
    wanted_loss = float(cross_entropy((shares[:, :, None] * logits).sum(dim=0), wanted).detach())
    assert losses["label_weighted_heads"] == pytest.approx(wanted_loss, abs=1e-5)
    assert losses["label_weighted_heads"] <= losses["individual_heads"] + 1e-6


def test_individual_heads_are_weighted_over_the_clients_that_answered() -> None:
    small = after_rounds(1, teacher="individual_heads", matched_shares=True)
    everybody = {client: small.train(client) for client in small.clients}
    z, wanted = latents()
    for names in (["a"], ["a", "c"], ["a", "b", "c"]):
        answered = {name: everybody[name] for name in names}
        teacher = teacher_of(
            small.reduction(answered), small.declaration.spec.groups["head"], small.method.config
        )
        found = float(teacher(z, wanted).detach())
        counts = np.stack([answered[name].statistics[LABEL_COUNTS] + 1 for name in names])
        shares = torch.tensor(counts / counts.sum(axis=0), dtype=torch.float32)
        assert torch.allclose(shares.sum(dim=0), torch.ones(10))
        by_hand = sum(
            float((shares[k, wanted] * cross_entropy(z @ w.T + b, wanted, reduction="none")).mean().detach())
            for k, (w, b) in enumerate(heads_of(small, answered))
        )
        assert found == pytest.approx(by_hand, rel=1e-5)


def test_a_label_nobody_holds_is_left_out() -> None:
    small = after_rounds(2, count="images")
    prior = small.artefacts[LABEL_PRIOR]
    assert prior.tolist() == pytest.approx([0.125] * 8 + [0.0] * 2)
    counted = after_rounds(1, count="images", labels="counts")
    held = sum(torch.bincount(data.labels, minlength=10) for data in counted.clients.values())
    assert counted.artefacts[LABEL_PRIOR].tolist() == pytest.approx((held / held.sum()).tolist())


def test_clients_are_asked_about_every_label_seen_so_far() -> None:
    small = federation(count="images")
    small.round(["a"])
    _, made = small.round(["c"])
    assert np.flatnonzero(made.artefacts[LABEL_PRIOR]).tolist() == [0, 1, 2, 5, 6, 7]
    assert made.metrics["generator_labels"] == 3
    assert made.state[SEEN].tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("teacher", TEACHERS)
def test_equal_reductions_give_equal_bits(teacher: str) -> None:
    small = after_rounds(1, teacher=teacher)
    reduction = small.reduction({client: small.train(client) for client in small.clients})
    first, second = small.method.after_reduce(reduction), fedgen(teacher=teacher).after_reduce(reduction)
    for one, other in ((first.state, second.state), (first.artefacts, second.artefacts)):
        assert set(one) == set(other)
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    assert first.metrics == second.metrics


def test_a_run_that_resumes_from_its_hook_state_goes_on_as_if_it_had_not_stopped() -> None:
    straight = after_rounds(4)
    stopped = after_rounds(2)
    resumed = federation()  # a new process: another method, nothing but what was committed
    resumed.number, resumed.vector = stopped.number, stopped.vector.copy()
    resumed.client_states = dict(stopped.client_states)
    resumed.hook_state = {name: values.copy() for name, values in stopped.hook_state.items()}
    resumed.artefacts = {name: values.copy() for name, values in stopped.artefacts.items()}
    resumed.round()
    resumed.round()
    assert resumed.vector.tobytes() == straight.vector.tobytes()
    for name in (GENERATOR, FIRST, SECOND, STEPS, SEEN):
        assert resumed.hook_state[name].tobytes() == straight.hook_state[name].tobytes()
    assert int(straight.hook_state[STEPS][0]) == 4 * 4


def test_the_generator_keeps_the_averaged_update_as_it_is() -> None:
    _, made = federation().round()
    assert made.delta is None
    assert made.metrics["generator_teacher_loss"] > 0


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_client_that_lies_about_its_counts_does_not_stop_the_run(teacher: str) -> None:
    small = after_rounds(1, teacher=teacher)
    results = {client: small.train(client) for client in small.clients}
    lies = {**results["a"].statistics, LABEL_COUNTS: np.full(10, -1000.0)}
    results["a"] = dataclasses.replace(results["a"], statistics=lies)
    made = small.method.after_reduce(small.reduction(results))
    assert made.metrics == {"generator_labels": 0.0}
    assert made.state[GENERATOR].tobytes() == small.hook_state[GENERATOR].tobytes()
    assert made.artefacts[LABEL_PRIOR].tobytes() == small.artefacts[LABEL_PRIOR].tobytes()
    lies[LABEL_COUNTS] = np.concatenate([np.full(5, -1000.0), np.zeros(5)])
    partly = small.method.after_reduce(small.reduction(results))
    assert 0 < partly.metrics["generator_labels"] <= 3
    assert np.isfinite(partly.state[GENERATOR]).all()


def test_distributions_by_hand() -> None:
    counts = np.array([3.0, 0.0, 1.0])
    assert distribution(counts, "counts").tolist() == [0.75, 0.0, 0.25]
    assert distribution(counts, "uniform").tolist() == [0.5, 0.0, 0.5]
    assert distribution(np.zeros(4), "counts").tolist() == [0.25] * 4


# ------------------------------------------------------------------------------------------------------ configuration


def test_the_official_schedules_are_the_codes() -> None:
    schedules = resolve_fedgen({}).schedules()
    second, hundredth, last = (resolve(schedules, now, 200) for now in (2, 101, 200))
    assert second["alpha"] == second["beta"] == pytest.approx(9.8)
    assert hundredth["alpha"] == pytest.approx(1.33, abs=0.01)
    assert last["alpha"] == pytest.approx(0.18, abs=0.005)
    assert second["generator_lr"] == pytest.approx(3e-4 * 0.98)
    assert resolve(schedules, 2000, 2000)["alpha"] == 1e-4


def test_the_paper_preset_is_the_papers_and_given_keys_win() -> None:
    paper = resolve_fedgen({"preset": "paper", "count_smoothing": 2, "generator": {"hidden_dim": 64}})
    assert (paper.alpha, paper.beta, paper.labels, paper.generated_steps) == (1.0, 0.0, "counts", None)
    assert (paper.generator.noise, paper.generator.hidden_dim) == ("gaussian", 64)
    assert (paper.count_smoothing, paper.matched_shares) == (2, True)
    assert paper.teacher == resolve_fedgen({"preset": "official"}).teacher == "averaged_head"


@pytest.mark.parametrize("preset", ["official", "paper"])
def test_resolving_twice_gives_the_same(preset: str) -> None:
    once = resolve_fedgen({"preset": preset, "teacher": "label_weighted_heads"})
    assert resolve_fedgen(to_json(once)) == once
    assert load("fedgen", to_json(once)).declare() == load("fedgen", to_json(once)).declare()


def test_a_schedule_replaces_the_presets_whole() -> None:
    assert resolve_fedgen({"alpha": {"kind": "constant", "value": 2}}).alpha == {
        "kind": "constant",
        "value": 2,
    }
    assert resolve_fedgen({"beta": 0}).beta == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "code"}, "preset: must be 'official' or 'paper'"),
        (
            {"teacher": "best"},
            "teacher: must be 'averaged_head', 'label_weighted_heads' or 'individual_heads'",
        ),
        ({"head": "private"}, "FedGen needs the heads"),
        ({"generated_batch": 0}, "generated_batch must be at least 1"),
        ({"generated_steps": -1}, "generated_steps must not be negative"),
        ({"count_smoothing": -1}, "count_smoothing must not be negative"),
        ({"max_label_count": 0}, "max_label_count must be at least 1"),
        ({"generator": {"noise_dims": 3}}, "did you mean noise_dim"),
        ({"alpha": {"kind": "exponential", "start": 1}}, "alpha.*rate missing"),
        ({"server": {"steps": 0}}, "at least one step"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        resolve_fedgen(wrong)

"""FedGen's terms against independent references, and the algebra that decides what the server has to see."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, nll_loss, softmax

from ssd.losses.diversity import diversity
from ssd.losses.ensemble import averaged_head, individual_heads, label_weighted_heads
from ssd.losses.generated import generated_loss, guidance
from ssd.torch_support.determinism import deterministic

CLASSES, LATENT, BATCH = 5, 6, 8


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    with deterministic(torch.device("cpu"), 1):
        yield


def heads(clients: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [K, C, D], biases [K, C] and shares [K, C] (columns sum to 1), float64."""
    random = torch.Generator().manual_seed(seed)
    weights = torch.randn(clients, CLASSES, LATENT, generator=random, dtype=torch.float64)
    biases = torch.randn(clients, CLASSES, generator=random, dtype=torch.float64)
    counts = torch.randint(1, 50, (clients, CLASSES), generator=random).to(torch.float64)
    return weights, biases, counts / counts.sum(dim=0)


def vectors(seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    latents = 3.0 * torch.randn(BATCH, LATENT, generator=random, dtype=torch.float64)
    return latents, torch.randint(0, CLASSES, (BATCH,), generator=random)


def gradient(loss: Tensor, latents: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, latents)
    return found


@settings(max_examples=40, deadline=None)
@given(clients=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_the_averaged_head_is_equation_4_of_the_individual_heads(clients: int, seed: int) -> None:
    weights, biases, _ = heads(clients, seed)
    latents, labels = vectors(seed + 1)
    latents.requires_grad_()
    logits = torch.stack([latents @ w.T + b for w, b in zip(weights, biases, strict=True)]).mean(dim=0)
    wanted = nll_loss(log_softmax(logits, dim=1), labels)
    found = averaged_head(latents, labels, weights.mean(dim=0), biases.mean(dim=0))
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), abs=1e-6)
    torch.testing.assert_close(gradient(found, latents), gradient(wanted, latents), rtol=0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(clients=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_one_head_per_label_gives_the_label_weighted_logits(clients: int, seed: int) -> None:
    weights, biases, shares = heads(clients, seed)
    latents, labels = vectors(seed + 1)
    latents.requires_grad_()
    every = torch.stack([latents @ w.T + b for w, b in zip(weights, biases, strict=True)])
    logits = (shares[:, labels][:, :, None] * every).sum(dim=0)
    wanted = nll_loss(log_softmax(logits, dim=1), labels)
    per_label = torch.einsum("ky,kcd->ycd", shares, weights)
    found = label_weighted_heads(latents, labels, per_label, shares.T @ biases)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), abs=1e-6)
    torch.testing.assert_close(gradient(found, latents), gradient(wanted, latents), rtol=0, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(clients=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_the_loss_of_the_mixture_never_exceeds_the_mixture_of_the_losses(clients: int, seed: int) -> None:
    weights, biases, shares = heads(clients, seed)
    latents, labels = vectors(seed + 1)
    per_label = torch.einsum("ky,kcd->ycd", shares, weights)
    mixture = label_weighted_heads(latents, labels, per_label, shares.T @ biases)
    separate = individual_heads(latents, labels, weights, biases, shares, matched=True)
    assert float(mixture) <= float(separate) + 1e-9
    if clients == 1:
        assert float(mixture) == pytest.approx(float(separate), abs=1e-9)


def test_the_individual_heads_by_hand() -> None:
    weights, biases, shares = heads(4, 3)
    latents, labels = vectors(4)
    matched = official = 0.0
    for client in range(4):
        losses = nll_loss(
            log_softmax(latents @ weights[client].T + biases[client], dim=1), labels, reduction="none"
        )
        column = shares[client, labels].reshape(-1, 1)
        matched += float((losses * column[:, 0]).mean())
        official += float((losses * column).mean())  # [B] times [B, 1]: what the official code averages
    found = individual_heads(latents, labels, weights, biases, shares, matched=True)
    assert float(found) == pytest.approx(matched)
    found = individual_heads(latents, labels, weights, biases, shares, matched=False)
    assert float(found) == pytest.approx(official)
    assert matched != pytest.approx(official, rel=1e-3)


def test_diversity_by_hand() -> None:
    random = torch.Generator().manual_seed(0)
    noise, latents = torch.rand(4, 3, generator=random), torch.randn(4, 6, generator=random)
    total = 0.0
    for i in range(4):
        for j in range(4):
            squared = sum((float(a) - float(b)) ** 2 for a, b in zip(noise[i], noise[j], strict=True)) / 3
            absolute = sum(abs(float(a) - float(b)) for a, b in zip(latents[i], latents[j], strict=True)) / 6
            total += squared * absolute
    assert float(diversity(noise, latents)) == pytest.approx(math.exp(-total / 16))


def test_diversity_falls_as_the_latent_vectors_move_apart() -> None:
    noise = torch.rand(8, 3, generator=torch.Generator().manual_seed(0))
    latents = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    same = latents[:1].expand(8, 6)
    values = [float(diversity(noise, vectors)) for vectors in (same, latents, 3.0 * latents)]
    assert values[0] == 1.0
    assert values[0] > values[1] > values[2] > 0.0


def test_guidance_is_the_divergence_of_the_answer_from_the_generated_answer() -> None:
    random = torch.Generator().manual_seed(0)
    generated = torch.randn(BATCH, CLASSES, generator=random, requires_grad=True)
    logits = torch.randn(BATCH, CLASSES, generator=random, requires_grad=True)
    found = guidance(generated, logits)
    wanted = kl_div(log_softmax(logits, dim=1), softmax(generated, dim=1), reduction="batchmean")
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert float(guidance(logits, logits).detach()) == pytest.approx(0.0, abs=1e-6)
    target_side, answer_side = torch.autograd.grad(found, (generated, logits), allow_unused=True)
    assert target_side is None
    assert bool(answer_side.abs().sum() > 0)


def test_the_loss_on_generated_vectors_is_their_cross_entropy() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    wanted = (math.log(1 + math.exp(-2.0)) + math.log(2.0)) / 2
    assert float(generated_loss(logits, torch.tensor([0, 1]))) == pytest.approx(wanted)

"""How an ensemble of affine heads judges latent vectors: the generator's teacher in FedGen (arXiv 2105.10056).

A head k is logits = W_k z + b_k. Three readings of "the clients agree that z is a y":

- `averaged_head`: the loss of the averaged logits, the paper's Eq. 4. For affine heads the averaged logits are the
  logits of the averaged head, so the aggregated model is all it needs.
- `label_weighted_heads`: the same with weights that depend on y, such as each client's share of the images of that
  label. Needs one averaged head per label.
- `individual_heads`: the weighted sum of every head's own loss, as the official code computes it (and as Eq. 3 has it).
  Needs every client's head. The cross-entropy is convex in the logits, so with the same weights the loss of
  `label_weighted_heads` never exceeds this one (Jensen).

The official code multiplies the [B] losses of a client by a [B, 1] column of weights, which broadcasts to [B, B]; the
mean over that is (mean weight) · (mean loss), so a head is judged on every label by its mean weight over the batch.
`matched = False` repeats it; `matched = True` pairs each image's loss with its own label's weight.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def averaged_head(latents: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Mean cross-entropy under one head, Eq. 4.

    Args:
        latents: [B, D].
        labels: [B] int64.
        weight: [C, D] the (weighted) mean of the heads' weights.
        bias: [C] the same of their biases.

    Returns:
        A scalar >= 0.

    """
    return cross_entropy(latents @ weight.T + bias, labels)


def label_weighted_heads(latents: Tensor, labels: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """Mean cross-entropy, each row under the head of its own label.

    Args:
        latents: [B, D].
        labels: [B] int64.
        weights: [C, C, D]; the first index is the label the head is for.
        biases: [C, C].

    Returns:
        A scalar >= 0.

    """
    logits = torch.einsum("bd,bcd->bc", latents, weights[labels]) + biases[labels]
    return cross_entropy(logits, labels)


def individual_heads(
    latents: Tensor, labels: Tensor, weights: Tensor, biases: Tensor, shares: Tensor, *, matched: bool
) -> Tensor:
    """Sum over clients of their own cross-entropy, weighted by their share of each label.

    Args:
        latents: [B, D].
        labels: [B] int64.
        weights: [K, C, D] every client's head.
        biases: [K, C].
        shares: [K, C] of client k in label y; sums to 1 over the clients for every label in `labels`.
        matched: True: sum_k mean_b(share · loss); False: sum_k mean_b(share) · mean_b(loss), the official code.

    Returns:
        A scalar >= 0.

    """
    logits = torch.einsum("bd,kcd->kbc", latents, weights) + biases[:, None]
    clients, batch, classes = logits.shape
    repeated = labels.expand(clients, batch).reshape(-1)
    losses = cross_entropy(logits.reshape(-1, classes), repeated, reduction="none").view(clients, batch)
    share = shares[:, labels]
    if matched:
        return (share * losses).mean(dim=1).sum()
    return (share.mean(dim=1) * losses.mean(dim=1)).sum()

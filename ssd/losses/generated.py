"""What a client learns from generated latent vectors (FedGen, arXiv 2105.10056, Eq. 5, and its official code).

Both terms see the model from the latent vector on, that is, its head. The cross-entropy on generated vectors moves
the head only. The guidance term, which is in the code but not in the paper, holds the model's answer on a real image
against the head's answer on a generated vector of the same label; it is the only way from the generator to the
backbone.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax


def generated_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the head on generated latent vectors, the second term of Eq. 5.

    Args:
        logits: [G, C] the head's answers h(z) on G generated vectors.
        labels: [G] int64, the labels they were generated for.

    Returns:
        A scalar >= 0.

    """
    return cross_entropy(logits, labels)


def guidance(generated_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(σ(h(z)) ‖ σ(model(x))), mean over the batch; no gradient flows into the first.

    Args:
        generated_logits: [B, C] the head's answers on generated vectors of the labels of x.
        logits: [B, C] the model's answers on the real images x.

    Returns:
        A scalar >= 0.

    """
    target = log_softmax(generated_logits.detach(), dim=1)
    return (target.exp() * (target - log_softmax(logits, dim=1))).sum(dim=1).mean()

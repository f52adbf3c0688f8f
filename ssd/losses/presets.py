"""The readings of SSD that its paper and its official code support, as option sets.

| | `official` | `paper` | `paper_literal` |
| --- | --- | --- | --- |
| z before scaling | normalised | normalised | raw |
| scaled target | normalised | normalised | raw |
| DSR reduction | Frobenius / N | squared mean | squared mean |
| axes (a setting of the method) | rotated | coordinate | coordinate |
| distillation | KL(z ‖ h), τ = 0.5 | KL(h ‖ z), τ = 1 | KL(h ‖ z), τ = 1 |

`paper` follows the sentence around Eq. 7 (scale, then return to the sphere). `paper_literal` follows Eq. 7 as
printed: on raw embeddings it multiplies ‖z‖ at every step, and training diverges within a few steps at usual
learning rates (five at 0.05, on 8 × 8 digits). It is here to reproduce the formula, not to train with.
`code` is another name of `official`. The weights β = γ = 1 and δ = 0.1 are the paper's (A.1) in all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ssd.losses.alignment import AlignmentOptions
from ssd.losses.dimension_scaled import DimensionScaledOptions
from ssd.losses.distillation import DistillationOptions
from ssd.losses.uniformity import UniformityOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignUniformLosses:
    """Options of the base objective L_align + β·L_uniform."""

    beta: float = 1.0
    """Weight of uniformity."""
    alignment: AlignmentOptions = field(default_factory=AlignmentOptions)
    uniformity: UniformityOptions = field(default_factory=UniformityOptions)


@dataclass(frozen=True, kw_only=True, slots=True)
class SsdLosses(AlignUniformLosses):
    """Options of L_align + β·L_uniform + γ·L_DSR + δ·L_distill (Eq. 10)."""

    gamma: float = 1.0
    """Weight of dimension-scaled regularisation; 0 leaves the term out."""
    delta: float = 0.1
    """Weight of projector distillation; 0 leaves the term out."""
    dsr: DimensionScaledOptions = field(default_factory=DimensionScaledOptions)
    distillation: DistillationOptions = field(default_factory=DistillationOptions)


OFFICIAL = SsdLosses()
PAPER = SsdLosses(
    dsr=DimensionScaledOptions(reduction="mean_square"),
    distillation=DistillationOptions(divergence="kl_h_z", temperature=1.0),
)
PAPER_LITERAL = SsdLosses(
    dsr=DimensionScaledOptions(normalise_input=False, normalise_target=False, reduction="mean_square"),
    distillation=DistillationOptions(divergence="kl_h_z", temperature=1.0),
)

PRESETS: Mapping[str, SsdLosses] = {
    "official": OFFICIAL,
    "code": OFFICIAL,
    "paper": PAPER,
    "paper_literal": PAPER_LITERAL,
}

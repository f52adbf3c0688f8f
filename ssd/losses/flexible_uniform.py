"""FUR, the flexible uniform regulariser: embeddings should look like draws from the uniform sphere (FedU2).

FedU2 (CVPR 2024, arXiv 2403.16398) describes an unbalanced optimal transport from the normalised embeddings to samples
of a spherical Gaussian. Its released code (`XeniaLLL/FedU2`, MIT) computes something else, and that is what is here:

1. Draw as many points y on the unit sphere as there are embeddings, and tangent points x, also on the sphere.
2. At every tangent point take the logarithmic maps of the embeddings and of the y: log_x(u) = θ/sin θ · (u − cos θ·x)
   with cos θ = <x, u>, the vector of length θ in the tangent plane that points to u.
3. Project both clouds on P random directions, sort each, and take the mean squared difference: the squared
   Wasserstein-2 distance of the two clouds, sliced.

The two forms differ in scale alone. `released`: one tangent point per embedding, directions with standard normal
coordinates (not of length 1, which multiplies by D), summed over the tangent points and divided by 6, summed over the
two views. `mean`: unit directions, averaged over tangent points and views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

RELEASED_DIVISOR = 6.0
"""The released code's `num_tangent_space`: it divides by this, but the number of its tangent points is the batch's."""
EDGE = 1e-6
"""How close to ±1 cos θ may come: θ has no gradient there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlexibleUniformOptions:
    """Choices of the regulariser."""

    form: Literal["released", "mean"] = "released"
    projections: int = 6
    """P, for every tangent point."""
    tangent_points: int | None = None
    """None: one per embedding."""

    def __post_init__(self) -> None:
        for name, value in (("projections", self.projections), ("tangent_points", self.tangent_points)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def flexible_uniform(
    embeddings: Tensor, options: FlexibleUniformOptions, generator: torch.Generator
) -> Tensor:
    """The regulariser for one view.

    Args:
        embeddings: [N, D]; put on the unit sphere first.
        options: scale and numbers of draws.
        generator: on the CPU; advances by an amount that depends on the shapes and options alone.

    Returns:
        A scalar >= 0.

    """
    count, size = embeddings.shape
    points = count if options.tangent_points is None else options.tangent_points

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(embeddings)

    tangents, samples = normalize(draw(points, size), dim=1), normalize(draw(count, size), dim=1)
    directions = draw(points, options.projections, size)
    if options.form == "mean":
        directions = normalize(directions, dim=2)
    ours, theirs = (
        _projected_logarithms(rows, tangents, directions).sort(dim=2).values
        for rows in (normalize(embeddings, dim=1), samples)
    )
    distances = (ours - theirs).square().mean(dim=(1, 2))
    return distances.mean() if options.form == "mean" else distances.sum() / RELEASED_DIVISOR


def _projected_logarithms(rows: Tensor, tangents: Tensor, directions: Tensor) -> Tensor:
    """<p, log_x(u)> for every tangent point x, its directions p and every row u.

    The map is linear in u and x but for θ, so only their projections are ever formed, never [T, N, D].

    Args:
        rows: [N, D] on the sphere.
        tangents: [T, D] on the sphere.
        directions: [T, P, D].

    Returns:
        [T, P, N].

    """
    cosines = (tangents @ rows.T).clamp(-1.0 + EDGE, 1.0 - EDGE)
    stretch = torch.arccos(cosines) / torch.sqrt(1.0 - cosines.square())
    of_rows = directions @ rows.T
    of_tangents = torch.einsum("tpd,td->tp", directions, tangents)
    return stretch[:, None] * (of_rows - cosines[:, None] * of_tangents[:, :, None])

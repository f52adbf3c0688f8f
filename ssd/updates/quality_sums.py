"""Representation quality as sums over clients: what a client reports, and what the cohort's sums say.

No embedding leaves a client. Of at most `images` of its images it reports, per kind of feature (`h`, `z`):

==================  ========================================================================================
``images``          n; 0 from a client with fewer than `min_images`, which reports zeros throughout
``images_squared``  n²
``clients``         1 if n > 0
``alignment``       sum of ‖u - u⁺‖² over two views of each image
``kernel_pairs``    sum of exp(-t ‖u - v‖²) over its n² - n ordered pairs of different images
``kernel``          s = sum of exp(i ω·u) over its images for D shared frequencies ω: D real parts, D imaginary
``kernel_squared``  |s|² for each frequency, [D]
``mean``            sum of u, [d]
``gram``            upper triangle of sum f fᵀ, row by row
``unit_gram``       the same of u uᵀ
``mean_squared``    ‖sum of u‖²
``gram_squared``    ‖sum of u uᵀ‖² (Frobenius)
``gram_rest``       what rounding ``gram`` to multiples of 2⁻¹⁰ took away, to be added to it
==================  ========================================================================================

(The last four with `moments`, that is in runs that were created with a version that has them.)

f is a feature as it is, u the same L2-normalised; a zero stays zero, and distances are those of the vectors as
they are (`ssd.evaluation.quality`). As E cos ω·(u - v) = exp(-t ‖u - v‖²) for ω ~ N(0, 2t I) (Rahimi
& Recht, 2007), the mean over the frequencies of |Σ s|² - Σ |s|² estimates the kernel summed over the ordered pairs
of images of two different clients. With N = Σ n the mean kernel is

    of two different images of one client   A / (Σ n² - N),  A = Σ kernel_pairs, exactly
    of images of two different clients      B / (N² - Σ n²), B = the mean of |Σ s|² - Σ |s|²
    of two different images                 (A + B) / (N² - N)

B is taken with control variates (`between_clients`), for which A, `mean` and `gram` say what is needed. Where each
client has few directions of its own the frequencies say little (the estimate of a mean near e^-8 from a few points has
a large and heavy-tailed error), and the first two moments of the cosine c = u·v between clients say nearly
everything: E exp(-t ‖u - v‖²) = e^(-2t) E e^(2t c), of whose logarithm 2t a₁ + 2t² (a₂ - a₁²) are the first two
cumulants. a₁ and a₂, the means of c and c² over pairs of images of two clients, follow exactly from `mean`,
`mean_squared`, `unit_gram` and `gram_squared`. `choose` says which of the two is taken. Uniformity is
-log of each mean kernel, the effective rank follows from the eigenvalues of Σ f fᵀ: the definitions of
`ssd.evaluation.quality`, which computes them from pooled features. This module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ssd.random_stream import RandomStream
from ssd.updates.declaration import QualityDeclaration, StatisticDeclaration
from ssd.updates.fixed_point import scale_bits

PREFIX = "quality_"
MAX_NORM = 1024.0
"""Largest norm of a feature. A client with a larger one reports zeros: an exact sum needs a bound, and clipping
would measure something else."""
_GRAM_STEP = 2.0**-10
_GRID = 1 << 16
CONTRADICTION, HEAVY_CONTRADICTION = 3.0, 8.0
"""Standard errors by which frequencies must differ from the moments to count more; see `choose`."""
CONSTANT = 1e-6
"""A standard deviation over frequencies, as a share of the mean, below which a control is constant."""
STEADY = 1e-4
"""A variance of the cosine that leaves nothing to contradict."""
HEAVY = 0.05
"""A standard error that is large, as a share of the value."""


def name_of(kind: str, which: str) -> str:
    """The name of a statistic."""
    return f"{PREFIX}{kind}_{which}"


def frequencies_name(kind: str) -> str:
    """The name of the artefact that holds the frequencies for features of this kind."""
    return f"{PREFIX}frequencies_{kind}"


def statistics(quality: QualityDeclaration) -> tuple[StatisticDeclaration, ...]:
    """What an update ends with in a round that measures."""
    images = float(quality.images)
    declared = []
    for kind, dimension in sorted(quality.features.items()):
        for which, shape, max_abs in (
            ("images", (), images),
            ("images_squared", (), images**2),
            ("clients", (), 1.0),
            # Two unit vectors are at most 2 apart; the slack is for rounding.
            ("alignment", (), 5.0 * images),
            ("kernel_pairs", (), images**2),
            ("kernel", (2 * quality.frequencies,), images),
            # The sum of two squares, each at most n² but for rounding.
            ("kernel_squared", (quality.frequencies,), 2.0 * images**2),
            ("mean", (dimension,), images),
            ("gram", (dimension * (dimension + 1) // 2,), gram_bound(quality)),
            *_moments(quality, dimension),
        ):
            declared.append(StatisticDeclaration(name=name_of(kind, which), shape=shape, max_abs=max_abs))
    return tuple(declared)


def _moments(quality: QualityDeclaration, dimension: int) -> tuple[tuple[str, tuple[int, ...], float], ...]:
    images = float(quality.images)
    if not quality.moments:
        return ()
    return (
        ("unit_gram", (dimension * (dimension + 1) // 2,), images),
        ("mean_squared", (), 2.0 * images**2),
        ("gram_squared", (), 2.0 * images**2),
        ("gram_rest", (dimension * (dimension + 1) // 2,), _GRAM_STEP),
    )


def split_gram(gram: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A Gram matrix as multiples of 2⁻¹⁰, and what is left.

    The bound of a Gram matrix allows for long features, so that its fixed-point form has few places for short ones.
    The rest is small whatever the features are, and its places go on where those of the multiples end.
    """
    coarse = np.rint(gram / _GRAM_STEP) * _GRAM_STEP
    return coarse, gram - coarse


def in_declared_form(
    reported: Mapping[str, NDArray[np.float64]], quality: QualityDeclaration | None
) -> dict[str, NDArray[np.float64]]:
    """What a client reports, in the form of a run that was created before there were moments if this is one."""
    found = dict(reported)
    if quality is None or quality.moments:
        return found
    for kind, dimension in quality.features.items():
        rest = found.get(name_of(kind, "gram_rest"))
        if rest is not None:
            found[name_of(kind, "gram")] = found[name_of(kind, "gram")] + rest
        for which, _, _ in _moments(replace(quality, moments=True), dimension):
            found.pop(name_of(kind, which), None)
    return found


def gram_bound(quality: QualityDeclaration) -> float:
    """Largest |entry| of one client's sum of f fᵀ."""
    return quality.images * MAX_NORM**2


def artefacts(quality: QualityDeclaration, seed: int) -> dict[str, NDArray[np.float32]]:
    """The frequencies of a run by artefact name, each [D, dimension]; computed once and served by digest."""
    return {
        frequencies_name(kind): random_frequencies(dimension, quality.frequencies, quality.t, seed)
        for kind, dimension in quality.features.items()
    }


def random_frequencies(dimension: int, count: int, t: float, seed: int) -> NDArray[np.float32]:
    """Frequencies [count, dimension] whose mean of cos ω·x estimates exp(-t ‖x‖²).

    Blocks of `dimension` orthogonal directions (Yu et al., "Orthogonal random features", 2016). All ω of a block have
    one length: over the blocks their squares are quantiles of the chi-squared distribution that N(0, 2t I) gives
    them, moved to have its mean and variance. Nothing is left to chance but the directions. What that is worth
    stands in docs/representation-quality.md.

    QR is not bit-stable across libraries and threads: compute it once, store it as an artefact and serve it by digest.

    Raises:
        ValueError: fewer than two blocks, whose lengths could not have a variance.
    """
    if count < 2 * dimension:
        raise ValueError(
            f"{count} frequencies are too few for {dimension} dimensions: at least {2 * dimension}"
        )
    generator = np.random.Generator(
        np.random.PCG64(RandomStream("quality-frequencies", seed, dimension).seed64())
    )
    blocks = -(-count // dimension)
    frequencies = np.empty((blocks * dimension, dimension), np.float32)
    for block, square in enumerate(generator.permutation(_squared_lengths(dimension, blocks))):
        q, r = np.linalg.qr(generator.standard_normal((dimension, dimension)))
        # QR alone fixes the signs of R's diagonal by convention; undoing that makes Q uniform.
        directions = q * np.where(np.diag(r) < 0, -1.0, 1.0)
        frequencies[block * dimension : (block + 1) * dimension] = math.sqrt(2.0 * t * square) * directions
    return frequencies[:count].copy()


def _squared_lengths(degrees: int, count: int) -> NDArray[np.float64]:
    """Evenly spaced quantiles of the chi-squared distribution, with its mean and variance."""
    # A chi variable's standard deviation is below 1/√2: nothing to speak of is outside the grid.
    centre, reach = math.sqrt(degrees), 9.0 / math.sqrt(2.0)
    edges = np.linspace(max(0.0, centre - reach), centre + reach, _GRID + 1)
    middle = (edges[1:] + edges[:-1]) / 2.0
    log_density = (degrees - 1) * np.log(middle) - middle**2 / 2.0
    below = np.concatenate([[0.0], np.cumsum(np.exp(log_density - log_density.max()))])
    squares = np.interp((np.arange(count) + 0.5) / count, below / below[-1], edges) ** 2
    moved = degrees + (squares - squares.mean()) * (math.sqrt(2.0 * degrees) / squares.std())
    # Lower than a handful of dimensions moving may pass zero.
    return np.asarray(np.maximum(moved, 0.0))


def read(
    quality: QualityDeclaration,
    sums: Mapping[str, NDArray[np.float64]],
    frequencies: Mapping[str, NDArray[np.float32]],
    max_cohort: int,
) -> dict[str, float]:
    """What a cohort's sums say, as `<kind>_<measure>`; a measure that is not defined is left out.

    Measures: `alignment`, `effective_rank`, `uniformity_global`, `uniformity_intra`, `uniformity_inter`, `images`,
    `clients`, and with moments `zero_features`. Takes a while for long features: an eigenvalue problem of their dimension.

    Args:
        quality: what was measured.
        sums: the cohort's summed statistics by name.
        frequencies: the run's `artefacts`, by their names.
        max_cohort: as the sums were planned for: their resolution follows from it.
    """
    values: dict[str, float] = {}
    for kind, dimension in sorted(quality.features.items()):
        own = {which: sums[name_of(kind, which)] for which in _SCALARS}
        images, squared = float(own["images"]), float(own["images_squared"])
        clients = float(own["clients"])
        measured = {"images": images, "clients": clients}
        if images > 0.0:
            measured["alignment"] = float(own["alignment"]) / images
            gram, step = _gram(quality, sums, kind, max_cohort)
            within = float(own["kernel_pairs"])
            between, error = between_clients(
                sums[name_of(kind, "kernel")],
                sums[name_of(kind, "kernel_squared")],
                within + images,
                covariance(gram, sums[name_of(kind, "mean")] / images),
                frequencies[frequencies_name(kind)],
                quality.t,
            )
            if quality.moments:
                between = choose(between, error, moments_between(quality, sums, kind, dimension))
                # A unit vector adds 1 to the trace, a zero feature nothing.
                trace = float(np.trace(unfold(sums[name_of(kind, "unit_gram")], dimension)))
                measured["zero_features"] = float(max(0, round(images - trace)))
            measured |= _uniformity("global", within + between, images**2 - images)
            measured |= _uniformity("intra", within, squared - images)
            measured |= _uniformity("inter", between, images**2 - squared)
            measured["effective_rank"] = effective_rank(gram, step * math.sqrt(max(clients, 1.0)))
        # Sums that no honest cohort has must not stop a commit.
        values |= {f"{kind}_{name}": value for name, value in measured.items() if math.isfinite(value)}
    return values


def _gram(
    quality: QualityDeclaration, sums: Mapping[str, NDArray[np.float64]], kind: str, max_cohort: int
) -> tuple[NDArray[np.float64], float]:
    """Σ f fᵀ, and the step that its entries were rounded to."""
    triangle, step = sums[name_of(kind, "gram")], 2.0 ** -scale_bits(max_cohort, gram_bound(quality))
    if quality.moments:
        triangle = triangle + sums[name_of(kind, "gram_rest")]
        # Multiples of the coarse step travel unrounded, unless the cohort is so large that its places are fewer.
        step = (step if step > _GRAM_STEP else 0.0) + 2.0 ** -scale_bits(max_cohort, _GRAM_STEP)
    return unfold(triangle, quality.features[kind]), step


_SCALARS = ("images", "images_squared", "clients", "alignment", "kernel_pairs")


def _uniformity(which: str, kernel: float, pairs: float) -> dict[str, float]:
    # The estimate of a kernel mean near e^-8 may come out negative.
    return {f"uniformity_{which}": -math.log(kernel / pairs)} if pairs > 0.0 and kernel > 0.0 else {}


def between_clients(
    kernel: NDArray[np.float64],
    kernel_squared: NDArray[np.float64],
    within: float,
    spread: NDArray[np.float64],
    frequencies: NDArray[np.float32],
    t: float,
) -> tuple[float, float]:
    """The kernel summed over the ordered pairs of images of two different clients, estimated; and its standard error.

    Each frequency gives an estimate, b(ω) = |Σ s|² - Σ |s|², and most of how b varies with ω is explained by
    functions of ω whose mean over all ω ~ N(0, 2t I) is known: Σ |s|² itself, and what the squared characteristic
    function of Gaussian features of covariance C would be, exp(-ω·C ω), with the mean det(I + 4t C)^(-1/2). The
    explained part of b's mean is replaced by what is exact (control variates, by linear regression), which is worth
    many times as many frequencies. Any C leaves the estimate consistent.

    Args:
        kernel: Σ s, [2D]: real, then imaginary parts.
        kernel_squared: Σ |s|², [D].
        within: the mean of Σ |s|² over all ω: the kernel summed over all pairs of images of one client.
        spread: C, [d, d].
        frequencies: [D, d].
        t: the kernel's sharpness.
    """
    real, imaginary = np.split(kernel, 2)
    estimates = real**2 + imaginary**2 - kernel_squared
    variances, axes = np.linalg.eigh(spread)
    variances = np.maximum(variances, 0.0)
    exponents = np.square(frequencies.astype(np.float64) @ axes) @ variances
    controls = np.stack([kernel_squared, np.exp(-exponents)], axis=1)
    known = np.array([within, math.exp(-0.5 * float(np.log1p(4.0 * t * variances).sum()))])
    means, scales = controls.mean(axis=0), controls.std(axis=0)
    # A control that is constant but for rounding explains nothing, and brought to scale its rounding would count.
    varies = scales > CONSTANT * np.abs(means)
    controls, known, means, scales = controls[:, varies], known[varies], means[varies], scales[varies]
    deviations = (controls - means) / scales
    around = estimates - estimates.mean()
    coefficients, *_ = np.linalg.lstsq(deviations, around, rcond=1e-6)
    # As if frequencies were independent; orthogonal ones do better, so the error is rather too large.
    error = float((around - deviations @ coefficients).std()) / math.sqrt(len(around))
    return float(estimates.mean() - coefficients @ ((means - known) / scales)), error


def moments_between(
    quality: QualityDeclaration, sums: Mapping[str, NDArray[np.float64]], kind: str, dimension: int
) -> tuple[float, float] | None:
    """The same sum from the first two cumulants of the cosine, and the second of them: the variance of the cosine.

    None where features are zero, or no two clients pair.

    Its error is that of leaving out the higher cumulants, 32/3 κ₃ of the logarithm and beyond for t = 2: nothing to
    speak of for directions that do not depend on each other, and large where some pairs of clients share a cluster.
    """
    images = float(sums[name_of(kind, "images")])
    pairs = images**2 - float(sums[name_of(kind, "images_squared")])
    gram = unfold(sums[name_of(kind, "unit_gram")], dimension)
    # Each feature that is not zero adds 1 to the trace.
    if pairs <= 0.0 or float(np.trace(gram)) < images - 0.5:
        return None
    mean = sums[name_of(kind, "mean")]
    first = (float(mean @ mean) - float(sums[name_of(kind, "mean_squared")])) / pairs
    second = (float(np.square(gram).sum()) - float(sums[name_of(kind, "gram_squared")])) / pairs
    sharp = 2.0 * quality.t
    variance = max(second - first**2, 0.0)
    logarithm = -sharp + sharp * first + sharp**2 / 2.0 * variance
    return pairs * math.exp(min(logarithm, 0.0)), variance


def choose(frequencies: float, error: float, by_moments: tuple[float, float] | None) -> float:
    """Which estimate of the kernel between clients is taken.

    The moments, unless the frequencies contradict them by more than `CONTRADICTION` standard errors. Where those errors
    are large beside the value, few points make them, with tails that are heavier than a normal law's: then a
    contradiction takes `HEAVY_CONTRADICTION`. Where the cosine hardly varies, no higher cumulant can matter, and nothing
    contradicts: a variance of v leaves out at most 42 v of the kernel's mean for cosines within 1 of their own mean.

    Args:
        frequencies: by `between_clients`.
        error: its standard error.
        by_moments: by `moments_between`; None: there is no such estimate.
    """
    if by_moments is None:
        return frequencies
    moments, variance = by_moments
    if variance <= STEADY:
        return moments
    bound = HEAVY_CONTRADICTION if error > HEAVY * moments else CONTRADICTION
    return moments if abs(frequencies - moments) <= bound * error else frequencies


def covariance(gram: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """The covariance of the normalised features from their mean, as well as Σ f fᵀ of unnormalised ones tells it."""
    trace = float(np.trace(gram))
    second = gram / trace if trace > 0.0 else gram
    return np.asarray(second - np.outer(mean, mean))


def unfold(triangle: NDArray[np.float64], dimension: int) -> NDArray[np.float64]:
    """The symmetric matrix of an upper triangle given row by row."""
    matrix = np.zeros((dimension, dimension))
    matrix[np.triu_indices(dimension)] = triangle
    return matrix + np.triu(matrix, 1).T


def effective_rank(gram: NDArray[np.float64], step: float = 0.0) -> float:
    """The exponential of the entropy of the normalised singular values of Z, from ZᵀZ [d, d]; 0 for a zero matrix.

    Args:
        gram: ZᵀZ.
        step: its entries are rounded to about this much. Eigenvalues that such rounding alone can make are none:
            its norm as a random matrix is at most 2 √d times the deviation of an entry, √(1/12) of a step.
    """
    eigenvalues = np.linalg.eigvalsh(gram)
    dimension = len(gram)
    floor = max(
        float(eigenvalues.max(initial=0.0)) * dimension * float(np.finfo(np.float64).eps),
        step * math.sqrt(dimension),
    )
    singular = np.sqrt(eigenvalues[eigenvalues > floor])
    if not singular.size:
        return 0.0
    share = singular / singular.sum()
    return math.exp(-float((share * np.log(share)).sum()))

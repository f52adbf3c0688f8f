"""What the next model version is, bit for bit.

Version v+1 is *defined* as version v + decode(encode(delta)): two separate float32 operations of numpy on
the CPU, the decoding and this addition, never fused and never on a GPU, denormals kept; then negative
running variances become +0. So every host that follows the chain of deltas holds the same bits as one that
fetched the whole model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssd.digest import Buffer
from ssd.updates.codec import VectorCodec
from ssd.updates.spec import ParameterSpec, check_vector, clamp_variances


def next_version(
    spec: ParameterSpec,
    base: NDArray[np.float32],
    decoded_delta: NDArray[np.float32],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """float32 [spec.size]: base + decoded_delta with variances clamped; `out` may be `base` itself.

    Raises:
        SpecError: an argument is not float32 [spec.size].
    """
    result = np.empty(spec.size, np.float32) if out is None else out
    for vector in (base, decoded_delta, result):
        check_vector(spec, vector)
    np.add(base, decoded_delta, out=result)
    clamp_variances(spec, result)
    return result


def next_version_from_body(
    codec: VectorCodec, base: NDArray[np.float32], body: Buffer, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """`next_version` of an encoded delta, decoded piece by piece: no second vector is held.

    Raises:
        MalformedUpdate: as `VectorCodec.decode`; `out` may then be partly written.
        SpecError: a vector is not float32 [spec.size].
    """
    result = np.empty(codec.spec.size, np.float32) if out is None else out
    check_vector(codec.spec, base)
    check_vector(codec.spec, result)
    for offset, piece in codec.iter_decoded(body):
        where = slice(offset, offset + piece.size)
        np.add(base[where], piece, out=result[where])
    clamp_variances(codec.spec, result)
    return result

# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""Gaussian noise in which each element's value is known from its place: the same bits however the work is cut.

Two steps, neither of which depends on a library's choices or a processor's instructions. Philox (Salmon et al., SC
2011) is a random number generator without state: element ``i`` of a stream costs no more than the first. Its bits
become a normal number through the inverse of the distribution function, a rational approximation (algorithm AS 241 of
Wichura, Applied Statistics 37(3), 1988; relative error 1e-16). Only sums, products, quotients and square roots are
used, which IEEE 754 rounds the same everywhere; a mathematical library's logarithm need not be the same.
"""

import hashlib

import numpy as np

_WORDS = 4
"""Random words of 64 bits that Philox makes at once."""

# AS 241: coefficients of numerator and denominator, highest power first.
_CENTRE = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
)  # fmt: skip
_SIDE = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
)  # fmt: skip
_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
)  # fmt: skip
_LN_2 = 0.6931471805599453


def normal(seed: int, stream: str, first: int, count: int) -> np.ndarray:
    """Standard normal numbers ``[first, first + count)`` of a stream.

    Args:
        seed: any whole number.
        stream: names the stream, as a tensor's name does; streams are independent.
        first: place of the first one, at least 0.
        count: how many.

    Returns:
        ``[count]`` float64, new.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed} {stream}".encode()).digest()[:16], "little")
    block, skipped = divmod(first, _WORDS)
    words = np.random.Philox(key=key, counter=block).random_raw(skipped + count)[skipped:]
    # The middles of 2 ** 52 equal parts of (0, 1), less one half: exact, symmetric, never at an end.
    return _from_centred(((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52 - 0.5)


def _from_centred(q: np.ndarray) -> np.ndarray:
    """The normal numbers below which a share ``0.5 + q`` of all lies, for q in (-0.5, 0.5)."""
    result = q * _ratio(_CENTRE, 0.180625 - q * q)
    (far,) = np.nonzero(np.abs(q) > 0.425)
    r = np.sqrt(-_log(0.5 - np.abs(q[far])))
    result[far] = np.copysign(np.where(r <= 5.0, _ratio(_SIDE, r - 1.6), _ratio(_TAIL, r - 5.0)), q[far])
    return result


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], x: np.ndarray) -> np.ndarray:
    above, below = (np.full_like(x, p[0]) for p in polynomials)
    for a, b in zip(*(p[1:] for p in polynomials), strict=True):
        above = above * x + a
        below = below * x + b
    return above / below


def _log(x: np.ndarray) -> np.ndarray:
    """The natural logarithm of positive normal numbers, within 1e-15 of it relatively away from 1."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < 0.7071067811865476
    mantissa, exponent = np.where(low, 2.0 * mantissa, mantissa), exponent - low
    f = (mantissa - 1.0) / (mantissa + 1.0)
    square, series = f * f, np.zeros_like(f)
    # 2 * atanh(f), of which |f| < 0.172: what follows is below 1e-18.
    for n in range(23, 0, -2):
        series = series * square + 1.0 / n
    return exponent * _LN_2 + 2.0 * f * series

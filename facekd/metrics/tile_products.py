"""What tiles of scores are multiplied from, and how far their products can lie from the cosines.

Cosines of unit vectors a and b are products in float32. From a and b rounded to float32 they differ from the true
cosine by at most ``(d + 2) / 2**24``, in whatever order the d products are summed (Higham, "Accuracy and Stability of
Numerical Algorithms", 2002, section 3.1).

Accelerators multiply several times faster what has the 11 significant bits of TF32. From a' and b', rounded so,

    |<a, b> - <a', b'>| = |<a - a', b> + <a', b - b'>| <= |a - a'| + |a'| |b - b'|        (Cauchy-Schwarz),

and both residues are known: they are taken from the vectors themselves, the largest of all rows for each side. Products
of 11 bits are exact in float32. Their sum passes through at most 2 d addends and partial sums, none larger than
``|a'| |b'|``, of which a tensor core may cut off, not round, what lies below 2**-23 of the largest (Fasi, Higham,
Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ Computer Science, 2021): ``2 d / 2**23`` at
most.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_ERROR = 2.0**-9
"""A coarser product is not worth a first look; rows too long for it are not rounded."""
_CUT_BITS = 13
"""Of the 24 significant bits of float32, those that TF32 has not."""


@dataclass(frozen=True)
class Factors:
    """Two sides of a product of matrices.

    Attributes:
        probe: (n, dim) float32.
        gallery: (n, dim) float32; the same object where there is one side only.
        error: More than a product can differ from the cosine rounded to float32.
        tf32: Whether every number has 11 significant bits, so that TF32 multiplies it without loss.

    Example:
        >>> factors(torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64), rounded=False).tf32
        False
    """

    probe: Tensor
    gallery: Tensor
    error: float
    tf32: bool


def factors(probe: Tensor, gallery: Tensor, *, rounded: bool) -> Factors:
    """What the products of unit vectors are made from.

    Args:
        probe: (n, dim) float64, of length one.
        gallery: (n, dim) float64, of length one.
        rounded: To TF32, unless the error would pass :data:`LARGEST_ERROR`; otherwise to float32.

    Example:
        >>> rows = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
        >>> made = factors(rows, rows, rounded=True)
        >>> made.probe.tolist(), float((rows @ rows.T - made.probe @ made.gallery.T).abs().max()) < made.error
        ([[0.60009765625, 0.7998046875]], True)
    """
    first = to_tf32(probe) if rounded else probe.to(torch.float32)
    second = first
    if gallery is not probe:
        second = to_tf32(gallery) if rounded else gallery.to(torch.float32)
    if not rounded:
        return Factors(first, second, (probe.shape[1] + 8) * 2.0**-24, False)
    left = residue(probe, first)
    right = left if gallery is probe else residue(gallery, second)
    error = left + (1 + left) * right + (probe.shape[1] + 64) * 2.0**-22
    return Factors(first, second, error, True) if error < LARGEST_ERROR else factors(probe, gallery, rounded=False)


def to_tf32(values: Tensor) -> Tensor:
    """The nearest float32 numbers that have the 11 significant bits of TF32.

    Args:
        values: Of any shape, at most 1 in size.

    Example:
        >>> to_tf32(torch.tensor([1 / 3, -1.0, 0.0])).tolist()
        [0.333251953125, -1.0, 0.0]
    """
    bits = values.to(torch.float32).view(torch.int32)
    return ((bits + (1 << (_CUT_BITS - 1))) & -(1 << _CUT_BITS)).view(torch.float32)


def residue(rows: Tensor, rounded: Tensor, block: int = 1 << 16) -> float:
    """The largest length of what rounding took from a row.

    Args:
        rows: (n, dim) float64.
        rounded: (n, dim), what they were rounded to.
        block: Rows worked on at a time.

    Example:
        >>> residue(torch.tensor([[0.5, 0.25]], dtype=torch.float64), torch.tensor([[0.5, 0.125]]))
        0.125
    """
    parts = zip(rows.split(block), rounded.split(block), strict=True)
    return max(float(torch.linalg.vector_norm(a - b.double(), dim=1).max()) for a, b in parts)


@contextmanager
def arithmetic(tf32: bool) -> Iterator[None]:
    """Multiply float32 matrices on an accelerator in TF32, or in float32 whatever was asked for elsewhere.

    Args:
        tf32: Which of the two.

    Example:
        >>> with arithmetic(True):
        ...     torch.backends.cuda.matmul.fp32_precision
        'tf32'
    """
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before

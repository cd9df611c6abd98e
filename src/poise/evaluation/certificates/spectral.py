"""Upper bounds of the spectral norms of matrices and convolutions: Gram iteration with its rounding accounted for.

Gram iteration (Delattre et al. 2023): the spectral norm of A is that of its t-th Gram matrix, G_0 = A and
G_{k+1} = G_k* G_k, to the power 1 / 2^t, and the Frobenius norm of G_t is above it. Every step is an upper bound, not
an estimate like power iteration's, and it converges super-geometrically.

A convolution with zero padding is a block of the circular one on a larger torus, since no tap then reaches around;
that one is block diagonal in frequency, so the largest norm of its blocks is a bound. It is within a few percent of the
truth and far below the product of the flattened kernel's norm and the kernel's side, which is often used.

Numbers are float64, and the distance of each computed Gram matrix from the true one is carried along and added: what is
returned lies above the true norm whatever the rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Complex128, Float, Float64
from torch import Tensor

ITERATIONS = 10
_UNIT = 2.0**-53
_MOST_VALUES = 2**24
"""Complex numbers that are in memory at the same time."""

Taps = Float64[Tensor, "out channels height width"]


def matrix_norm(matrix: Float64[Tensor, "rows columns"]) -> float:
    """An upper bound of the largest singular value of a matrix."""
    return gram_bound(matrix.to(torch.complex128)[None])


def convolution_norm(
    kernel: Taps, size: tuple[int, int], stride: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1)
) -> float:
    """An upper bound of the spectral norm of a convolution with any zero padding, of one group.

    With a stride, frequencies that fall together are one block: K(w_1), K(w_2), ... side by side, over the square root
    of their number.

    Args:
        kernel: weights.
        size: height and width of the images it is applied to.
        stride: rows and columns from one output to the next.
        dilation: distance of neighbouring taps.
    """
    taps = kernel.shape[2] * kernel.shape[3]
    angle = 2 * math.pi * max(d * n for d, n in zip(dilation, kernel.shape[2:], strict=True))
    doubt = 4 * _UNIT * (taps + angle + 8) * math.sqrt(taps) * float(torch.linalg.vector_norm(kernel))
    return max(gram_bound(blocks, doubt) for blocks in _frequency_blocks(kernel, size, stride, dilation))


def gram_bound(blocks: Complex128[Tensor, "blocks rows columns"], doubt: float = 0.0) -> float:
    """An upper bound of the largest singular value among some matrices.

    Args:
        blocks: the matrices as computed.
        doubt: how far, in the Frobenius norm, each may lie from the true one.
    """
    if blocks.shape[1] < blocks.shape[2]:
        blocks = blocks.mH
    current, exponent = blocks, torch.zeros(len(blocks), dtype=torch.float64, device=blocks.device)
    error = torch.full_like(exponent, doubt)
    # Powers of two round nothing, and keep squares of the smallest and largest numbers in range.
    scale = _power_of_two(blocks.abs().amax((1, 2)))
    current, error, exponent = current / scale[:, None, None], error / scale, torch.log2(scale)
    products = _UNIT * 8 * (max(blocks.shape[1:]) + 4)
    for step in range(ITERATIONS):
        length = _size(current)
        scale = _power_of_two(length)
        current, error, length = current / scale[:, None, None], error / scale, length / scale
        exponent = exponent + torch.log2(scale) / 2**step
        current = current.mH @ current
        error = 2 * length * error + error.square() + products * length.square()
    roots = torch.log2(_size(current) + error) / 2**ITERATIONS + exponent
    return float(torch.exp2(roots.max())) * (1 + 1e-12)


def _frequency_blocks(
    kernel: Taps, size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Iterator[Tensor]:
    """The blocks of the convolution on a torus that is large enough, some at a time."""
    height, width = (
        math.ceil((length + reach * (taps - 1)) / step) * step
        for length, reach, taps, step in zip(size, dilation, kernel.shape[2:], stride, strict=True)
    )
    folded = stride[0] * stride[1]
    rows = torch.arange(height // stride[0], dtype=torch.float64, device=kernel.device)
    columns = torch.arange(width // stride[1], dtype=torch.float64, device=kernel.device)
    places = torch.cartesian_prod(rows, columns)
    # The kernel is real: frequencies of opposite sign have conjugate blocks of the same norm.
    places = places[: (len(rows) // 2 + 1) * len(columns)]
    for some in torch.split(places, max(1, _MOST_VALUES // (kernel.shape[0] * kernel.shape[1] * folded * 4))):
        aliases = [
            _transfer(kernel, some[:, 0] + i * len(rows), some[:, 1] + j * len(columns), (height, width), dilation)
            for i in range(stride[0])
            for j in range(stride[1])
        ]
        yield torch.cat(aliases, dim=2) / math.sqrt(folded)


def _transfer(
    kernel: Taps, row: Tensor, column: Tensor, torus: tuple[int, int], dilation: tuple[int, int]
) -> Complex128[Tensor, "places out channels"]:
    """The kernel's Fourier transform at some frequencies: one matrix each."""
    vertical = torch.arange(kernel.shape[2], dtype=torch.float64, device=kernel.device) * dilation[0]
    horizontal = torch.arange(kernel.shape[3], dtype=torch.float64, device=kernel.device) * dilation[1]
    angles = (row[:, None] * vertical / torus[0])[:, :, None] + (column[:, None] * horizontal / torus[1])[:, None, :]
    waves = torch.polar(torch.ones_like(angles), -2 * math.pi * angles)
    return torch.einsum("phw,ochw->poc", waves, kernel.to(torch.complex128))


def _power_of_two(lengths: Tensor) -> Tensor:
    """The powers of two next above some numbers; 1 for 0."""
    return torch.exp2(torch.ceil(torch.log2(torch.where(lengths > 0, lengths, 1.0))))


def _size(blocks: Tensor) -> Float[Tensor, " blocks"]:
    """Frobenius norms, rounded up."""
    lengths: Tensor = torch.linalg.vector_norm(blocks, dim=(1, 2))
    return lengths * (1 + 1e-13 * math.sqrt(blocks[0].numel()))

"""The affine layers of networks, each with its weights and an upper bound of its spectral norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from poise.evaluation.certificates.layers import ROUNDING, Affine
from poise.evaluation.certificates.spectral import convolution_norm, matrix_norm


def convolution(
    sources: tuple[int, ...],
    shape: tuple[int, ...],
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Affine:
    """A convolution with zero padding.

    Args:
        sources: place of the images.
        shape: channels, height and width of an image.
        weight: kernel.
        bias: one value a channel, or None.
        stride: rows and columns from one output to the next.
        padding: rows and columns of zeros on each side.
        dilation: distance of neighbouring taps.
        groups: parts into which channels are divided.
    """

    def norm(taps: Tensor) -> float:
        return max(convolution_norm(part, (shape[1], shape[2]), stride, dilation) for part in taps.chunk(groups))

    return Affine(
        sources,
        lambda values, taps: functional.conv2d(values, taps, None, stride, padding, dilation, groups),
        weight,
        None if bias is None else bias.view(1, -1, 1, 1),
        shape,
        norm,
    )


def dense(sources: tuple[int, ...], shape: tuple[int, ...], weight: Tensor, bias: Tensor | None) -> Affine:
    """A dense layer on the last dimension."""
    shifted = None if bias is None else bias[(None,) * len(shape)]
    return Affine(sources, functional.linear, weight, shifted, shape, matrix_norm)


def scaled(sources: tuple[int, ...], shape: tuple[int, ...], factor: Tensor, shift: Tensor | None) -> Affine:
    """Every value times a factor, plus a shift; both broadcast over an example with its leading dimension."""
    return Affine(sources, torch.mul, factor, shift, shape, _largest)


def merged(layer: Affine, after: Affine) -> Affine | None:
    """A convolution or dense layer and the scaling of its channels that follows, as one layer; None for other pairs.

    The norm of the two together is below the product of their norms.

    Args:
        layer: the first.
        after: what follows; batch norm in eval mode, or arithmetic with constants.
    """
    kernel, dimensions = layer.weight, len(after.shape) + 1
    place = (1, len(kernel) if kernel.ndim else 0, *(1,) * (dimensions - 2))
    shift = torch.zeros_like(after.weight) if after.bias is None else after.bias
    fits = kernel.ndim == dimensions in {2, 4} and all(
        each.shape in {place, (1,) * dimensions} for each in (after.weight, shift)
    )
    if after.apply is not torch.mul or layer.apply is torch.mul or not fits:
        return None
    factor = after.weight.expand(place)
    weight = kernel * factor.reshape(-1, *(1,) * (kernel.ndim - 1))
    bias = shift.expand(place) if layer.bias is None else layer.bias * factor + shift
    return replace(layer, weight=weight, bias=bias)


def averaged(sources: tuple[int, ...], shape: tuple[int, ...], dimensions: Sequence[int], *, keep: bool) -> Affine:
    """The mean over some dimensions, which are counted with that of examples."""
    places = tuple(dimension % (len(shape) + 1) for dimension in dimensions)
    count = math.prod(shape[place - 1] for place in places)
    return Affine(
        sources,
        lambda values, share: values.sum(places, keepdim=keep) * share,
        torch.tensor(1 / count, dtype=torch.float64),
        None,
        shape,
        lambda _: (1 + ROUNDING) / math.sqrt(count),
    )


def window_means(
    sources: tuple[int, ...],
    shape: tuple[int, ...],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Affine:
    """Means over windows of an image; padding counts as zeros."""
    area = window[0] * window[1]
    overlap = math.prod(-(-length // step) for length, step in zip(window, stride, strict=True))
    return Affine(
        sources,
        lambda values, share: functional.avg_pool2d(values, window, stride, padding) * area * share,
        torch.tensor(1 / area, dtype=torch.float64),
        None,
        shape,
        lambda _: math.sqrt(overlap / area) * (1 + ROUNDING),
    )


def moved(sources: tuple[int, ...], shape: tuple[int, ...], move: Callable[[Tensor], Tensor]) -> Affine:
    """The same values in another shape or order.

    Args:
        sources: place of the values.
        shape: their shape, without examples.
        move: puts them where they go, in batches of any size.
    """
    one = torch.tensor(1.0, dtype=torch.float64)
    return Affine(sources, lambda values, weight: move(values) * weight, one, None, shape, _largest)


def _largest(weight: Tensor) -> float:
    """The spectral norm of a map that multiplies every value by a number of its own."""
    return float(weight.abs().max()) * (1 + ROUNDING)

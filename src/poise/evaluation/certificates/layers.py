"""The layers that bounds can be carried through: what each does to points, to boxes and to slopes.

A network is a list of layers, each reading the values of earlier ones. Bounds go through it in three ways: forward as
Lipschitz constants, forward as boxes (interval bounds), and backward as boxes of slopes (the Jacobian's entries).
Boxes are kept as middle and radius in float64, and every radius is widened by what rounding may have taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ROUNDING = 2.0**-40
"""Relative error of a sum of up to some thousand products in float64, with room to spare."""


class Box(NamedTuple):
    """Points within `radius` of `middle`, value by value; both of shape (n, ...)."""

    middle: Tensor
    radius: Tensor

    @classmethod
    def between(cls, low: Tensor, high: Tensor) -> Box:
        """The box from `low` to `high`, widened by rounding."""
        middle = (low + high) / 2
        return cls(middle, (high - middle).maximum(middle - low) * (1 + ROUNDING) + ROUNDING * middle.abs())

    @property
    def low(self) -> Tensor:
        """Least values."""
        return self.middle - self.radius

    @property
    def high(self) -> Tensor:
        """Greatest values."""
        return self.middle + self.radius

    @property
    def reach(self) -> Tensor:
        """Greatest absolute values."""
        return self.middle.abs() + self.radius


class Constants(NamedTuple):
    """By how much a value can change per unit of the input's change: measured in l2, and in linf."""

    euclidean: float
    largest: float


@dataclass(frozen=True)
class Layer(ABC):
    """One step of a network.

    Args:
        sources: places of the values it reads; 0 is the input, layer k gives value k + 1.
    """

    sources: tuple[int, ...]

    @abstractmethod
    def values(self, *inputs: Tensor) -> Tensor:
        """The layer itself."""

    @abstractmethod
    def constants(self, *inputs: Constants) -> Constants:
        """Upper bounds of the constants of its value from those of its inputs."""

    @abstractmethod
    def box(self, *inputs: Box) -> Box:
        """A box that holds its values wherever the inputs lie in theirs."""

    @abstractmethod
    def slopes(self, slopes: Box, inputs: Sequence[Box]) -> tuple[Box, ...]:
        """From a box of slopes by its value to boxes of slopes by its inputs, which lie in theirs.

        Args:
            slopes: one row for each function that is differentiated; a whole number of rows for each example.
            inputs: boxes of the inputs, one row for each example.
        """


@dataclass(frozen=True)
class Affine(Layer):
    """A linear map plus a constant: convolution, dense layer, batch norm, normalisation, pooling by means, reshaping.

    Args:
        apply: the linear map with these weights, on (n, ...); linear in both.
        weight: its weights; a 1 for maps that only move values.
        bias: what is added, broadcast over examples; None for nothing.
        shape: shape of one input.
        norm: an upper bound of the map's spectral norm, given its weights.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    weight: Tensor
    bias: Tensor | None
    shape: tuple[int, ...]
    norm: Callable[[Tensor], float]

    def values(self, *inputs: Tensor) -> Tensor:
        """See `Layer.values`."""
        result = self.apply(inputs[0], self.weight)
        return result if self.bias is None else result + self.bias

    def row_lengths(self) -> Tensor:
        """The l2 length of each row of the map: how far a value moves at most when the input moves by 1 in l2."""
        ones = torch.ones(1, *self.shape, dtype=self.weight.dtype, device=self.weight.device)
        return self.apply(ones, self.weight.square()).sqrt() * (1 + ROUNDING)

    def constants(self, *inputs: Constants) -> Constants:
        """See `Layer.constants`."""
        ones = torch.ones(1, *self.shape, dtype=self.weight.dtype, device=self.weight.device)
        sums = float(self.apply(ones, self.weight.abs()).max()) * (1 + ROUNDING)
        rows = float(self.row_lengths().max())
        return Constants(
            inputs[0].euclidean * self.norm(self.weight) * (1 + ROUNDING),
            min(inputs[0].largest * sums, inputs[0].euclidean * rows) * (1 + ROUNDING),
        )

    def box(self, *inputs: Box) -> Box:
        """See `Layer.box`."""
        box = inputs[0]
        wide = box.radius * (1 + ROUNDING) + ROUNDING * box.middle.abs()
        radius = self.apply(wide, self.weight.abs())
        return Box(self.values(box.middle), radius if self.bias is None else radius + ROUNDING * self.bias.abs())

    def slopes(self, slopes: Box, inputs: Sequence[Box]) -> tuple[Box, ...]:  # noqa: ARG002 - the same in every box
        """See `Layer.slopes`."""
        blank = torch.zeros(len(slopes.middle), *self.shape, dtype=self.weight.dtype, device=self.weight.device)
        wide = slopes.radius * (1 + ROUNDING) + ROUNDING * slopes.middle.abs()
        return (
            Box(
                _transposed(lambda values: self.apply(values, self.weight), blank, slopes.middle),
                _transposed(lambda values: self.apply(values, self.weight.abs()), blank, wide),
            ),
        )


def _transposed(linear: Callable[[Tensor], Tensor], at: Tensor, values: Tensor) -> Tensor:
    """The transpose of a linear map, applied to values."""
    pull: Any = torch.func.vjp(linear, at)[1]
    result: Tensor = pull(values)[0]
    return result


@dataclass(frozen=True)
class Sum(Layer):
    """Two values added, as at the end of a residual block."""

    def values(self, *inputs: Tensor) -> Tensor:
        """See `Layer.values`."""
        return inputs[0] + inputs[1]

    def constants(self, *inputs: Constants) -> Constants:
        """See `Layer.constants`."""
        first, second = inputs[0], inputs[1]
        return Constants(
            (first.euclidean + second.euclidean) * (1 + ROUNDING), (first.largest + second.largest) * (1 + ROUNDING)
        )

    def box(self, *inputs: Box) -> Box:
        """See `Layer.box`."""
        first, second = inputs[0], inputs[1]
        radius = (first.radius + second.radius) * (1 + ROUNDING) + ROUNDING * (first.middle.abs() + second.middle.abs())
        return Box(first.middle + second.middle, radius)

    def slopes(self, slopes: Box, inputs: Sequence[Box]) -> tuple[Box, ...]:  # noqa: ARG002 - the same in every box
        """See `Layer.slopes`."""
        return slopes, slopes


@dataclass(frozen=True)
class Rectifier(Layer):
    """ReLU: a unit passes slopes on where its input cannot be negative, and none where it cannot be positive."""

    def values(self, *inputs: Tensor) -> Tensor:
        """See `Layer.values`."""
        return inputs[0].relu()

    def constants(self, *inputs: Constants) -> Constants:
        """See `Layer.constants`."""
        return inputs[0]

    def box(self, *inputs: Box) -> Box:
        """See `Layer.box`."""
        return Box.between(inputs[0].low.relu(), inputs[0].high.relu())

    def slopes(self, slopes: Box, inputs: Sequence[Box]) -> tuple[Box, ...]:
        """See `Layer.slopes`."""
        low, high = _per_row(inputs[0].low, slopes), _per_row(inputs[0].high, slopes)
        unsure = Box.between(slopes.low.clamp(max=0), slopes.high.clamp(min=0))
        active, passive = low > 0, high < 0
        return (
            Box(
                torch.where(active, slopes.middle, torch.where(passive, 0.0, unsure.middle)),
                torch.where(active, slopes.radius, torch.where(passive, 0.0, unsure.radius)),
            ),
        )


@dataclass(frozen=True)
class Sorting(Layer):
    """Values sorted within groups along one dimension (GroupSort; Anil, Lucas & Grosse 2019).

    Args:
        dimension: the dimension sorted along, counted with that of examples.
    """

    dimension: int

    def values(self, *inputs: Tensor) -> Tensor:
        """See `Layer.values`."""
        return inputs[0].sort(dim=self.dimension).values

    def constants(self, *inputs: Constants) -> Constants:
        """See `Layer.constants`."""
        return inputs[0]

    def box(self, *inputs: Box) -> Box:
        """See `Layer.box`."""
        return Box.between(self.values(inputs[0].low), self.values(inputs[0].high))

    def slopes(self, slopes: Box, inputs: Sequence[Box]) -> tuple[Box, ...]:
        """See `Layer.slopes`: where boxes of a group overlap, an input may have any of the group's places."""
        order = inputs[0].middle.argsort(dim=self.dimension)
        low, high = (bound.gather(self.dimension, order) for bound in (inputs[0].low, inputs[0].high))
        count = order.shape[self.dimension]
        apart = high.narrow(self.dimension, 0, count - 1) < low.narrow(self.dimension, 1, count - 1)
        sure = _per_row(apart.all(dim=self.dimension, keepdim=True), slopes)
        back = _per_row(order.argsort(dim=self.dimension), slopes)
        anywhere = Box.between(
            slopes.low.amin(self.dimension, keepdim=True).expand_as(slopes.low),
            slopes.high.amax(self.dimension, keepdim=True).expand_as(slopes.high),
        )
        return (
            Box(
                torch.where(sure, slopes.middle.gather(self.dimension, back), anywhere.middle),
                torch.where(sure, slopes.radius.gather(self.dimension, back), anywhere.radius),
            ),
        )


@dataclass(frozen=True)
class Maxima(Layer):
    """Maxima over windows of an image.

    Args:
        window: height and width.
        stride: rows and columns from one window to the next.
        padding: rows and columns added around the image, which never are the maximum.
    """

    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def values(self, *inputs: Tensor) -> Tensor:
        """See `Layer.values`."""
        return functional.max_pool2d(inputs[0], self.window, self.stride, self.padding)

    def constants(self, *inputs: Constants) -> Constants:
        """See `Layer.constants`: in l2, each input counts once for every window that it lies in."""
        overlap = 1
        for window, stride in zip(self.window, self.stride, strict=True):
            overlap *= -(-window // stride)
        return Constants(inputs[0].euclidean * overlap**0.5 * (1 + ROUNDING), inputs[0].largest)

    def box(self, *inputs: Box) -> Box:
        """See `Layer.box`."""
        return Box.between(self.values(inputs[0].low), self.values(inputs[0].high))

    def slopes(self, slopes: Box, inputs: Sequence[Box]) -> tuple[Box, ...]:
        """See `Layer.slopes`: any input of a window may be its maximum, or none."""
        blank = slopes.middle.new_zeros(len(slopes.middle), *inputs[0].middle.shape[1:])
        area = self.window[0] * self.window[1]

        def sums(values: Tensor) -> Tensor:
            return functional.avg_pool2d(values, self.window, self.stride, self.padding) * area

        low = _transposed(sums, blank, slopes.low.clamp(max=0))
        high = _transposed(sums, blank, slopes.high.clamp(min=0))
        return (Box.between(low, high),)


def _per_row(values: Tensor, slopes: Box) -> Tensor:
    """What is known of examples, repeated for each row of slopes."""
    return values.repeat_interleave(len(slopes.middle) // len(values), dim=0)

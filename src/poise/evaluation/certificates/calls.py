"""Which traced calls become which layers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from poise.core.misuse import Misuse
from poise.evaluation.certificates.affine import averaged, convolution, dense, moved, scaled, window_means
from poise.evaluation.certificates.layers import Layer, Maxima, Rectifier, Sorting, Sum

CHECKS = frozenset({"_assert_tensor_metadata", "_assert_scalar"})
"""Calls that only check something."""
SAME = frozenset({"getitem", "clone", "to", "_to_copy", "detach", "alias", "contiguous", "dropout"})
"""Calls that pass their value on, in eval mode and float64."""
_KNOWN = (
    "known are convolutions, dense layers, batch norm, ReLU, GroupSort, mean and max pooling, flattening, sums of "
    "branches, and arithmetic with constants"
)


@dataclass(frozen=True)
class Call:
    """A call of the traced program that depends on the image.

    Args:
        node: the call.
        arguments: its arguments, padded with None; what depends on the image is its node, the rest are values.
        places: where the values that depend on the image stand, in the order of the arguments.
        shape: shape of the first of these, without examples.
    """

    node: fx.Node
    arguments: tuple[Any, ...]
    places: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def result(self) -> tuple[int, ...]:
        """Shape of what it returns, without examples."""
        return shape_of(self.node)


def name_of(node: fx.Node) -> str:
    """What a call does, without its overload: conv2d, relu."""
    if node.target is operator.getitem:
        return "getitem" if node.args[1] == 0 else "a further output"
    return str(node.target).removeprefix("aten.").partition(".")[0]


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of a call's value, or of the first of its values, without examples."""
    value = node.meta["val"]
    return tuple(int(length) for length in (value[0] if isinstance(value, tuple | list) else value).shape[1:])


def layer_of(call: Call) -> Layer:
    """The layer that does what a call does.

    Raises:
        Misuse: for a call that has no rule, which is named.
    """
    name = name_of(call.node)
    layer = _RULES[name](call) if name in _RULES else None
    if layer is None:
        raise Misuse(f"no bound can be carried through {name} of {call.shape} ({call.node.name}); {_KNOWN}")
    return layer


def _convolution(call: Call) -> Layer:
    _, weight, bias, stride, padding, dilation, groups = call.arguments[:7]
    pairs = _pair(stride, 1), _pair(padding, 0), _pair(dilation, 1)
    return convolution(call.places, call.shape, weight, bias, *pairs, groups or 1)


def _dense(call: Call) -> Layer:
    return dense(call.places, call.shape, call.arguments[1], call.arguments[2])


def _product(call: Call) -> Layer | None:
    weight = call.arguments[1]
    return dense(call.places, call.shape, weight.t(), None) if isinstance(weight, Tensor) and weight.ndim == 2 else None


def _batch_norm(call: Call) -> Layer:
    _, weight, bias, mean, variance, _, epsilon = call.arguments[:7]
    factor = (variance + epsilon).rsqrt()
    factor = factor if weight is None else factor * weight
    shift = -mean * factor if bias is None else bias - mean * factor
    place = (1, -1, *(1,) * (len(call.shape) - 1))
    return scaled(call.places, call.shape, factor.view(place), shift.view(place))


def _rectifier(call: Call) -> Layer:
    return Rectifier(call.places)


def _sorting(call: Call) -> Layer | None:
    dimension = (-1 if call.arguments[1] is None else call.arguments[1]) % (len(call.shape) + 1)
    return None if call.arguments[2] or not dimension else Sorting(call.places, dimension)


def _mean(call: Call) -> Layer | None:
    dimensions = [dimension % (len(call.shape) + 1) for dimension in call.arguments[1] or [0]]
    return None if 0 in dimensions else averaged(call.places, call.shape, dimensions, keep=bool(call.arguments[2]))


def _adaptive_mean(call: Call) -> Layer | None:
    one = list(call.arguments[1]) == [1, 1]
    return averaged(call.places, call.shape, (len(call.shape) - 1, len(call.shape)), keep=True) if one else None


def _window_means(call: Call) -> Layer | None:
    _, sides, stride, padding, ceil_mode, with_padding, divisor = call.arguments[:7]
    window, around = _pair(sides, 1), _pair(padding, 0)
    if ceil_mode or divisor or (with_padding is False and around != (0, 0)):
        return None
    return window_means(call.places, call.shape, window, _pair(stride, window), around)


def _maxima(call: Call) -> Layer | None:
    _, sides, stride, padding, dilation, ceil_mode = call.arguments[:6]
    window = _pair(sides, 1)
    if _pair(dilation, 1) != (1, 1) or ceil_mode:
        return None
    return Maxima(call.places, window, _pair(stride, window), _pair(padding, 0))


def _reshaping(call: Call) -> Layer | None:
    target = call.result
    if call.node.meta["val"].shape[0] != 1:
        return None
    return moved(call.places, call.shape, lambda values: values.reshape(len(values), *target))


def _permutation(call: Call) -> Layer | None:
    order = tuple(call.arguments[1])
    return moved(call.places, call.shape, lambda values: values.permute(order)) if order[0] == 0 else None


def _unshuffling(call: Call) -> Layer:
    factor = call.arguments[1]
    return moved(call.places, call.shape, lambda values: functional.pixel_unshuffle(values, factor))


def _arithmetic(call: Call) -> Layer | None:
    """A sum of two values, or a value with a constant that is the same for all examples."""
    name, (first, second) = name_of(call.node), call.arguments[:2]
    if call.node.kwargs or len(call.node.args) > 2 or call.result != call.shape:
        return None
    if isinstance(first, fx.Node) and isinstance(second, fx.Node):
        same = name == "add" and len(call.places) == 2 and shape_of(first) == shape_of(second)
        return Sum(call.places) if same else None
    constant = second if isinstance(first, fx.Node) else first
    value = constant if isinstance(constant, Tensor) else torch.tensor(constant)
    value = value.double().reshape((1,) * (len(call.shape) + 1 - value.ndim) + tuple(value.shape))
    return _with_constant(name, call, value, leads=constant is first)


def _with_constant(name: str, call: Call, value: Tensor, *, leads: bool) -> Layer | None:
    one = torch.ones_like(value)
    match name:
        case "add":
            return scaled(call.places, call.shape, one, value)
        case "sub":
            return scaled(call.places, call.shape, -one if leads else one, value if leads else -value)
        case "mul":
            return scaled(call.places, call.shape, value, None)
        case _:
            return None if leads else scaled(call.places, call.shape, 1 / value, None)


def _pair(value: Any, default: int | tuple[int, int]) -> tuple[int, int]:
    """A length for rows and one for columns, from one for both, a list or nothing."""
    chosen: Any = default if value in (None, [], ()) else value
    first, *rest = chosen if isinstance(chosen, list | tuple) else (chosen,)
    return int(first), int(rest[0] if rest else first)


_RULES: dict[str, Callable[[Call], Layer | None]] = {
    "conv2d": _convolution,
    "linear": _dense,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "relu": _rectifier,
    "sort": _sorting,
    "mean": _mean,
    "adaptive_avg_pool2d": _adaptive_mean,
    "avg_pool2d": _window_means,
    "max_pool2d": _maxima,
    "permute": _permutation,
    "pixel_unshuffle": _unshuffling,
    **dict.fromkeys(("matmul", "mm"), _product),
    **dict.fromkeys(("view", "reshape", "squeeze", "unsqueeze"), _reshaping),
    **dict.fromkeys(("add", "sub", "mul", "div"), _arithmetic),
}

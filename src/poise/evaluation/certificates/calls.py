"""Which traced calls become which layers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
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
_SAME = frozenset({"getitem", "clone", "to", "_to_copy", "detach", "alias", "contiguous"})
"""Calls that pass their value on, as long as its numbers stay float64."""
_DROPOUT = frozenset({"dropout", "feature_dropout"})
_KNOWN = (
    "known are convolutions, dense layers, batch norm, ReLU, GroupSort, mean and max pooling, flattening, sums of "
    "branches, and arithmetic with constants"
)


@dataclass(frozen=True)
class Call:
    """A call of the traced program that depends on the image.

    Args:
        node: the call.
        arguments: its arguments by position; what depends on the image is its node, the rest are values.
        named: its arguments by name, likewise.
        places: where the values that depend on the image stand, in the order of the arguments.
        shape: shape of the first of these, without examples.
    """

    node: fx.Node
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
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
    return tuple(int(length) for length in _value_of(node).shape[1:])


def passes_on(node: fx.Node) -> bool:
    """Whether a call gives what it is given: copies, and dropout that drops nothing."""
    return name_of(node) in _SAME or (name_of(node) in _DROPOUT and node.args[2] is False)


def check_value(node: fx.Node, image: tuple[int, ...]) -> None:
    """Refuse a call whose value is not one row of float64 numbers an image.

    Bounds are of real numbers: a cast to integers or to fewer digits is a step function, whatever stands around it.

    Args:
        node: a call that depends on the image.
        image: shape of what it reads, without examples, for the message.

    Raises:
        Misuse: for one that gives anything else.
    """
    value = _value_of(node)
    if not isinstance(value, Tensor):
        raise _refusal(node, image, "values that are no tensor have no bounds")
    if value.dtype != torch.float64:
        raise _refusal(node, image, f"the network is bounded in float64, and this gives {value.dtype}")
    if value.ndim < 1 or value.shape[0] != 1:
        raise _refusal(node, image, f"from one image it makes {tuple(value.shape)}, which is not one row an image")


def layer_of(call: Call) -> Layer:
    """The layer that does what a call does.

    Raises:
        Misuse: for a call that has no rule, or options that its rule does not know; it is named.
    """
    name = name_of(call.node)
    known = _OF_TWO if name in _OF_TWO else _OF_ONE if _reads_one(call) else {}
    layer = None
    try:
        layer = known[name](call, *call.arguments, **call.named) if name in known else None
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _refusal(call.node, call.shape, _KNOWN) from error
    if layer is None:
        raise _refusal(call.node, call.shape, _KNOWN)
    return layer


def _refusal(node: fx.Node, shape: tuple[int, ...], why: str) -> Misuse:
    return Misuse(f"no bound can be carried through {name_of(node)} of {shape} ({node.name}); {why}")


def _value_of(node: fx.Node) -> Any:
    value = node.meta.get("val")
    return value[0] if isinstance(value, tuple | list) and value else value


def _reads_one(call: Call) -> bool:
    """Whether the first argument is all of a call that depends on the image."""
    found: list[fx.Node] = []
    fx.node.map_arg((call.arguments, dict(call.named)), found.append)
    return len(found) == 1 and call.arguments[0] is found[0]


def _convolution(
    call: Call,
    _: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Layer | None:
    apart = _pair(dilation, 1)
    around = _around(padding, weight, apart)
    if around is None or len(call.shape) != 3:
        return None
    return convolution(call.places, call.shape, weight, bias, _pair(stride, 1), around, apart, groups)


def _around(padding: Any, weight: Tensor, dilation: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of zeros on each side; None where "same" needs one more on one side than on the other."""
    if not isinstance(padding, str):
        return _pair(padding, 0)
    rows, columns = (
        apart * (taps - 1) * (padding == "same") for apart, taps in zip(dilation, weight.shape[2:], strict=True)
    )
    return None if rows % 2 or columns % 2 else (rows // 2, columns // 2)


def _dense(call: Call, _: Any, weight: Tensor, bias: Tensor | None = None) -> Layer | None:
    return dense(call.places, call.shape, weight, bias) if call.shape and weight.ndim == 2 else None


def _product(call: Call, _: Any, weight: Any) -> Layer | None:
    return _dense(call, _, weight.t()) if weight.ndim == 2 else None


def _batch_norm(
    call: Call,
    _: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    __: float,
    epsilon: float,
) -> Layer:
    factor = (variance + epsilon).rsqrt()
    factor = factor if weight is None else factor * weight
    shift = -mean * factor if bias is None else bias - mean * factor
    place = (1, -1, *(1,) * (len(call.shape) - 1))
    return scaled(call.places, call.shape, factor.view(place), shift.view(place))


def _rectifier(call: Call, _: Any) -> Layer:
    return Rectifier(call.places)


def _sorting(
    call: Call,
    _: Any,
    dim: int = -1,
    descending: bool = False,
    *,
    stable: bool | None = None,  # noqa: ARG001 - the order of equal values is not seen in them
) -> Layer | None:
    dimension = dim % (len(call.shape) + 1)
    return None if descending or not dimension else Sorting(call.places, dimension)


def _mean(call: Call, _: Any, dim: Sequence[int] | None = None, keepdim: bool = False) -> Layer | None:
    dimensions = [dimension % (len(call.shape) + 1) for dimension in dim or [0]]
    return None if 0 in dimensions else averaged(call.places, call.shape, dimensions, keep=keepdim)


def _adaptive_mean(call: Call, _: Any, size: Sequence[int]) -> Layer | None:
    one = list(size) == [1, 1] and len(call.shape) == 3
    return averaged(call.places, call.shape, (2, 3), keep=True) if one else None


def _window_means(
    call: Call,
    _: Any,
    sides: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    with_padding: bool = True,
    divisor: int | None = None,
) -> Layer | None:
    window, around = _pair(sides, 1), _pair(padding, 0)
    if ceil_mode or divisor or not (with_padding or around == (0, 0)) or len(call.shape) != 3:
        return None
    return window_means(call.places, call.shape, window, _pair(stride, window), around)


def _maxima(
    call: Call, _: Any, sides: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Layer | None:
    window = _pair(sides, 1)
    if _pair(dilation, 1) != (1, 1) or ceil_mode or len(call.shape) != 3:
        return None
    return Maxima(call.places, window, _pair(stride, window), _pair(padding, 0))


def _reshaping(call: Call, _: Any, *__: Any) -> Layer:
    target = call.result
    return moved(call.places, call.shape, lambda values: values.reshape(len(values), *target))


def _permutation(call: Call, _: Any, order: Sequence[int]) -> Layer | None:
    axes = tuple(order)
    return moved(call.places, call.shape, lambda values: values.permute(axes)) if axes[0] == 0 else None


def _unshuffling(call: Call, _: Any, factor: int) -> Layer | None:
    fits = len(call.shape) == 3
    return moved(call.places, call.shape, lambda values: functional.pixel_unshuffle(values, factor)) if fits else None


def _arithmetic(call: Call, first: Any, second: Any) -> Layer | None:
    """A sum of two values, or a value with a constant that is the same for all examples."""
    name = name_of(call.node)
    if call.result != call.shape:
        return None
    if isinstance(first, fx.Node) and isinstance(second, fx.Node):
        same = name == "add" and shape_of(first) == shape_of(second)
        return Sum(call.places) if same else None
    constant = second if isinstance(first, fx.Node) else first
    value = torch.as_tensor(constant, dtype=torch.float64)
    value = value.reshape((1,) * (len(call.shape) + 1 - value.ndim) + tuple(value.shape))
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


_OF_ONE: dict[str, Callable[..., Layer | None]] = {
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
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze"), _reshaping),
}
"""Rules for calls of one value that depends on the image; each takes the arguments as the call gives them."""
_OF_TWO: dict[str, Callable[..., Layer | None]] = dict.fromkeys(("add", "sub", "mul", "div"), _arithmetic)
"""Rules for calls of two values, of which one may be a constant."""

"""How fast the gaps between a network's logits can change: constants for all images, and for those in a ball.

Everything here is an upper bound, and none an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int
from torch import Tensor
from torch.nn import functional

from poise.core.norms import DUAL, length, per_example
from poise.core.threat import BOX, Norm
from poise.evaluation.certificates.capture import Network
from poise.evaluation.certificates.layers import ROUNDING, Affine, Box, Constants
from poise.evaluation.certificates.radii import others

Gaps = Float64[Tensor, "n others"]

_MOST_VALUES = 2**20
"""Numbers in a tensor of slopes; some twenty such tensors are in memory at the same time."""


def value_constants(network: Network, norm: Norm) -> list[Constants]:
    """By how much the image and every layer's value can change per unit of the image's change in this norm.

    Composition: constants of layers multiply, and those of branches that are added add up.
    """
    start = Constants(math.sqrt(math.prod(network.shape)) if norm == "linf" else 1.0, 1.0)
    found = [start]
    for layer in network.layers:
        found.append(layer.constants(*(found[source] for source in layer.sources)))
    return found


def gap_constants(network: Network, constants: list[Constants]) -> Float64[Tensor, "classes classes"]:
    """Lipschitz constants of all logit gaps z_i - z_j on the whole space.

    Where the last layer is dense, the constant of what it reads times the length of the difference of its rows.

    Args:
        network: the layers.
        constants: `value_constants` of the network in the norm that is asked for.
    """
    last = network.layers[-1]
    rows = torch.eye(network.classes, dtype=torch.float64, device=network.device)
    before = constants[-1]
    if isinstance(last, Affine) and last.apply is functional.linear and len(last.shape) == 1:
        rows, before = last.weight, constants[last.sources[0]]
    return torch.stack([_change(Box(row - rows, torch.zeros_like(rows)), before) for row in rows])


def boxes(network: Network, images: Tensor, radii: Tensor, constants: list[Constants]) -> list[Box]:
    """Boxes that hold the image and every layer's value wherever the image moves within its ball and [0, 1].

    Interval arithmetic, cut at every layer to what the layer's own Lipschitz constant allows around its value at the
    image; deep layers owe their tightness to the latter.

    Args:
        network: the layers.
        images: centres of the balls, float64.
        radii: one an image.
        constants: `value_constants` of the network in the norm of the balls.
    """
    reach = per_example(radii, images)
    found = [Box.between((images - reach).clamp(min=BOX[0]), (images + reach).clamp(max=BOX[1]))]
    for layer, value, constant in zip(network.layers, network.values(images)[1:], constants[1:], strict=True):
        box = layer.box(*(found[source] for source in layer.sources))
        allowed = torch.full_like(value, constant.largest)
        if isinstance(layer, Affine):
            allowed = allowed.minimum(layer.row_lengths() * constants[layer.sources[0]].euclidean)
        distance = allowed * per_example(radii, value) * (1 + ROUNDING) + ROUNDING * value.abs()
        found.append(Box.between(box.low.maximum(value - distance), box.high.minimum(value + distance)))
    return found


class Local(NamedTuple):
    """What is known of the gaps from one class to all others over a ball around each image.

    Args:
        steepest: the most that each gap can fall per unit of distance from the image.
        least: lower bounds of the gaps, by intervals alone.
    """

    steepest: Gaps
    least: Gaps


def local_bounds(
    network: Network,
    images: Float64[Tensor, "n *shape"],
    classes: Int[Tensor, " n"],
    radii: Float64[Tensor, " n"],
    norm: Norm,
    constants: list[Constants],
) -> Local:
    """Bounds of the gaps from one class to all others over each image's own ball, and how they change there.

    Interval bounds decide which units can be active anywhere in the ball; with the others fixed, the Jacobian's entries
    are bounded from the logits back to the image. By the mean value theorem gaps fall no faster within the ball.
    Memory holds the boxes of all images, and the slopes of as many gaps as fit under a limit.

    Args:
        network: the layers.
        images: centres.
        classes: the class whose lead is asked for.
        radii: one an image.
        norm: norm of the balls.
        constants: `value_constants` of the network in this norm.
    """
    held = boxes(network, images, radii, constants)
    every = torch.arange(network.classes, device=classes.device).expand(len(images), -1)
    rivals = others(every, classes)
    least = held[-1].low.gather(1, classes[:, None]) - others(held[-1].high, classes)
    steepest = torch.empty_like(least)
    for rows, columns in _pieces(rivals.shape, max(box.middle[0].numel() for box in held)):
        part = [Box(box.middle[rows], box.radius[rows]) for box in held]
        seeds = _differences(classes[rows], rivals[rows, columns], network.classes)
        steepest[rows, columns] = _steepest(network, part, seeds, norm, constants).view(len(classes[rows]), -1)
    return Local(steepest, least)


def _pieces(shape: Sequence[int], widest: int) -> Iterator[tuple[slice, slice]]:
    """Parts of a table of images and classes whose slopes are few enough to be in memory together.

    Args:
        shape: images and classes.
        widest: most numbers that a function's slopes by one value are.
    """
    most = max(1, _MOST_VALUES // widest)
    wide = min(most, shape[1])
    high = most // wide
    for row in range(0, shape[0], high):
        for column in range(0, shape[1], wide):
            yield slice(row, row + high), slice(column, column + wide)


def _differences(
    classes: Int[Tensor, " n"], rivals: Int[Tensor, "n some"], count: int
) -> Float64[Tensor, "rows count"]:
    """The vectors e_c - e_j for some classes j beside each c, image by image."""
    own, other = (functional.one_hot(each, count).double() for each in (classes[:, None], rivals))
    return (own - other).flatten(0, 1)


def _steepest(network: Network, held: list[Box], seeds: Tensor, norm: Norm, constants: list[Constants]) -> Tensor:
    """The most that functions of the logits, given by their slopes there, can change per unit of the image's change.

    Slopes are carried back layer by layer. At every value that all paths lead through, their length times how fast that
    value itself can change is a bound; at the image it is the length of the gradient. The least of them counts, so this
    is never above the constant for the whole space.
    """
    waiting: dict[int, Box] = {len(network.layers): Box(seeds, torch.zeros_like(seeds))}
    least = torch.full_like(seeds[:, 0], torch.inf)
    for place in range(len(network.layers), 0, -1):
        if place not in waiting:
            continue
        slopes = waiting.pop(place)
        if not waiting:
            least = least.minimum(_change(slopes, constants[place]))
        layer = network.layers[place - 1]
        found = layer.slopes(slopes, [held[source] for source in layer.sources])
        for source, part in zip(layer.sources, found, strict=True):
            waiting[source] = _added(waiting[source], part) if source in waiting else part
    at_image = length(waiting[0].reach, DUAL[norm])
    return least.minimum(at_image * (1 + ROUNDING))


def _change(slopes: Box, constants: Constants) -> Tensor:
    """By how much functions with these slopes can change while their argument changes as these constants allow."""
    reach = slopes.reach.flatten(1)
    euclidean, total = reach.square().sum(1).sqrt(), reach.sum(1)
    return torch.minimum(euclidean * constants.euclidean, total * constants.largest) * (1 + ROUNDING)


def _added(first: Box, second: Box) -> Box:
    rounding = ROUNDING * (first.middle.abs() + second.middle.abs())
    return Box(first.middle + second.middle, (first.radius + second.radius) * (1 + ROUNDING) + rounding)

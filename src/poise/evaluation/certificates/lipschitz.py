"""How fast the gaps between a network's logits can change: constants for all images, and for those in a ball.

Everything here is an upper bound, and none an estimate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int
from torch import Tensor
from torch.nn import functional

from poise.core.norms import per_example
from poise.core.threat import BOX, Norm
from poise.evaluation.certificates.capture import Network
from poise.evaluation.certificates.layers import ROUNDING, Affine, Box, Constants

Gaps = Float64[Tensor, "n others"]

_DUAL: dict[Norm, float] = {"linf": 1.0, "l2": 2.0, "l1": math.inf}


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
    differences = rows[:, None] - rows[None, :]
    euclidean = differences.square().sum(2).sqrt() * before.euclidean
    return torch.minimum(euclidean, differences.abs().sum(2) * before.largest) * (1 + ROUNDING)


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

    Args:
        network: the layers.
        images: centres.
        classes: the class whose lead is asked for.
        radii: one an image.
        norm: norm of the balls.
        constants: `value_constants` of the network in this norm.
    """
    held = boxes(network, images, radii, constants)
    directions = _differences(classes, network.classes)
    steepest = _steepest(network, held, directions.flatten(0, 1), norm, constants).view(len(images), -1)
    leading = held[-1].low.gather(1, classes[:, None])
    return Local(steepest, leading - (directions.clamp(max=0).neg() * held[-1].high[:, None]).sum(2))


def _differences(classes: Tensor, count: int) -> Float64[Tensor, "n others count"]:
    """The vectors e_c - e_j for all classes j but c."""
    every = torch.eye(count, dtype=torch.float64, device=classes.device)
    all_pairs = every[classes][:, None] - every[None]
    keep = torch.arange(count, device=classes.device)[None] != classes[:, None]
    return all_pairs[keep].view(len(classes), count - 1, count)


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
    at_image = torch.linalg.vector_norm(waiting[0].reach.flatten(1), ord=_DUAL[norm], dim=1)
    return least.minimum(at_image * (1 + ROUNDING))


def _change(slopes: Box, constants: Constants) -> Tensor:
    """By how much functions with these slopes can change while their argument changes as these constants allow."""
    reach = slopes.reach.flatten(1)
    euclidean, total = reach.square().sum(1).sqrt(), reach.sum(1)
    return torch.minimum(euclidean * constants.euclidean, total * constants.largest) * (1 + ROUNDING)


def _added(first: Box, second: Box) -> Box:
    rounding = ROUNDING * (first.middle.abs() + second.middle.abs())
    return Box(first.middle + second.middle, (first.radius + second.radius) * (1 + ROUNDING) + rounding)

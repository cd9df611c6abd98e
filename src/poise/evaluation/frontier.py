"""The frontier of a mixture: clean and robust accuracy for every alpha that was tried, and the choice among them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from poise.core.files import write_text
from poise.core.misuse import Misuse
from poise.evaluation.curve import Estimate


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mixture.

    Args:
        name: how tables call it, such as "alpha 0.7" or "robust alone".
        alpha_low: smallest alpha.
        alpha_high: largest alpha.
        clean: accuracy on the images as they are.
        robust: accuracy under attack.
    """

    name: str
    alpha_low: float
    alpha_high: float
    clean: Estimate
    robust: Estimate


@dataclass(frozen=True, kw_only=True)
class Alphas:
    """Which alphas a gate gave to images as they are, and to the same images under attack.

    Args:
        low: lower bound of alpha; the bins between the bounds are of equal width.
        high: upper bound.
        clean: number of images in each bin.
        attacked: number of attacked images in each bin.
    """

    low: float
    high: float
    clean: tuple[int, ...]
    attacked: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """What was measured on validation images, and what was chosen.

    Args:
        threat: the attacker, as a text.
        suite: the attacks.
        images: number of validation images.
        points: every mixture that was tried, and at the end the standard and the robust branch alone.
        chosen: index of the point that was taken; None where no mixture kept what it had to.
        lose: robust accuracy that the choice was allowed to give up, in points (percent).
        alphas: what the chosen mixture's gate does; None for a constant alpha.
    """

    threat: str
    suite: str
    images: int
    points: tuple[Point, ...]
    chosen: int | None
    lose: float
    alphas: Alphas | None = None


def keeps_enough(point: Point, robust: Estimate, lose: float) -> bool:
    """Whether a mixture's robust accuracy is at most `lose` points (percent) below the robust branch's."""
    return point.robust.value >= robust.value - lose / 100 - 1e-12


def choose(points: Sequence[Point], robust: Estimate, lose: float) -> int:
    """The most accurate mixture whose robust accuracy is at most `lose` points below the robust branch's.

    Args:
        points: the candidates.
        robust: robust accuracy of the robust branch alone, on the same images.
        lose: in points (percent), at least 0.

    Returns:
        Its index; among equals the one of higher robust accuracy, then of larger alpha.

    Raises:
        Misuse: for a negative `lose`, and where no candidate meets it; the nearest one is named.
    """
    if not lose >= 0:
        raise Misuse(f"robust accuracy that may be lost is a number of points of at least 0; got {lose}")
    allowed = [index for index, point in enumerate(points) if keeps_enough(point, robust, lose)]
    if not allowed:
        nearest = max(points, key=lambda point: point.robust.value)
        raise Misuse(
            f"no mixture keeps robust accuracy within {lose:g} points of {robust.value:.1%}; the nearest, "
            f"{nearest.name}, has {nearest.robust.value:.1%}: allow more with --lose, or try other alphas"
        )
    return max(
        allowed, key=lambda index: (points[index].clean.value, points[index].robust.value, points[index].alpha_low)
    )


def write_frontier(frontier: Frontier, path: Path) -> None:
    """Write a frontier as JSON, whole."""
    write_text(path, json.dumps(asdict(frontier), indent=1) + "\n")


def read_frontier(path: Path) -> Frontier:
    """Read what `write_frontier` wrote.

    Raises:
        Misuse: for anything else.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        points = tuple(
            Point(**point | {name: Estimate(*point[name]) for name in ("clean", "robust")})
            for point in fields.pop("points")
        )
        alphas = fields.pop("alphas")
        if alphas is not None:
            alphas = Alphas(**alphas | {name: tuple(alphas[name]) for name in ("clean", "attacked")})
        return Frontier(**fields, points=points, alphas=alphas)
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise Misuse(f"{path} cannot be read as a frontier: {error}") from None

"""What a search maximises and what it must keep to: figures of a profile, and bounds on them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from poise.core.misuse import Misuse
from poise.core.threat import Epsilon, Threat
from poise.evaluation import Profile, accuracy_curve, epsilon_grid, expected_robustness

_BOUND = re.compile(r"\s*([\w@./]+)\s*(>=|<=)\s*([\d./eE%+-]+)\s*")
_NAMES = "expected, clean, robust, or robust@EPSILON such as robust@2/255"


@dataclass(frozen=True)
class Bound:
    """A figure and the least or the most that it may be.

    Args:
        figure: its name.
        least: whether the limit is the least.
        limit: a share in [0, 1].
    """

    figure: str
    least: bool
    limit: float

    def excess(self, figures: Mapping[str, float]) -> float:
        """How far a model is from keeping to it; at most 0 where it does."""
        found = figures[self.figure]
        return self.limit - found if self.least else found - self.limit

    def __str__(self) -> str:
        return f"{self.figure} {'>=' if self.least else '<='} {self.limit:g}"


def read_bound(text: str) -> Bound:
    """A bound as people write it: ``clean >= 0.8`` or ``clean>=80%``.

    Raises:
        Misuse: for anything else.
    """
    found = _BOUND.fullmatch(text)
    if not found:
        raise Misuse(f"a bound reads like 'clean >= 0.8'; got {text!r}")
    figure, relation, limit = found.groups()
    try:
        value = float(limit.removesuffix("%")) / (100 if limit.endswith("%") else 1)
    except ValueError:
        raise Misuse(f"a bound reads like 'clean >= 0.8'; got {text!r}") from None
    if not 0 <= value <= 1:
        raise Misuse(f"the limit of a bound is a share in [0, 1] or a percentage; got {text!r}")
    return Bound(figure, relation == ">=", value)


def figure_points(names: tuple[str, ...], threat: Threat) -> tuple[float, ...]:
    """The epsilons at which a model must be judged for these figures: for the expected one, the threat's whole grid.

    Raises:
        Misuse: for an unknown figure, and for an epsilon above the threat's.
    """
    points = list(epsilon_grid(threat)) if "expected" in names else []
    for name in names:
        kind, _, epsilon = name.partition("@")
        if kind not in {"expected", "clean", "robust"} or (epsilon and kind != "robust"):
            raise Misuse(f"unknown figure {name!r}; valid: {_NAMES}")
        if epsilon:
            if not 0 < Epsilon(epsilon) < threat.epsilon:
                raise Misuse(f"{name} must lie between 0 and the threat's epsilon {threat.epsilon}, which is robust")
            points.append(float(Epsilon(epsilon)))
    return tuple(sorted(set(points)))


def figures_of(profile: Profile, names: tuple[str, ...]) -> dict[str, float]:
    """These figures of a profile, and clean and robust accuracy beside them."""
    curve = accuracy_curve(profile)
    found = {"clean": curve.clean.value, "robust": curve.robust.value}
    for name in names:
        kind, _, epsilon = name.partition("@")
        if kind == "expected":
            found[name] = expected_robustness(profile).value
        elif epsilon:
            found[name] = curve.accuracy[curve.epsilons.index(float(Epsilon(epsilon)))].value
    return found

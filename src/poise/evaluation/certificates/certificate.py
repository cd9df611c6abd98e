"""What is proven of a set of images: a radius for each, and how it was proven."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from poise.core.misuse import Misuse
from poise.core.threat import Norm

Method = Literal["smoothing", "lipschitz", "local"]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Certified radii, one an example, in the order of the profile that holds them.

    Args:
        method: smoothing (randomised), lipschitz (one constant for all images) or local (over each image's own ball).
        norm: norm in which the radii are measured.
        radii: the prediction is the label everywhere within this distance, in units of the image range; 0 where the
            prediction is wrong, was abstained from, or nothing is proven.
        confidence: probability with which each radius holds; 1 for a proof without sampling.
        facts: options and figures that belong to the method, such as sigma and samples.
    """

    method: Method
    norm: Norm
    radii: Float[np.ndarray, " n"]
    confidence: float = 1.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.radii).all() and (self.radii >= 0).all()):
            raise Misuse("certified radii are finite and at least 0")

    def __str__(self) -> str:
        options = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        sure = "" if self.confidence == 1 else f", each with confidence {self.confidence:g}"
        return f"{self.method}, {self.norm}{f', {options}' if options else ''}{sure}"

    def description(self) -> dict[str, Any]:
        """Everything but the radii, as an object that JSON can hold."""
        return {name: value for name, value in asdict(self).items() if name != "radii"}


def converted(radii: Float[np.ndarray, " n"], known: Norm, wanted: Norm, size: int) -> Float[np.ndarray, " n"]:
    """Radii of the largest balls of another norm that lie within certified ones.

    Args:
        radii: certified radii.
        known: their norm.
        wanted: the norm to state them in.
        size: values of one image.
    """
    powers: dict[Norm, float] = {"l1": 1.0, "l2": 0.5, "linf": 0.0}
    shrinkage = size ** max(0.0, powers[known] - powers[wanted])
    return np.asarray(radii / shrinkage * (1 if shrinkage == 1 else 1 - math.ulp(4.0)))

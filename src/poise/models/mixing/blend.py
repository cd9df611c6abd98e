"""What can be chosen about a mixture: alpha or its bounds, the scales of the branches, and a nonlinearity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from jaxtyping import Float, Float64
from torch import Tensor

from poise.core.misuse import Misuse
from poise.models.blueprint import Option
from poise.models.mixing.sharpening import Sharpening

_PREFIX = "sharpening_"


@dataclass(frozen=True, kw_only=True)
class Blend:
    """How two branches are mixed.

    Args:
        alpha_low: smallest weight of the robust branch, in [0, 1].
        alpha_high: largest weight, in [alpha_low, 1]; where both are equal alpha is constant.
        scale_standard: factor of the standard branch's logits before its softmax, above 0.
        scale_robust: the same for the robust branch; without effect under a nonlinearity, which has a scale of its own.
        sharpening: nonlinearity of the robust logits; the standard branch then gives its vote alone, as one-hot.

    Raises:
        Misuse: for values outside what is said above.
    """

    alpha_low: float = 0.5
    alpha_high: float = 0.5
    scale_standard: float = 1.0
    scale_robust: float = 1.0
    sharpening: Sharpening | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.alpha_low <= self.alpha_high <= 1:
            raise Misuse(
                f"alpha is the robust branch's weight, with 0 <= low <= high <= 1; got {self.alpha_low} to "
                f"{self.alpha_high}"
            )
        for name in ("scale_standard", "scale_robust"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise Misuse(f"{name} must be a positive number; got {getattr(self, name)}")

    @classmethod
    def constant(cls, alpha: float) -> Blend:
        """A plain blend with one alpha for all images."""
        return cls(alpha_low=alpha, alpha_high=alpha)

    def at(self, alpha: float) -> Blend:
        """The same blend with another alpha, or, of one whose alpha varies, with another lower bound."""
        constant = self.alpha_low == self.alpha_high
        return replace(self, alpha_low=alpha, alpha_high=alpha if constant else self.alpha_high)

    def robust_logits(self, logits: Float[Tensor, "n classes"]) -> Float64[Tensor, "n classes"]:
        """Logits of the robust branch as their softmax enters the mixture: sharpened, or scaled."""
        return self.scale_robust * logits.double() if self.sharpening is None else self.sharpening(logits)

    def options(self) -> dict[str, Option]:
        """The blend as options of a blueprint."""
        plain: dict[str, Option] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "sharpening"}
        if self.sharpening is not None:
            plain |= {_PREFIX + name: value for name, value in asdict(self.sharpening).items()}
        return plain

    @classmethod
    def of(cls, options: Mapping[str, Option]) -> Blend:
        """Read what `options` gave; other options are passed over.

        Raises:
            Misuse: for options that are no blend.
        """
        own = {f.name: options[f.name] for f in fields(cls) if f.name in options}
        inner = {name.removeprefix(_PREFIX): value for name, value in options.items() if name.startswith(_PREFIX)}
        try:
            return cls(**own, sharpening=Sharpening(**inner) if inner else None)  # type: ignore[arg-type]
        except TypeError as error:
            raise Misuse(f"not a blend of two classifiers: {error}") from None


def shown_alpha(alpha: float) -> str:
    """An alpha with three digits of what either branch is left with: near 1 all of its meaning lies in the rest."""
    rest = min(alpha, 1 - alpha)
    if rest <= 0:
        return f"{alpha:g}"
    return f"{alpha:.{math.ceil(-math.log10(rest)) + 2}f}".rstrip("0")

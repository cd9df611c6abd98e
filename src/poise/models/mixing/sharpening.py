"""The nonlinearity that widens the gap in confidence between right and wrong robust predictions (arXiv 2402.02263)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from poise.core.misuse import Misuse

_VARIANCE_FLOOR = 1e-8
_FEWEST = 3
"""Logits whose standardisation tells a sure row from an unsure one; two become 0.7071 and -0.7071 whatever they are."""


@dataclass(frozen=True, kw_only=True)
class Sharpening:
    """M(z) = scale |u|^power sign(u), with u = GELU(LN(z) + shift) and LN a standardisation of each row of logits.

    MixedNUTS (arXiv 2402.02263) as in its official code: LN takes mean and unbiased variance over the largest logits
    alone. All of it is computed in float64, as alpha near 1 lets the third decimal of a probability decide. A GELU
    falls until -0.75 before it rises: where even the largest logit comes to lie below 0 the order may change, and the
    vote is then another class's than the branch's. Calibration counts such votes as lost.

    Args:
        scale: above 0.
        power: at least 1.
        shift: what is added before the GELU; what lies far below -shift standard deviations is flattened.
        largest: how many logits LN looks at, at least 3, as two of them look the same once standardised; all where
            there are fewer.
        linear_alpha: the robust branch's weight where attacks look through the mixture without this nonlinearity, in
            [0, 1]: the alpha that calibration gives the bare branch.

    Raises:
        Misuse: for values outside what is said above.
    """

    scale: float
    power: float
    shift: float
    largest: int = 250
    linear_alpha: float = 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.power) and self.power >= 1):
            raise Misuse(f"a sharpening has scale above 0 and power of at least 1; got {self.scale} and {self.power}")
        if not math.isfinite(self.shift) or self.largest < _FEWEST or not 0 <= self.linear_alpha <= 1:
            raise Misuse(
                f"a sharpening has a finite shift, looks at {_FEWEST} logits or more, and linear_alpha lies in [0, 1]; "
                f"got {self.shift}, {self.largest} and {self.linear_alpha}"
            )

    def __call__(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        """The sharpened logits, in float64; differentiable.

        Args:
            logits: of the robust branch, finite; at least 3 classes.
        """
        wide = logits.double()
        top = wide.topk(min(self.largest, wide.shape[1]), dim=1).values
        spread = (top.var(dim=1, keepdim=True) + _VARIANCE_FLOOR).sqrt()
        lifted = functional.gelu((wide - top.mean(dim=1, keepdim=True)) / spread + self.shift)
        return self.scale * lifted.abs().pow(self.power) * lifted.sign()


def refuse_few_classes(classes: int) -> None:
    """Refuse a nonlinearity where it would give every prediction the same confidence.

    Raises:
        Misuse: for fewer than 3 classes.
    """
    if classes < _FEWEST:
        raise Misuse(
            f"a nonlinearity needs at least {_FEWEST} classes, as two logits look the same once they are standardised; "
            f"got {classes}: take a constant alpha and a calibrated scale (--method constant --calibrate)"
        )

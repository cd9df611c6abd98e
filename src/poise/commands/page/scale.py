"""The slider of epsilon: its unit, its range, and where on it a radius lies."""

from __future__ import annotations

import math
from dataclasses import dataclass

from poise.core.misuse import Misuse
from poise.core.threat import Epsilon, Norm, Threat

_LEVELS = 255
_STEPS = 200
_ROUND = (1, 2, 5)


@dataclass(frozen=True)
class Scale:
    """Values of the slider; those of linf are in grey levels of 255, those of l2 and l1 in units of the image range.

    Args:
        norm: norm of epsilon.
        unit: values of the slider for one unit of the image range.
        step: of the slider's values; 1, 2 or 5 times a power of ten.
        maximum: largest value; the smallest is 0.
        start: where the slider stands first, the threat's own epsilon.
    """

    norm: Norm
    unit: float
    step: float
    maximum: float
    start: float

    @classmethod
    def of(cls, threat: Threat) -> Scale:
        """From 0 to twice the threat's epsilon, and in linf to the whole image range at most.

        Raises:
            Misuse: for an epsilon of 0.
        """
        if not threat.epsilon:
            raise Misuse("a slider of epsilon needs a threat above 0; give one with --threat.epsilon, such as 8/255")
        unit = float(_LEVELS) if threat.norm == "linf" else 1.0
        wanted = min(2 * threat.epsilon, 1.0 if threat.norm == "linf" else math.inf) * unit
        power = 10.0 ** math.floor(math.log10(wanted / _STEPS))
        step = next(each * power for each in (*_ROUND, 10) if each * power >= wanted / _STEPS * (1 - 1e-9))
        maximum = math.ceil(wanted / step - 1e-9) * step
        return cls(threat.norm, unit, step, min(maximum, unit) if unit > 1 else maximum, threat.epsilon * unit)

    @property
    def label(self) -> str:
        """What stands beside the slider."""
        return f"epsilon, {self.norm}, in 1/{_LEVELS} of the image range" if self.unit > 1 else f"epsilon, {self.norm}"

    def epsilon(self, value: float) -> Epsilon:
        """The epsilon of a value of the slider.

        Raises:
            Misuse: for values beyond the slider's ends.
        """
        if not 0 <= value <= self.maximum * (1 + 1e-9):
            raise Misuse(f"epsilon lies between 0 and {self.maximum:g} here; got {value}")
        return Epsilon(value / self.unit)

    def place(self, radius: float) -> float:
        """Where a radius lies on the slider, as a share of its length in [0, 1]; 1 for all that lie beyond its end.

        Args:
            radius: in units of the image range, at least 0.
        """
        return min(1.0, radius * self.unit / self.maximum)

"""What the attacker may do: a norm, a budget epsilon, and the box that images live in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from poise.core.misuse import Misuse, check_choice

Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[Norm, ...] = get_args(Norm)

BOX = (0.0, 1.0)
"""Lowest and highest value of an image; every room relies on it."""

_LEVELS = 255
_FEW = 32


class Epsilon(float):
    """A perturbation budget in units of the image range [0, 1]; ``"8/255"`` is read as such and written back so.

    Raises:
        Misuse: for text that is not a number or a fraction, for negative and for non-finite values.
    """

    __slots__ = ()

    def __new__(cls, value: str | float = 0.0) -> Epsilon:  # noqa: D102, PYI034 - beartype wants the name
        number = _read(value) if isinstance(value, str) else float(value)
        if not (math.isfinite(number) and number >= 0):
            raise Misuse(f"epsilon must be a finite number of at least 0, such as 8/255 or 0.5; got {value!r}")
        return super().__new__(cls, number)

    def __str__(self) -> str:
        levels = round(float(self) * _LEVELS)
        if 0 < levels <= _FEW and float(self) == levels / _LEVELS:
            return f"{levels}/{_LEVELS}"
        return f"{float(self):g}" if float(f"{float(self):g}") == float(self) else repr(float(self))

    def __repr__(self) -> str:
        return f"Epsilon({str(self)!r})"


def _read(text: str) -> float:
    numerator, slash, denominator = text.strip().partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise Misuse(f"epsilon must be a number or a fraction such as 8/255; got {text!r}") from None


@dataclass(frozen=True, init=False)
class Threat:
    """The set of perturbations that a model must withstand: all delta with ||delta||_norm <= epsilon, image in [0, 1].

    Args:
        norm: length by which perturbations are measured: linf, l2 or l1.
        epsilon: largest length allowed, in units of the image range [0, 1]; "8/255" is read as such.

    Raises:
        Misuse: for an unknown norm, and for budgets that are no numbers, negative, or in linf above 1.
    """

    norm: Norm
    epsilon: Epsilon

    def __init__(self, *, norm: Norm = "linf", epsilon: float | str = "8/255") -> None:
        check_choice("norm", norm, NORMS)
        budget = Epsilon(epsilon)
        if norm == "linf" and budget > 1:
            guess = Fraction(float(budget)).limit_denominator(1000)
            raise Misuse(
                f"epsilon {budget} is larger than the whole image range [0, 1]; did you mean {guess}/{_LEVELS}?"
            )
        object.__setattr__(self, "norm", norm)
        object.__setattr__(self, "epsilon", budget)

    def __str__(self) -> str:
        return f"{self.norm} {self.epsilon}"

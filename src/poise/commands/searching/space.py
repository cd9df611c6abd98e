"""Which options a search varies: a recipe in which some stand as ranges in place of values.

training: {learning_rate: {from: 1e-4, to: 1e-2, log: true}, optimizer: {among: [adamw, sgd]}}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from poise.core.misuse import Misuse, suggestion

Value = str | int | float | bool | None

_SPAN, _LISTED = {"from", "to", "log"}, {"among"}

DEFAULT: Mapping[str, Any] = {
    "training.learning_rate": {"from": 1e-5, "to": 1e-1, "log": True},
    "training.weight_decay": {"from": 1e-6, "to": 1e-2, "log": True},
    "schedule.start": {"from": 0.0, "to": 0.5},
    "schedule.stop": {"from": 0.3, "to": 1.0},
}
"""What is searched where a recipe names no range: what arXiv 2509.23325 leaves to tuning, its schedule's ends first."""


@dataclass(frozen=True)
class Span:
    """Numbers from `low` to `high`, whole ones where both ends are; in even steps of the logarithm with `log`."""

    low: float
    high: float
    log: bool = False

    @property
    def ends(self) -> tuple[Value, ...]:
        """The two."""
        return self.low, self.high

    @property
    def whole(self) -> bool:
        """Whether only whole numbers count."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def fit_for(self, value: object) -> Span:
        """The span, of whole numbers only where the option holds one: stop from 0 to 1 is not 0 or 1."""
        return self if isinstance(value, int) else Span(float(self.low), float(self.high), self.log)


@dataclass(frozen=True)
class Listed:
    """One of these values."""

    values: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        """All of them."""
        return self.values


Range = Span | Listed
Space = Mapping[str, Range]
"""Ranges by the dotted name of their option."""


def space_of(tree: Mapping[str, Any]) -> dict[str, Range]:
    """The ranges in a recipe.

    Raises:
        Misuse: for a range that is none, naming its option.
    """
    found: dict[str, Range] = {}
    for path, value in _leaves(tree):
        if isinstance(value, dict):
            found[path] = _range(path, value)
    return found


def fit_for(space: Space, options: Mapping[str, Any]) -> dict[str, Range]:
    """The ranges, those of numbers as their options hold them.

    Args:
        space: the ranges.
        options: those of one sample, read and checked.
    """

    def held(path: str) -> object:
        found: Any = options
        for name in path.split("."):
            found = found[name] if isinstance(found, Mapping) else getattr(found, name, None)
        return found

    return {path: kind.fit_for(held(path)) if isinstance(kind, Span) else kind for path, kind in space.items()}


def with_default_space(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with the default ranges, where it names none of its own; the ends of a schedule only for the hinge."""
    if space_of(tree):
        return dict(tree)
    kind = tree.get("schedule", "hinge")
    kind = kind.get("kind", "hinge") if isinstance(kind, dict) else kind
    hinge = str(kind).lower() == "hinge"
    chosen = {path: value for path, value in DEFAULT.items() if hinge or not path.startswith("schedule.")}
    return filled(tree, chosen)


def filled(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a recipe with these values at their dotted names."""
    result = dict(tree)
    for path, value in values.items():
        first, _, rest = path.partition(".")
        inner = result.get(first, {})
        inner = {"kind": inner} if isinstance(inner, str) else inner  # a member by its name alone
        if rest and first == "schedule" and "kind" not in inner:
            inner = {"kind": "hinge", **inner}
        result[first] = filled(inner, {rest: value}) if rest else value
    return result


def suggested(
    space: Space, number: Callable[..., float], whole: Callable[..., int], among: Callable[..., Value]
) -> dict[str, Value]:
    """A value for every option, from the suggestions of a search.

    Args:
        space: the ranges.
        number: suggests from (name, low, high, log=...).
        whole: the same for whole numbers.
        among: suggests from (name, values).
    """
    return {
        path: among(path, kind.values)
        if isinstance(kind, Listed)
        else (whole if kind.whole else number)(path, kind.low, kind.high, log=kind.log)
        for path, kind in space.items()
    }


def samples_of(space: Space) -> list[dict[str, Value]]:
    """Values with which a recipe can be tried out before a search begins: every listed one and every end comes up.

    The first sample holds the low end of every range.
    """
    count = max((len(kind.ends) for kind in space.values()), default=1)
    return [{path: kind.ends[number % len(kind.ends)] for path, kind in space.items()} for number in range(count)]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in tree.items():
        path = f"{prefix}{key}"
        inner = isinstance(value, dict) and not ({"from", "to", "among"} & set(value))
        found += _leaves(value, f"{path}.") if inner else [(path, value)]
    return found


def _range(path: str, value: Mapping[str, Any]) -> Range:
    unknown = set(value) - (_LISTED if "among" in value else _SPAN)
    if unknown:
        raise Misuse(
            f"{path}: a range reads {{from: 0, to: 1}} or {{among: [a, b]}}; {suggestion(min(unknown), _SPAN)}"
        )
    if "among" in value:
        values = value["among"]
        if not isinstance(values, list) or not values or any(isinstance(each, list | dict) for each in values):
            raise Misuse(f"{path}: among needs a list of at least one plain value; got {values}")
        return Listed(tuple(values))
    low, high = (_number(path, value.get(end)) for end in ("from", "to"))
    log = bool(value.get("log", False))
    if low > high or (log and low <= 0):
        raise Misuse(f"{path}: a range needs from <= to{' and from > 0' if log else ''}; got {low} and {high}")
    return Span(low, high, log)


def _number(path: str, value: Any) -> float:
    """YAML takes 1e-5 for a text, as it wants 1.0e-5."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise Misuse(f"{path}: the ends of a range are numbers; got {value!r}")
    return number

"""Gates as YAML, read strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml

from poise.attacks.suites import SUITES
from poise.core.misuse import Misuse, suggestion
from poise.core.threat import Epsilon
from poise.evaluation.gate.evidence import Side
from poise.evaluation.gate.limit import EVERY, Gate, Limit

_LISTS = {"suites": "autoattack", "splits": "test", "overridden": "zero-gradients"}
"""Fields that hold names, with an example of each."""
_GATE = ("limits", "confidence", "joint", "grid", "unchecked", *_LISTS)
_LIMIT = ("figure", *get_args(Side), "at", "class", "every_class", "by")
_LONG = 300
_PERCENT = re.compile(r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)\s*%")


def read_gate(path: Path) -> Gate:
    """The gate that a YAML file holds.

    Raises:
        Misuse: for anything in it that is not understood, with the place and the nearest valid name.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Strict)  # noqa: S506 - it is a safe loader
    except FileNotFoundError:
        raise Misuse(f"there is no gate at {path}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise Misuse(f"{path} cannot be read as a gate: {' '.join(str(error).split())[:_LONG]}") from error
    try:
        return parse_gate(tree)
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None


def parse_gate(tree: Any) -> Gate:
    """The gate that a tree of YAML stands for.

    Args:
        tree: a mapping with `limits`, a list of mappings, and optionally the other fields of `Gate`.

    Raises:
        Misuse: as `read_gate`.
    """
    fields = _mapping(tree, _GATE, "a gate")
    limits = fields.pop("limits", None)
    if not isinstance(limits, list) or not limits:
        raise Misuse("a gate holds 'limits', a list of at least one, such as - {figure: clean_flips, at_most: 1 %}")
    if "confidence" in fields:
        fields["confidence"] = _number("confidence", fields["confidence"], "0.95, or 95 %")
    fields |= {name: _names(name, fields[name]) for name in _LISTS if name in fields}
    for name in fields.get("suites", ()):
        meant = {_bare(suite): suite for suite in SUITES}.get(_bare(name), name)
        if meant != name:
            raise Misuse(f"unknown suite {name!r}; did you mean {meant!r}?")
    return Gate(limits=tuple(_numbered(place, each) for place, each in enumerate(limits, 1)), **fields)


def _numbered(place: int, tree: Any) -> Limit:
    try:
        return _limit(tree)
    except Misuse as error:
        raise Misuse(f"limit {place}: {error}") from None


def _limit(tree: Any) -> Limit:
    fields = _mapping(tree, _LIMIT, "a limit")
    if "figure" not in fields:
        raise Misuse("a limit names its figure, such as figure: clean_flips")
    if not isinstance(fields["figure"], str):
        raise Misuse(f"figure is a name such as clean_flips; got {fields['figure']!r}")
    sides = [side for side in get_args(Side) if side in fields]
    if len(sides) != 1:
        raise Misuse(f"a limit says either at_most or at_least; got {' and '.join(sides) or 'neither'}")
    options: dict[str, Any] = {
        "figure": fields["figure"],
        "side": sides[0],
        "value": _limiting(sides[0], fields[sides[0]]),
    }
    if "at" in fields:
        options["at"] = EVERY if fields["at"] == EVERY else _epsilon(fields["at"])
    if "class" in fields:
        options["of"] = _class_name(fields["class"])
    if "every_class" in fields:
        if not isinstance(fields["every_class"], bool):
            raise Misuse(f"every_class is true or false; got {fields['every_class']!r}")
        options["every_class"] = fields["every_class"]
    return Limit(**options, **({"by": fields["by"]} if "by" in fields else {}))


def _limiting(side: str, value: Any) -> float:
    """The value of a limit, unless it is one that nothing breaks and that nobody writes on purpose."""
    number = _number(side, value)
    if value == {"at_most": 1, "at_least": -1}[side]:
        raise Misuse(f"nothing breaks {side}: {value}; did you mean {value:g} %? (100 % is written so)")
    return number


def _class_name(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Misuse(f"class is a name, in quotes where YAML means something else by it; got {value!r}")
    if value == "":
        raise Misuse("class is a name; got an empty one")
    return str(value)


def _mapping(tree: Any, known: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        raise Misuse(f"{what} is a mapping with {', '.join(known)}; got {tree!r}")
    for name in tree:
        if name not in known:
            raise Misuse(f"{what} has no {name!r}; {suggestion(str(name), known)}")
    return dict(tree)


def _names(name: str, value: Any) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed or not all(isinstance(each, str) and each for each in listed):
        raise Misuse(f"{name} is a name such as {_LISTS[name]}, or a list of names; got {value!r}")
    return tuple(listed)


def _bare(name: str) -> str:
    """A name without what people spell in different ways."""
    return "".join(filter(str.isalnum, name.lower()))


def _number(name: str, value: Any, example: str = "0.005, or 0.5 %") -> float:
    if isinstance(value, str) and (percent := _PERCENT.fullmatch(value.strip())):
        return float(percent[1]) / 100
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Misuse(f"{name} is a number such as {example}; got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise Misuse(f"{name} is a number such as {example}; got one of {len(str(value))} digits") from None


def _epsilon(value: Any) -> Epsilon:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Misuse(f"at is an epsilon such as 8/255, or every; got {value!r}")
    return Epsilon(value)


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)

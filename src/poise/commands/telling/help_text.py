"""The help of a verb in the words of the documentation: dashes, short kinds, defaults as people write them."""

from __future__ import annotations

import re
from argparse import SUPPRESS, Action
from collections.abc import Iterable, Mapping
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from jsonargparse import DefaultHelpFormatter, Namespace

from poise.commands.recipe import FAMILIES, expanded, members, plain
from poise.core.threat import Epsilon

_OPTION = re.compile(r"(?<![\w-])--[\w.]+")
_HELP_FOR = re.compile(r"Help for (--[\w.]+)\.help=(\S+)")
_BLANKS = re.compile(r" +(?=\]|\n)")
"""What is left behind an option that takes no word."""

_LISTED = ("attack", "distance", "judge")
"""Families whose kinds stand behind an option's words; of the others, the words say which ones the verb takes."""

_WORDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    Epsilon: "number or fraction",
    NoneType: "null",
}


class HelpFormatter(DefaultHelpFormatter):
    """Help that names options, kinds, types and defaults as recipes and the documentation do."""

    def format_help(self) -> str:
        """The whole text; dashes and underscores are as wide, so that lines stay as they were broken."""
        text = _OPTION.sub(lambda found: with_dashes(found[0]), super().format_help())
        return _BLANKS.sub("", text)

    def add_text(self, text: str | None) -> None:
        """A paragraph; that above the options of a kind names it as on the command line."""
        if text is not None and (found := _HELP_FOR.fullmatch(text)):
            text = f"{found[1]} {_kind_of(found[2])[1]}"
        super().add_text(text)

    def _get_help_string(self, action: Action) -> str:
        kind = getattr(action, "_typehint", None)
        if kind is None:
            return str(super()._get_help_string(action))
        if action.dest.endswith(".help"):
            return "the options of " + ("this one" if action.nargs == 0 else "a kind, with their defaults")
        known = members(_family(action)) if _family(action) in _LISTED else ()
        closed = kind is bool or get_origin(kind) is Literal
        facts = [
            "required" if action.required else "",
            f"{', '.join(sorted(known))}, or an import path" if known else "",
            "" if closed or _family(action) else type_in_words(kind),
            "" if action.required or action.default == SUPPRESS else f"default: {default_in_words(action.default)}",
        ]
        return f"{action.help or ''} ({'; '.join(filter(None, facts))})".strip()

    def _format_args(self, action: Action, default_metavar: Any) -> str:
        kind = getattr(action, "_typehint", None)
        if kind is bool and action.default is False:
            return ""
        if _family(action) or (action.dest.endswith(".help") and action.nargs != 0):
            return "KIND"
        return str(super()._format_args(action, default_metavar))


def with_dashes(option: str) -> str:
    """An option as the documentation writes it; with underscores it is read as well."""
    return option.replace("_", "-")


def type_in_words(kind: Any, *, many: bool = False) -> str:
    """What an option takes, for people.

    Args:
        kind: its type.
        many: whether several of these are spoken of.
    """
    if kind in _WORDS:
        return _WORDS[kind] + ("s" if many else "")
    inner = [part for part in get_args(kind) if part is not Ellipsis]
    if get_origin(kind) is Literal:
        return _either(map(str, inner))
    if get_origin(kind) in {list, tuple}:
        return f"list{'s' if many else ''} of {type_in_words(inner[0], many=True)}"
    if get_origin(kind) in {Union, UnionType}:
        kept = [part for part in inner if not (part is str and Path in inner)]
        said = [get_args(part) if get_origin(part) is Literal else [type_in_words(part, many=many)] for part in kept]
        return _either(map(str, chain.from_iterable(said)))
    return str(getattr(kind, "__name__", kind)).lower()


def default_in_words(value: Any) -> str:
    """A default as one would write it on the command line or in a recipe."""
    brief = _brief(value)
    if isinstance(brief, str):
        return brief
    return yaml.safe_dump(brief, default_flow_style=True, sort_keys=False, width=1000).removesuffix("...\n").strip()


def _either(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else str(last)


def _family(action: Action) -> str:
    """The family whose member an option holds; "" for none."""
    last = action.dest.rpartition(".")[2]
    return last if last in FAMILIES else ""


def _brief(value: Any) -> Any:
    """A value as in a recipe; of a member, its kind and what is not as the kind has it by default."""
    if isinstance(value, Namespace):
        value = value.as_dict()
    if not (isinstance(value, Mapping) and "class_path" in value):
        return plain(value)
    family, kind = _kind_of(value["class_path"])
    usual = expanded({family: kind})[family]["init_args"]
    options = {name: _brief(inner) for name, inner in value.get("init_args", {}).items()}
    own = {name: inner for name, inner in options.items() if inner != _brief(usual.get(name))}
    return {"kind": kind, **own} if own else kind


def _kind_of(path: str) -> tuple[str, str]:
    """The family and the short name of a member, from any path by which it can be imported."""
    module, _, name = path.rpartition(".")
    member = getattr(import_module(module), name)
    home = f"{member.__module__}.{member.__qualname__}"
    known = {found: (family, kind) for family in FAMILIES for kind, found in members(family).items()}
    return known.get(home, (next(iter(FAMILIES)), path))  # a path is the same in every family

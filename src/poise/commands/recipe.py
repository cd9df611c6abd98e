"""Recipes: the complete options of a command as YAML that people can read, write and run again.

A member of a family (schedule, objective, attack, distance) stands in a recipe as its name and its options:

    schedule: {kind: hinge, start: 0.25, stop: 0.75}

A class of the user's own stands there by its import path in place of the name: ``kind: my_package.MySchedule``. What an
option holds is told by its name (`FAMILIES`), in classes of the user's own too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from poise.core.files import write_text
from poise.core.misuse import Misuse, first_line, shortened, suggestion
from poise.core.run_folder import RunFolder
from poise.core.threat import Epsilon

_FIRST_LINE = re.compile(r"# poise (\w+) --config ")
_HOMELESS = re.compile(r"kind: (__main__\.\S+|\S+<locals>\S+)")

FAMILIES = {
    "schedule": "poise.schedules.Schedule",
    "objective": "poise.objectives.Objective",
    "attack": "poise.attacks.Attack",
    "distance": "poise.objectives.Distance",
    "judge": "poise.attacks.Attack",
    "transfer": "poise.training.Transfer",
}
"""Options that hold a member of a family, by the last part of their name, with the family's base class."""


def members(family: str) -> dict[str, str]:
    """Short names of poise's own members of a family, with their import paths; others go by their paths alone.

    Args:
        family: a key of `FAMILIES`.
    """
    found, waiting = {}, list(_base(family).__subclasses__())
    while waiting:
        member = waiting.pop()
        waiting += member.__subclasses__()
        if not member.__abstractmethods__ and member.__module__.startswith("poise."):
            found[_short_name(member)] = f"{member.__module__}.{member.__qualname__}"
    return found


def fields_of(family: str, kind: str) -> list[str]:
    """Names of the options of a family's member."""
    module, _, name = import_path(family, kind).rpartition(".")
    return [field.name for field in fields(getattr(import_module(module), name))]


def _short_name(member: type) -> str:
    """What a member is called: its own "kind" where it has one, else its class's name."""
    return str(vars(member).get("kind", member.__name__.lower()))


def import_path(family: str, kind: str) -> str:
    """The import path of a member, given by its short name or by the path itself.

    Raises:
        Misuse: for an unknown name, with the nearest valid one.
    """
    known = members(family)
    if "." in kind or kind in known.values():
        if homeless(f"kind: {kind}") and not _is_here(kind):
            raise Misuse(
                f"{kind} was defined in a script or a notebook; move it to a module, and name that in the recipe"
            )
        return kind
    if kind.lower() not in known:
        raise Misuse(f"unknown {family} {kind!r}; {suggestion(kind.lower(), known)}")
    return known[kind.lower()]


def _is_here(path: str) -> bool:
    """Whether this process is the script that defines a class."""
    module, _, name = path.partition(".")
    return hasattr(import_module(module), name) if module == "__main__" else False


def expanded(tree: Any) -> Any:
    """A recipe's tree in the form that the option parser reads: kinds become import paths and all their arguments.

    What a recipe leaves out stands there as the member's own default: the parser would keep what it had before for
    another member wherever an argument has the same name.
    """
    if not isinstance(tree, dict):
        return tree
    return {key: _member(key, value) if key in FAMILIES else expanded(value) for key, value in tree.items()}


def _member(family: str, value: Any) -> Any:
    named = {"kind": value} if isinstance(value, str) else value
    if not isinstance(named, dict) or "kind" not in named:
        return expanded(value)
    path = import_path(family, str(named["kind"]))
    options = _defaults(path)
    for key, inner in named.items():
        changes = isinstance(inner, dict) and "kind" not in inner and isinstance(options.get(key), dict)
        options[key] = options[key] | inner if changes else inner
    del options["kind"]
    return {"class_path": path, "init_args": expanded(options)}


def _defaults(path: str) -> dict[str, Any]:
    """The arguments of a class that have a default, with it; none for a class that is no dataclass, or is not there."""
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return {}  # the parser says so better
    found = {}
    for field in fields(kind) if is_dataclass(kind) else ():
        if field.init and field.default_factory is not MISSING:
            found[field.name] = plain(field.default_factory())
        elif field.init and field.default is not MISSING:
            found[field.name] = plain(field.default)
    return found


def plain(value: Any) -> Any:
    """An option's value as YAML can hold it, in the form that people write."""
    if isinstance(value, Epsilon):
        return str(value)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        _refuse_forgetful(type(value))
        options = {field.name: getattr(value, field.name) for field in fields(value)}
        for name, option in options.items():
            _refuse_unreadable(type(value), name, option)
        return _named(type(value)) | {name: plain(option) for name, option in options.items()}
    return value.item() if isinstance(value, np.generic) else value


def _refuse_forgetful(kind: type) -> None:
    """Refuse a class whose own arguments no recipe would keep: it inherits being a dataclass, and has an `__init__`."""
    if "__init__" in vars(kind) and "__dataclass_fields__" not in vars(kind):
        raise Misuse(
            f"{kind.__module__}.{kind.__qualname__} has an __init__ of its own, whose arguments no recipe could keep; "
            "make it a dataclass: @dataclass(frozen=True, kw_only=True)"
        )


def _refuse_unreadable(kind: type, name: str, option: Any) -> None:
    """Refuse an option that no recipe would know again: its name alone tells whether it holds a member of a family."""
    if not _is_known_by(name, option):
        raise Misuse(
            f"{name} of {kind.__module__}.{kind.__qualname__} holds {_called(option)}, which no recipe could read "
            f"again; recipes know such options by their names: {', '.join(FAMILIES)}"
        )


def _is_known_by(name: str, option: Any) -> bool:
    """Whether a recipe that holds an option by this name reads the same again."""
    if isinstance(option, (list, tuple)):
        return all(_is_known_by("", each) for each in option)
    if isinstance(option, Mapping):
        return name not in FAMILIES and all(_is_known_by(str(key), each) for key, each in option.items())
    families = _families(type(option))
    return name in families if families else name not in FAMILIES or not isinstance(option, str)


def _called(option: Any) -> str:
    """What a message calls an option: a member of a family by its name, anything else as it is."""
    return _named(type(option)).get("kind") or shortened(plain(option))


def _named(kind: type) -> dict[str, str]:
    """How a member of a family says what it is; nothing for other classes."""
    path = f"{kind.__module__}.{kind.__qualname__}"
    for family in _families(kind):
        return {"kind": _short_name(kind) if path in members(family).values() else path}
    return {}


def _families(kind: type) -> list[str]:
    """Names of options that may hold a class."""
    return [family for family in FAMILIES if issubclass(kind, _base(family))]


def _base(family: str) -> Any:
    """The base class of a family."""
    module, _, name = FAMILIES[family].rpartition(".")
    return getattr(import_module(module), name)


def recipe_of_verb(text: str) -> str:
    """The verb that a recipe's first line says it is for; "" where it says nothing."""
    found = _FIRST_LINE.match(text)
    return found[1] if found else ""


def recipe_text(verb: str, options: Mapping[str, Any]) -> str:
    """A recipe as a file's text.

    Raises:
        Misuse: naming an option that holds what no file can.
    """
    body = "".join(_line(name, value) for name, value in options.items())
    return f"# poise {verb} --config recipe.yaml\n{body}"


def _line(name: str, value: Any) -> str:
    """An option of a recipe, with all that it holds."""
    try:
        return yaml.safe_dump({name: plain(value)}, sort_keys=False, allow_unicode=True, width=120)
    except yaml.representer.RepresenterError as error:
        kind = type(error.args[-1]).__name__
        raise Misuse(f"{name} holds a {kind}, which a recipe cannot keep; give numbers, texts and options") from None


def homeless(text: str) -> list[str]:
    """Classes in a recipe's text that no other process can import: those of a script, a notebook or a function."""
    return sorted(set(_HOMELESS.findall(text)))


def write_recipe(folder: RunFolder, verb: str, options: Mapping[str, Any]) -> None:
    """Keep a run's options in its folder."""
    write_text(folder.recipe, recipe_text(verb, options))


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe as a tree, in the form in which people write it.

    Raises:
        Misuse: if it cannot be read as YAML with options at its top.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise Misuse(f"{path} cannot be read as a recipe: {first_line(error)}") from error
    if not isinstance(tree, dict):
        raise Misuse(f"{path} is no recipe: it must hold options, one a line, such as 'data: digits'")
    return tree


def options_among(scope: Mapping[str, Any], verb: Callable[..., Any], *, but: Collection[str] = ()) -> dict[str, Any]:
    """The options of a verb as its function has them, from its `locals()`: what its signature names, and nothing else.

    Args:
        scope: names and values.
        verb: the function.
        but: options to leave out.
    """
    return {name: scope[name] for name in signature(verb).parameters if name not in but}


def changes(folder: RunFolder, options: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Options that are others than those a run was started with: what they were then, and what they are now."""
    kept, now = read_recipe(folder.recipe), plain(options)
    names = sorted(set(kept) | set(now))
    return {name: (kept.get(name), now.get(name)) for name in names if kept.get(name) != now.get(name)}


def refuse_changes(
    folder: RunFolder, options: Mapping[str, Any], ignored: tuple[str, ...], how: str | None = None
) -> None:
    """Refuse to resume a run with other options than it was started with.

    Args:
        folder: the run's.
        options: what is asked for now.
        ignored: names of options that may differ.
        how: how to go on with it, as an imperative; by default from its recipe.

    Raises:
        Misuse: naming the first option that differs.
    """
    for name, both in changes(folder, options).items():
        if name not in ignored:
            part, then, now = _narrowed(name, *both)
            how = how or f"resume it with --config {folder.recipe} --resume"
            raise Misuse(f"{folder.path} was started with {part} {then}, not {now}; {how}")


def _narrowed(name: str, then: Any, now: Any) -> tuple[str, Any, Any]:
    """The first of nested options that differs, by its dotted name; what kind it is comes first."""
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return name, then, now
    names = sorted({*then, *now}, key=lambda inner: (inner != "kind", inner))
    inner = next(each for each in names if then.get(each) != now.get(each))
    return _narrowed(f"{name}.{inner}", then.get(inner), now.get(inner))

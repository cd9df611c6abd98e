"""The option parser's complaints, in the words of people."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import import_module

from poise.commands.recipe import FAMILIES, members
from poise.core.misuse import suggestion

_HELP = re.compile(r"\s*\(see poise \w+ --help\)")
_KEY = re.compile(r'Parser key "([\w.]+)":')
_CHOICE = re.compile(r"Expected a typing\.Literal\[([^\]]+)\]\.? Got value: (\S+)")
_TYPE = re.compile(r"Expected a <class '(\w+)'>\.? Got value: (\S+)")
_MEMBER_OPTION = re.compile(r"--(\w+): Option '(\w+)' is not accepted")
_REQUIRED = re.compile(r"the following arguments are required: (.+)")


def readable(message: str, verb: str) -> str:
    """One line that says which option is wrong, what came and what is allowed.

    Args:
        message: the parser's own words.
        verb: the command, for the pointer to its help.
    """
    line = " ".join(_HELP.sub("", message).split())
    line = line.replace("Not of type Epsilon: ", "")
    line = _KEY.sub(lambda found: f"--{found[1]}:", line)
    line = _CHOICE.sub(lambda found: f"{found[2]!r} is unknown; {_nearest(found[2], found[1])}", line)
    line = _TYPE.sub(lambda found: f"expected {_kind(found[1])}; got {found[2]!r}", line)
    line = _MEMBER_OPTION.sub(lambda found: _unknown_member_option(found[1], found[2]), line)
    line = _REQUIRED.sub(lambda found: f"missing: {', '.join(f'--{name}' for name in found[1].split(', '))}", line)
    return f"{line} (see poise {verb} --help)"


def _nearest(word: str, choices: str) -> str:
    return suggestion(word, (choice.strip(" '\"") for choice in choices.split(",")))


def _kind(name: str) -> str:
    return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}.get(name, name)


def _unknown_member_option(family: str, option: str) -> str:
    """An option that the member has not: whose it is, or the nearest that one has."""
    options: dict[str, set[str]] = {}
    for kind, path in members(family).items() if family in FAMILIES else ():
        module, _, name = path.rpartition(".")
        options[kind] = {field.name for field in fields(getattr(import_module(module), name))}
    if owners := [kind for kind, known in options.items() if option in known]:
        return f"'--{family}.{option}' is an option of {' and '.join(owners)}; choose with --{family} {owners[0]}"
    return f"unknown option '--{family}.{option}'; {suggestion(option, set().union(*options.values()))}"

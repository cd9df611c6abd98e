"""Functions of other people's modules, by their addresses: `python:PACKAGE.MODULE:NAME`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from poise.core.misuse import Misuse, suggestion

KIND = "python"
"""What such an address begins with, before the first colon."""


def is_foreign(address: str) -> bool:
    """Whether an address names a function of somebody's module."""
    return address.startswith(f"{KIND}:")


def foreign(address: str) -> Callable[..., Any]:
    """The function, or anything else that can be called, that stands at an address; its module is imported.

    Raises:
        Misuse: for an address of another form, and where there is no such module, or nothing callable in it.
    """
    kind, _, name = address.partition(":")
    module_name, colon, attribute = name.partition(":")
    words = [*module_name.split("."), attribute]
    if not (kind == KIND and colon and all(word.isidentifier() for word in words)):
        raise Misuse(f"a Python address reads python:PACKAGE.MODULE:NAME; got {address!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise Misuse(f"{address}: no module {error.name!r} on the import path (PYTHONPATH adds folders)") from None
    found = getattr(module, attribute, None)
    if not callable(found):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise Misuse(f"{module_name} has no callable {attribute!r}; {suggestion(attribute, public)}")
    return found  # type: ignore[no-any-return]


def text_around(thing: object) -> str:
    """The text of the module in which a function or class stands, as it was when it was first asked for.

    Of a partial function that which stands in it counts, and of any other object that can be called its class. Empty
    where there is no text, as in an interpreter.
    """
    while isinstance(thing, partial):
        thing = thing.func
    whose: Any = thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    return _text_around(whose)


@cache
def _text_around(thing: Any) -> str:
    try:
        return inspect.getsource(inspect.getmodule(thing) or thing)
    except (OSError, TypeError):
        return ""


def check_call(function: Callable[..., Any], address: str, options: Mapping[str, object]) -> None:
    """Refuse named arguments that a function does not take, or too few of them.

    Raises:
        Misuse: naming the address and what does not fit.
    """
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        raise Misuse(f"{address} cannot be called with {dict(options)}: {error}") from None

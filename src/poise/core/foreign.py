"""Functions of other people's modules, by their addresses: `python:PACKAGE.MODULE:NAME`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
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
    if not (kind == KIND and module_name and colon and attribute):
        raise Misuse(f"a Python address reads python:PACKAGE.MODULE:FACTORY; got {address!r}")
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


def check_call(function: Callable[..., Any], address: str, options: Mapping[str, object]) -> None:
    """Refuse named arguments that a function does not take, or too few of them.

    Raises:
        Misuse: naming the address and what does not fit.
    """
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        raise Misuse(f"{address} cannot be called with {dict(options)}: {error}") from None

"""The errors that a person is told in one line: a request that cannot be honoured, and work that could not go on."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class Misuse(ValueError):  # noqa: N818 - it names the fault, and reads as one
    """A request that cannot be honoured, in one readable line.

    The message says what was wrong, what came, what is allowed and what to do. The command line prints it as it is
    and exits with 2; from Python it is an ordinary `ValueError`.
    """


class Failure(RuntimeError):  # noqa: N818 - as above
    """Work that began and could not go on, in one readable line that says what is left and what to try.

    The command line prints it as it is and exits with 1.
    """


def suggestion(word: str, choices: Iterable[str]) -> str:
    """The nearest valid choice as a clause, or the whole list when nothing is near.

    Args:
        word: what came.
        choices: what would have been valid.

    Returns:
        ``"did you mean 'hinge'?"`` or ``"valid: fixed, hinge"``; ``"there is none"`` where nothing would have been.
    """
    known = sorted(choices)
    if not known:
        return "there is none"
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(known)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message without its final full stop; the error's type where it says nothing."""
    return _message(error) or type(error).__name__


def kind_and_line(error: BaseException) -> str:
    """The error's type, and the first line of its message where there is one."""
    return ": ".join(filter(None, (type(error).__name__, _message(error))))


def _message(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "").rstrip(".")


def check_choice(name: str, given: object, allowed: Iterable[str]) -> None:
    """Refuse what is none of a closed set.

    Args:
        name: what is chosen, such as "norm".
        given: what came.
        allowed: what would have been valid.

    Raises:
        Misuse: ``unknown norm 'l3'; valid: l1, l2, linf``.
    """
    known = tuple(allowed)
    if given not in known:
        raise Misuse(f"unknown {name} {given!r}; {suggestion(str(given), known)}")


def shortened(value: object) -> str:
    """A value as it stands in a message: items of a tuple with commas, at most 60 characters."""
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

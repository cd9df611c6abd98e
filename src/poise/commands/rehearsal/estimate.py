"""What a command would cost: `--dry-run`. A rehearsal ends where the work would begin, with everything checked.

A verb calls `rehearsed` at the place before which it has made nothing and refused whatever it can refuse. In an
ordinary run that does nothing. In a rehearsal the work is counted in passes through the networks, a pass of each is
timed on this machine, and the verb is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from poise.commands.recipe import recipe_text
from poise.commands.rehearsal.passes import Pace, Passes
from poise.commands.verbs import VERBS, function_of
from poise.core.misuse import Misuse
from poise.core.processes import process_state

_REHEARSING: ContextVar[bool] = ContextVar("rehearsing", default=False)


@dataclass(frozen=True)
class Work:
    """One kind of work of a command, all of it through one network.

    Args:
        label: what it is.
        pace: of the network.
        most: passes, as far as they are known before.
        least: passes where they depend on what is found; None where they do not.
    """

    label: str
    pace: Pace
    most: Passes
    least: Passes | None = None

    @property
    def range(self) -> tuple[float, float]:
        """Seconds, at least and at most."""
        return self.pace.seconds(self.most if self.least is None else self.least), self.pace.seconds(self.most)

    def __mul__(self, times: int) -> Work:
        label = self.label if times == 1 else f"{self.label}, {times} times"
        return Work(label, self.pace, self.most * times, None if self.least is None else self.least * times)

    def __str__(self) -> str:
        passes = str(self.most) if self.least in {None, self.most} else f"from {self.least} to {self.most}"
        return f"{self.label}: {passes}\n    {self.pace}\n    {span(*self.range)}"


@dataclass(frozen=True)
class Rehearsal:
    """What a command would do, and what that would cost on this machine.

    Args:
        recipe: all options, as a recipe's text.
        works: what is to be done.
        unknown: what the estimate leaves out, one sentence each.
    """

    recipe: str
    works: tuple[Work, ...]
    unknown: tuple[str, ...] = ()

    @property
    def range(self) -> tuple[float, float]:
        """Seconds of all work, at least and at most."""
        least, most = zip(*(work.range for work in self.works), strict=True) if self.works else ((), ())
        return sum(least), sum(most)

    def __str__(self) -> str:
        device = process_state().device.type
        threads = f", threads: {torch.get_num_threads()}" if device == "cpu" else ""
        lines = [
            self.recipe,
            f"cost, by passes timed on this machine ({device}{threads}):",
            *(f"  {work}" for work in self.works),
            f"  in all: {span(*self.range)}",
            "not in it:",
            *(f"  {sentence}" for sentence in (*self.unknown, *_ALWAYS)),
        ]
        return "\n".join(lines)


_ALWAYS = (
    "reading and decoding images, the arithmetic of optimiser and attacks, writing files, compilation",
    "what small batches lose: towards their end, attacks are left with few images, which take longer each",
    "what an interrupted run has done already: all is counted from the beginning",
)


def rehearse(verb: str, **options: Any) -> Rehearsal:
    """Everything that a command checks before it begins, and what it would cost; nothing is made or changed.

    Args:
        verb: finetune, update, mix, profile, certify or tune.
        options: those of the verb.

    Raises:
        Misuse: for what the command itself would refuse, and under several processes.
    """
    long = [name for name, known in VERBS.items() if known.long]
    if verb not in long:
        raise Misuse(f"{verb} does no long work that could be estimated; valid: {', '.join(long)}")
    return rehearsal_of(lambda: function_of(verb)(**options))


def rehearsal_of(action: Callable[[], object]) -> Rehearsal:
    """What a call that reaches `rehearsed` would do.

    Raises:
        Misuse: as the call does, and under several processes.
    """
    if process_state().num_processes > 1:
        raise Misuse("a dry run times the passes of one process; start it without accelerate launch")
    before = _REHEARSING.set(True)
    try:
        action()
    except _Ended as ended:
        return ended.rehearsal
    finally:
        _REHEARSING.reset(before)
    raise RuntimeError("a rehearsal ran to its end")


def rehearsed(
    verb: str, options: Mapping[str, object], works: Callable[[], Iterable[Work]], unknown: Sequence[str] = ()
) -> None:
    """In a rehearsal the end of it, else nothing.

    Args:
        verb: the command.
        options: all of its options, for the recipe.
        works: counts and times what is to be done.
        unknown: what they leave out, one sentence each.
    """
    if _REHEARSING.get():
        raise _Ended(Rehearsal(recipe_text(verb, options), tuple(works()), tuple(unknown)))


class _Ended(Exception):  # noqa: N818 - nothing has failed
    def __init__(self, rehearsal: Rehearsal) -> None:
        super().__init__("a rehearsal has come to its end")
        self.rehearsal = rehearsal


def span(least: float, most: float) -> str:
    """Seconds as a person reads them, or a range of them."""
    low, high = _duration(least), _duration(most)
    return high if low == high else f"{low} to {high}"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"

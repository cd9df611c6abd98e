"""Suites: which searches an evaluation runs, in which order, with which targets and restarts.

Beside poise's own, which have short names, stands whatever a function of somebody's module puts together.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from poise.attacks.apgd import APGD
from poise.attacks.fab import FAB, FABT
from poise.attacks.pgd_search import PGDSearch
from poise.attacks.search import Search
from poise.attacks.square import Square
from poise.core.files import digest_words
from poise.core.foreign import check_call, foreign, is_foreign
from poise.core.misuse import Misuse, check_choice
from poise.core.streams import Stream
from poise.core.threat import Norm

Suite = Literal["autoattack", "autoattack-plus", "autoattack-rand", "apgd", "pgd", "fast"]

SUITES: tuple[Suite, ...] = get_args(Suite)

MOST_TARGETS = 9
_LONGEST = 100
"""Steps of the gradient attacks of AutoAttack, and what a suite without any of these counts as."""
_RESTARTS = 5
_PASSES = 20


@dataclass(frozen=True)
class Unit:
    """The smallest piece of a suite: one search, at one target, in one of its restarts.

    Args:
        search: the attack.
        rank: which class a targeted search aims at: 0 the most likely wrong one on the clean image, and so on.
        restart: number of the attempt.
        through: the surrogate output whose gradient the search follows; "" for the model's own.
    """

    search: Search
    rank: int = 0
    restart: int = 0
    through: str = ""

    @property
    def name(self) -> str:
        """What profiles call it."""
        return f"{self.search.name} through {self.through}" if self.through else self.search.name

    def passes(self, classes: int) -> tuple[float, float]:
        """Forward and backward passes of an item that withstands it.

        A surrogate's count as the model's own, which is asked beside it.

        Args:
            classes: number of classes.
        """
        search = self.search
        sloped = search.queries * sum(search.rhythm) / len(search.rhythm)
        return search.queries * (2 if self.through else 1), sloped * search.slopes(classes)


def check_suite(suite: str) -> None:
    """Refuse a suite that there is not.

    Raises:
        Misuse: for an unknown name, and for an address at which no function stands.
    """
    if is_foreign(suite):
        foreign(suite)
    else:
        check_choice("suite", suite, SUITES)


def edition(suite: str) -> str:
    """What tells a suite of somebody's module from the one it was before a change: a digest of the module's text.

    Empty for poise's own, which go by poise's version, and for a module that has no text.
    """
    if not is_foreign(suite):
        return ""
    try:
        return digest_words([inspect.getsource(inspect.getmodule(foreign(suite)) or foreign(suite))])
    except (OSError, TypeError):
        return ""


def units(suite: str, norm: Norm, classes: int, stream: Stream) -> tuple[Unit, ...]:
    """The units of a suite, in the order in which an example meets them.

    autoattack: the published standard ensemble (Croce & Hein 2020): APGD on cross-entropy (100 steps), targeted APGD
    and targeted FAB (100 steps at each of the 9 most likely wrong classes), Square (5,000 queries); in l1 five restarts
    of APGD and 5 targets (Croce & Hein 2021). autoattack-plus: APGD on cross-entropy and on DLR and untargeted FAB with
    five restarts each, targeted APGD and FAB at 9 targets, Square. autoattack-rand: APGD on cross-entropy and on DLR,
    each answer the mean over 20 passes (`passes`), for models whose output is random. apgd: the first two of the
    standard ensemble. pgd: 40 steps. fast: APGD on cross-entropy with 10 steps, as arXiv 2509.23325 evaluates. The last
    two flatter a model.

    Differences from the official versions: in plus Square comes last, so that what it alone breaks can be told; in l1
    APGD has its tightening balls in every version, which official plus and rand leave out.

    python:PACKAGE.MODULE:FUNCTION: the searches and units that the function returns, called with norm, classes and
    stream by these names.

    Args:
        suite: name of the suite, or address of a function.
        norm: norm of the budget.
        classes: number of classes, at least 2; no more targets are used than there are wrong classes.
        stream: randomness of all searches.

    Raises:
        Misuse: for an unknown suite, and for a function that returns anything else, searches in another norm, none at
            all, or targets that there are not.
    """
    check_suite(suite)
    if is_foreign(suite):
        return _foreign_units(suite, norm, classes, stream)
    stages: dict[str, Callable[[], tuple[Unit, ...]]] = {
        "autoattack": lambda: (
            *_apgd(norm, classes, stream),
            *_targets(FABT(norm=norm, stream=stream), classes, MOST_TARGETS),
            Unit(_square(norm, stream)),
        ),
        "autoattack-plus": lambda: _plus(norm, classes, stream),
        "autoattack-rand": lambda: tuple(Unit(search) for search in _untargeted(norm, stream)),
        "apgd": lambda: _apgd(norm, classes, stream),
        "pgd": lambda: (Unit(PGDSearch(norm=norm, stream=stream)),),
        "fast": lambda: (Unit(APGD(norm=norm, stream=stream, steps=10)),),
    }
    return stages[suite]()


def adaptive(suite: tuple[Unit, ...], surrogates: Sequence[str]) -> tuple[Unit, ...]:
    """A suite with every search that follows gradients repeated through each surrogate output of a model.

    The model's own suite comes first, whole and in its own order; the surrogates follow search by search, the cheapest
    first. An example that withstands everything thus costs the suite's gradient searches once more for every surrogate,
    each step with one forward pass of the model itself beside the surrogate's two passes.

    Args:
        suite: the units of a suite.
        surrogates: names of the outputs.
    """
    searches = list(dict.fromkeys(id(unit.search) for unit in suite if any(unit.search.rhythm)))
    further = []
    for search in searches:
        members = [unit for unit in suite if id(unit.search) == search]
        for name in surrogates:
            anew = replace(members[0].search, stream=members[0].search.stream.fold("through", name))
            further += [replace(unit, search=anew, through=name) for unit in members]
    return (*suite, *further)


def longest(suite: str, norm: Norm, classes: int) -> int:
    """Steps of the longest APGD or PGD of a suite; 100 for a suite with neither.

    Args:
        suite: name of the suite, or address of a function.
        norm: norm of the budget.
        classes: number of classes.
    """
    searches = [unit.search for unit in units(suite, norm, classes, Stream.seeded(0))]
    return max((search.steps for search in searches if isinstance(search, APGD | PGDSearch)), default=_LONGEST)


def passes(suite: str) -> int:
    """Forward passes that a suite averages over: 20 for models whose output is random, 1 for all others."""
    return _PASSES if suite == "autoattack-rand" else 1


def _foreign_units(suite: str, norm: Norm, classes: int, stream: Stream) -> tuple[Unit, ...]:
    """What somebody's function puts together, where it can be run."""
    function = foreign(suite)
    given = {"norm": norm, "classes": classes, "stream": stream}
    check_call(function, suite, given)
    found: Any = function(**given)
    if not isinstance(found, Iterable):
        raise Misuse(f"{suite} must return searches or units; it returned {type(found).__name__}")
    members = tuple(Unit(each) if isinstance(each, Search) else each for each in found)
    if not members:
        raise Misuse(f"{suite} returned no search")
    ranks = min(MOST_TARGETS, classes - 1)
    for each in members:
        if not isinstance(each, Unit):
            raise Misuse(f"{suite} must return searches or units; among them was {type(each).__name__}")
        if each.search.norm != norm:
            raise Misuse(f"{suite} was asked for {norm}; its {each.search.name} is in {each.search.norm}")
        if not 0 <= each.rank < ranks:
            raise Misuse(f"{suite}: ranks of targets are 0 to {ranks - 1} with {classes} classes; got {each.rank}")
        if each.through:
            raise Misuse(f"{suite}: poise adds what goes through other outputs by itself; leave {each.through!r} out")
    return members


def _plus(norm: Norm, classes: int, stream: Stream) -> tuple[Unit, ...]:
    again = (*_untargeted(norm, stream), FAB(norm=norm, stream=stream))
    aimed = APGD(norm=norm, stream=stream, loss_kind="targeted-dlr"), FABT(norm=norm, stream=stream)
    return (
        *(Unit(search, restart=index) for search in again for index in range(_RESTARTS)),
        *(unit for search in aimed for unit in _targets(search, classes, MOST_TARGETS)),
        Unit(_square(norm, stream)),
    )


def _untargeted(norm: Norm, stream: Stream) -> tuple[APGD, APGD]:
    return APGD(norm=norm, stream=stream), APGD(norm=norm, stream=stream, loss_kind="dlr")


def _square(norm: Norm, stream: Stream) -> Square:
    return Square(norm=norm, stream=stream, span=10_000)


def _apgd(norm: Norm, classes: int, stream: Stream) -> tuple[Unit, ...]:
    restarts, targets = (5, 5) if norm == "l1" else (1, MOST_TARGETS)
    plain = APGD(norm=norm, stream=stream)
    targeted = APGD(norm=norm, stream=stream, loss_kind="targeted-dlr")
    return (*(Unit(plain, restart=index) for index in range(restarts)), *_targets(targeted, classes, targets))


def _targets(search: Search, classes: int, most: int) -> tuple[Unit, ...]:
    return tuple(Unit(search, rank=rank) for rank in range(min(most, classes - 1)))

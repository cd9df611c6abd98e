"""Suites: which searches an evaluation runs, in which order, with which targets and restarts.

Beside poise's own, which have short names, stands whatever a function of somebody's module puts together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from poise.attacks.apgd import APGD
from poise.attacks.fab import FAB, FABT
from poise.attacks.guest import Guest
from poise.attacks.pgd_search import PGDSearch
from poise.attacks.search import Search
from poise.attacks.square import Square
from poise.core.files import digest_words
from poise.core.foreign import check_call, foreign, is_foreign, text_around
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
_PACKAGE = __name__.partition(".")[0]
_DIGITS = 8
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Where an object lies in memory, which its printed form may say, and which differs from process to process."""


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


def check_suite(suite: object) -> None:
    """Refuse a suite that there is not.

    Raises:
        Misuse: for an unknown name, and for an address at which no function stands.
    """
    if not isinstance(suite, str):
        raise Misuse(f"a suite is a name, or python:PACKAGE.MODULE:NAME for one of your own; got {suite!r}")
    if is_foreign(suite):
        foreign(suite)
    elif ":" in suite or "." in suite:
        raise Misuse(f"a suite of your own reads python:PACKAGE.MODULE:NAME; got {suite!r}")
    else:
        check_choice("suite", suite, SUITES)


def signed(suite: str, norm: Norm, classes: int) -> str:
    """What profiles call a suite: its name, and of one of somebody's module with what tells it from another version.

    That is a digest of the texts, as they were imported, of the modules in which the function and its searches stand,
    and of the searches with all their settings. What these modules import in turn is not in it, nor is what has no
    text, such as a function that was typed into an interpreter.

    Args:
        suite: name of the suite, or address of a function.
        norm: norm of the budget.
        classes: number of classes.
    """
    if not is_foreign(suite):
        return suite
    members = units(suite, norm, classes, Stream.seeded(0))
    guests = [unit.search.inner for unit in members if isinstance(unit.search, Guest)]
    texts = dict.fromkeys(map(text_around, (foreign(suite), *map(type, guests))))
    return f"{suite}@{digest_words([*texts, *(_ADDRESS.sub('', repr(unit)) for unit in members)])[:_DIGITS]}"


def is_of(suite: str, wanted: str) -> bool:
    """Whether a suite, as a profile calls it, is a wanted one: the same, or any version of the same function's."""
    return suite == wanted or (is_foreign(wanted) and suite.startswith(f"{wanted}@"))


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
        Misuse: for an unknown suite, and for a function that returns anything else, searches that break a promise or
            are in another norm, none at all, or targets that there are not.
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
    plain = [search.inner if isinstance(search, Guest) else search for search in searches]
    return max((search.steps for search in plain if isinstance(search, APGD | PGDSearch)), default=_LONGEST)


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
    watched: dict[int, Search] = {}
    for each in members:
        _check_unit(each, suite, norm, min(MOST_TARGETS, classes - 1))
        if not type(each.search).__module__.startswith(f"{_PACKAGE}."):
            watched.setdefault(id(each.search), Guest.of(each.search))
    return tuple(replace(each, search=watched.get(id(each.search), each.search)) for each in members)


def _check_unit(unit: Any, suite: str, norm: Norm, ranks: int) -> None:
    """Refuse what is no unit of a suite in this norm, with so many targets."""
    if not (isinstance(unit, Unit) and isinstance(unit.search, Search)):
        kind = type(unit.search if isinstance(unit, Unit) else unit).__name__
        raise Misuse(f"{suite} must return searches or units; among them was {kind}")
    if unit.search.norm != norm:
        raise Misuse(f"{suite} was asked for {norm}; its {unit.search.name} is in {unit.search.norm}")
    rank: Any = unit.rank
    if not (isinstance(rank, int) and 0 <= rank < ranks):
        raise Misuse(f"{suite}: ranks of targets are 0 to {ranks - 1} with these classes; got {rank!r}")
    restart: Any = unit.restart
    if not (isinstance(restart, int) and restart >= 0):
        raise Misuse(f"{suite}: restarts are numbered from 0; got {restart!r}")
    if unit.through:
        raise Misuse(f"{suite}: poise adds what goes through other outputs by itself; leave {unit.through!r} out")


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

"""Searches that somebody else wrote, held to what every search promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from poise.attacks.search import Answer, Problem, Search, State
from poise.core.misuse import Misuse
from poise.core.streams import Stream

_ASKED = "queries of a guest"
"""Under which name a guest's state counts the queries of each slot, beside what the search itself remembers."""
_TRIED = 2
"""Images on which a guest is tried, and rounds of its rhythm."""


@dataclass(frozen=True, kw_only=True)
class Guest(Search):
    """A search that is watched: what it is given are copies, and what it returns has the promised form.

    So nothing that it does to its arguments reaches the verdicts, an item ends after `queries` answers whatever the
    search says, and every point is looked at for ball and box, not its successes alone.

    Args:
        inner: the search; `norm` and `stream` are taken from here, so that `replace` gives it another stream.
    """

    inner: Search

    @classmethod
    def of(cls, search: Search) -> Guest:
        """The guest that a search is.

        Raises:
            Misuse: for a search that no profile could name, count or repeat.
        """
        kind, name = type(search).__name__, search.name
        if not _is_name(name):
            raise Misuse(
                f"{kind}.name must be a line that profiles can show, not 'clean' or '... through ...'; got {name!r}"
            )
        if not _is_count(search.queries):
            raise Misuse(f"{name}: queries must be a whole number of at least 1; got {search.queries!r}")
        rhythm: Any = search.rhythm
        if not (isinstance(rhythm, tuple) and rhythm and all(isinstance(beat, bool) for beat in rhythm)):
            raise Misuse(f"{name}: rhythm must be a tuple of at least one True or False; got {rhythm!r}")
        try:
            replace(search, stream=search.stream)
        except TypeError as error:
            raise Misuse(
                f"{kind} must be a dataclass (frozen, keywords only), so that it can be repeated: {error}"
            ) from None
        return cls(norm=search.norm, stream=search.stream, inner=search)

    @cached_property
    def _search(self) -> Search:
        return replace(self.inner, stream=self.stream)

    @property
    def name(self) -> str:
        """See `Search.name`."""
        return self.inner.name

    @property
    def queries(self) -> int:
        """See `Search.queries`."""
        return self.inner.queries

    @property
    def rhythm(self) -> tuple[bool, ...]:
        """See `Search.rhythm`."""
        return self.inner.rhythm

    def slopes(self, classes: int) -> int:
        """See `Search.slopes`."""
        return self.inner.slopes(classes)

    @property
    def stays_inside(self) -> bool:
        """Whatever the search says of itself, every point is looked at."""
        return False

    @property
    def targeted(self) -> bool:
        """See `Search.targeted`."""
        return self.inner.targeted

    def begin(self, problem: Problem) -> State:
        """See `Search.begin`."""
        nothing = torch.zeros_like(problem.labels)
        return self._counted(self._search.begin(_copied(problem)), nothing, "begin")

    def ask(self, problem: Problem, state: State) -> Float[Tensor, "n *shape"]:
        """See `Search.ask`."""
        points = self._search.ask(_copied(problem), _own(state))
        self._check("ask", "points", points, problem.images)
        return points

    def loss(self, problem: Problem, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """See `Search.loss`."""
        loss = self._search.loss(_copied(problem), logits)
        self._check("loss", "losses", loss, problem.radius)
        return loss

    def differentiate(
        self, problem: Problem, logits: Float[Tensor, "n classes"], points: Float[Tensor, "n *shape"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n *shape"]]:
        """See `Search.differentiate`."""
        loss, gradient = self._search.differentiate(_copied(problem), logits, points)
        self._check("differentiate", "losses", loss, problem.radius)
        self._check("differentiate", "gradients", gradient, points)
        return loss, gradient

    def tell(self, problem: Problem, state: State, points: Float[Tensor, "n *shape"], answer: Answer) -> State:
        """See `Search.tell`."""
        told = self._search.tell(_copied(problem), _own(state), points.clone(), answer)
        return self._counted(told, state[_ASKED] + 1, "tell")

    def try_out(self, shape: Sequence[int], classes: int) -> None:
        """Let it answer to made-up logits on a few made-up images, so that a broken promise shows before any work.

        Args:
            shape: of an image.
            classes: number of classes.

        Raises:
            Misuse: for states, points or losses of another form than `Search` promises.
        """
        stream, labels = Stream.seeded(0), torch.zeros(_TRIED, dtype=torch.int64)
        ids = torch.arange(_TRIED)
        images = stream.fold("images").uniform(ids, tuple(shape))
        problem = Problem(images, labels, torch.full((_TRIED,), 0.1), ids, labels + 1, labels)
        with torch.no_grad():
            state = self.begin(problem)
            for query in range(min(self.queries, _TRIED * len(self.rhythm))):
                points = self.ask(problem, state)
                logits = stream.fold("logits", query).normal(ids, (classes,))
                sloped = self.rhythm[query % len(self.rhythm)]
                gradient = stream.fold("slope", query).normal(ids, tuple(shape)) if sloped else None
                state = self.tell(problem, state, points, Answer(logits, self.loss(problem, logits), gradient))

    def _counted(self, state: object, asked: Tensor, where: str) -> State:
        """The state with the number of queries, at whose end every slot is done."""
        if not isinstance(state, dict) or "done" not in state:
            raise Misuse(f"{self.name}: {where} must return a dictionary of tensors with 'done' among them")
        for key, value in state.items():
            if not (isinstance(value, Tensor) and value.shape[:1] == asked.shape):
                raise Misuse(
                    f"{self.name}: {where} gave {_form(value)} as {key!r}; it must be a tensor of {len(asked)} rows"
                )
        done = state["done"]
        if done.dtype != torch.bool or done.shape != asked.shape:
            raise Misuse(f"{self.name}: {where} gave {_form(done)} as 'done'; it must be bool, one a slot")
        return state | {"done": done | (asked >= self.queries), _ASKED: asked}

    def _check(self, where: str, what: str, given: object, like: Tensor) -> None:
        if not (isinstance(given, Tensor) and given.shape == like.shape and given.dtype == like.dtype):
            raise Misuse(f"{self.name}: {where} gave {what} that are {_form(given)}; they must be {_form(like)}")


def _copied(problem: Problem) -> Problem:
    return Problem(*(getattr(problem, field.name).clone() for field in fields(problem)))


def _own(state: State) -> State:
    """What the search itself remembers."""
    return {key: value for key, value in state.items() if key != _ASKED}


def _is_name(value: object) -> bool:
    if not isinstance(value, str) or not value or value.strip() != value or not value.isprintable():
        return False
    return value != "clean" and " through " not in value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _form(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"

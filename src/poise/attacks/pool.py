"""The pool: a fixed number of slots in which items of a whole data set are attacked, each leaving when it is done.

An item is one example under one budget, and for a targeted search one target. An item that is fooled or has spent its
budget leaves, and the next in the queue takes its slot, so fooled examples cost nothing more and batches stay full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from poise.attacks.driver import evaluate
from poise.attacks.rows import choose
from poise.attacks.search import Answer, Problem, Search, State
from poise.core.batch import Batch
from poise.core.losses import misclassified
from poise.core.misuse import Misuse
from poise.core.modes import Precision, evaluating, frozen
from poise.core.norms import inside

Fetch = Callable[[Int[Tensor, " m"]], Batch]
"""Gives the examples at some rows of the data set, on the device to work on."""


@dataclass(frozen=True)
class Item:
    """One piece of work.

    Args:
        row: the example's row in the data set.
        radius: its budget.
        target: the class to aim at; any for a search without targets.
        restart: number of the attempt.
        tag: whatever the caller wants back with the outcome.
    """

    row: int
    radius: float
    target: int = 0
    restart: int = 0
    tag: object = None


@dataclass(frozen=True)
class Outcome:
    """What became of an item.

    Args:
        item: the item.
        image: an adversarial image, verified; None where the search failed.
    """

    item: Item
    image: Float[Tensor, "*shape"] | None


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Runs searches over any number of items on one device.

    Args:
        model: maps images in [0, 1] to logits; it alone, in eval mode and full precision, decides what is adversarial.
        fetch: where examples come from.
        slots: items in work at a time, at least 1. More fill a device better; results do not depend on it, but for
            rounding (in float64 not at all in practice).
        proposing: precision of the forward passes that propose; a proposal counts once the plain model confirms it.
        look_every: steps between two looks at which items have ended. A look waits for the device.
        passes: forward passes whose answers are averaged, for models whose output is random (EOT).
        surrogate: what searches ask in the model's place, maps images to logits; None for the model itself.
    """

    model: nn.Module
    fetch: Fetch
    slots: int = 128
    proposing: Precision = "fp32"
    look_every: int = 1
    passes: int = 1
    surrogate: nn.Module | None = None

    def __post_init__(self) -> None:
        for name in ("slots", "look_every", "passes"):
            if getattr(self, name) < 1:
                raise Misuse(f"a pool's {name} must be at least 1; got {getattr(self, name)}")

    @contextmanager
    def open(self) -> Iterator[Pool]:
        """The model in eval mode with frozen weights for as long as the block runs; afterwards as it was."""
        with torch.no_grad(), evaluating(self.model), frozen(self.model):
            yield self

    def run(self, search: Search, waiting: deque[Item], through: nn.Module | None = None) -> Iterator[list[Outcome]]:
        """Attack every waiting item; yields outcomes as they come in, each item's exactly once. Call within `open`.

        Args:
            search: the attack.
            waiting: the work; items are taken from its left, and more may be added while the outcomes are read.
            through: a surrogate that the search asks in the model's place; the model still decides what is adversarial.
        """
        if through is not None:
            with evaluating(through), frozen(through):
                yield from replace(self, surrogate=through).run(search, waiting)
            return
        crew: _Crew | None = None
        while waiting or crew is not None:
            crew = self._manned(search, waiting, crew)
            for _ in range(self.look_every):
                crew = self._advanced(search, crew)
            ended, crew = self._relieved(search, crew)
            if ended:
                yield ended

    def _manned(self, search: Search, waiting: deque[Item], crew: _Crew | None) -> _Crew:
        """The crew with every free slot taken by the next waiting item."""
        free = self.slots - (len(crew.items) if crew else 0)
        fresh = [waiting.popleft() for _ in range(min(free, len(waiting)))]
        if not fresh:
            assert crew is not None  # noqa: S101 - `run` stops before both are empty
            return crew
        problem = self._problem(fresh)
        joined = _Crew.fresh(fresh, problem, search.begin(problem))
        return crew.joined(joined) if crew else joined

    def _problem(self, items: list[Item]) -> Problem:
        batch = self.fetch(torch.tensor([item.row for item in items]))
        device = batch.images.device

        def column(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        return Problem(
            images=batch.images,
            labels=batch.labels,
            radius=torch.tensor([item.radius for item in items], dtype=batch.images.dtype, device=device),
            ids=batch.ids,
            targets=column([item.target for item in items]),
            restart=column([item.restart for item in items]),
        )

    def _advanced(self, search: Search, crew: _Crew) -> _Crew:
        """One query of every slot; the first misclassified point inside ball and box is kept as its trophy."""
        points = search.ask(crew.problem, crew.state)
        answer = self._answer(search, crew.problem, points)
        allowed = inside(points, crew.problem.images, crew.problem.radius, search.norm)
        said = answer.logits if self.surrogate is None else self.model(points)
        fooled = allowed & misclassified(said, crew.problem.labels)
        state = search.tell(crew.problem, crew.state, points, answer)
        trophies = choose(fooled & ~crew.found, points, crew.trophies)
        return _Crew(crew.items, crew.problem, state, crew.found | fooled, trophies)

    def _answer(self, search: Search, problem: Problem, points: Tensor) -> Answer:
        """What the model says, averaged over passes; cut into smaller pieces when memory does not suffice."""
        size = len(points)
        while True:
            try:
                parts = [
                    self._asked(search, problem.select(rows), points[rows])
                    for rows in torch.split(torch.arange(len(points), device=points.device), size)
                ]
                break
            except torch.cuda.OutOfMemoryError:
                if size == 1:
                    raise
                size = (size + 1) // 2
                torch.cuda.empty_cache()
        if len(parts) == 1:
            return parts[0]
        gradients = [part.gradient for part in parts if part.gradient is not None]
        return Answer(
            torch.cat([part.logits for part in parts]),
            torch.cat([part.loss for part in parts]),
            torch.cat(gradients) if gradients else None,
        )

    def _asked(self, search: Search, problem: Problem, points: Tensor) -> Answer:
        asked = self.model if self.surrogate is None else self.surrogate
        return evaluate(search, asked, problem, points, proposing=self.proposing, passes=self.passes)

    def _relieved(self, search: Search, crew: _Crew) -> tuple[list[Outcome], _Crew | None]:
        """Outcomes of the slots that are done or whose trophy the plain model confirms, and the crew that stays."""
        proposed = crew.found.nonzero()[:, 0]
        if len(proposed):
            confirmed = self.adversarial(crew.problem.select(proposed), crew.trophies[proposed], search)
            crew.found[proposed[~confirmed]] = False
        gone = (crew.found | crew.state["done"]).tolist()
        if not any(gone):
            return [], crew
        won = crew.found.tolist()
        ended = [
            Outcome(item, crew.trophies[slot].clone() if won[slot] else None)
            for slot, item in enumerate(crew.items)
            if gone[slot]
        ]
        stay = torch.tensor([slot for slot, left in enumerate(gone) if not left], dtype=torch.int64)
        return ended, crew.kept(stay.to(crew.found.device)) if len(stay) else None

    def adversarial(self, problem: Problem, points: Float[Tensor, "n *shape"], search: Search) -> Tensor:
        """Which points the plain model, in full precision, gets wrong inside ball and box."""
        wrong = misclassified(self.model(points), problem.labels)
        return wrong & inside(points, problem.images, problem.radius, search.norm)


@dataclass(frozen=True)
class _Crew:
    """The items in the slots, with their state; one row a slot."""

    items: list[Item]
    problem: Problem
    state: State
    found: Tensor
    trophies: Tensor

    @classmethod
    def fresh(cls, items: list[Item], problem: Problem, state: State) -> _Crew:
        return cls(items, problem, state, torch.zeros_like(problem.labels, dtype=torch.bool), problem.images)

    def joined(self, other: _Crew) -> _Crew:
        """Both crews in one."""
        problem = Problem(
            *(torch.cat([getattr(self.problem, f.name), getattr(other.problem, f.name)]) for f in fields(Problem))
        )
        return _Crew(
            self.items + other.items,
            problem,
            {key: torch.cat([value, other.state[key]]) for key, value in self.state.items()},
            torch.cat([self.found, other.found]),
            torch.cat([self.trophies, other.trophies]),
        )

    def kept(self, rows: Tensor) -> _Crew:
        """The slots at these rows."""
        return _Crew(
            [self.items[row] for row in rows.tolist()],
            self.problem.select(rows),
            {key: value[rows] for key, value in self.state.items()},
            self.found[rows],
            self.trophies[rows],
        )

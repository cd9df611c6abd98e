"""The items in a pool's slots, with their state; one row a slot."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from poise.attacks.rows import choose
from poise.attacks.search import Problem, State


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


@dataclass(frozen=True)
class Crew:
    """Items that are in work together, all at the same place of their search's rhythm.

    Args:
        items: the items.
        problem: what each works on.
        state: the search's.
        found: which have a trophy.
        trophies: the first misclassified point of each that has one; of the others the last point inside their ball.
        beat: how many queries the first of them has been asked.
    """

    items: list[Item]
    problem: Problem
    state: State
    found: Tensor
    trophies: Tensor
    beat: int = 0

    @classmethod
    def fresh(cls, items: list[Item], problem: Problem, state: State) -> Crew:
        """Items that nothing has been asked yet."""
        return cls(items, problem, state, torch.zeros_like(problem.labels, dtype=torch.bool), problem.images)

    def __len__(self) -> int:
        return len(self.items)

    def joined(self, other: Crew) -> Crew:
        """Both crews in one; the other's items come last."""
        problem = Problem(
            *(torch.cat([getattr(self.problem, f.name), getattr(other.problem, f.name)]) for f in fields(Problem))
        )
        return Crew(
            self.items + other.items,
            problem,
            {key: torch.cat([value, other.state[key]]) for key, value in self.state.items()},
            torch.cat([self.found, other.found]),
            torch.cat([self.trophies, other.trophies]),
            self.beat,
        )

    def kept(self, slots: list[int]) -> Crew:
        """The items in these slots."""
        rows = torch.tensor(slots, dtype=torch.int64).to(self.found.device, non_blocking=True)
        return Crew(
            [self.items[slot] for slot in slots],
            self.problem.select(rows),
            {key: value[rows] for key, value in self.state.items()},
            self.found[rows],
            self.trophies[rows],
            self.beat,
        )

    def split(self, at: int) -> tuple[Crew, Crew]:
        """The items in the first slots, and the others."""
        return self.kept(list(range(at))), self.kept(list(range(at, len(self))))

    def told(self, state: State, points: Tensor, held: Tensor, fooled: Tensor) -> Crew:
        """A query later, with the state after its answer and the trophies that it won.

        Args:
            state: of the search.
            points: that were asked about.
            held: which of them lie inside their balls, of items that are not done.
            fooled: which of these are misclassified.
        """
        return Crew(
            self.items,
            self.problem,
            state,
            self.found | fooled,
            choose(held & ~self.found, points, self.trophies),
            self.beat + 1,
        )

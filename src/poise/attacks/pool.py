"""The pool: a fixed number of slots in which items of a whole data set are attacked, each leaving when it is done.

An item is one example under one budget, and for a targeted search one target. An item that is fooled or has spent its
budget leaves, and the next in the queue takes its slot, so fooled examples cost nothing more and batches stay full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from poise.attacks.answers import Asking, adversarial, ask_model, decided
from poise.attacks.crew import Crew, Item, Outcome
from poise.attacks.room import Room
from poise.attacks.search import Problem, Search
from poise.attacks.stand_in import StandIns
from poise.core.batch import Batch, device_of, sent
from poise.core.folding import EstrangedError
from poise.core.losses import misclassified
from poise.core.memory import out_of_memory
from poise.core.misuse import Misuse
from poise.core.modes import Precision, evaluating, frozen, precision
from poise.core.norms import inside

__all__ = ["Fetch", "Item", "Outcome", "Pool"]

Fetch = Callable[[Int[Tensor, " m"]], Batch]
"""Gives the examples at some rows of the data set, on the device to work on."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Runs searches over any number of items on one device.

    Args:
        model: maps images in [0, 1] to logits; it alone, in eval mode and full precision, decides what is adversarial.
        fetch: where examples come from.
        slots: items in work at a time, at least 1; None chooses (`room`). More fill a device better; results do not
            depend on it, but for rounding (in float64 not at all in practice).
        proposing: precision of the forward passes that propose; a proposal counts once the plain model confirms it.
        fold: propose with a copy whose convolutions have taken over the batch norms behind them (`core.folding`).
        compile: propose with the compiled model, on batches filled up to a few fixed sizes (`stand_in`).
        look_every: steps between two looks at which items have ended. A look waits for the device.
        passes: forward passes whose answers are averaged, for models whose output is random (EOT); a proposal of such
            a model counts once the mean softmax of as many fresh passes is wrong.
    """

    model: nn.Module
    fetch: Fetch
    slots: int | None = None
    proposing: Precision = "fp32"
    fold: bool = True
    compile: bool = False
    look_every: int = 1
    passes: int = 1

    def __post_init__(self) -> None:
        for name in ("slots", "look_every", "passes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise Misuse(f"a pool's {name} must be at least 1; got {value}")

    @cached_property
    def _room(self) -> Room:
        return Room(self.slots)

    @cached_property
    def _stand_ins(self) -> StandIns:
        return StandIns(self._room, fold=self.fold and self.passes == 1, compile=self.compile)

    @property
    def at_once(self) -> int:
        """How many images the model is asked about at a time."""
        return self._room.slots

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)

    @contextmanager
    def open(self) -> Iterator[Pool]:
        """The model in eval mode with frozen weights for as long as the block runs; afterwards as it was.

        A caller's autocast is off meanwhile.
        """
        with torch.no_grad(), precision("fp32", self.device), evaluating(self.model), frozen(self.model):
            try:
                yield self
            finally:
                self._stand_ins.forget()

    def run(self, search: Search, waiting: deque[Item], through: nn.Module | None = None) -> Iterator[list[Outcome]]:
        """Attack every waiting item; yields outcomes as they come in, each item's exactly once. Call within `open`.

        Where memory does not suffice, the pool has half as many slots from then on, and items that have none rest until
        others have ended; what they have reached is kept. Where a stand-in is found to be another function than its
        model, there are none from then on, and what is in work begins anew.

        Args:
            search: the attack.
            waiting: the work; items are taken from its left, and more may be added while the outcomes are read.
            through: a surrogate that the search asks in the model's place; the model still decides what is adversarial.
        """
        with ExitStack() as stack:
            if through is not None:
                stack.enter_context(evaluating(through))
                stack.enter_context(frozen(through))
            yield from self._run(search, waiting, through)

    def _run(self, search: Search, waiting: deque[Item], through: nn.Module | None) -> Iterator[list[Outcome]]:
        crew: Crew | None = None
        resting: list[Crew] = []
        while waiting or crew or resting:
            crew = crew or (resting.pop() if resting else None)
            if crew and len(crew) > self._room.slots:
                crew, rest = crew.split(self._room.slots)
                resting.append(rest)
            try:
                crew = self._manned(search, waiting, crew)
                ended, crew = self._relieved(search, self._advanced(search, crew, through), through)
            except EstrangedError:
                self._stand_ins.dismiss()
                waiting.extendleft(item for one in (*resting, crew) if one for item in reversed(one.items))
                crew, resting = None, []
                continue
            except RuntimeError as error:
                if not (out_of_memory(error) and self._room.halve()):
                    raise
                continue
            if ended:
                yield ended

    def _manned(self, search: Search, waiting: deque[Item], crew: Crew | None) -> Crew:
        """The crew with every free slot taken by the next waiting item, where the rhythm lets items begin."""
        if waiting and not self._room.chosen:
            self.measure(self.fetch(torch.tensor([waiting[0].row])).images)
        free = self._room.slots - (len(crew) if crew else 0)
        if crew is not None and (crew.beat % len(search.rhythm) or not waiting or free < 1):
            return crew
        fresh = list(islice(waiting, free))
        problem = self._problem(fresh)
        joining = Crew.fresh(fresh, problem, search.begin(problem))
        manned = crew.joined(joining) if crew else joining
        for _ in fresh:
            waiting.popleft()
        return manned

    def measure(self, image: Float[Tensor, "1 *shape"]) -> None:
        """Choose the number of slots for images like this one, where that is left to the pool. Call within `open`."""
        if not self._room.chosen:
            self._room.choose(self.model, image)

    def _problem(self, items: list[Item]) -> Problem:
        batch = self.fetch(torch.tensor([item.row for item in items]))
        device = batch.images.device

        def column(values: list[int]) -> Tensor:
            return sent(torch.tensor(values, dtype=torch.int64), device)

        return Problem(
            images=batch.images,
            labels=batch.labels,
            radius=sent(torch.tensor([item.radius for item in items], dtype=batch.images.dtype), device),
            ids=batch.ids,
            targets=column([item.target for item in items]),
            restart=column([item.restart for item in items]),
        )

    def _advanced(self, search: Search, crew: Crew, through: nn.Module | None) -> Crew:
        """The crew some queries later; the first point of each item that seems adversarial is kept as its trophy."""
        images = crew.problem.images
        judge = self._stand_ins.of(self.model, images)
        asked = None if through is None else self._stand_ins.of(through, images)
        for _ in range(self.look_every):
            crew = self._asked(search, judge, asked, crew)
        return crew

    def _asked(self, search: Search, judge: nn.Module, asked: nn.Module | None, crew: Crew) -> Crew:
        problem, points = crew.problem, search.ask(crew.problem, crew.state)
        gradient = search.rhythm[crew.beat % len(search.rhythm)]
        asking = Asking(precision=self.proposing, passes=self.passes)
        answer = ask_model(search, asked or judge, problem, points, gradient=gradient, asking=asking)
        said = answer.logits if asked is None else judge(points)
        held = ~crew.state["done"]
        if not search.stays_inside:
            held &= inside(points, problem.images, problem.radius, search.norm)
        fooled = held & misclassified(said, problem.labels)
        return crew.told(search.tell(problem, crew.state, points, answer), points, held, fooled)

    def _relieved(self, search: Search, crew: Crew, through: nn.Module | None) -> tuple[list[Outcome], Crew | None]:
        """Outcomes of the slots that are done or whose trophy the plain model confirms, and the crew that stays."""
        found, done = torch.stack([crew.found, crew.state["done"]]).tolist()
        if any(done):
            crew, found = self._looked_back(crew, through)
        if any(found):
            crew, found = self._confirmed(search, crew)
        gone = [wins or over for wins, over in zip(found, done, strict=True)]
        if not any(gone):
            return [], crew
        ended = [
            Outcome(item, crew.trophies[slot].clone() if found[slot] else None)
            for slot, item in enumerate(crew.items)
            if gone[slot]
        ]
        left = [slot for slot, over in enumerate(gone) if not over]
        return ended, crew.kept(left) if left else None

    def _looked_back(self, crew: Crew, through: nn.Module | None) -> tuple[Crew, list[bool]]:
        """The crew in which the last point of everyone who is about to leave unbeaten is a trophy to be confirmed.

        What proposes must not decide that an example withstands either. Where the plain model itself proposes, it has
        seen these points; of a random model one more look would be a matter of luck.

        Raises:
            EstrangedError: where a stand-in does not say of them what its model says.
        """
        asked = [self.model] if through is None else [self.model, through]
        if self.passes == 1 and (self.proposing != "fp32" or any(map(self._stand_ins.replaced, asked))):
            if len(last := crew.trophies[crew.state["done"] & ~crew.found]):
                self._stand_ins.check(asked, last)
            crew = replace(crew, found=crew.found | crew.state["done"])
        return crew, crew.found.tolist()

    def _confirmed(self, search: Search, crew: Crew) -> tuple[Crew, list[bool]]:
        """The crew with the trophies that the plain model confirms, and which slots hold them."""
        rows = crew.found.nonzero()[:, 0]
        certain = adversarial(search, self.model, crew.problem.select(rows), crew.trophies[rows], self.passes)
        crew = replace(crew, found=crew.found.index_copy(0, rows, certain))
        return crew, crew.found.tolist()

    def logits(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """What the plain model, in full precision, says of images; over several passes its mean. Call within `open`.

        As many are looked at a time as there are slots, which are halved where memory does not suffice.

        Args:
            images: values in [0, 1].
        """
        parts: list[Tensor] = []
        while not parts or sum(map(len, parts)) < len(images):
            at = sum(map(len, parts))
            some = images[at : at + self._room.slots]
            try:
                parts.append(decided(self.model, some, self.passes))
            except RuntimeError as error:
                if not (out_of_memory(error) and self._room.halve()):
                    raise
        return torch.cat(parts)

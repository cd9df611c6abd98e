"""From a classifier, images and a threat to a profile."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from accelerate.utils import gather_object
from jaxtyping import Int
from torch import Tensor

from poise.attacks.guest import Guest
from poise.attacks.pool import Item, Outcome, Pool
from poise.attacks.search import Search
from poise.attacks.suites import MOST_TARGETS, Suite, Unit, adaptive, check_suite, passes, signed, units
from poise.core.batch import Batch, sent
from poise.core.losses import misclassified
from poise.core.misuse import Misuse, check_choice
from poise.core.modes import Precision
from poise.core.norms import inside
from poise.core.processes import process_state
from poise.core.progress import Watch, unwatched
from poise.core.streams import Stream, global_seed
from poise.core.threat import Threat
from poise.data import ImageSet
from poise.evaluation.brackets import Mode, Work
from poise.evaluation.clean import Clean, clean_pass
from poise.evaluation.grid import epsilon_grid
from poise.evaluation.journal import Event
from poise.evaluation.keeping import shortened
from poise.evaluation.notes import Note, Notes
from poise.evaluation.profile import Header, Profile
from poise.evaluation.standing import Standing
from poise.evaluation.surrogate_brackets import brackets_of
from poise.evaluation.waiting import Waiting
from poise.models import Classifier

_AHEAD = 8192


@dataclass(frozen=True, kw_only=True)
class Examination:
    """How a classifier is examined.

    Args:
        threat: what the attacker may do; its epsilon is the largest of the grid.
        suite: which attacks: autoattack, autoattack-plus, autoattack-rand for models whose output is random, apgd,
            pgd, fast for validation during training, or python:PACKAGE.MODULE:FUNCTION (`poise.attacks.suites.units`).
        points: epsilons at which verdicts are given, in place of the default grid.
        mode: how an example's place on the grid is found: bisect, or ascending (every epsilon in turn).
        seed: decides everything random.
        batch_size: examples in work at a time; it changes the speed and not the verdicts. None: chosen by memory
            (`poise.attacks.room`).
        proposing: precision of the forward passes that propose adversarial images; fp32 ones decide.
        adaptive: repeat every search that follows gradients through the model's surrogate outputs, where it has some.
        compile: compile the passes that propose; the plain model decides.
    """

    threat: Threat
    suite: Suite | str = "autoattack"
    points: tuple[float, ...] | None = None
    mode: Mode = "bisect"
    seed: int = 0
    batch_size: int | None = None
    proposing: Precision = "fp32"
    adaptive: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        check_suite(self.suite)
        for name, allowed in (("mode", get_args(Mode)), ("proposing", get_args(Precision))):
            check_choice(name, getattr(self, name), allowed)
        if self.batch_size is not None and self.batch_size < 1:
            raise Misuse(f"batch_size must be at least 1; got {self.batch_size}")
        epsilon_grid(self.threat, self.points)


def examine(
    classifier: Classifier,
    images: ImageSet,
    examination: Examination,
    *,
    model_address: str,
    split: str = "",
    journal: Path | None = None,
    keep_adversarials: bool = False,
    whole: ImageSet | None = None,
    watch: Watch = unwatched,
) -> Profile:
    """Verdicts on every image at every grid point.

    An example counts as broken at an epsilon when the plain classifier, in eval mode and full precision, is wrong on an
    image that lies inside ball and box; as robust when every unit of the suite has failed there. The classifier is left
    as it was found. Under several processes (accelerate launch) each works on its share and all return the whole.
    Whether the verdicts can be relied on is what `inspect_model` asks before, and `inspect_profile` after.

    Args:
        classifier: the model, on the device to work on.
        images: what it is judged on.
        examination: threat, attacks and grid.
        model_address: how the profile names the model.
        split: how the profile names the part of the data set.
        journal: path of the profile in making; outcomes are kept beside it and taken up again after an interruption.
        keep_adversarials: keep the image behind each verdict, in a file beside the profile; needs a journal.
        whole: the set of which these images are a part; the profile names its digest. By default they are all.
        watch: told of progress as examples are settled.

    Raises:
        Misuse: for images of other classes or channels than the model's or outside [0, 1], and for a journal of another
            examination.
    """
    if keep_adversarials and journal is None:
        raise Misuse("adversarial images are kept beside a profile; say by journal= where it will stand")
    header = _header(classifier, images, examination, model_address, split, images if whole is None else whole)
    process = process_state()
    work = _Examining(classifier, images, examination, header)
    notes = None
    if journal:
        keeper = (work.pool.logits, work.fetch) if keep_adversarials else None
        notes = Notes(journal, header, images, len(work.units), rank=process.process_index, keep=keeper)
        for event in notes.earlier():
            work.settle(event)
    rows = range(process.process_index, len(images), process.num_processes)
    for progress in work.attack(rows, notes.write if notes else None):
        watch(*progress)
    profile = work.gathered(rows)
    return notes.finished(profile) if notes and process.is_main_process else profile


class _Examining:
    """The state of one call of `examine`."""

    def __init__(self, classifier: Classifier, images: ImageSet, examination: Examination, header: Header) -> None:
        self.classifier, self.images, self.header = classifier, images, header
        self.device, self.dtype = classifier.device, classifier.dtype
        stream = Stream.seeded(examination.seed).fold("evaluation")
        self.surrogates = classifier.surrogates() if examination.adaptive else {}
        suite = units(examination.suite, header.norm, len(header.classes), stream)
        for search in {id(unit.search): unit.search for unit in suite}.values():
            if isinstance(search, Guest):
                search.try_out(images.shape, len(header.classes))
        self.units: tuple[Unit, ...] = adaptive(suite, tuple(self.surrogates))
        rivals = min(MOST_TARGETS, len(header.classes) - 1)
        self.pool = Pool(
            model=classifier,
            fetch=self.fetch,
            slots=examination.batch_size,
            proposing=examination.proposing,
            compile=examination.compile,
            look_every=1 if self.device.type == "cpu" else 4,
            passes=passes(examination.suite),
        )
        self.luck = stream.fold("model")
        with global_seed(self.luck.fold("clean")):
            self.clean: Clean = clean_pass(self.pool, images, rivals)
        sizes = len(suite), len(self.units)
        self.brackets = brackets_of(self.clean.right, len(header.epsilons), sizes, examination.mode)

    def fetch(self, rows: Int[Tensor, " m"]) -> Batch:
        """Examples by row; in float64 where the model is."""
        images, labels, keys = self.images.images(rows), self.images.labels[rows], self.images.keys[rows]
        dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        return Batch(sent(images, self.device).to(dtype), sent(labels, self.device), sent(keys, self.device))

    def settle(self, event: Event) -> None:
        """Narrow an example's bracket by an outcome."""
        if event.point is None:
            self.brackets.fail(event.row, event.work)
        else:
            self.brackets.break_at(event.row, event.work, event.point)

    def attack(self, rows: range, note: Note | None = None) -> Iterator[tuple[float, dict[str, str]]]:
        """Run whatever is left to try on these rows, search by search, and tell how far it has come.

        Args:
            rows: the examples.
            note: given outcomes, with the images that were found, before anything else is made of them.
        """
        waiting, standing = Waiting(len(self.images), len(self.units)), self._standing(rows)
        for row in rows:
            self._enqueue(row, waiting)
        with global_seed(self.luck.fold("attack", rows.start)), self.pool.open():
            while (stage := waiting.first()) is not None:
                search, queue = self.units[stage].search, deque[Item]()
                self._refill(queue, waiting, stage)
                for outcomes in self.pool.run(search, queue, self.surrogates.get(self.units[stage].through)):
                    events = self._events(search, outcomes)
                    if note:
                        note(events, outcomes)
                    for event in events:
                        with standing.recounting(event.row):
                            self.settle(event)
                        self._enqueue(event.row, waiting)
                    self._refill(queue, waiting, stage)
                    yield standing.told()

    def _standing(self, rows: range) -> Standing:
        return Standing(self.brackets, rows, [sum(unit.passes(len(self.header.classes))) for unit in self.units])

    def _enqueue(self, row: int, waiting: Waiting) -> None:
        """Let an example wait for what is to be tried next on it, under the first unit that shares its search."""
        work = self.brackets.next(row)
        if work is not None:
            search = self.units[work.unit].search
            waiting.put(row, next(number for number, unit in enumerate(self.units) if unit.search is search))

    def _refill(self, queue: deque[Item], waiting: Waiting, stage: int) -> None:
        """Keep some items ready for the pool; all of a large set at once would fill the memory."""
        for row in waiting.take(stage, _AHEAD - len(queue)).tolist():
            work = self.brackets.next(row)
            assert work is not None  # noqa: S101 - it waits
            unit = self.units[work.unit]
            target = int(self.clean.rivals[row, unit.rank])
            queue.append(Item(row, self.header.epsilons[work.point], target, unit.restart, work))

    def _events(self, search: Search, outcomes: list[Outcome]) -> list[Event]:
        found = [outcome for outcome in outcomes if outcome.image is not None]
        places = dict(zip([o.item.row for o in found], self._tightest(search, found), strict=True)) if found else {}
        return [Event(o.item.row, _work(o.item), places.get(o.item.row)) for o in outcomes]

    def _tightest(self, search: Search, found: list[Outcome]) -> list[int]:
        """For each success the smallest grid point that holds an adversarial image on the way back to the clean one.

        The images at which the perturbation, shortened, meets each smaller ball cost one forward pass together, and
        save whole passes of the suite at epsilons where the example is broken too.
        """
        tried = [_work(outcome.item).point for outcome in found]
        rungs = [(index, point) for index, at in enumerate(tried) for point in range(1, at)]
        for at in range(0, len(rungs), self.pool.at_once):
            some = rungs[at : at + self.pool.at_once]
            for index, point in compress(some, self._hold(search, found, some)):
                tried[index] = min(tried[index], point)
        return tried

    def _hold(self, search: Search, found: list[Outcome], rungs: list[tuple[int, int]]) -> list[bool]:
        """Of which successes (by index) the perturbation, shortened to a grid point, is still adversarial."""
        outcomes = [found[index] for index, _ in rungs]
        batch = self.fetch(torch.tensor([outcome.item.row for outcome in outcomes]))
        images = torch.stack([outcome.image for outcome in outcomes if outcome.image is not None])
        radius = torch.tensor([self.header.epsilons[point] for _, point in rungs], dtype=images.dtype).to(self.device)
        shorter = shortened(images, batch.images, radius, search.norm)
        wrong = misclassified(self.pool.logits(shorter), batch.labels)
        holds = wrong & inside(shorter, batch.images, radius, search.norm)
        return list(map(bool, holds.tolist()))

    def gathered(self, rows: range) -> Profile:
        """The profile of all examples, joined from all processes."""
        chosen = np.asarray(rows, dtype=np.int64)
        brackets = self.brackets
        mine = [(chosen, brackets.robust_to[chosen], brackets.broken_from[chosen], brackets.broken_by[chosen])]
        for part, robust_to, broken_from, broken_by in gather_object(mine):
            brackets.robust_to[part], brackets.broken_from[part] = robust_to, broken_from
            brackets.broken_by[part] = broken_by
        return Profile(
            header=self.header,
            ids=self.images.ids,
            labels=self.images.labels.numpy(),
            predictions=self.clean.predictions,
            margins=self.clean.margins,
            robust_to=brackets.robust_to,
            broken_from=brackets.broken_from,
            broken_by=tuple(self._breaker(row) for row in range(len(self.images))),
        )

    def _breaker(self, row: int) -> str:
        by = int(self.brackets.broken_by[row])
        return self.units[by].name if by >= 0 else "clean" if self.brackets.broken_from[row] == 0 else ""


def _work(item: Item) -> Work:
    assert isinstance(item.tag, Work)  # noqa: S101 - `_enqueue` puts it there
    return item.tag


def _header(
    classifier: Classifier, images: ImageSet, examination: Examination, address: str, split: str, whole: ImageSet
) -> Header:
    if tuple(images.classes) != classifier.classes:
        raise Misuse(
            f"the model tells {len(classifier.classes)} classes apart ({', '.join(classifier.classes[:3])}, ...), "
            f"{images.address} has {len(images.classes)} ({', '.join(images.classes[:3])}, ...); they must be the same"
        )
    taken = classifier.blueprint.shape
    if len(images.shape) != len(taken) or images.shape[0] != taken[0]:
        raise Misuse(f"the model takes images of shape {taken}, those of {images.address} have {images.shape}")
    return Header(
        norm=examination.threat.norm,
        epsilons=epsilon_grid(examination.threat, examination.points),
        suite=signed(examination.suite, examination.threat.norm, len(classifier.classes)),
        mode=examination.mode,
        proposing=examination.proposing,
        seed=int(examination.seed),
        model=classifier.digest(),
        model_address=address,
        data=whole.digest(),
        data_address=images.address,
        split=split,
        classes=tuple(images.classes),
        versions={
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("poise", "torch", "timm")},
        },
        whole=len(whole),
        surrogates=tuple(classifier.surrogates()) if examination.adaptive else (),
    )

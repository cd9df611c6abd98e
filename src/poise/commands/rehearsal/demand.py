"""How many passes work demands, counted, and how long a pass takes, timed: what estimates are made of."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from poise.attacks.room import on_cpu
from poise.attacks.suites import adaptive, passes, units
from poise.commands.opening import placed
from poise.commands.rehearsal.estimate import Work
from poise.commands.rehearsal.passes import Counted, Pace, Passes, counting, timed
from poise.core.batch import Batch
from poise.core.modes import evaluating, frozen, precision
from poise.core.streams import Stream, global_seed
from poise.data import ImageSet
from poise.evaluation import Examination
from poise.evaluation.certificates.certification import Certification, certify, smoothing_of
from poise.evaluation.certificates.mixture import core_of
from poise.evaluation.certificates.sampling import first_look
from poise.evaluation.grid import epsilon_grid
from poise.evaluation.surrogate_brackets import brackets_of
from poise.models import Classifier
from poise.objectives import Step
from poise.training import Task
from poise.training.timetable import Timetable
from poise.training.transfer.transfer import open_to, trainable

Said = TypeVar("Said")

_COUNTED = 4
"""Images of the steps in which passes are counted."""
_CUDA_BATCH = 256


TRAINING_UNKNOWN = (
    "what an objective does in some steps only, such as the comparisons of guarded",
    "that weights which rest at first, as those of probe, cost less meanwhile",
    "that attacks in training follow a faster copy of the network, and a look at two images an epoch for that",
)
"""What `training_works` leaves out."""


def training_works(task: Task) -> list[Work]:
    """A training, by network: the one that is trained, and those that its objective looks at.

    Passes are those of real steps on a copy of the network, at every share of epsilon that the schedule asks for.
    Where it listens to validation, the range goes from all steps at epsilon 0 to all at the target.

    Args:
        task: what is trained; nothing of it is changed, but references are moved to the device.
    """
    options, count = task.options, len(task.images)
    course = Timetable.of(task)
    shares = _shares(course)
    with _in_training(task) as networks:
        known = filled(sorted(shares), lambda share: _step_passes(task, networks, share))
        images = min(options.micro_batch or options.batch_size, options.batch_size, count)
        works = []
        for name, network in networks.items():
            each = {share: known[share][name] for share in shares}
            most = sum((each[share] * number for share, number in shares.items()), Passes())
            least = None
            if task.schedule.hears:
                total = task.options.epochs * sum(_sizes(course))
                least, most = each[0.0] * total, each[1.0] * total
            label = f"{'training' if name == _TRAINED else f'the {name} model beside it'}, {options.epochs} epochs"
            pace = timed(network, some(task.images, images, network.device), most, options.precision)
            works.append(Work(f"{label} of {count:,} images", pace, most, least))
    return [work for work in works if work.most != Passes()]


_TRAINED = ""
"""The network in training, among those that stand beside it under their roles."""


def _sizes(course: Timetable) -> list[int]:
    """Examples of each step of an epoch."""
    return [course.examples(number) for number in range(course.batches)]


def _shares(course: Timetable) -> Counter[float]:
    """How many examples are trained on at which share of the target epsilon."""
    if course.schedule.hears:
        return Counter({0.0: 0, 1.0: 0})
    found: Counter[float] = Counter()
    one = torch.zeros(1, dtype=torch.int64)
    for epoch in range(course.options.epochs):
        for number, size in enumerate(_sizes(course)):
            share = course.share(epoch, number, None, one)
            found[1.0 if isinstance(share, Tensor) else share] += size
    return found


def filled(places: Sequence[float], ask: Callable[[float], Said]) -> dict[float, Said]:
    """What `ask` says of each place; asked only where neighbours differ, as steps of attacks only grow with epsilon.

    Args:
        places: ascending.
        ask: monotone, so that what is said of two places holds between them where it is the same.
    """
    known = {place: ask(place) for place in {*places[:1], *places[-1:]}}
    waiting = [(0, len(places) - 1)]
    while waiting:
        low, high = waiting.pop()
        if high - low < 2:
            continue
        first, last, middle = places[low], places[high], (low + high) // 2
        if known[first] == known[last]:
            known |= dict.fromkeys(places[low + 1 : high], known[first])
        else:
            known[places[middle]] = ask(places[middle])
            waiting += [(low, middle), (middle, high)]
    return known


@contextmanager
def _in_training(task: Task) -> Iterator[dict[str, Classifier]]:
    """A copy of the network as it stands in training, and its references, by role."""
    with ExitStack() as stack:
        stack.enter_context(global_seed(Stream.seeded(task.seed)))
        model = placed(copy.deepcopy(task.classifier))
        open_to(model, stack.enter_context(trainable(model, task.transfer)))
        for reference in task.references.values():
            stack.enter_context(evaluating(placed(reference)))
            stack.enter_context(frozen(reference))
        yield {_TRAINED: model.train(), **task.references}


def _step_passes(task: Task, networks: Mapping[str, Classifier], share: float) -> dict[str, Passes]:
    """Passes of an example in a step at a share of epsilon: the second one, as the first may do more."""
    model = networks[_TRAINED]
    count = min(_COUNTED, len(task.images))
    rows = torch.arange(count)
    batch = Batch(some(task.images, count, model.device), task.images.labels[rows], task.images.keys[rows])
    stream = Stream.seeded(task.seed).fold("counted")
    epsilon = float(task.threat.epsilon) * share
    step = Step(
        model,
        batch.to(model.device),
        epsilon,
        task.threat.norm,
        stream,
        task.references,
        task.objective.begin(model),
        share,
    )
    counted: dict[str, Counted] = {}
    for _ in range(2):
        with ExitStack() as stack:
            counted = {name: stack.enter_context(counting(network)) for name, network in networks.items()}
            with precision(task.options.precision, model.device):
                terms = task.objective.terms(step)
            torch.autograd.backward(terms["loss"])
        with torch.no_grad():
            kept = task.objective.advance(model, step.state, {name: term.detach() for name, term in terms.items()})
        model.zero_grad(set_to_none=True)
        step = replace(step, state=dict(kept))
    return {name: each.passes * (1 / count) for name, each in counted.items()}


EXAMINATION_UNKNOWN = (
    "how many images the model gets right, and how many of these attacks break early: hence the range",
    "images that a late attack of the suite breaks: all are run again at the next smaller epsilon, and so on downwards",
)
"""What `examination_work` leaves out."""


def examination_work(classifier: Classifier, images: ImageSet, examination: Examination, label: str) -> Work:
    """An examination: from no image that the model gets right to all of them right and withstanding everything.

    Args:
        classifier: the model, on the device to work on.
        images: what it is judged on.
        examination: threat, attacks and grid.
        label: what it is for.
    """
    clean = Passes(forward=passes(examination.suite))
    each = clean + withstanding(classifier, examination)
    size = examination.batch_size or at_once(classifier, images)
    pace = timed(classifier, some(images, size, classifier.device), each, examination.proposing)
    return Work(f"{label}, {len(images):,} images", pace, each * len(images), clean * len(images))


def passes_work(label: str, classifier: Classifier, images: ImageSet, each: Passes) -> Work:
    """Work that takes so many passes of every image.

    Args:
        label: what it is for.
        classifier: the model, on the device to work on.
        images: what goes through it.
        each: passes of one of them.
    """
    pace = timed(classifier, some(images, at_once(classifier, images), classifier.device), each)
    return Work(f"{label}, {len(images):,} images", pace, each * len(images))


def withstanding(classifier: Classifier, examination: Examination) -> Passes:
    """Passes of the attacks on an image that withstands all of them at every epsilon of the grid."""
    suite = units(examination.suite, examination.threat.norm, classifier.num_classes, Stream.seeded(0))
    surrogates = tuple(classifier.surrogates()) if examination.adaptive else ()
    every = adaptive(suite, surrogates)
    points = len(epsilon_grid(examination.threat, examination.points))
    brackets = brackets_of(np.array([True]), points, (len(suite), len(every)), examination.mode)
    total = Passes()
    while (work := brackets.next(0)) is not None:
        total += Passes(*every[work.unit].passes(classifier.num_classes))
        brackets.fail(0, work)
    return total * passes(examination.suite)


def at_once(classifier: Classifier, images: ImageSet) -> int:
    """How many images to time together: as many as an evaluation takes on a CPU, on a GPU a few hundred."""
    return _CUDA_BATCH if classifier.device.type == "cuda" else on_cpu(int(np.prod(images.shape)))


def some(images: ImageSet, count: int, device: torch.device) -> Tensor:
    """The first images of a set, at most so many, on a device."""
    return images.images(torch.arange(min(count, len(images)))).to(device)


def certification_work(classifier: Classifier, images: ImageSet, certification: Certification) -> Work:
    """A certification: noisy copies of every image, or for `lipschitz` and `local` bounds, which are timed as a pass.

    Args:
        classifier: the model, on the device to work on.
        images: what is certified.
        certification: method and options.

    Raises:
        Misuse: for a method that does not fit the classifier, and a network with a layer that has no rule.
    """
    core, count, sampling = core_of(classifier), len(images), certification.sampling
    smoothed = smoothing_of(core, certification.method)
    if smoothed is None:
        part = images.select(torch.arange(min(certification.batch_size, count)))
        began = time.perf_counter()
        certify(classifier, part, certification)
        pace = Pace((time.perf_counter() - began) / len(part), 0.0, 0.0, len(part))
        return Work(f"bounds of {count:,} images, each counted as a pass", pace, Passes(forward=count))
    copies = some(images, 1, core.robust.device).expand(sampling.batch_size, *images.shape)
    most = Passes(forward=sampling.selection + sampling.samples)
    least = Passes(forward=sampling.selection + first_look(sampling))
    pace = timed(smoothed.inner, copies, most)
    return Work(f"noisy copies of {count:,} images", pace, most * count, least * count)

"""What the processes of `benchmarks.curve` do: train a network, or judge it with poise or with official AutoAttack."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.harness import DEVICE, clock, seconds_of
from poise.attacks.suites import units
from poise.core.folding import folded
from poise.core.modes import Precision, frozen
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.data import ImageSet, decoded, open_data
from poise.models import Classifier, load_model

_REPEATS = 15
_ROWS = 128


@dataclass(frozen=True)
class Job:
    """One process's task.

    Args:
        network: run folder of the network.
        data: address of the images.
        count: how many test images.
        epsilons: budgets; the last is the threat's. To train: the one to withstand, 0 for none.
        model: to train: address of the network.
        epochs: to train.
    """

    network: str
    data: str
    count: int
    epsilons: tuple[float, ...]
    model: str = ""
    epochs: int = 0

    def written(self) -> str:
        """As one word of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Job:
        """The job that was written so."""
        fields = json.loads(text)
        return cls(**fields | {"epsilons": tuple(fields["epsilons"])})


def train(job: Job) -> dict[str, Any]:
    """Train the network unless it is there."""
    from poise.commands.finetune import finetune  # noqa: PLC0415 - the judges do without it
    from poise.objectives import Adversarial, Standard  # noqa: PLC0415
    from poise.schedules import Fixed  # noqa: PLC0415
    from poise.training import Training  # noqa: PLC0415

    if not (Path(job.network) / "model.safetensors").is_file():
        finetune(
            job.model,
            job.data,
            threat=Threat(epsilon=job.epsilons[-1] or "8/255"),
            objective=Adversarial() if job.epsilons[-1] else Standard(),
            schedule=Fixed(),
            augmentation="none" if job.data == "digits" else "flip",
            validate_on=0,
            trackers=(),
            training=Training(epochs=job.epochs, batch_size=64, learning_rate=2e-3),
            out=job.network,
        )
    return {}


def ours(job: Job, proposing: Precision = "fp32") -> dict[str, Any]:
    """Verdicts of poise over all the job's epsilons."""
    from poise.evaluation import Examination, examine  # noqa: PLC0415 - official does without it

    model, images = _opened(job)
    examination = Examination(threat=Threat(epsilon=job.epsilons[-1]), points=job.epsilons, proposing=proposing)
    with _counting() as rows:
        start = clock()
        profile = examine(model, images, examination, model_address="benchmark")
        seconds = clock() - start
    accuracy = [float(value) for value in profile.robust().mean(axis=0)]
    cost = _cost_of_one(model, images)
    demanded = _demanded(len(model.classes), cost, int((profile.robust_to > 0).sum()))
    found = {"accuracy": accuracy[1:], "clean": accuracy[0], "seconds": seconds, "cost": cost, "demanded": demanded}
    return found | rows | {"process": time.process_time()}


def official(job: Job) -> dict[str, Any]:
    """The verdict of official AutoAttack at the job's epsilon."""
    from pyautoattack import AutoAttack  # noqa: PLC0415 - a judge, not installed by default

    model, images = _opened(job)
    pixels, labels = images.images(torch.arange(len(images))).to(model.device), images.labels.to(model.device)
    with _counting() as rows:
        start = clock()
        judge = AutoAttack(model, norm="Linf", eps=job.epsilons[-1], version="standard", seed=0, device=model.device)
        attacked = judge.run_standard_evaluation(pixels, labels, batch_size=_ROWS)[0]
        seconds = clock() - start
    with torch.no_grad():
        accuracy = float((model(attacked).argmax(1) == labels).double().mean())
    return {"accuracy": [accuracy], "seconds": seconds, **rows, "process": time.process_time()}


BF16 = "ours, bf16 proposing"
CONTENDERS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "train": train,
    "ours": ours,
    BF16: partial(ours, proposing="bf16"),
    "one full pass": ours,
    "official": official,
}


def _opened(job: Job) -> tuple[Classifier, ImageSet]:
    images = open_data(job.data).test
    return load_model(Path(job.network)).eval().to(DEVICE), decoded(images.select(torch.arange(job.count)))


@contextmanager
def _counting() -> Iterator[dict[str, int]]:
    """How many rows go through classifiers, and through how many of them a gradient is taken."""
    rows, plain = {"forward": 0, "backward": 0}, Classifier.forward

    def counted(self: Classifier, images: torch.Tensor) -> torch.Tensor:
        rows["forward"] += len(images)
        rows["backward"] += len(images) * images.requires_grad
        return plain(self, images)

    Classifier.forward = counted  # type: ignore[method-assign]
    try:
        yield rows
    finally:
        Classifier.forward = plain  # type: ignore[method-assign]


def _cost_of_one(model: Classifier, images: ImageSet) -> dict[str, float]:
    """Seconds per image of a forward pass, and of one with a backward pass to the image, as poise makes them."""
    pixels = images.images(torch.arange(min(len(images), _ROWS))).to(model.device)
    with frozen(model):
        proposer = folded(model, pixels[:2])

        def back() -> None:
            leaf = pixels.clone().requires_grad_()
            torch.autograd.grad(proposer(leaf).sum(), leaf)

        with torch.no_grad():
            forward = _typical(lambda: proposer(pixels)) / len(pixels)
        return {"forward": forward, "and back": _typical(back) / len(pixels)}


def _typical(work: Callable[[], Any]) -> float:
    return median(seconds_of(work) for _ in range(_REPEATS))


def _demanded(classes: int, cost: dict[str, float], survivors: int) -> float:
    """Seconds of the passes that the suite's definition demands of the examples that survive it at some epsilon."""
    seconds = 0.0
    for unit in units("autoattack", "linf", classes, Stream.seeded(0)):
        rhythm = unit.search.rhythm
        backs = sum(rhythm[query % len(rhythm)] for query in range(unit.search.queries))
        seconds += backs * cost["and back"] + (unit.search.queries - backs) * cost["forward"]
    return survivors * seconds

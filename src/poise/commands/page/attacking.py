"""An attack on one image that ends in time."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from poise.attacks import APGD, Problem, run_search
from poise.core.batch import Batch
from poise.core.misuse import Failure
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.models import Classifier


class _TimeIsUpError(Exception):
    """An attack asked its model once more after its time was up."""


class Deadline(nn.Module):
    """A model that answers until its time is up; an attack on it stops at its next step.

    Args:
        model: what answers.
        seconds: from now on.
    """

    def __init__(self, model: nn.Module, seconds: float) -> None:
        super().__init__()
        self.model = model
        self.end = time.monotonic() + seconds

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """The model's own answer."""
        if time.monotonic() > self.end:
            raise _TimeIsUpError
        answer: Tensor = self.model(images)
        return answer


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What an attack on one image came to.

    Args:
        image: the first image found that changes the prediction, else the one of highest loss; inside ball and box.
        threat: norm and epsilon of the ball.
        found: whether the model errs on the image.
        label: the class that the attack led away from.
        attack: name and steps of the attack, and the output whose gradient it followed where that is not the model's.
        seconds: that it took.
    """

    image: Float[Tensor, "1 *shape"]
    threat: Threat
    found: bool
    label: int
    attack: str
    seconds: float


def attack(
    classifier: Classifier,
    image: Float[Tensor, "1 *shape"],
    key: Int[Tensor, " 1"],
    label: int,
    threat: Threat,
    *,
    steps: int,
    seconds: float,
    stream: Stream,
) -> Attempt:
    """Search for an image in the ball that is given another class, by APGD on cross-entropy.

    A model is attacked through its own output first and then through every further one that it offers. The model
    itself decides what counts. It is asked nothing after the deadline, and is left as it was found in any case.

    Args:
        classifier: what is attacked.
        image: values in [0, 1].
        key: integer key of the example, under which random numbers are drawn.
        label: the class to lead away from.
        threat: norm and epsilon of the ball.
        steps: gradient steps through each output, at least 1.
        seconds: after which the attack stops, above 0.
        stream: decides the random starts.

    Raises:
        Failure: when the time is up.
    """
    begun = time.monotonic()
    timed = Deadline(classifier, seconds)
    problem = Problem.of(Batch(image, torch.full_like(key, label), key), float(threat.epsilon))
    search = APGD(norm=threat.norm, stream=stream, steps=steps)
    said: dict[str, Any] = {"threat": threat, "label": label}
    first: Attempt | None = None
    try:
        for name, surrogate in ({"": None} | dict(classifier.surrogates())).items():
            through = f" through {name}" if name else ""
            ours = replace(search, stream=stream.fold("through", name)) if name else search
            points, found = run_search(ours, timed, problem, surrogate)
            told = f"{search.name}, {steps} steps{through}"
            tried = Attempt(image=points, found=bool(found), attack=told, seconds=time.monotonic() - begun, **said)
            if tried.found:
                return tried
            first = first or tried
    except _TimeIsUpError:
        raise Failure(f"the attack was stopped after {seconds:g} s; try fewer --steps or a longer --timeout") from None
    assert first is not None  # noqa: S101 - the model's own output is always tried
    return replace(first, seconds=time.monotonic() - begun)

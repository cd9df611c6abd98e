"""What a step of RCAT costs beside the passes that its definition demands.

A step with k attack steps needs k gradients to the images, one gradient to all weights, and one forward pass without
gradients through each of the two references. The floor is the cost of these pieces on the same network, batch and
machine; the step is the trainer's: attack, losses, backward pass, clipping, update of the weights, state. CPU time on
one thread (time by the clock on a GPU), step and floor measured in turns; what is compared is medians.

    python -m benchmarks.update_step [--quick]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.harness import DEVICE, Claim, conclude, seconds_of
from benchmarks.intervals import spread
from poise.attacks import PGD
from poise.attacks.pgd import image_gradient
from poise.core.batch import Batch
from poise.core.losses import cross_entropy
from poise.core.modes import evaluating, frozen
from poise.core.streams import Stream
from poise.models import open_model
from poise.objectives import PCAT, RCAT, Constrained, Objective, Step

CLASSES = tuple(map(str, range(10)))
SHAPE = (3, 32, 32)
OBJECTIVES = (RCAT, PCAT, Constrained)


def main() -> int:
    """Measure the pieces and the steps in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer images and repetitions; about a minute of CPU time")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    attack, repeats = PGD(), 5 if quick else 7
    bench = _Bench(attack, images=(8 if quick else 16) if DEVICE.type == "cpu" else 128)
    pieces: dict[str, Callable[[], object]] = {
        "image gradient": bench.image_gradient,
        "full gradient": bench.full_gradient,
        "forward": bench.forward,
    }
    steps = {kind.__name__: bench.step(kind(attack=attack)) for kind in OBJECTIVES}
    steps["RCAT, focus 0.5"] = bench.step(RCAT(attack=attack, focus=0.5))
    seconds: dict[str, list[float]] = {name: [] for name in (*pieces, *steps)}
    for repeat in range(repeats + 1):
        for name, call in (*pieces.items(), *steps.items()):
            spent = seconds_of(call)
            if repeat:  # the first round warms up
                seconds[name].append(spent)
    middle = {name: median(values) for name, values in seconds.items()}
    demanded = attack.steps * middle["image gradient"] + middle["full gradient"]
    floors = {kind.__name__: demanded + len(kind.roles) * middle["forward"] for kind in OBJECTIVES}
    for name, values in seconds.items():
        print(f"{name:<15} {1000 * median(values):9.1f} ms  ({1000 * min(values):.1f} .. {1000 * max(values):.1f})")
    claims = [
        Claim(f"{name} step over its floor", middle[name] / floor, 1.15, most=True) for name, floor in floors.items()
    ]
    figures = {
        "network": "resnet18, 3x32x32",
        "images": bench.images,
        "attack steps": attack.steps,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "floors": floors,
        "RCAT with focus 0.5 over RCAT": middle["RCAT, focus 0.5"] / middle["RCAT"],
    }
    return conclude("update_step", claims, figures)


class _Bench:
    """Three ResNet-18 on one batch of random images, in the modes that the trainer gives them."""

    def __init__(self, attack: PGD, images: int) -> None:
        self.images, self.attack = images, attack
        self.model, self.old, self.new = (
            open_model("resnet18", classes=CLASSES, shape=SHAPE, seed=seed).to(DEVICE) for seed in range(3)
        )
        for reference in (self.old, self.new):
            reference.eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        pixels = torch.rand(images, *SHAPE, generator=generator)
        labels = torch.randint(len(CLASSES), (images,), generator=generator)
        self.batch = Batch(pixels, labels, torch.arange(images)).to(DEVICE)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9, fused=True)

    def image_gradient(self) -> Tensor:
        """One gradient to the images, the network in eval mode and frozen."""
        with evaluating(self.model), frozen(self.model):
            return image_gradient(self.model, self.batch.images, self.batch.labels, cross_entropy)

    def full_gradient(self) -> None:
        """One gradient to all weights, the network in train mode."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(cross_entropy(self.model(self.batch.images), self.batch.labels).mean())

    def forward(self) -> Tensor:
        """One pass through a reference, without gradients."""
        with torch.no_grad():
            logits: Tensor = self.old(self.batch.images)
        return logits

    def step(self, objective: Objective) -> Callable[[], None]:
        """A whole step of training."""
        state, stream = dict(objective.begin(self.model)), Stream.seeded(0)
        references = {"old": self.old, "new": self.new}

        def call() -> None:
            nonlocal state
            self.model.train()
            step = Step(self.model, self.batch, 8 / 255, "linf", stream, references, state)
            terms = objective.terms(step)
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(terms["loss"])
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            with torch.no_grad():
                means = {name: term.detach() for name, term in terms.items()}
                state = dict(objective.advance(self.model, state, means))

        return call


if __name__ == "__main__":
    sys.exit(main())

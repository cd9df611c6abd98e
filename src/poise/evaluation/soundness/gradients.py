"""Whether gradients by the image exist, are numbers other than zero, and tell of the loss around them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from poise.attacks.attack import Loss
from poise.core.losses import cross_entropy, margin
from poise.evaluation.soundness.check import ModelCheck, Subject
from poise.evaluation.soundness.finding import Finding
from poise.evaluation.soundness.probing import (
    NoGradient,
    image_gradients,
    logits,
    neighbours,
    no_gradient,
    outputs_of,
)

LOSSES: Mapping[str, Loss] = MappingProxyType({"cross-entropy": cross_entropy, "margin": margin})
"""What attacks climb; where the label leads, DLR vanishes with the margin."""
ALLOWED_SHARE = 0.05
"""Share of examples without a usable gradient above which a check blocks."""
NEIGHBOURS = 20
NOISE = 0.5
"""Relative loss change among neighbours above which the loss is called noisy."""


class GradientGraph(ModelCheck):
    """Logits that cannot be differentiated by the images: detached, computed outside PyTorch, or overwritten in place.

    Gradient attacks then fail or crash whatever the model is worth (the interrupted computational graph of Pintor et
    al. 2022, pralab/IndicatorsOfAttackFailure). Taking one gradient decides. The check blocks where neither the model
    nor any surrogate that it offers has one; attacks follow those that have, and those without are named.

    Limits: a graph that exists and gives zeros is the matter of `zero-gradients`. Cost: 1 forward and backward pass,
    and 1 more for each surrogate.
    """

    name = "gradient-graph"
    meaning = "logits cannot be differentiated by the images, so gradient attacks see nothing"

    def look(self, given: Subject) -> Finding:
        """See `ModelCheck.look`."""
        offered = {"the model itself": given.model} | dict(outputs_of(given.model))
        missing = {name: reason for name, output in offered.items() if (reason := no_gradient(output, given.batch))}
        if len(missing) == len(offered):
            return self.finding("block", f"no gradient by the images: {next(iter(missing.values()))}")
        if missing:
            return self.finding(
                "pass",
                f"{len(offered) - len(missing)} of {len(offered)} outputs can be differentiated by the images, "
                f"and these cannot: {', '.join(missing)}",
            )
        return self.finding("pass", "logits can be differentiated by the images")


class ZeroGradients(ModelCheck):
    """Examples whose gradient is exactly zero or not finite, for one loss or the other, where the label leads or not.

    There an attack stands still and its failure proves nothing (gradient masking; Carlini et al. 2019,
    fra31/auto-attack#43, Trusted-AI/adversarial-robustness-toolbox#368). Cross-entropy saturates where logits are
    large; rounding and signs kill both losses; square roots and logarithms give NaN. Both are taken at the image and at
    a random point of its ball, as attacks start from either; an example counts with the worst of the four. Any is
    warned of, more than 5 % block; where a model offers surrogates to attack, only those that all of them share. An
    output that cannot be differentiated at all has no usable gradient anywhere.

    Limits: tiny but nonzero gradients pass; points further along an attack's path are not looked at (the official code
    looks at DLR and the start only). Cost: 4 forward and backward passes, as many more for each surrogate.
    """

    name = "zero-gradients"
    meaning = "examples have a zero or non-finite gradient, so gradient attacks stand still"

    def look(self, given: Subject) -> Finding:
        """See `ModelCheck.look`."""
        own, *offered = (_faults(given, output) for output in (given.model, *outputs_of(given.model).values()))
        if own is None and all(faults is None for faults in offered):
            return self.finding("note", "there is no gradient to look at: see gradient-graph")
        of_model, *of_offered = (_unusable(given, faults) for faults in (own, *offered))
        faulty, stuck = int(of_model.sum()), int(torch.stack([of_model, *of_offered]).all(0).sum())
        return self.finding(
            "block" if stuck > ALLOWED_SHARE * len(given.batch) else "warn" if faulty else "pass",
            f"{faulty} of {len(given.batch)} examples have an unusable gradient ({_counts(own)})"
            + (f"; {stuck} through every surrogate too" if offered else ""),
        )


class GradientNoise(ModelCheck):
    """A loss that jumps among neighbours, so that a gradient says nothing about a step's end.

    Noise of high frequency on the logits makes gradients large and meaningless (the unstable predictions of Pintor et
    al. 2022, pralab/IndicatorsOfAttackFailure, src/indicators/indicators.py). The mean change of the margin among 20
    random points of the ball of half the budget, in units of the batch's mean absolute margin, is warned of above 0.5.

    Differences from the source: 20 neighbours, not 100; one denominator for the batch rather than each example's loss,
    which is close to zero at a boundary, and the margin rather than the attack's loss, which is close to zero where the
    model is sure.

    Limits: large noise only; a fragile model may jump as much without any masking. Cost: 21 forward passes.
    """

    name = "gradient-noise"
    meaning = "the loss jumps among random neighbours, so that gradients mislead"

    def look(self, given: Subject) -> Finding:
        """See `ModelCheck.look`."""
        batch, stream = given.batch, given.stream.fold("noise")
        here = margin(logits(given.model, batch.images), batch.labels)
        changes = [
            (margin(logits(given.model, around), batch.labels) - here).abs().mean()
            for around in (
                neighbours(batch, given.threat.epsilon / 2, given.threat.norm, stream.fold(index))
                for index in range(NEIGHBOURS)
            )
        ]
        size = here.abs().mean().clamp(min=torch.finfo(here.dtype).tiny)
        change = float(torch.stack(changes).mean() / size)
        return self.finding(
            "warn" if not change <= NOISE else "pass",
            f"among {NEIGHBOURS} neighbours within half of {given.threat} margins move by {change:.2g} of their mean "
            f"size (limit {NOISE:g})",
        )


def _faults(given: Subject, output: nn.Module) -> Bool[Tensor, "losses 2 n"] | None:
    """For each loss, which examples have a gradient of exactly zero and which one that is not finite; None without one.

    An example counts with the worse of its image and a random point beside it.
    """
    try:
        return torch.stack([_faults_of(given, output, loss) for loss in LOSSES.values()])
    except NoGradient:
        return None


def _faults_of(given: Subject, output: nn.Module, loss: Loss) -> Bool[Tensor, "2 n"]:
    batch = given.batch
    beside = neighbours(batch, given.threat.epsilon, given.threat.norm, given.stream)
    slopes = [image_gradients(output, images, batch.labels, loss).flatten(1) for images in (batch.images, beside)]
    zero = torch.stack([(slope == 0).all(1) for slope in slopes]).any(0)
    wild = torch.stack([~slope.isfinite().all(1) for slope in slopes]).any(0)
    return torch.stack([zero, wild])


def _unusable(given: Subject, faults: Tensor | None) -> Bool[Tensor, " n"]:
    """Which examples an output gives no gradient to use: all, where it has none."""
    if faults is None:
        return torch.ones_like(given.batch.labels, dtype=torch.bool)
    return faults.flatten(0, 1).any(0)


def _counts(faults: Tensor | None) -> str:
    if faults is None:
        return "the model itself has none"
    return ", ".join(
        f"{name}: {int(zero.sum())} zero, {int(wild.sum())} not finite"
        for name, (zero, wild) in zip(LOSSES, faults, strict=True)
    )

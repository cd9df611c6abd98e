"""Whether the same image always gets the same logits: in any mode, in any company, at any time."""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.core.modes import BATCH_NORM, evaluating
from poise.evaluation.soundness.check import Check, ModelCheck, Subject
from poise.evaluation.soundness.finding import Finding
from poise.evaluation.soundness.probing import logits, neighbours, relative_distance

ALONE = 8
"""Images that are also looked at alone."""
PASSES = 5
"""Times that a model is asked the same thing to find noise."""
REPEATS = 3
"""Times that it is asked the same thing to rule noise out."""
COMPANY_TOLERANCE = 1e-3
"""Relative difference of logits between batches that rounding explains: twice the rounding unit of TF32."""
RANDOM_TOLERANCE = 1e-4
"""Relative difference of logits between identical calls that rounding explains; AutoAttack's figure."""


class TrainMode(Check[Subject]):
    """Modules in train mode, which drop units at random or normalise by the batch.

    Attacks on a model in train mode chase a moving target, and its accuracy is another (bethgelab/foolbox#74,
    Trusted-AI/adversarial-robustness-toolbox#484). poise puts models into eval mode for every verdict, so a model that
    was merely handed over in train mode is noted: what is judged is not what the caller had in hand. One with modules
    that stay in train mode although told otherwise blocks.

    Limits: dropout called as a function is seen by `randomised-output`, not here. Cost: none.
    """

    name = "train-mode"
    meaning = "modules that stay in train mode although the model is told to evaluate"

    def inspect(self, given: Subject) -> Finding:
        """See `Check.inspect`."""
        total = sum(1 for _ in given.model.modules())
        handed = _training(given.model)
        with evaluating(given.model):
            stuck = _training(given.model)
        if stuck:
            return self.finding(
                "block", f"{len(stuck)} of {total} modules stay in train mode after eval(): {_kinds(stuck)}"
            )
        if handed:
            return self.finding(
                "note", f"{len(handed)} of {total} modules came in train mode ({_kinds(handed)}); eval mode is judged"
            )
        return self.finding("pass", f"all {total} modules are in eval mode")


class BatchDependence(ModelCheck):
    """Logits that depend on which other images stand in the batch.

    Such a model has no robustness of its own: an attacker who sends one image meets another model than the one judged
    (yaodongyu/TRADES#3). Each image's logits in the whole batch are compared with those alone (the first 8) and among
    as many images of uniform noise; a relative difference above 1e-3 blocks, and so does a model that refuses a single
    image. Batch-normalisation layers without running statistics, the usual cause, are named. Where identical calls
    differ, company cannot be told from randomness and the finding is left to `randomised-output`.

    Limits: it sees the companies it tries. Cost: 12 forward passes, one of them of double size.
    """

    name = "batch-dependence"
    meaning = "logits of an image depend on the other images of its batch"

    def look(self, given: Subject) -> Finding:
        """See `ModelCheck.look`."""
        passes = torch.stack([logits(given.model, given.batch.images) for _ in range(REPEATS)])
        if _spread(passes) > RANDOM_TOLERANCE:
            return self.finding("note", "identical calls differ, which hides what company does: see randomised-output")
        try:
            apart = _moved_by_company(given, passes[0])
        except ValueError as error:
            return self.finding("block", f"the model takes no single image: {error}{_normalisers(given.model)}")
        evidence = f"in other company logits move by up to {apart:.1e} of their length (limit {COMPANY_TOLERANCE:g})"
        if apart <= COMPANY_TOLERANCE:
            return self.finding("pass", evidence)
        return self.finding("block", evidence + _normalisers(given.model))


class RandomisedOutput(ModelCheck):
    """Logits that change from call to call.

    One lucky draw then decides about success, and single gradients point nowhere; AutoAttack sends such models to a
    version that averages (fra31/auto-attack, autoattack/checks.py, issues #104, #105). As there, 5 passes are
    compared; a relative difference above 1e-4 or another prediction blocks. Unlike there, they are made at the images
    and at random neighbours, and a change of the logits' length counts as one of their direction does.

    Limits: a model that seeds its own noise from the image is deterministic and passes. Cost: 10 forward passes.
    """

    name = "randomised-output"
    meaning = "the same image gets other logits from call to call; the suite autoattack-rand is made for that"

    def look(self, given: Subject) -> Finding:
        """See `ModelCheck.look`."""
        points = [given.batch.images, neighbours(given.batch, given.threat.epsilon, given.threat.norm, given.stream)]
        outputs = [torch.stack([logits(given.model, images) for _ in range(PASSES)]) for images in points]
        apart = max(_spread(passes) for passes in outputs)
        predictions = torch.cat([passes.argmax(2) for passes in outputs], dim=1)
        flips = int((predictions != predictions[0]).any(0).sum())
        return self.finding(
            "block" if flips or apart > RANDOM_TOLERANCE else "pass",
            f"over {PASSES} identical calls logits move by up to {apart:.1e} of their length "
            f"(limit {RANDOM_TOLERANCE:g}) and {flips} of {predictions.shape[1]} predictions change",
        )


def _spread(passes: Float[Tensor, "passes n classes"]) -> float:
    """The largest relative difference between any two passes."""
    return max(float(relative_distance(first, second).max()) for first, second in combinations(passes, 2))


def _moved_by_company(given: Subject, together: Float[Tensor, "n classes"]) -> float:
    """The largest relative difference from the logits in the whole batch, alone or among images of noise."""
    images = given.batch.images
    noise = given.stream.fold("company").uniform(given.batch.ids, tuple(images.shape[1:]), dtype=images.dtype)
    crowded = logits(given.model, torch.cat([images, noise]))[: len(images)]
    alone = torch.cat([logits(given.model, image[None]) for image in images[:ALONE]])
    moved = torch.cat([relative_distance(crowded, together), relative_distance(alone, together[:ALONE])])
    return float(moved.max())


def _training(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if module.training]


def _kinds(modules: list[nn.Module]) -> str:
    return ", ".join(sorted({type(module).__name__ for module in modules}))


def _normalisers(model: nn.Module) -> str:
    """A clause that names layers which normalise by the batch even in eval mode; empty where there are none."""
    batchwise = [
        name for name, module in model.named_modules() if isinstance(module, BATCH_NORM) and module.running_mean is None
    ]
    return f"; without running statistics: {', '.join(batchwise[:3])}" if batchwise else ""

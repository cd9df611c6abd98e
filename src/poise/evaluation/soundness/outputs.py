"""What goes into a model and what comes out: the range of images, the kind of numbers, the count of classes."""

from __future__ import annotations

from poise.attacks.suites import MOST_TARGETS
from poise.core.threat import BOX
from poise.evaluation.soundness.check import ModelCheck, Subject
from poise.evaluation.soundness.finding import Finding
from poise.evaluation.soundness.probing import logits

SLACK = 1e-5
"""How exactly probabilities sum to 1; AutoAttack's figure."""


class InputRange(ModelCheck):
    """Images outside [0, 1], where a budget in units of the image range means something else.

    Normalisation outside the model is the most frequent cause of wrong figures (among many
    others fra31/auto-attack#13, #55, #103). Any value outside the box, or that is no number, blocks.

    Limits: normalised images may by chance lie in [0, 1]. Cost: none.
    """

    name = "input-range"
    meaning = "images leave [0, 1]: normalisation stands outside the model, and epsilon means something else"

    def look(self, given: Subject) -> Finding:
        """See `ModelCheck.look`."""
        images = given.batch.images
        outside = int((~((images >= BOX[0]) & (images <= BOX[1]))).flatten(1).any(1).sum())
        return self.finding(
            "block" if outside else "pass",
            f"{outside} of {len(images)} images leave [0, 1]; values span {images.min():.3g} to {images.max():.3g}",
        )


class Probabilities(ModelCheck):
    """Probabilities, or their logarithms, where logits are expected.

    A softmax inside the model makes the loss's own softmax the second: gradients shrink or vanish and the difference of
    logits is bounded (fra31/auto-attack, flags_doc.md). Outputs in [0, 1] whose rows sum to 1 within 1e-5 are warned
    of. Log-probabilities, rows whose logsumexp is 0, are noted only: they have the cross-entropy and margin that their
    logits have, and mixed classifiers give them on purpose.

    Limits: probabilities that were rescaled pass. Cost: 1 forward pass.
    """

    name = "probabilities"
    meaning = "the model returns probabilities instead of logits, which hides gradients"

    def look(self, given: Subject) -> Finding:
        """See `ModelCheck.look`."""
        output = logits(given.model, given.batch.images).double()
        in_box = bool(((output >= -SLACK) & (output <= 1 + SLACK)).all())
        if in_box and bool(((output.sum(1) - 1).abs() < SLACK).all()):
            return self.finding("warn", f"all {len(output)} outputs lie in [0, 1] and sum to 1: give logits instead")
        if bool((output.logsumexp(1).abs() < SLACK).all()):
            return self.finding(
                "note", f"all {len(output)} outputs are log-probabilities, which losses take like logits"
            )
        return self.finding("pass", f"outputs span {output.min():.3g} to {output.max():.3g} and are no probabilities")


class FewClasses(ModelCheck):
    """Fewer classes than the losses of AutoAttack are defined for.

    The difference-of-logits ratio needs three classes, its targeted form four, and nine targets ten; official code
    crashes or warns (fra31/auto-attack#70, #110). poise replaces the undefined ones by the margin and aims at
    min(9, K - 1) classes; this is noted. A model with one class cannot be fooled and blocks.

    Limits: none. Cost: 1 forward pass.
    """

    name = "few-classes"
    meaning = "too few classes for the DLR losses or for nine targets; margins and fewer targets stand in"

    def look(self, given: Subject) -> Finding:
        """See `ModelCheck.look`."""
        classes = logits(given.model, given.batch.images).shape[1]
        targets = min(MOST_TARGETS, classes - 1)
        if classes < 2:
            return self.finding("block", "the model has 1 output: with a single class no prediction can be wrong")
        if classes > MOST_TARGETS:
            return self.finding(
                "pass", f"{classes} classes: every loss is defined and attacks aim at {targets} of them"
            )
        undefined = {2: "apgd-dlr and apgd-t climb the margin", 3: "apgd-t climbs the margin"}
        lost = f"; {undefined[classes]} in place of DLR" if classes in undefined else ""
        return self.finding("note", f"{classes} classes: targeted attacks aim at {targets}{lost}")

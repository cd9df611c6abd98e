"""Validation by flips: what of that which the old model does right is lost, each model attacked for itself."""

from __future__ import annotations

from collections.abc import Mapping

from poise.core.threat import Threat
from poise.data import ImageSet
from poise.evaluation import Examination, Profile, examine
from poise.evaluation.flips import flips, join
from poise.models import Classifier


class Regression:
    """Measures models against an old one on some images.

    Verdicts are those of the suite `fast` at 0 and at the threat's epsilon. They flatter every model: flips here rank
    models, and what a release loses is told by `poise profile`.

    Args:
        old: the model whose verdicts count as what is to be kept; attacked once, here.
        images: what is judged on, in memory.
        threat: what the attacker may do.
        seed: seed of the attacks, for all models alike.
    """

    def __init__(self, old: Classifier, images: ImageSet, threat: Threat, seed: int) -> None:
        self._images = images
        self._examination = fast_examination(threat, seed)
        self._old = self._profile(old, "the old model")

    def __call__(self, classifier: Classifier, epsilon: float = 0.0) -> Mapping[str, float]:  # noqa: ARG002
        """The figures of a model: see `flip_figures`; the epsilon that training has reached plays no part."""
        return flip_figures(self._old, self._profile(classifier, "in training"))

    def _profile(self, classifier: Classifier, name: str) -> Profile:
        return examine(classifier, self._images, self._examination, model_address=name)


def fast_examination(threat: Threat, seed: int) -> Examination:
    """How models are compared: at 0 and the threat's epsilon, with the fast suite."""
    return Examination(threat=threat, suite="fast", points=(), seed=seed)


def flip_figures(old: Profile, model: Profile) -> dict[str, float]:
    """Accuracies of a model, and negative flips from an old one to it, as shares of all images.

    Args:
        old: verdicts on the old model.
        model: verdicts on the other, on the same images by the same attacks.

    Returns:
        "clean" and "robust" accuracy (at the largest epsilon), "clean_flips", "robust_flips", and "union_flips": images
        that are lost in either way.
    """
    found = flips(join(old, model))
    counts = {
        "clean": found[0].new_right,
        "robust": found[-1].new_right,
        "clean_flips": found[0].lost,
        "robust_flips": found[-1].lost,
        "union_flips": found[-1].union,
    }
    return {name: count.certain / count.total for name, count in counts.items()}

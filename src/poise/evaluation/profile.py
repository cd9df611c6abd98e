"""The profile: one row per example with its verdict at every epsilon, from which everything else is arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from poise.core.misuse import Misuse
from poise.core.threat import Norm
from poise.evaluation.certificates.certificate import Certificate
from poise.evaluation.kept import Kept
from poise.evaluation.soundness.finding import Finding


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a profile was measured on and with; two profiles with the same header agree on the examples of both.

    Args:
        norm: norm of the threat model.
        epsilons: the grid, ascending, from 0 to the threat's epsilon, in units of the image range.
        suite: name of the attack suite; of one of somebody's module its address, with a digest behind an "@" that tells
            it from another version.
        mode: how the curve was made: bisect or ascending.
        proposing: precision of the passes that proposed adversarial images.
        seed: seed of all attacks.
        model: digest of the model's weights and blueprint.
        model_address: where the model was found.
        data: digest of the data set, the whole of it where the profile is of a part.
        data_address: where the data were found.
        split: which part of them: train, validation or test.
        classes: class names in the order of the labels.
        versions: versions of poise and of the libraries that decide about numbers.
        whole: number of examples of the data set; a profile of fewer is a part. None in files that do not say.
        surrogates: further outputs of the model through which every gradient search was repeated.
    """

    norm: Norm
    epsilons: tuple[float, ...]
    suite: str
    mode: str
    proposing: str
    seed: int
    model: str
    model_address: str
    data: str
    data_address: str
    split: str
    classes: tuple[str, ...]
    versions: dict[str, str]
    whole: int | None = None
    surrogates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ascending = all(low < high for low, high in zip(self.epsilons, self.epsilons[1:], strict=False))
        if not self.epsilons or self.epsilons[0] != 0 or not ascending:
            raise Misuse(f"a profile's grid rises from 0; got {list(self.epsilons)}")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Verdicts, one row per example.

    An example holds at grid points up to `robust_to` and is broken from `broken_from` on; between the two it is not yet
    settled. Monotone by construction: an adversarial image at one epsilon is one at every larger epsilon.

    Args:
        header: what was measured.
        ids: example ids.
        labels: true classes.
        predictions: classes predicted on the clean images.
        margins: logit of the label minus the highest other logit, on the clean images.
        robust_to: index of the largest grid point at which every attack failed; -1 where even the clean image is wrong.
        broken_from: index of the smallest grid point with a known adversarial image; the grid's length for none.
        broken_by: the attack that found it; "" for none and "clean" where the clean image is wrong.
        findings: what the soundness checks found; empty where none ran.
        adversarials: which file holds the adversarial images behind the verdicts; None where they were not kept.
        certificate: a proven radius for each example, in the header's norm; None where nothing was certified.

    Raises:
        Misuse: for more examples than the header speaks of, and a certificate of other examples or in another norm.
    """

    header: Header
    ids: tuple[str, ...]
    labels: Int[np.ndarray, " n"]
    predictions: Int[np.ndarray, " n"]
    margins: Float[np.ndarray, " n"]
    robust_to: Int[np.ndarray, " n"]
    broken_from: Int[np.ndarray, " n"]
    broken_by: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    adversarials: Kept | None = None
    certificate: Certificate | None = None

    def __post_init__(self) -> None:
        if self.header.whole is not None and len(self.ids) > self.header.whole:
            raise Misuse(f"a profile of {len(self.ids)} images says that there are {self.header.whole} in all")
        if self.certificate is None:
            return
        if (len(self.certificate.radii), self.certificate.norm) != (len(self.ids), self.header.norm):
            raise Misuse(
                f"a profile of {len(self.ids)} images in {self.header.norm} holds a certificate of as many in this "
                f"norm; got {len(self.certificate.radii)} in {self.certificate.norm}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def contradiction(self) -> str:
        """What no examination writes, in a sentence that names the first such row; "" where every row makes sense."""
        points, classes = len(self.epsilons), len(self.header.classes) or np.inf
        clean_wrong = self.broken_from == 0
        broken = np.array([by != "" for by in self.broken_by], dtype=bool)
        sayings = {
            "a class is none of the classes": ~_between(self.labels, 0, classes - 1)
            | ~_between(self.predictions, 0, classes - 1),
            "a verdict is not on the grid": ~_between(self.robust_to, -1, points - 1)
            | ~_between(self.broken_from, 0, points),
            "an image withstands an epsilon beyond one that breaks it": self.robust_to >= self.broken_from,
            "the prediction contradicts the verdict on the clean image": (
                (clean_wrong != (self.predictions != self.labels)) & ~(clean_wrong & np.isnan(self.margins))
            ),
            "the attack that broke it contradicts the verdict": broken != (self.broken_from < points),
        }
        wrong = {saying: np.flatnonzero(rows) for saying, rows in sayings.items() if rows.any()}
        return next((f"{saying}: {self.ids[rows[0]]!r}" for saying, rows in wrong.items()), "")

    @property
    def epsilons(self) -> tuple[float, ...]:
        """The grid."""
        return self.header.epsilons

    @property
    def partial(self) -> bool:
        """Whether these are only some of the data set's examples."""
        return self.header.whole is not None and len(self) < self.header.whole

    @property
    def unsettled(self) -> int:
        """How many examples still lack a verdict at some grid point; they count as robust there."""
        return int((self.robust_to + 1 != self.broken_from).sum())

    @property
    def settled(self) -> bool:
        """Whether every example has a verdict at every grid point."""
        return self.unsettled == 0

    def robust(self) -> Bool[np.ndarray, "n points"]:
        """Whether each example withstood every attack at each grid point; what is not settled counts as robust.

        The first column says whether the clean image is right.
        """
        return self.broken_from[:, None] > np.arange(len(self.epsilons))[None, :]


def _between(values: Int[np.ndarray, " n"], low: float, high: float) -> Bool[np.ndarray, " n"]:
    return (values >= low) & (values <= high)

"""The mixtures of two branches that are worth trying, and the training of a gate between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from poise.commands.mixing.sweep import ALPHA_STEPS, MARGIN_STEPS, held_out
from poise.commands.opening import placed
from poise.commands.rehearsal.demand import examination_work, passes_work, training_works
from poise.commands.rehearsal.estimate import Work
from poise.commands.rehearsal.passes import Passes
from poise.commands.telling.terminal import say
from poise.core.misuse import Misuse
from poise.core.streams import Stream, global_seed
from poise.core.threat import Threat
from poise.data import ImageSet, Splits, sample
from poise.evaluation import Examination, Suite
from poise.models import Classifier
from poise.models.mixing import Blend, Gate, MixedClassifier, plan_gate, shown_alpha
from poise.models.mixing.calibration import Calibrated, HeldOut, calibrated_scale, calibrated_sharpening
from poise.models.mixing.sharpening import Sharpening
from poise.objectives import Objective
from poise.schedules import Fixed
from poise.training import Task, Training

Method = Literal["constant", "network", "nonlinear"]

ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Weights of the robust branch that are tried, as constants or as lower bounds."""
HIGHS = (0.99, 0.95, 0.9)
"""Upper bounds of a gate's alpha below 1 that are tried with the lower bound that was chosen."""
KEEPS = (0.9, 0.95, 0.97, 0.985, 0.995)
"""Shares of robust predictions that calibration is to keep; each gives an alpha."""
_KEEP = 0.985
"""The one of them whose scale serves the other alphas, too; arXiv 2402.02263's."""
_CALIBRATION = Passes(forward=2 * (MARGIN_STEPS + 1) + 3, backward=2 * (MARGIN_STEPS + 1))
"""Of an image in `held_out`: two searches and a start, and three looks."""
_ALPHAS_SEEN = Passes(forward=ALPHA_STEPS + 1 + 2, backward=ALPHA_STEPS + 1)
"""Of an image in `alphas_of`: a search and a start, and two looks."""
_MEASURED = 256
"""Training images from which a gate takes the size of what it reads."""


@dataclass(frozen=True, kw_only=True)
class Mixtures:
    """Two branches, their images, and what a person wants tried.

    Args:
        plain: a mixture of the branches, which alpha is changed in.
        splits: the images: a gate is trained on train, choices are made on validation.
        scales: factors of the standard and the robust branch's logits.
        threat: what mixtures shall withstand.
        alphas: the robust branch's weights, or lower bounds of a gate's.
        refine: how many more are tried, between one of these that keeps enough and one that does not.
        seed: decides everything random.
        validate_on: number of validation images.
    """

    plain: MixedClassifier
    splits: Splits
    scales: tuple[float, float]
    threat: Threat
    alphas: tuple[float, ...]
    refine: int
    seed: int
    validate_on: int

    @property
    def validation(self) -> ImageSet:
        """The images that choices are made on."""
        return sample(self.splits.validation, self.validate_on)

    def task(self, width: float, objective: Objective, training: Training) -> Task:
        """The training of a fresh gate on top of the frozen branches, alpha free between 0 and 1."""
        standard, robust = self.plain.standard, self.plain.robust
        plan = plan_gate(standard, robust, width=width)
        with global_seed(Stream.seeded(self.seed).fold("gate")):
            gate = Gate(plan)
        blend = Blend(alpha_low=0.0, alpha_high=1.0, scale_standard=self.scales[0], scale_robust=self.scales[1])
        mixed = MixedClassifier.of(standard, robust, blend, gate)
        for branch in (standard, robust):
            branch.requires_grad_(requires_grad=False)
        images = self.splits.train
        some = Stream.seeded(self.seed).fold("measured").permutation(len(images))[:_MEASURED]
        mixed.measure_gate(images.images(some).to(mixed.device))
        return Task(mixed, images, objective, Fixed(), self.threat, training, "none", self.seed)

    def calibrated(self, task: Task) -> Task:
        """The training of the gate with the scale of the robust branch's logits that calibration finds.

        Where the validation images tell nothing, which is said, the training is as it was. It costs an attack on the
        robust branch, and gives the same scale every time.
        """
        mixed = task.classifier
        assert isinstance(mixed, MixedClassifier)  # noqa: S101 - `task` made it
        found = self._scaled((_KEEP,))
        if not found:
            return task
        scale = found[0].blend.scale_robust
        say(f"calibrated: the robust branch's logits are scaled by {scale:.4g}")
        return replace(task, classifier=mixed.blended(replace(mixed.blend, scale_robust=scale)))

    def candidates(
        self, method: Method, trained: Classifier | None, *, calibrate: bool
    ) -> tuple[MixedClassifier, list[Blend]]:
        """The mixture and the blends of it that are worth trying."""
        if isinstance(trained, MixedClassifier):
            return trained.eval(), [replace(trained.blend, alpha_low=low) for low in self.alphas]
        if method == "nonlinear":
            known = self._held_out()
            return self.plain, list(dict.fromkeys(_told(calibrated_sharpening(known, keep)) for keep in KEEPS))
        found = [_told(each) for each in self._scaled(KEEPS)] if calibrate else []
        scale = found[KEEPS.index(_KEEP)].scale_robust if found else self.scales[1]
        constant = [replace(Blend.constant(alpha), scale_robust=scale) for alpha in self.alphas]
        made = [replace(blend, scale_standard=self.scales[0]) for blend in (*constant, *found)]
        return self.plain, list(dict.fromkeys(made))

    def _scaled(self, keeps: Sequence[float]) -> list[Calibrated]:
        """Calibrated scales, one for each share to keep; none where validation images tell nothing, which is said."""
        try:
            known = self._held_out()
            return [calibrated_scale(known, keep) for keep in keeps]
        except Misuse as error:
            say(f"not calibrated: {error}")
            return []

    def _held_out(self) -> HeldOut:
        return held_out(self.plain.robust, self.validation, self.threat, self.seed)

    def works(self, method: Method, task: Task | None, suite: Suite | None, *, calibrate: bool) -> list[Work]:
        """What trying them costs.

        Args:
            method: how they are mixed.
            task: the training of the gate, where there is one.
            suite: the attacks that mixtures meet; None where nothing is tried.
            calibrate: whether the scale of the robust branch's logits is chosen.
        """
        images, plain, works = self.validation, self.plain, []
        if task is not None:
            works += training_works(task)
        if method == "nonlinear" or calibrate:
            works.append(passes_work("calibration", plain.robust, images, _CALIBRATION))
        if suite is None:
            return works
        examination = Examination(threat=self.threat, suite=suite, points=(), seed=self.seed)
        works += [
            examination_work(branch, images, examination, "a branch") for branch in (plain.standard, plain.robust)
        ]
        mixed, count = plain if task is None else placed(task.classifier), len(self.alphas)
        count += calibrate * len(KEEPS) if task is None else max(len(_highs(low)) for low in self.alphas)
        if method == "nonlinear":
            bent = Sharpening(scale=1.0, power=1.0, shift=0.0)
            mixed, count = plain.blended(replace(plain.blend, sharpening=bent)), len(KEEPS)
        works.append(examination_work(mixed, images, examination, "a mixture") * count)
        if self.refine and method != "nonlinear":
            further = examination_work(mixed, images, examination, "a further alpha")
            works.append(replace(further * self.refine, least=Passes()))
        if task is not None:
            works.append(passes_work("the gate's alphas", mixed, images, _ALPHAS_SEEN))
        return works


def halfway(blends: Sequence[Blend], enough: Sequence[bool], chosen: int) -> Blend | None:
    """The blend between the least alpha that keeps enough and the next one below, which does not.

    Both are like the chosen blend in all else.

    Args:
        blends: what was tried.
        enough: whether each keeps the robust accuracy that it must.
        chosen: which of them is the best so far.

    Returns:
        It; None where no such blend of smaller alpha keeps too little.
    """
    at = blends[chosen]
    alike = [
        (blend.alpha_low, keeps) for blend, keeps in zip(blends, enough, strict=True) if at == blend.at(at.alpha_low)
    ]
    below = max((alpha for alpha, keeps in alike if not keeps and alpha < at.alpha_low), default=None)
    if below is None:
        return None
    return at.at((below + min(alpha for alpha, keeps in alike if keeps and alpha > below)) / 2)


def capped(blend: Blend) -> list[Blend]:
    """A gate's blend with smaller upper bounds, where these lie above the lower one."""
    return [replace(blend, alpha_high=high) for high in _highs(blend.alpha_low)]


def _highs(low: float) -> list[float]:
    return [high for high in HIGHS if high > low]


def _told(found: Calibrated) -> Blend:
    say(
        f"calibrated: alpha {shown_alpha(found.blend.alpha_low)} keeps {found.kept:.1%} of its right predictions "
        f"under attack and lets {found.fixable:.1%} of its clean mistakes be overturned"
    )
    return found.blend

"""Mix an accurate and a robust classifier into one with most of what either is good for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import get_args

from poise.attacks.suites import SUITES
from poise.commands.fitting.fit import begun, trained
from poise.commands.mixing.mixtures import ALPHAS, Method, Mixtures, capped, halfway
from poise.commands.mixing.sweep import Sweep, alphas_of
from poise.commands.opening import Source, open_whole, placed, tell_repeats
from poise.commands.recipe import options_among
from poise.commands.run import Run, recipe_of, threat_of
from poise.commands.telling.terminal import say
from poise.core.misuse import Misuse, check_choice
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.data import ImageSet
from poise.evaluation import Estimate, Suite, profile_of
from poise.evaluation.frontier import Frontier, Point, choose, keeps_enough, write_frontier
from poise.models import Classifier, save_model
from poise.models.mixing import Blend, MixedClassifier, shown_alpha
from poise.models.mixing.sharpening import refuse_few_classes
from poise.models.saving import refuse_foreign
from poise.objectives import Mixing, Objective
from poise.training import Training, check_task


def mix(
    standard: str,
    robust: str,
    data: str | None = None,
    *,
    method: Method = "constant",
    alpha: float | None = None,
    alphas: list[float] | None = None,
    refine: int = 3,
    lose: float = 1.0,
    calibrate: bool = False,
    scale_standard: float = 1.0,
    scale_robust: float = 1.0,
    gate_width: float = 0.25,
    threat: Threat | None = None,
    suite: Suite = "fast",
    validate_on: int = 500,
    training: Training = Training(epochs=5),
    objective: Objective = Mixing(),
    image_size: int | None = None,
    limit: int | None = None,
    skip_unreadable: bool = False,
    trackers: tuple[str, ...] = (),
    out: Path | str | None = None,
    resume: bool = False,
    seed: int = 0,
) -> Run:
    """Mix two classifiers, so that one's mistakes under attack are outvoted and the other's clean ones put right.

    Mixtures are tried on validation images, attacked through all their outputs; the most accurate one whose robust
    accuracy stays within `lose` points of the robust branch's is kept as the run's model. What was tried is shown and
    written to frontier.json. Profile the run to judge the choice on test images.

    Args:
        standard: address of the accurate classifier.
        robust: address of the robust classifier, of the same classes.
        data: address of the images; by default those the robust run was trained on.
        method: constant (one alpha for all images), network (a trained gate chooses alpha), nonlinear (no training: the
            robust branch's confidence is sharpened, MixedNUTS; for 3 classes or more).
        alpha: the robust branch's weight, or the gate's lower bound; nothing is then tried or chosen.
        alphas: the weights, or lower bounds, to try, in place of the default ones. A gate's lower bound, once chosen,
            is tried with upper bounds of 0.99, 0.95 and 0.9 too, where they lie above it.
        refine: how often to halve, after these, the way from the smallest alpha that keeps enough robust accuracy to
            the next one that does not; of constant mixtures and of gates.
        lose: robust accuracy that may be given up for clean accuracy, in points (percent) on the validation images.
        calibrate: choose scale_robust by the robust branch's margins on validation images, for a gate before it is
            trained; with a constant alpha try those too that leave an attacker 0.5 to 10 % of its right predictions at
            most.
        scale_standard: factor of the accurate branch's logits.
        scale_robust: factor of the robust branch's logits.
        gate_width: width of the gate in units of the branches'; 1 is that of the published one.
        threat: what the mixture shall withstand; by default the robust run's.
        suite: the attacks that validation mixtures meet: autoattack, apgd, pgd or fast.
        validate_on: number of validation images.
        training: how the gate is trained: epochs, batch size, learning rate and the like.
        objective: what a step of the gate's training minimises: mixing.
        image_size: resize the shorter side to this and crop the centre.
        limit: use this many images of each split, the same ones every time.
        skip_unreadable: list images that cannot be read and leave them out, instead of stopping.
        trackers: where accelerate sends the figures of every epoch of the gate.
        out: the run folder to create; by default runs/mix, with a number behind it where that exists.
        resume: go on with the run in `out`, with the recipe it was started with; `lose`, `alphas` and `refine` may be
            others, and what was measured is not measured again.
        seed: decides everything random.

    Returns:
        The run.

    Raises:
        Misuse: for anything that cannot be done, before any work; and where no mixture keeps what it must.
    """
    out = None if out is None else Path(out)
    parent = recipe_of(robust)
    source = Source.of(parent, data, image_size=image_size, limit=limit, skip_unreadable=skip_unreadable)
    threat = threat or Threat(**threat_of(robust))
    options = options_among(locals(), mix, but=("resume",))
    options |= asdict(source)
    _refuse_nonsense(method, objective, lose, validate_on, [*(alphas or ()), *(() if alpha is None else (alpha,))])
    if refine < 0:
        raise Misuse(f"refine is a number of further alphas of at least 0; got {refine}")
    check_choice("suite", suite, SUITES)
    if alpha is not None and alphas is not None:
        raise Misuse("alpha is taken as it is, alphas are tried; leave one of them out")
    if method == "nonlinear" and (calibrate or (scale_standard, scale_robust) != (1.0, 1.0)):
        raise Misuse("nonlinear mixing has a scale of its own; leave calibrate, scale_standard and scale_robust out")
    splits = source.open()
    if method == "nonlinear":
        refuse_few_classes(len(splits.train.classes))
    branches = [_branch(address, splits.train, seed) for address in (standard, robust)]
    work = Mixtures(
        plain=MixedClassifier.of(branches[0], branches[1], 0.5),
        splits=splits,
        scales=(scale_standard, scale_robust),
        threat=threat,
        alphas=tuple(alphas or ALPHAS) if alpha is None else (alpha,),
        refine=refine,
        seed=seed,
        validate_on=validate_on,
    )
    task = work.task(gate_width, objective, training) if method == "network" else None
    if task is not None:
        check_task(task, trackers)
    works = partial(work.works, method, task, None if alpha is not None else suite, calibrate=calibrate)
    folder = begun("mix", options, out, resume=resume, works=works, ignored=("lose", "alphas", "refine"))
    tell_repeats(splits)
    gated = None
    if task is not None:
        task = work.calibrated(task) if calibrate else task
        gated = trained(task, folder, f"training the gate of {folder.path.name}", trackers=trackers)
    mixed, blends = work.candidates(method, gated, calibrate=calibrate)
    if alpha is None:
        sweep = Sweep(images=work.validation, threat=threat, suite=suite, seed=seed, folder=folder.path / "sweep")
        try:
            frontier, chosen = _tried(sweep, mixed, blends, lose, 0 if method == "nonlinear" else refine)
        except _NoneKeepsEnough as error:
            write_frontier(error.frontier, folder.frontier)
            raise Misuse(f"{error}. What was tried is in {folder.frontier}") from None
        if mixed.gate is not None:
            frontier = replace(frontier, alphas=alphas_of(mixed.blended(chosen), sweep))
        write_frontier(frontier, folder.frontier)
        blends = [chosen]
    final = mixed.blended(blends[0])
    save_model(final.cpu(), folder.path)
    _tell_stale(folder)
    say(f"{folder.path}: {method} mixture, alpha {_range(final.alpha_low, final.alpha_high)}")
    return Run(folder)


class _NoneKeepsEnough(Misuse):
    """No mixture that was tried keeps what it must.

    Args:
        reason: in words.
        frontier: what was tried.
    """

    def __init__(self, reason: str, frontier: Frontier) -> None:
        super().__init__(reason)
        self.frontier = frontier


def _tell_stale(folder: RunFolder) -> None:
    """Say so where the run was profiled before another mixture was chosen in it."""
    try:
        profile_of(folder)
    except Misuse as error:
        say(str(error))


def _tried(
    sweep: Sweep, mixed: MixedClassifier, blends: Sequence[Blend], lose: float, refine: int
) -> tuple[Frontier, Blend]:
    """Both branches alone and every blend between them, further ones near the limit, and the blend that is chosen.

    Of a gate the lower bound is chosen under an upper one of 1, and then tried under smaller ones.
    """
    say(f"on {len(sweep.images)} validation images, {sweep.threat}, {sweep.suite}:")
    standard = replace(sweep.measured(mixed.standard, "standard alone"), alpha_low=0.0, alpha_high=0.0)
    robust = _robust_alone(sweep, mixed, blends[0].scale_robust)
    alone = _shown((standard, robust))
    if robust.robust.value < standard.robust.value:
        say("the branch that was given as the robust one withstands less than the standard one: are they swapped?")
    points = _shown(sweep.points(mixed, blends))
    tried = Frontier(
        threat=str(sweep.threat),
        suite=sweep.suite,
        images=len(sweep.images),
        points=(*points, *alone),
        chosen=None,
        lose=lose,
    )
    try:
        chosen = choose(points, robust.robust, lose)
    except Misuse as error:
        raise _NoneKeepsEnough(str(error), tried) from None
    for _ in range(refine):
        enough = [keeps_enough(point, robust.robust, lose) for point in points]
        if (between := halfway(blends, enough, chosen)) is None:
            break
        blends, points = [*blends, between], [*points, *_shown(sweep.points(mixed, [between], blends))]
        chosen = choose(points, robust.robust, lose)
    if mixed.gate is not None:
        bounded = capped(blends[chosen])
        blends, points = [*blends, *bounded], [*points, *_shown(sweep.points(mixed, bounded, blends))]
        chosen = choose(points, robust.robust, lose)
    say(f"chosen: {points[chosen].name}")
    return replace(tried, points=(*points, *alone), chosen=chosen), blends[chosen]


def _shown(points: Iterable[Point]) -> list[Point]:
    """Measurements, told of as they come."""
    found = []
    for point in points:
        say(f"  {point.name:<28} clean {_percent(point.clean)}  robust {_percent(point.robust)}")
        found.append(point)
    return found


def _robust_alone(sweep: Sweep, mixed: MixedClassifier, scale: float) -> Point:
    """The robust branch, by the worse of two verdicts: attacked as it is, and as its mixtures are.

    These meet an attacker who follows several outputs at other scales; next to them a suite that does not break all
    there is to break would flatter a branch that it sees once.
    """
    whole = MixedClassifier.of(mixed.standard, mixed.robust, replace(Blend.constant(1.0), scale_robust=scale))
    within = sweep.measured(whole, "robust within")
    return min(sweep.measured(mixed.robust, "robust alone"), replace(within, name="robust alone"), key=_robust)


def _robust(point: Point) -> float:
    return point.robust.value


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:6.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def _range(low: float, high: float) -> str:
    return shown_alpha(low) if low == high else f"{shown_alpha(low)} to {shown_alpha(high)}"


def _branch(address: str, images: ImageSet, seed: int) -> Classifier:
    branch = open_whole(address, images, seed=seed)
    refuse_foreign(branch.blueprint)
    return placed(branch).eval()


def _refuse_nonsense(method: str, objective: Objective, lose: float, validate_on: int, alphas: Sequence[float]) -> None:
    check_choice("method", method, get_args(Method))
    if not isinstance(objective, Mixing):
        raise Misuse(f"a gate is trained by the objective mixing; got {type(objective).__name__.lower()}")
    if not lose >= 0:
        raise Misuse(f"lose is a number of points of at least 0; got {lose}")
    if validate_on < 1:
        raise Misuse(f"mixtures are chosen on validation images; validate_on must be at least 1, got {validate_on}")
    if method == "nonlinear" and alphas:
        raise Misuse("nonlinear mixing finds its alphas by calibration; leave alpha and alphas out")
    for value in alphas:
        if not 0 <= value <= 1 or (method == "network" and value == 1):
            raise Misuse(f"alpha is the robust branch's weight, from 0 to 1 (below 1 for a gate); got {value}")

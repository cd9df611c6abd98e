"""Profile a classifier: verdicts on every image over a grid of epsilons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from poise.attacks.suites import longest, passes
from poise.commands.opening import Source, check_split, open_whole, placed, tell_reach
from poise.commands.recipe import options_among
from poise.commands.rehearsal.demand import EXAMINATION_UNKNOWN, examination_work
from poise.commands.rehearsal.estimate import rehearsed
from poise.commands.run import file_name, fresh_path, recipe_of, threat_of
from poise.commands.telling.attaching import attach_profile, trackers_of
from poise.commands.telling.headline import tell
from poise.commands.telling.terminal import say, watching
from poise.core.misuse import Misuse
from poise.core.modes import Precision
from poise.core.run_folder import RunFolder
from poise.core.streams import Stream
from poise.core.threat import Epsilon, Threat
from poise.data import ImageSet, Split, batches, decoded
from poise.evaluation import (
    Examination,
    Finding,
    Mode,
    Part,
    Profile,
    Suite,
    adversarials_path,
    blocked,
    check_profile_name,
    examine,
    inspect_model,
    inspect_profile,
    read_profile,
    remove_journals,
    write_profile,
)
from poise.evaluation.soundness.catalogue import CHECKS, overrule
from poise.evaluation.soundness.certified import certified
from poise.models import Classifier
from poise.training import is_main

_PROBES = 32


def profile(
    model: str,
    data: str | None = None,
    *,
    weights: str | None = None,
    threat: Threat | None = None,
    suite: Suite | str = "autoattack",
    mode: Mode = "bisect",
    points: list[float | str] | None = None,
    split: Split = "test",
    image_size: int | None = None,
    limit: int | None = None,
    skip_unreadable: bool = False,
    batch_size: int | None = None,
    proposing: Precision = "fp32",
    adaptive: bool = True,
    compile: bool = False,  # noqa: A002 - torch's name for it
    soundness: bool = True,
    allow: list[str] | None = None,
    keep_adversarials: bool = False,
    part: str | None = None,
    trackers: tuple[str, ...] | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> Profile:
    """Attack every image at every epsilon of a grid and keep the verdicts as a profile.

    Outcomes are kept beside the profile as they come in: the same command, after an interruption, goes on from there.
    For a run, what is left out is taken from its recipe: the data, their size and limit, and the threat.

    Args:
        model: address of the network: run:FOLDER, timm:NAME, python:pkg.module:factory, small, resnet18.
        data: address of the images; by default those the run was trained on.
        weights: a local weights file, or "random"; by default what the address itself carries.
        threat: what the attacker may do; by default the run's.
        suite: the attacks: autoattack (the published ensemble), autoattack-plus (with restarts and untargeted FAB),
            autoattack-rand (for models whose output is random), apgd (the first two), pgd (40 steps), fast (10), or
            those of your own, python:pkg.module:function.
        mode: how an image's place on the grid is found: bisect, or ascending (every epsilon in turn).
        points: epsilons at which to judge, such as 2/255,4/255, 60 at most; by default 0 to the threat's in steps.
        split: which images to judge on.
        image_size: resize the shorter side to this and crop the centre.
        limit: judge on this many images, the same ones every time.
        skip_unreadable: list images that cannot be read and leave them out, instead of stopping.
        batch_size: images in work at a time; it changes the speed and not the verdicts. By default chosen by memory.
        proposing: precision of the passes that propose adversarial images; fp32 ones confirm each.
        adaptive: attack a mixed or smoothed model through each of its branches and other surrogate outputs as well.
        compile: compile the passes that propose adversarial images; pays on long runs.
        soundness: check model and verdicts for the known ways in which an evaluation fools its user.
        allow: names of checks whose objection is overridden; the profile and its report say so. Needs the checks.
        keep_adversarials: keep the adversarial image behind each verdict, in a file beside the profile.
        part: judge only this part of the images, such as 2/5 for the second of five; poise merge joins the parts.
        trackers: where accelerate sends the figures, and the file where files are known; by default where the run's
            training was sent; [] for nowhere.
        out: file to write; by default profile.parquet in the run's folder, or profiles/NAME.parquet, and for a part
            with its number in the name.
        overwrite: replace a profile that is there already.
        seed: decides everything random.

    The suite autoattack-rand is made for models whose output is random, and overrides the objection to it.

    Under `accelerate launch` the images are shared among the processes; the main one writes.

    Returns:
        The profile.

    Raises:
        Misuse: for anything that cannot be done, before any work.
    """
    options = options_among(locals(), profile)
    if allow and not soundness:
        raise Misuse(f"--allow overrides soundness checks, and none run with --soundness false; got {', '.join(allow)}")
    allow = [*(allow or ()), *(["randomised-output"] if passes(suite) > 1 else [])]
    overrule((), allow)
    check_split(split)
    chosen = None if part is None else Part.read(part)
    recipe = recipe_of(model)
    target = Path(out) if out else profile_path(model, chosen)
    check_profile_name(target)
    if keep_adversarials and target.suffix == ".csv":
        raise Misuse("a profile in CSV does not say where adversarial images are kept; write .parquet with --out")
    if target.exists() and not overwrite:
        raise Misuse(f"{target} exists already; replace it with --overwrite, or write elsewhere with --out")
    earlier = _earlier(target)
    sent = trackers_of(model, trackers, own=not out and chosen is None)
    threat = threat or Threat(**threat_of(model))
    examination = Examination(
        threat=threat,
        suite=suite,
        mode=mode,
        points=None if points is None else tuple(float(Epsilon(point)) for point in points),
        seed=seed,
        batch_size=batch_size,
        proposing=proposing,
        adaptive=adaptive,
        compile=compile,
    )
    source = Source.of(recipe, data, image_size=image_size, limit=limit, skip_unreadable=skip_unreadable)
    whole: ImageSet = getattr(source.open(), split)
    images = decoded(whole.select(chosen.rows(whole.ids)) if chosen else whole)
    classifier = placed(open_whole(model, images, weights=weights, seed=seed)).eval()
    _refuse_to_lose(earlier, classifier, images, threat, target)
    tell_reach(threat, images.shape)
    steps = longest(suite, threat.norm, classifier.num_classes)
    findings = _model_findings(classifier, images, examination, allow) if soundness else ()
    rehearsed(
        "profile",
        options | asdict(source) | {"threat": threat},
        lambda: [examination_work(classifier, images, examination, "attacks")],
        (*EXAMINATION_UNKNOWN, "soundness checks, and what is tried again for them"),
    )
    with watching(f"profiling {model}") as watch:
        result = examine(
            classifier,
            images,
            examination,
            model_address=model,
            split=split,
            journal=target,
            keep_adversarials=keep_adversarials,
            whole=whole if chosen else None,
            watch=watch,
        )
    if not is_main():
        return result
    result = _certified_as(result, earlier)
    if soundness:
        again = inspect_profile(result, classifier, images, steps=steps, at_once=batch_size)
        result = replace(result, findings=overrule((*findings, *again), allow))
    write_profile(result, target)
    if not keep_adversarials:
        adversarials_path(target).unlink(missing_ok=True)
    remove_journals(target)
    tell(result, target)
    attach_profile(model, result, target, sent)
    return result


def _model_findings(
    classifier: Classifier, images: ImageSet, examination: Examination, allow: Sequence[str]
) -> tuple[Finding, ...]:
    """What speaks against attacking this model at all, before hours are spent on it."""
    stream = Stream.seeded(examination.seed).fold("soundness")
    some = stream.fold("probes").permutation(len(images))[:_PROBES].sort().values  # data are often sorted by class
    probe = next(batches(images.select(some), batch_size=len(some), device=classifier.device))
    findings = overrule(inspect_model(classifier, probe, examination.threat, stream), allow)
    if objections := blocked(findings):
        named = "; ".join(f"{found.check}: {found.evidence}: {CHECKS[found.check]}" for found in objections)
        raise Misuse(f"{named} (to override: --allow {','.join(found.check for found in objections)})")
    return findings


def _earlier(target: Path) -> Profile | None:
    """The profile that will be replaced; None where there is none, or what is there is none."""
    try:
        return read_profile(target) if target.exists() else None
    except Misuse:
        return None


def _refuse_to_lose(
    earlier: Profile | None, classifier: Classifier, images: ImageSet, threat: Threat, target: Path
) -> None:
    """Refuse to replace a profile whose certificate is about this very model and these images, in another norm."""
    if earlier is None or earlier.certificate is None or earlier.header.norm == threat.norm:
        return
    if (earlier.header.model, earlier.header.data) == (classifier.digest(), images.digest()):
        norm = earlier.header.norm
        raise Misuse(
            f"{target} holds a certificate in {norm} ({earlier.certificate}), which a profile in {threat.norm} would "
            f"lose; write the profile elsewhere with --out, or attack in {norm} (--threat.norm {norm})"
        )


def _certified_as(result: Profile, earlier: Profile | None) -> Profile:
    """The profile with the certificate of the one that it replaces, where that is about the same model and images."""
    if earlier is None or earlier.certificate is None:
        return result
    ours, theirs = ((one.header.model, one.header.data, one.header.norm, one.ids) for one in (result, earlier))
    if ours == theirs:
        return certified(result, earlier.certificate)
    say(
        "the certificate of the profile that is replaced is of another model, of other images or in another norm, and "
        "is gone with it; poise certify makes a new one"
    )
    return result


def profile_path(model: str, part: Part | None = None) -> Path:
    """Where the profile of a model, or of a part of its data, lies unless a person says otherwise."""
    kind, _, place = model.partition(":")
    ending = f".part-{part.number}-of-{part.of}.parquet" if part else ".parquet"
    if kind == "run":
        return RunFolder(Path(place)).profile.with_suffix(ending)
    return fresh_path(Path("profiles") / f"{file_name(model)}{ending}")

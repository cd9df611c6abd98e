"""Profile a classifier: verdicts on every image over a grid of epsilons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from accelerate import PartialState

from poise.attacks.suites import passes
from poise.commands.recipe import read_recipe
from poise.commands.run import fresh_path
from poise.commands.terminal import say, watching
from poise.core.misuse import Misuse, suggestion
from poise.core.modes import Precision
from poise.core.run_folder import RunFolder
from poise.core.streams import Stream
from poise.core.threat import Epsilon, Threat
from poise.data import ImageSet, batches, decoded, open_data
from poise.evaluation import (
    Examination,
    Finding,
    Mode,
    Profile,
    Suite,
    accuracy_curve,
    blocked,
    examine,
    expected_robustness,
    remove_journals,
    write_profile,
)
from poise.evaluation.soundness.catalogue import inspect_model, inspect_profile, overrule
from poise.models import Classifier, open_model

Split = Literal["train", "validation", "test"]

_PROBES = 32
_STEPS: dict[Suite, int] = {
    "autoattack": 100,
    "autoattack-plus": 100,
    "autoattack-rand": 100,
    "apgd": 100,
    "pgd": 40,
    "fast": 10,
}
"""Steps that the suites' gradient attacks take, which the convergence check doubles."""


def profile(
    model: str,
    data: str | None = None,
    *,
    weights: str | None = None,
    threat: Threat | None = None,
    suite: Suite = "autoattack",
    mode: Mode = "bisect",
    points: list[float | str] | None = None,
    split: Split = "test",
    image_size: int | None = None,
    limit: int | None = None,
    skip_unreadable: bool = False,
    batch_size: int | None = None,
    proposing: Precision = "fp32",
    compile: bool = False,  # noqa: A002 - torch's name for it
    soundness: bool = True,
    allow: list[str] | None = None,
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
            autoattack-rand (for models whose output is random), apgd (the first two), pgd (40 steps), fast (10).
        mode: how an image's place on the grid is found: bisect, or ascending (every epsilon in turn).
        points: epsilons at which to judge, such as 2/255,4/255; by default 0 to the threat's in steps.
        split: which images to judge on.
        image_size: resize the shorter side to this and crop the centre.
        limit: judge on this many images, the same ones every time.
        skip_unreadable: list images that cannot be read and leave them out, instead of stopping.
        batch_size: images in work at a time; it changes the speed and not the verdicts. By default chosen by memory.
        proposing: precision of the passes that propose adversarial images; fp32 ones confirm each.
        compile: compile the passes that propose adversarial images; pays on long runs.
        soundness: check model and verdicts for the known ways in which an evaluation fools its user.
        allow: names of checks whose objection is overridden; the profile and its report say so.
        out: file to write; by default profile.parquet in the run's folder, or profiles/NAME.parquet.
        overwrite: replace a profile that is there already.
        seed: decides everything random.

    The suite autoattack-rand is made for models whose output is random, and overrides the objection to it.

    Under `accelerate launch` the images are shared among the processes; the main one writes.

    Returns:
        The profile.

    Raises:
        Misuse: for anything that cannot be done, before any work.
    """
    allow = [*(allow or ()), *(["randomised-output"] if passes(suite) > 1 else [])]
    overrule((), allow)
    if split not in get_args(Split):
        raise Misuse(f"unknown split {split!r}; {suggestion(str(split), get_args(Split))}")
    recipe = _recipe(model)
    target = Path(out) if out else _default_path(model)
    if target.exists() and not overwrite:
        raise Misuse(f"{target} exists already; replace it with --overwrite, or write elsewhere with --out")
    threat = threat or Threat(**recipe.get("threat", {}))
    examination = Examination(
        threat=threat,
        suite=suite,
        mode=mode,
        points=None if points is None else tuple(float(Epsilon(point)) for point in points),
        seed=seed,
        batch_size=batch_size,
        proposing=proposing,
        compile=compile,
    )
    splits = open_data(
        data or recipe.get("data", "digits"),
        image_size=recipe.get("image_size") if image_size is None else image_size,
        limit=recipe.get("limit") if limit is None else limit,
        skip_unreadable=skip_unreadable or bool(recipe.get("skip_unreadable")),
    )
    images = decoded(getattr(splits, split))
    classifier = open_model(model, weights=weights, classes=images.classes, shape=images.shape, seed=seed)
    for note in classifier.notes:
        say(note)
    untrained = any(note.startswith("head replaced") for note in classifier.notes) and not model.startswith("run:")
    if untrained and weights != "random":
        raise Misuse(f"{model} tells other classes apart than {images.address}, and a random head has nothing to judge")
    process = PartialState()
    classifier.eval().to(process.device if process.device.type == "cuda" else "cpu")
    findings = _model_findings(classifier, images, examination, allow) if soundness else ()
    with watching(f"profiling {model}") as watch:
        result = examine(classifier, images, examination, model_address=model, split=split, journal=target, watch=watch)
    if not process.is_main_process:
        return result
    if soundness:
        again = inspect_profile(result, classifier, images, steps=_STEPS[suite])
        result = replace(result, findings=overrule((*findings, *again), allow))
    write_profile(result, target)
    remove_journals(target)
    _tell(result, target)
    return result


def _model_findings(
    classifier: Classifier, images: ImageSet, examination: Examination, allow: Sequence[str]
) -> tuple[Finding, ...]:
    """What speaks against attacking this model at all, before hours are spent on it."""
    probe = next(batches(images, batch_size=min(_PROBES, len(images)), device=classifier.device))
    stream = Stream.seeded(examination.seed).fold("soundness")
    findings = overrule(inspect_model(classifier, probe, examination.threat, stream), allow)
    if objections := blocked(findings):
        named = "; ".join(f"{found.check}: {found.evidence}" for found in objections)
        raise Misuse(f"{named} (see --allow {','.join(found.check for found in objections)})")
    return findings


def _tell(result: Profile, target: Path) -> None:
    """The headline, unless a check objects to it."""
    for finding in result.findings:
        if finding.status in {"warn", "block"}:
            say(str(finding))
    if objections := blocked(result.findings):
        say(f"{target}: written, but no figure is shown: {', '.join(found.check for found in objections)}")
        return
    curve, expected = accuracy_curve(result), expected_robustness(result)
    header = result.header
    say(
        f"{target}: {len(result)} images, {header.norm} {Epsilon(header.epsilons[-1])}, {header.suite}: "
        f"clean {curve.clean.value:.1%}, robust {curve.robust.value:.1%}, expected robustness {expected.value:.1%}"
    )


def inherited(words: list[str]) -> list[str]:
    """Options that a run's recipe adds to the words of a command line: naming a part of the threat keeps the others."""
    threat: dict[str, Any] = next((_recipe(word).get("threat", {}) for word in words if word.startswith("run:")), {})
    if not any(word.startswith("--threat") for word in words):
        return words
    return [*(word for name, value in threat.items() for word in (f"--threat.{name}", str(value))), *words]


def _recipe(model: str) -> dict[str, Any]:
    """The recipe of a run; nothing for other addresses."""
    kind, _, place = model.partition(":")
    folder = RunFolder(Path(place))
    return read_recipe(folder.recipe) if kind == "run" and folder.recipe.is_file() else {}


def _default_path(model: str) -> Path:
    kind, _, place = model.partition(":")
    if kind == "run":
        return RunFolder(Path(place)).profile
    name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in model)
    return fresh_path(Path("profiles") / f"{name}.parquet")

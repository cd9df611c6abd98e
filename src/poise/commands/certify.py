"""Certify a classifier: a radius for every image within which it is proven right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from poise.commands.found_again import folder_of, marked
from poise.commands.opening import Source, check_split, open_whole, placed
from poise.commands.profile import profile_path
from poise.commands.recipe import options_among, recipe_text, refuse_changes, write_recipe
from poise.commands.rehearsal.demand import certification_work
from poise.commands.rehearsal.estimate import rehearsed
from poise.commands.run import recipe_of
from poise.commands.telling.terminal import say, watching
from poise.core.files import digest_words
from poise.core.misuse import Misuse, suggestion
from poise.core.processes import process_state
from poise.core.run_folder import RunFolder
from poise.core.threat import NORMS, Epsilon, Norm, Threat
from poise.data import ImageSet, Split, decoded
from poise.evaluation import (
    Certificate,
    Examination,
    Method,
    Profile,
    certified_curve,
    examine,
    read_profile,
    write_profile,
)
from poise.evaluation.certificates.certification import Certification, default_method
from poise.evaluation.certificates.certification import certify as proven
from poise.evaluation.certificates.radii import needed_margin
from poise.evaluation.certificates.sampling import Sampling
from poise.evaluation.soundness.certified import certified
from poise.models import Classifier, Vote, save_model, smooth
from poise.models.saving import refuse_foreign

_FREE = ("out", "batch_size", "overwrite")
"""Options that may differ when a certification goes on."""
_UNKNOWN = ("images on which the smoothed classifier is undecided, which are given up early: hence a range",)


def certify(
    model: str,
    data: str | None = None,
    *,
    weights: str | None = None,
    method: Method | None = None,
    norm: Norm | None = None,
    sigma: float | None = None,
    vote: Vote | None = None,
    samples: int = 10_000,
    selection: int = 100,
    confidence: float = 0.999,
    enough: float | None = None,
    largest: float | None = None,
    split: Split = "test",
    image_size: int | None = None,
    limit: int | None = None,
    skip_unreadable: bool = False,
    batch_size: int | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> Profile:
    """Prove for every image how far it may be changed before the classifier could err, and keep the radii in a profile.

    With --sigma the classifier is smoothed by Gaussian noise first. The smoothed classifier is another model: it gets a
    run folder of its own, which can be attacked, mixed and reported on, and the radii are about it. Otherwise radii
    join the profile that the model has already, beside what attacks found. Outcomes of sampling are kept as they come:
    the same command goes on after an interruption.

    Args:
        model: address of the network, a smoothed one or a mixture: run:FOLDER, timm:NAME, python:pkg.module:factory.
        data: address of the images; by default those the run was trained on.
        weights: a local weights file, or "random"; by default what the address itself carries.
        method: smoothing (sampling; l2), lipschitz (one bound for all images) or local (a bound for each image's own
            ball, slower and at least as large); by default smoothing for a smoothed classifier, else local.
        norm: norm of the radii; by default that of the profile they join, else l2.
        sigma: smooth the classifier with noise of this standard deviation, in units of the image range.
        vote: what --sigma makes the classifier average: hard (votes) or soft (probabilities, which gradients pass); by
            default hard.
        samples: noisy copies of each image that bounds are made from.
        selection: further noisy copies that its class is chosen from.
        confidence: probability with which each radius of smoothing holds.
        enough: stop sampling an image once this l2 radius is proven; by default every sample is used.
        largest: do not look for radii beyond this (local).
        split: which images.
        image_size: resize the shorter side to this and crop the centre.
        limit: this many images, the same ones every time.
        skip_unreadable: list images that cannot be read and leave them out, instead of stopping.
        batch_size: noisy copies in one forward pass of smoothing, by default 1024; images at a time of the other
            methods, by default 32. It changes speed and memory, and not the radii.
        out: with --sigma the run folder to create, by default runs/smoothed, with a number behind it where that exists;
            else the profile to write.
        overwrite: replace the certificate that the profile holds already.
        seed: decides the noise.

    Returns:
        The profile with its certificate.

    Raises:
        Misuse: for anything that cannot be done, before any work.
    """
    out = None if out is None else Path(out)
    _check(split, norm, sigma, method, vote)
    vote = vote or "hard"
    options = options_among(locals(), certify)
    target = out or profile_path(model)
    if sigma is None and target.suffix != ".parquet":
        raise Misuse(f"a certificate is kept in a profile that ends in .parquet; got {target}")
    if sigma is not None and out is not None and out.suffix == ".parquet":
        raise Misuse(f"with --sigma, --out is the run folder to create, which holds the profile; got {out}")
    recipe = recipe_of(model)
    size: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
    sampling = Sampling(samples=samples, selection=selection, confidence=confidence, enough=enough, seed=seed, **size)
    first = method or ("local" if sigma is None else "smoothing")
    Certification(method=first, largest=largest, sampling=sampling, **size)
    source = Source.of(recipe, data, image_size=image_size, limit=limit, skip_unreadable=skip_unreadable)
    images = decoded(getattr(source.open(), split))
    classifier = open_whole(model, images, weights=weights, seed=seed)
    folder = None
    if sigma is not None:
        refuse_foreign(classifier.blueprint)
        classifier = smooth(classifier, sigma=sigma, vote=vote, seed=seed)
        folder = _place(options | {"data": source.data}, out)
        model, target = f"run:{folder.path.as_posix()}", folder.profile
    known = _known_profile(target, classifier, images, norm)
    if known is not None and known.certificate is not None and not overwrite:
        raise Misuse(
            f"{target} holds a certificate already ({known.certificate}); replace it with --overwrite, or write the "
            "new one elsewhere with --out"
        )
    certification = Certification(
        method=method or default_method(classifier),
        norm=norm or "l2" if known is None else known.header.norm,
        largest=largest,
        sampling=sampling,
        **size,
    )
    rehearsed(
        "certify",
        options | asdict(source),
        lambda: [certification_work(placed(classifier).eval(), images, certification)],
        _UNKNOWN,
    )
    if folder is not None:
        _begin(folder, options | {"data": source.data}, classifier)
    placed(classifier).eval()
    journal = target.with_name(f"{target.name}.certificate")
    with watching(f"certifying {model}") as watch:
        certificate = proven(classifier, images, certification, journal=journal, watch=watch)
    profile = known or _unattacked(classifier, images, certification.norm, model, split)
    result = certified(profile, certificate)
    write_profile(result, target)
    journal.unlink(missing_ok=True)
    _tell(result, target)
    return result


def _check(split: str, norm: str | None, sigma: float | None, method: str | None, vote: str | None) -> None:
    check_split(split)
    if norm is not None and norm not in NORMS:
        raise Misuse(f"unknown norm {norm!r}; {suggestion(str(norm), NORMS)}")
    if sigma is not None and method not in {None, "smoothing"}:
        raise Misuse(f"--sigma smooths the classifier, which --method {method} does not certify; leave one of them out")
    if vote is not None and sigma is None:
        raise Misuse(
            f"--vote {vote} says what --sigma makes the classifier average, and there is no --sigma; give one, or "
            "leave the vote out: a classifier that is smoothed already has its own"
        )
    if process_state().num_processes > 1:
        raise Misuse("certify works in one process; start it without accelerate launch")


def _place(options: Mapping[str, object], out: Path | None) -> RunFolder:
    """Where the smoothed classifier's run stands, if its certification was interrupted, or will stand."""
    if out is None:
        return RunFolder(folder_of(Path("runs/smoothed"), _mark(options), lambda at: RunFolder(at).profile.exists()))
    if out.exists():
        folder = RunFolder.open(out)
        how = "go on with the options that it was started with, or choose another folder with --out"
        refuse_changes(folder, options, ignored=_FREE, how=how)
        if folder.profile.exists():
            raise Misuse(f"{out} is certified already; choose another folder with --out, or certify run:{out}")
        return folder
    return RunFolder(out)


def _mark(options: Mapping[str, object]) -> str:
    """A digest of what two calls have to share for the second to go on with the first."""
    return digest_words([recipe_text("certify", {name: options[name] for name in options if name not in _FREE})])


def _begin(folder: RunFolder, options: Mapping[str, object], classifier: Classifier) -> None:
    """Make what is not there yet of the smoothed classifier's run folder."""
    if folder.weights.is_file():
        say(f"{folder.path}: going on where it was interrupted")
        return
    if not folder.path.exists():
        RunFolder.create(folder.path)
    marked(folder.path, _mark(options))
    write_recipe(folder, "certify", {**options, "out": folder.path})
    save_model(classifier, folder.path)
    say(f"{folder.path}: the smoothed classifier{_unprepared(options)}")


def _unprepared(options: Mapping[str, object]) -> str:
    """A hint where the network's run says that it has never seen noise."""
    objective = recipe_of(str(options["model"])).get("objective")
    kinds = []
    while isinstance(objective, dict):
        kinds.append(objective.get("kind"))
        objective = objective.get("objective")
    if not kinds or "noisy" in kinds:
        return ""
    return "; its network was trained without noise, so that many images may abstain (see --objective noisy)"


def _known_profile(target: Path, classifier: Classifier, images: ImageSet, norm: Norm | None) -> Profile | None:
    """The profile that is there already, if it is about the same model and images."""
    if not target.exists():
        return None
    found = read_profile(target)
    of_model, of_data = found.header.model == classifier.digest(), found.header.data == images.digest()
    if not (of_model and of_data):
        other = "another model" if not of_model else f"other images ({len(found):,}, here {len(images):,})"
        raise Misuse(
            f"{target} is a profile of {other}; ask for the same (--limit, --split, --data), or write the certificate "
            "elsewhere with --out"
        )
    if norm not in {None, found.header.norm}:
        raise Misuse(f"{target} is a profile in {found.header.norm}; its radii cannot be stated in {norm}")
    return found


def _unattacked(classifier: Classifier, images: ImageSet, norm: Norm, model: str, split: str) -> Profile:
    """A profile of the clean images alone."""
    examination = Examination(threat=Threat(norm=norm, epsilon=0.0), suite="fast")
    return examine(classifier, images, examination, model_address=model, split=split)


def _tell(result: Profile, target: Path) -> None:
    """The headline, unless an attack contradicts it."""
    finding = result.findings[-1]
    if finding.status != "pass":
        say(str(finding))
    if finding.status == "block":
        say(f"{target}: written, but no figure is shown: {finding.check}")
        return
    curve, certificate = certified_curve(result), result.certificate
    if certificate is not None and not certificate.radii.any():
        say(f"{target}: {len(result)} images, {certificate}: nothing is proven of any{_why(certificate)}")
        return
    places = (0, len(curve.epsilons) // 2, -1)
    figures = ", ".join(
        f"{curve.accuracy[at].value:.1%} at {Epsilon(float(f'{curve.epsilons[at]:.3g}'))}" for at in places
    )
    say(f"{target}: {len(result)} images, {certificate}: certified accuracy {figures}")


def _why(certificate: Certificate) -> str:
    """Why nothing could be proven, where that is known."""
    follows = needed_margin(certificate.facts.get("alpha", 1.0)) < math.inf
    return "" if follows else "; only above an alpha of 1/2 must a mixture follow its robust branch"

"""Profiles and reports in the trackers that followed a run's training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from poise.commands.recipe import read_recipe
from poise.commands.telling.terminal import say
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.evaluation import Profile
from poise.training import attach, check_trackers

Trackers = tuple[str, ...] | None


def trackers_of(address: str, given: Trackers, *, own: bool) -> tuple[str, ...]:
    """The trackers for what is found out about a model: those asked for, or those that its training was sent to.

    Where trackers of the training are not installed here, nothing is sent, and that is said.

    Args:
        address: of the model.
        given: those asked for; None for those of the training.
        own: whether it is the run's own profile or report, and not another's beside it; what goes elsewhere is sent
            only where that was asked for.

    Raises:
        Misuse: for unknown ones, and where there is no run to attach to.
    """
    kind, _, place = address.partition(":")
    if given:
        check_trackers(given)
        if kind != "run":
            raise Misuse(f"trackers get what is found out about a run; {address} is none, leave --trackers out")
    if given is not None or not own or kind != "run" or not RunFolder(Path(place)).recipe.is_file():
        return given or ()
    followed = tuple(read_recipe(RunFolder(Path(place)).recipe).get("trackers") or ())
    try:
        check_trackers(followed)
    except Misuse as error:
        say(f"nothing is sent to trackers: {error}")
        return ()
    return followed


def attach_profile(address: str, profile: Profile, target: Path, trackers: tuple[str, ...]) -> None:
    """Send a profile's figures and its file to a run's trackers."""
    if not trackers:
        return
    from poise.reporting.tracked import tracked_figures  # noqa: PLC0415 - only where there are trackers

    folder = RunFolder(Path(address.partition(":")[2]))
    _attach(folder, trackers, target, "", tracked_figures(profile))


def attach_report(runs: Sequence[Path], target: Path, markdown: str, trackers: Sequence[tuple[str, ...]]) -> None:
    """Send a report's file to the trackers of each of its runs."""
    for run, names in zip(runs, trackers, strict=True):
        if names:
            _attach(RunFolder(run), names, target, markdown, {})


def _attach(folder: RunFolder, trackers: tuple[str, ...], file: Path, text: str, figures: dict[str, float]) -> None:
    """What was found stands in its file already: a tracker that cannot be reached is said, and no more."""
    try:
        kept = attach(folder, trackers, file=file, text=text, figures=figures)
    except Exception as error:  # noqa: BLE001 - each tracker fails in its own way
        say(f"{file} could not be attached to {', '.join(trackers)}: {' '.join(str(error).split())[:200]}")
        return
    if kept:
        say(f"{file}: attached to the run in {', '.join(kept)}")

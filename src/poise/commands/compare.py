"""Compare two models by their profiles: what is lost, what is gained, and whether a gate lets the new one pass."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from poise.commands.telling.terminal import say
from poise.core.files import write_text
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.evaluation import Adversarials, Profile, profile_of, read_adversarials, read_profile
from poise.evaluation.comparison import Comparison
from poise.evaluation.flips import NoiseFloor, Pair, Replay, check_sound, join, noise_floors
from poise.evaluation.gate import Gate, judge, read_gate, unjudged

if TYPE_CHECKING:
    from poise.reporting.comparison.gallery import Picture

_VERDICTS = "junit.xml"


def compare(
    old: str,
    new: str,
    *,
    gate: Path | str | None = None,
    noise: list[Path | str] | None = None,
    out: Path | str | None = None,
    gallery: int = 24,
    replay: bool = False,
    data: str | None = None,
) -> Comparison:
    """Compare a new model with the one in use, image by image, at every epsilon that both were profiled at.

    Nothing is attacked or trained: all figures but those of a replay are arithmetic on two profiles of the same images.
    With a gate, the command ends with 0 if the gate passes, 1 if it fails, and 2 if it cannot be judged: for profiles
    that are missing, do not match, or that soundness checks object to or have not looked at, and for too few images.

    Args:
        old: the model in use: a profile (.parquet, or .csv from other tools), or a run folder that holds one.
        new: the model that would replace it, likewise.
        gate: a YAML file with limits on any of the figures.
        noise: further profiles of old or new with another seed, which show what attack noise alone would flip.
        out: a folder for comparison.html, comparison.md, comparison.json and flipped.csv, and with a gate junit.xml;
            what it holds under other names is left alone.
        gallery: show this many lost images on the page, where the images can be opened; 0 for none.
        replay: show the new model the images that broke the old one, which must have been profiled with
            --keep-adversarials, and say how many break it too and where its own profile overlooked that.
        data: address of the images; by default the one in the old profile.

    Returns:
        The comparison, with the gate's judgement in it.

    Raises:
        Misuse: for a gate that cannot be read, and for a replay that cannot be made; without a gate also for profiles
            that cannot be read or do not match.
    """
    if gallery < 0:
        raise Misuse(f"gallery must be at least 0; got {gallery}")
    if out is not None:
        (Path(out) / _VERDICTS).unlink(missing_ok=True)  # whatever goes wrong now, no older verdict is left
    limits = None if gate is None else read_gate(Path(gate))
    comparison = _compared(old, new, [str(address) for address in noise or ()], limits)
    if replay and comparison.pair is not None:
        kept = _kept(old, comparison.pair.old)
        comparison = _refuted(dataclasses.replace(comparison, replayed=_replayed(comparison.pair, new, data, kept)))
    _show(comparison)
    if out is not None:
        _write(comparison, Path(out), _pictures(comparison, new, data, gallery))
        say(f"written: {Path(out)}")
    return comparison


def open_profile(address: str) -> Profile:
    """The profile that a file or a run folder holds.

    Raises:
        Misuse: if there is none, it cannot be read, or it is about another model than the run folder holds.
    """
    path = profile_path(address)
    folder = RunFolder(path.parent)
    return (profile_of(folder) if path == folder.profile else None) or read_profile(path)


def profile_path(address: str) -> Path:
    """The file of a profile: the address itself, or the one in the run folder that it names.

    Raises:
        Misuse: for a run without a profile.
    """
    path = Path(address.removeprefix("run:"))
    if not path.is_dir():
        return path
    profile = RunFolder.open(path).profile
    if not profile.is_file():
        raise Misuse(f"{address} has not been profiled; do so with poise profile run:{path.as_posix()}")
    return profile


def _kept(old: str, profile: Profile) -> Adversarials:
    """The images that broke the old model.

    Raises:
        Misuse: if none were kept.
    """
    if profile.adversarials is None:
        raise Misuse(f"{old} was profiled without --keep-adversarials, so there is nothing to replay")
    return read_adversarials(profile_path(old))


def _compared(old: str, new: str, noise: Sequence[str], limits: Gate | None) -> Comparison:
    """The comparison; where there can be none, a gate has to say so, and nobody else."""
    names = _names(old, new)
    try:
        again = [open_profile(address) for address in noise]
        pair = join(open_profile(old), open_profile(new))
        check_sound(pair)
        floors = _floors(pair, again)
    except Misuse as error:
        if limits is None:
            raise
        return Comparison(
            old=names[0], new=names[1], pair=None, judgement=unjudged(limits, str(error)), obstacle=str(error)
        )
    judgement = None if limits is None else judge(limits, pair)
    return Comparison(old=names[0], new=names[1], pair=pair, noise=floors, judgement=judgement)


def _refuted(comparison: Comparison) -> Comparison:
    """The comparison, of which nothing can be judged where the replay has shown the new profile to be wrong."""
    found, judgement = comparison.replayed, comparison.judgement
    if found is None or not found.overlooked or judgement is None:
        return comparison
    reason = (
        f"the new profile counts {len(found.overlooked)} images as robust that the old model's adversarial images "
        "break: profile it with a stronger suite"
    )
    return dataclasses.replace(comparison, judgement=unjudged(judgement.gate, reason))


def _floors(pair: Pair, again: list[Profile]) -> tuple[NoiseFloor, ...]:
    return tuple(floor for profile in again for floor in noise_floors(pair, profile))


def _names(old: str, new: str) -> tuple[str, str]:
    """How reports call the models: the last part of each address that tells them apart."""
    parts = [Path(address.removeprefix("run:")).resolve().with_suffix("").parts for address in (old, new)]
    for depth in range(1, min(map(len, parts)) + 1):
        first, second = ("/".join(each[-depth:]) for each in parts)
        if first != second:
            return first, second
    return old, new


def _show(comparison: Comparison) -> None:
    from poise.reporting.comparison.terminal import print_comparison  # noqa: PLC0415 - rich is slow to import

    print_comparison(comparison)


def _replayed(pair: Pair, new: str, data: str | None, kept: Adversarials) -> Replay:
    from poise.commands.comparing.replaying import replayed  # noqa: PLC0415 - models are slow to import

    return replayed(pair, new, data, kept)


def _pictures(comparison: Comparison, new: str, data: str | None, count: int) -> Sequence[Picture]:
    from poise.commands.comparing.gallery import pictures_of  # noqa: PLC0415 - opening images is slow to import

    if not count or comparison.pair is None:
        return ()
    kept = comparison.pair.new.adversarials
    return pictures_of(comparison, data, count, read_adversarials(profile_path(new)) if kept else None)


def _write(comparison: Comparison, out: Path, pictures: Sequence[Picture]) -> None:
    from poise.reporting.comparison.junit import junit_xml  # noqa: PLC0415 - plotly is slow to import
    from poise.reporting.comparison.markdown import comparison_markdown  # noqa: PLC0415
    from poise.reporting.comparison.page import write_comparison  # noqa: PLC0415
    from poise.reporting.comparison.record import comparison_record  # noqa: PLC0415

    record = json.dumps(comparison_record(comparison), allow_nan=False, indent=1, ensure_ascii=False)
    write_text(out / "comparison.json", record + "\n")
    write_text(out / "comparison.md", comparison_markdown(comparison))
    write_text(out / "flipped.csv", _flipped(comparison))
    write_comparison(comparison, out / "comparison.html", pictures)
    if comparison.judgement is not None:
        write_text(out / _VERDICTS, junit_xml(comparison.judgement, f"{comparison.old} → {comparison.new}"))


def _flipped(comparison: Comparison) -> str:
    """Every example that flipped, for a spreadsheet."""
    from poise.reporting.comparison.rows import change_rows  # noqa: PLC0415

    rows = change_rows(comparison.changes)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([rows.headings, *rows.rows])
    return text.getvalue()

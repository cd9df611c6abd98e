"""Join profiles of parts of a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from poise.commands.telling.headline import tell
from poise.commands.telling.terminal import say
from poise.core.misuse import Misuse
from poise.evaluation import (
    Profile,
    adversarials_path,
    check_profile_name,
    join_adversarials,
    join_profiles,
    read_profile,
    write_profile,
)
from poise.evaluation.soundness.joining import join_findings


def merge(
    profiles: list[Path | str] | Path | str, *, out: Path | str = Path("profile.parquet"), overwrite: bool = False
) -> Profile:
    """Join profiles that were made of parts of the same data, as by poise profile --part, into one.

    They must be of the same model, data, threat, attacks and seed, and of different examples. What soundness checks
    found is joined as well: the worst finding of any part counts. Adversarial images are joined where all parts kept
    theirs.

    Args:
        profiles: profile files.
        out: file to write.
        overwrite: replace a profile that is there already.

    Returns:
        The profile of all their examples.

    Raises:
        Misuse: for files that are no profiles or do not belong together, which it names; nothing is written then.
    """
    paths = [Path(path) for path in ([profiles] if isinstance(profiles, (str, Path)) else profiles)]
    target = Path(out)
    check_profile_name(target)
    if target.exists() and not overwrite:
        raise Misuse(f"{target} exists already; replace it with --overwrite, or write elsewhere with --out")
    if len({path.resolve() for path in paths}) < len(paths):
        raise Misuse(f"a profile is named twice: {', '.join(map(str, paths))}")
    parts = {path: read_profile(path) for path in paths}
    joined = join_profiles({str(path): part for path, part in parts.items()})
    findings = join_findings([part.findings for part in parts.values()], joined)
    joined = replace(joined, findings=findings, adversarials=join_adversarials(parts, target))
    if joined.adversarials is None:
        if any(part.adversarials for part in parts.values()):
            say("adversarial images are left out: not all of these profiles kept theirs")
        adversarials_path(target).unlink(missing_ok=True)
    write_profile(joined, target)
    tell(joined, target)
    return joined

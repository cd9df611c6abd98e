"""Profiles of parts of a data set, joined into one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from poise.core.misuse import Misuse, shortened
from poise.evaluation.adversarials import (
    Adversarials,
    adversarials_path,
    file_digest,
    read_adversarials,
    write_adversarials,
)
from poise.evaluation.certificates.certificate import Certificate
from poise.evaluation.kept import Kept
from poise.evaluation.pixel_formats import Pixels
from poise.evaluation.profile import Header, Profile

_FREE = ("model_address", "data_address", "versions")
"""Fields of a header in which parts may differ, as they may come from several machines."""
_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "model": "model digest",
        "data": "data digest",
        "epsilons": "grid",
        "whole": "number of images of the whole data set",
    }
)


def join_profiles(parts: Mapping[str, Profile]) -> Profile:
    """One profile of all examples of several, in the order of their ids; without findings and kept images.

    Args:
        parts: profiles by name, at least one: of the same model, data, threat and attacks, and of different examples.
            Addresses are those of the first; versions are all those that differ.

    Returns:
        The profile. It is `partial` unless the parts make up the whole data set.

    Raises:
        Misuse: if there are none, for parts that do not belong together, whose names and what differs it says, and for
            examples that two of them hold.
    """
    if not parts:
        raise Misuse("there is nothing to merge; name at least one profile")
    _check_headers(parts)
    _check_ids(parts)
    profiles = list(parts.values())
    ids = np.concatenate([np.array(profile.ids, dtype=object) for profile in profiles])
    by = np.concatenate([np.array(profile.broken_by, dtype=object) for profile in profiles])
    order = np.argsort(ids, kind="stable")

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(profile, name) for profile in profiles])[order]

    return Profile(
        header=replace(profiles[0].header, versions=_versions([profile.header for profile in profiles])),
        ids=tuple(ids[order]),
        labels=column("labels"),
        predictions=column("predictions"),
        margins=column("margins"),
        robust_to=column("robust_to"),
        broken_from=column("broken_from"),
        broken_by=tuple(by[order]),
        certificate=_certificate(parts, order),
    )


def join_adversarials(parts: Mapping[Path, Profile], target: Path) -> Kept | None:
    """The adversarial images of several profiles in one file beside a new one; None unless all of them kept theirs.

    Args:
        parts: profiles by path.
        target: path of the profile that they were joined to.

    Raises:
        Misuse: for files of images that are missing, damaged or not those of their profile.
    """
    if any(profile.adversarials is None for profile in parts.values()):
        return None
    files = [read_adversarials(path) for path in parts]
    place = adversarials_path(target)
    counts = write_adversarials(_records(files), files[0].origin, place)
    missing = [profile.adversarials.counts.get("missing", 0) for profile in parts.values() if profile.adversarials]
    return Kept(file=place.name, digest=file_digest(place), counts={**counts, "missing": sum(missing)})


def _certificate(parts: Mapping[str, Profile], order: np.ndarray) -> Certificate | None:
    """The certified radii of all parts, in a new order; none where no part has any."""
    (first, expected), *others = ((name, profile.certificate) for name, profile in parts.items())
    for other, found in others:
        if str(found) != str(expected):
            raise Misuse(
                f"{first} and {other} do not belong together: they differ in certificate ({expected}, {found})"
            )
    if expected is None:
        return None
    radii = [profile.certificate.radii for profile in parts.values() if profile.certificate]
    return replace(expected, radii=np.concatenate(radii)[order])


def _records(files: Sequence[Adversarials]) -> Iterator[tuple[str, int, Pixels]]:
    for file in files:
        yield from file.records()


def _check_headers(parts: Mapping[str, Profile]) -> None:
    first, *others = parts
    expected = parts[first].header
    for other in others:
        for name in (field.name for field in fields(Header) if field.name not in _FREE):
            here, there = getattr(expected, name), getattr(parts[other].header, name)
            if here != there:
                raise Misuse(
                    f"{first} and {other} do not belong together: they differ in {_NAMES.get(name, name)} "
                    f"({shortened(here)}, {shortened(there)})"
                )


def _check_ids(parts: Mapping[str, Profile]) -> None:
    holder: dict[str, str] = {}
    for name, profile in parts.items():
        doubled = [identity for identity in profile.ids if holder.setdefault(identity, name) != name]
        if doubled:
            more = f" and {len(doubled) - 1} more" if len(doubled) > 1 else ""
            raise Misuse(f"{holder[doubled[0]]} and {name} both hold the example {doubled[0]!r}{more}")


def _versions(headers: Sequence[Header]) -> dict[str, str]:
    found: dict[str, dict[str, None]] = {}
    for header in headers:
        for name, version in header.versions.items():
            found.setdefault(name, {})[version] = None
    return {name: ", ".join(versions) for name, versions in found.items()}

"""Which profiles may stand side by side: those of the same threat, the same attacks and the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from poise.core.files import digest_words
from poise.core.misuse import Misuse
from poise.core.threat import Epsilon, Norm
from poise.evaluation import Profile
from poise.reporting.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a profile was measured under, apart from the model; figures of unequal conditions are not comparable.

    Args:
        norm: norm of the threat model.
        epsilons: the grid. It counts, since expected robustness by the trapezoid rule depends on where the points lie.
        suite: name of the attack suite.
        data: digest of the images.
        images: how many images.
        data_address: where the images were found; the same images may have several addresses.
        whole: how many images the data set has where these are a part of it.
    """

    norm: Norm
    epsilons: tuple[float, ...]
    suite: str
    data: str
    images: int
    data_address: str = field(compare=False)
    whole: int | None = field(compare=False, default=None)

    @classmethod
    def of(cls, profile: Profile) -> Conditions:
        """The conditions of a profile."""
        header = profile.header
        return cls(
            norm=header.norm,
            epsilons=header.epsilons,
            suite=header.suite,
            data=digest_words([header.data, *profile.ids]) if profile.partial else header.data,
            images=len(profile),
            data_address=header.data_address,
            whole=header.whole if profile.partial else None,
        )

    @property
    def largest(self) -> Epsilon:
        """The largest epsilon of the grid."""
        return Epsilon(self.epsilons[-1])

    @property
    def attacked(self) -> bool:
        """Whether there was an attack at all, that is, a grid point beyond 0."""
        return len(self.epsilons) > 1

    @property
    def threat(self) -> str:
        """The threat model in words, such as "linf 8/255"."""
        return f"{self.norm} {self.largest}" if self.attacked else "no attack"

    def __str__(self) -> str:
        suite = f", suite {self.suite}" if self.attacked else ""
        part = "" if self.whole is None else f"a part, {self.images} of "
        return f"{self.threat}{suite}, {part}{self.whole or self.images} images of {self.data_address}"


@dataclass(frozen=True)
class Group:
    """Subjects whose figures are comparable.

    Args:
        conditions: what they share; None for subjects without a profile.
        subjects: at least one.
    """

    conditions: Conditions | None
    subjects: tuple[Subject, ...]

    def __str__(self) -> str:
        return "not profiled yet" if self.conditions is None else str(self.conditions)


def comparable_groups(subjects: Sequence[Subject]) -> list[Group]:
    """Subjects grouped by conditions, in the order of their first appearance; those without a profile come last.

    Raises:
        Misuse: if there are no subjects.
    """
    if not subjects:
        raise Misuse("a report needs at least one run; got none")
    found: dict[Conditions | None, list[Subject]] = {}
    for subject in subjects:
        conditions = None if subject.profile is None else Conditions.of(subject.profile)
        found.setdefault(conditions, []).append(subject)
    unprofiled = found.pop(None, [])
    groups = [Group(conditions, tuple(members)) for conditions, members in found.items()]
    return [*groups, Group(None, tuple(unprofiled))] if unprofiled else groups


def differences(groups: Sequence[Group]) -> str:
    """In which of their conditions the groups differ, such as "threat and images"; "" where they do not."""
    known = [group.conditions for group in groups if group.conditions is not None]
    aspects: dict[str, set[Any]] = {
        "threat": {(each.norm, each.largest) for each in known},
        "attack suite": {each.suite for each in known},
        "epsilon grid": {each.epsilons for each in known},
        "images": {(each.data, each.images) for each in known},
    }
    differing = [aspect for aspect, values in aspects.items() if len(values) > 1]
    if "threat" in differing and "epsilon grid" in differing:
        differing.remove("epsilon grid")
    return listed(differing)


def incomparable(groups: Sequence[Group]) -> str:
    """The line that stands above figures that must not be compared across tables; "" where all may be."""
    differing = differences(groups)
    return f"Not comparable across tables: they differ in {differing}." if differing else ""


def listed(words: Sequence[str]) -> str:
    """Words as a sentence lists them: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)

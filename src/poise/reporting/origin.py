"""Where a run comes from, so that a reader can repeat it: model, data, attacks, versions, recipe."""

from __future__ import annotations

from html import escape

from poise.core.threat import Epsilon
from poise.evaluation import Header, Profile
from poise.evaluation.soundness.certified import checked
from poise.reporting import markup
from poise.reporting.palette import Style
from poise.reporting.subject import Subject

_MOST_CLASSES = 12


def origin(subject: Subject, style: Style) -> str:
    """An article on one run."""
    heading = markup.element("h3", markup.run_name(style, subject.name))
    if subject.profile is None:
        found = markup.paragraphs(["Not profiled yet: there are no verdicts on test images."])
    else:
        found = markup.definitions(origin_facts(subject.profile))
    recipe = markup.element("pre", escape(subject.recipe))
    return markup.element("article", heading, found, markup.details("Recipe", recipe) if subject.recipe.strip() else "")


def origin_facts(profile: Profile) -> dict[str, str]:
    """What a profile says about where it comes from, as terms and plain text."""
    header = profile.header
    count = f"a part, {len(profile)} of {header.whole}" if profile.partial else str(len(profile))
    return {
        "model": f"{header.model_address}, digest {header.model}",
        "data": f"{header.data_address}, {header.split or 'all'}: {count} images, digest {header.data}",
        "classes": _classes(header),
        "threat": f"{header.norm}, epsilon {', '.join(str(Epsilon(point)) for point in header.epsilons)}",
        "attacks": f"suite {header.suite}, by {header.mode} in {header.proposing}, seed {header.seed}",
        "soundness": _soundness(profile),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(header.versions.items())),
    }


def _soundness(profile: Profile) -> str:
    """How many checks passed, and what the others found."""
    others = [str(finding) for finding in profile.findings if finding.status != "pass"]
    passed = len(profile.findings) - len(others)
    done = f"{passed} of {len(profile.findings)} checks passed" if checked(profile) else "not checked"
    return "; ".join([done, *others])


def _classes(header: Header) -> str:
    shown = ", ".join(header.classes[:_MOST_CLASSES])
    rest = len(header.classes) - _MOST_CLASSES
    return f"{len(header.classes)}: {shown}{f' and {rest} more' if rest > 0 else ''}"

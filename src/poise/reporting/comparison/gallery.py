"""Pictures of lost images, inside the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float

from poise.evaluation.flips import Change
from poise.reporting import markup
from poise.reporting.comparison.rows import side, span
from poise.reporting.pictures import image


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A lost example to be shown.

    Args:
        change: what became of it.
        clean: its image in [0, 1], of one channel or three.
        adversarial: the image that fools the new model; None where none was kept.
    """

    change: Change
    clean: Float[np.ndarray, "c h w"]
    adversarial: Float[np.ndarray, "c h w"] | None = None


def gallery(pictures: Sequence[Picture]) -> str:
    """The pictures, each with what both models make of it; "" for none."""
    shown = [_shown(picture) for picture in pictures if picture.clean.shape[0] in {1, 3}]
    return markup.element("div", *shown, class_="gallery") if shown else ""


def _shown(picture: Picture) -> str:
    change = picture.change
    images = [image(picture.clean, f"{change.id}, clean")]
    if picture.adversarial is not None:
        images.append(image(picture.adversarial, f"{change.id}, adversarial for the new model"))
    facts = [
        f"{change.label}: lost at {span(change.epsilons)}",
        f"old {side(change.old)}",
        f"new {side(change.new)}",
        *(["clean and adversarial"] if picture.adversarial is not None else []),
    ]
    told = "".join(markup.element("p", escape(fact)) for fact in facts)
    name = markup.element("figcaption", escape(change.id))
    return markup.element("figure", name, markup.element("div", *images, class_="pictures"), told)

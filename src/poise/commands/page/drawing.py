"""The page's answers as markup: pictures, predictions side by side, sentences, and the mark on the slider."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from html import escape

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from poise.commands.page.answers import Attacked, Proof, Shown
from poise.commands.page.scale import Scale
from poise.core.norms import length
from poise.core.threat import Epsilon
from poise.reporting import markup
from poise.reporting.pictures import image

Predictions = Mapping[str, Float[Tensor, " classes"]]

_MOST_CLASSES = 3
_GREY = 0.5
_MARK = "#009e73"
_ROUND = (5.0, 2.0, 1.0)
_ROUNDING = 1 + 1e-5


def pictures(shown: Shown, attacked: Attacked | None) -> str:
    """The image; after an attack also what the attack made of it, and the difference, amplified by a stated factor."""
    clean = shown.image[0].double().cpu()
    figures = [_figure(clean, "image", shown.name)]
    if attacked is not None:
        moved = attacked.attempt.image[0].double().cpu()
        factor = amplification(moved - clean)
        norm = attacked.attempt.threat.norm
        size = float(length((moved - clean)[None], norm))
        figures.append(_figure(moved, "adversarial image" if attacked.attempt.found else "attacked image", ""))
        told = f"{norm} length {size:.3g}; grey is no change"
        figures.append(_figure(_GREY + factor * (moved - clean), f"perturbation times {factor:g}", told))
    return markup.element("div", *figures, class_="pictures")


def amplification(perturbation: Float[Tensor, "c h w"]) -> float:
    """The largest factor of the form 1, 2 or 5 times a power of ten under which no pixel leaves mid-grey by over 1/2.

    Args:
        perturbation: a difference of images in [0, 1]; where it is zero the factor is 1.
    """
    largest = float(perturbation.abs().max())
    if not largest:
        return 1.0
    power = 10.0 ** math.floor(math.log10(_GREY / largest * _ROUNDING))
    return next(each * power for each in _ROUND if each * power * largest <= _GREY * _ROUNDING)


def _figure(pixels: Tensor, title: str, told: str) -> str:
    caption = markup.element("figcaption", markup.element("b", escape(title)), f"<br>{escape(told)}" if told else "")
    return markup.element("figure", image(np.asarray(pixels), title), caption)


def predictions(
    classes: tuple[str, ...], clean: Predictions, adversarial: Predictions | None, alpha: float | None
) -> str:
    """A table with a column for each who predicts, and a row for the image and one for the attacked image.

    Args:
        classes: names of the classes.
        clean: probabilities of the image.
        adversarial: those of the attacked image; None before an attack.
        alpha: what the mixture weighs its robust branch by; None for a single model.
    """
    headings = [f"mixed, alpha {alpha:.3g}" if name == "mixed" and alpha is not None else name for name in clean]
    rows = [["image", *(_bars(classes, each) for each in clean.values())]]
    if adversarial is not None:
        rows.append(["attacked", *(_bars(classes, each) for each in adversarial.values())])
    return markup.table(["", *headings], rows)


def _bars(classes: tuple[str, ...], probabilities: Float[Tensor, " classes"]) -> str:
    top = torch.topk(probabilities.double().cpu(), min(_MOST_CLASSES, len(classes)))
    return "".join(
        markup.element(
            "div",
            markup.element("span", escape(classes[place])),
            markup.element("span", f"{share:.1%}"),
            class_="bar",
            style=f"--share: {share:.4f}",
        )
        for share, place in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    )


def verdict(classes: tuple[str, ...], shown: Shown, attacked: Attacked | None, after: int | None) -> str:
    """What the image is, and what the attack came to, in plain sentences.

    Args:
        classes: names of the classes.
        shown: the image.
        attacked: the attack on it, if there was one.
        after: the class that the attacked model gives the attacked image.
    """
    told = ["An uploaded image." if shown.label is None else f"The image is labelled {classes[shown.label]}."]
    if attacked is not None and after is not None:
        attempt = attacked.attempt
        how = f"{attempt.attack}, {attempt.seconds:.1f} s"
        whom = "" if attacked.alpha is None else f" of the mixture at alpha {attacked.alpha:.3g}"
        told.append(
            f"Within {attempt.threat} the attack changed the prediction{whom} from {classes[attempt.label]} to "
            f"{classes[after]} ({how})."
            if attempt.found
            else f"Within {attempt.threat} the attack did not change the prediction{whom} ({how}); another one might."
        )
    return markup.paragraphs(told)


def standing(scale: Scale, proof: Proof | None, value: float) -> str:
    """The certified radius as a mark on the slider, and what it says of the epsilon chosen.

    Args:
        scale: of the slider.
        proof: what is proven; None while it is being computed.
        value: where the slider stands.
    """
    if proof is None:
        return markup.element("p", "Certifying …", class_="waiting")
    if proof.certificate is None:
        return markup.element("p", escape(f"Nothing is proven: {proof.reason}."))
    radius, epsilon = proof.radius, float(scale.epsilon(value))
    marked = markup.element("style", f":root {{ --certified: {scale.place(radius):.6f}; --mark: {_MARK} }}")
    how = replace(proof.certificate, facts={})
    sure = f"Certified radius: {_length(scale, radius)} ({how}), marked on the slider."
    if not radius:
        sure = f"Certified radius: 0, nothing could be proven ({how})."
    what = f"At epsilon {Epsilon(epsilon)} "
    what += "no attack can change the prediction." if epsilon <= radius else "nothing is proven: an attack may succeed."
    return marked + markup.paragraphs([sure, what])


def _length(scale: Scale, radius: float) -> str:
    return f"{scale.norm} {radius:.3g}" + (f", {radius * scale.unit:.3g}/{scale.unit:g}" if scale.unit > 1 else "")


def refusal(reason: str) -> str:
    """Why something was not done; "" for nothing to say."""
    return markup.element("p", escape(reason), class_="refusal", role="alert") if reason else ""

"""The page itself, as gradio lays it out: which component asks what, and where the answer appears.

What a visitor looks at is kept in three values of the session: the image, the attack on it, the proof around it. Each
event replaces some of them, and what is drawn is drawn anew from all, so that answers which come late for another image
are passed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from poise.commands.page import drawing
from poise.commands.page.answers import Attacked, Proof, Shown
from poise.commands.page.exhibit import Exhibit
from poise.core.misuse import Failure, Misuse

CSS = (Path(__file__).with_name("page.css")).read_text(encoding="utf-8")

_THUMBNAIL = 96
_KEEP_SESSION = 3600
_REST, _PATIENCE = 0.4, 10.0
_MODEL = {"concurrency_id": "model", "concurrency_limit": 1}
_PROOF = {
    "concurrency_id": "proof",
    "concurrency_limit": 1,
    "trigger_mode": "always_last",
    "show_progress": "hidden",
}
_QUICK = {"queue": False, "trigger_mode": "always_last", "show_progress": "hidden"}
_SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"]


def page(exhibit: Exhibit, title: str) -> gr.Blocks:
    """The page of an exhibit.

    Args:
        exhibit: answers what is asked.
        title: plain text above everything.
    """
    desk, first = Desk(exhibit), exhibit.example(0)
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as blocks:
        shown = gr.State(first, time_to_live=_KEEP_SESSION)
        attacked, proof = (gr.State(None, time_to_live=_KEEP_SESSION) for _ in range(2))
        gr.Markdown(f"# {title}", sanitize_html=True)
        with gr.Row(elem_classes="poise"):
            with gr.Column(scale=1, min_width=360):
                gallery = gr.Gallery(
                    [_thumbnail(exhibit, row) for row in range(len(exhibit.images))],
                    label="Images of the data",
                    columns=3,
                    height=360,
                    object_fit="contain",
                    allow_preview=False,
                    buttons=[],
                    interactive=False,
                    elem_id="gallery",
                )
                upload = gr.File(
                    label="Or drop an image", file_types=_SUFFIXES, type="binary", height=120, elem_id="upload"
                )
                _fetch_nothing(upload)
                message = gr.HTML("", elem_id="message")
            with gr.Column(scale=2, min_width=420):
                pictures = gr.HTML(drawing.pictures(first, None), elem_id="pictures")
                verdict = gr.HTML(desk.verdict(first, None), elem_id="verdict")
                alpha, own = _alpha(exhibit, first)
                predictions = gr.HTML(desk.predictions(first, None, alpha.value, own.value), elem_id="predictions")
                epsilon = gr.Slider(
                    0,
                    exhibit.scale.maximum,
                    value=exhibit.scale.start,
                    step=exhibit.scale.step,
                    label=exhibit.scale.label,
                    elem_id="epsilon",
                    buttons=[],
                )
                standing = gr.HTML(drawing.standing(exhibit.scale, None, 0), elem_id="standing")
                button = gr.Button("Attack", variant="primary", elem_id="attack")
        drawable, provable = [shown, attacked, alpha, own], [shown, proof, alpha, own]

        def then_drawn(event: Any) -> None:
            event.then(desk.drawn, drawable, [pictures, verdict, predictions], **_QUICK)

        def then_standing(event: Any) -> None:
            event.then(desk.standing, [*provable, epsilon], standing, **_QUICK)

        for replaced in (
            gallery.select(desk.picked, None, [shown, attacked, message], **_MODEL),
            upload.upload(desk.uploaded, upload, [shown, attacked, message, upload], **_MODEL),
        ):
            then_drawn(replaced)
            then_standing(replaced)
            then_standing(replaced.then(desk.prove, provable, proof, **_PROOF))
        then_drawn(button.click(desk.attacked, [shown, alpha, own, epsilon], [attacked, message], **_MODEL))
        alpha.input(desk.moved, drawable, [predictions, own], **_QUICK)
        own.input(desk.predictions, drawable, predictions, **_QUICK)
        for moved in (alpha.input, own.input, epsilon.input):
            moved(desk.standing, [*provable, epsilon], standing, **_QUICK)
        then_standing(gr.on([blocks.load, alpha.change, own.change], desk.prove, provable, proof, **_PROOF))
    return blocks


def _fetch_nothing(upload: gr.File) -> None:
    """Let a component take uploaded files only: by itself it would fetch one from an address sent in its stead."""
    take = upload.async_move_resource_to_block_cache

    async def taken(place: str | Path | None) -> Any:
        if "://" in str(place):
            raise gr.Error("files are uploaded here, not fetched", print_exception=False)
        return await take(place)

    upload.async_move_resource_to_block_cache = taken


def _alpha(exhibit: Exhibit, first: Shown) -> tuple[gr.Slider, gr.Checkbox]:
    """The slider of a mixture, and where a gate chooses alpha a box that leaves the choice to it."""
    mixture = exhibit.mixture
    slider = gr.Slider(
        0,
        1,
        value=exhibit.own_alpha(first.outputs) or 0.0,
        step=0.001,
        label="alpha, the weight of the robust branch",
        visible=mixture is not None,
        elem_id="alpha",
        buttons=[],
    )
    gated = mixture is not None and mixture.gate is not None
    return slider, gr.Checkbox(value=True, label="the run's gate chooses alpha", visible=gated, elem_id="gate")


def _thumbnail(exhibit: Exhibit, row: int) -> tuple[Image.Image, str]:
    image, label = exhibit.picture(row)
    levels = (image[0] * 255).round().byte().cpu().numpy()
    picture = Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))
    larger = _THUMBNAIL // max(picture.size)
    if larger > 1:
        picture = picture.resize((picture.width * larger, picture.height * larger), Image.Resampling.NEAREST)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return picture, exhibit.classifier.classes[label]


class Desk:
    """The page's events: what components hold goes in, and what they shall show comes out.

    Args:
        exhibit: answers what is asked.
    """

    def __init__(self, exhibit: Exhibit) -> None:
        self.exhibit = exhibit
        self.moved_at = -_REST

    def picked(self, event: gr.SelectData) -> tuple[Any, ...]:
        """Another image of the data."""
        return self._replaced(lambda: self.exhibit.example(int(event.index)))

    def uploaded(self, content: bytes | None) -> tuple[Any, ...]:
        """An uploaded image; the place to drop one is empty again afterwards."""
        return *self._replaced(lambda: self.exhibit.upload(content or b"")), None

    def _replaced(self, find: Callable[[], Shown]) -> tuple[Any, ...]:
        """Image, no attack, and no message; or everything as it was, and why."""
        try:
            return find(), None, ""
        except Misuse as error:
            return gr.skip(), gr.skip(), drawing.refusal(f"Refused: {error}.")

    def attacked(self, shown: Shown, alpha: float, own: bool, value: float) -> tuple[Any, str]:
        """An attack on what is shown."""
        try:
            return self.exhibit.attack(shown, self._chosen(alpha, own), value), ""
        except (Misuse, Failure) as error:
            return gr.skip(), drawing.refusal(f"No attack: {error}.")

    def prove(self, shown: Shown, proof: Proof | None, alpha: float, own: bool) -> Proof:
        """What is proven of what is shown; nothing is proven twice in a row.

        It begins once alpha has rested, as it would take the interpreter from those who move it.
        """
        patience = time.monotonic() + _PATIENCE
        while time.monotonic() < min(self.moved_at + _REST, patience):
            time.sleep(_REST / 8)
        wanted = self._chosen(alpha, own)
        return proof if _is_of(proof, shown, wanted) else self.exhibit.prove(shown, wanted)  # type: ignore[return-value]

    def drawn(self, shown: Shown, attacked: Attacked | None, alpha: float, own: bool) -> tuple[str, str, str]:
        """Pictures, sentences and predictions."""
        attacked = _matching(shown, attacked)
        return (
            drawing.pictures(shown, attacked),
            self.verdict(shown, attacked),
            self.predictions(shown, attacked, alpha, own),
        )

    def verdict(self, shown: Shown, attacked: Attacked | None) -> str:
        """What the image is and what the attack came to."""
        after = None
        if attacked is not None:
            said = self.exhibit.predictions(attacked.outputs, attacked.alpha)
            after = int(list(said.values())[-1].argmax())
        return drawing.verdict(self.exhibit.classifier.classes, shown, attacked, after)

    def moved(self, shown: Shown, attacked: Attacked | None, alpha: float, own: bool) -> tuple[str, bool]:  # noqa: ARG002
        """Predictions at the slider's alpha, which a gate no longer chooses."""
        self.moved_at = time.monotonic()
        return self.predictions(shown, attacked, alpha, False), False

    def predictions(self, shown: Shown, attacked: Attacked | None, alpha: float, own: bool) -> str:
        """Predictions side by side, from outputs that are known; nothing is run."""
        attacked, chosen = _matching(shown, attacked), self._chosen(alpha, own)
        exhibit = self.exhibit
        return drawing.predictions(
            exhibit.classifier.classes,
            exhibit.predictions(shown.outputs, chosen),
            None if attacked is None else exhibit.predictions(attacked.outputs, chosen),
            exhibit.own_alpha(shown.outputs) if chosen is None else chosen,
        )

    def standing(self, shown: Shown, proof: Proof | None, alpha: float, own: bool, value: float) -> str:
        """The mark on the slider of epsilon, and what it means."""
        known = proof if _is_of(proof, shown, self._chosen(alpha, own)) else None
        return drawing.standing(self.exhibit.scale, known, value)

    def _chosen(self, alpha: float, own: bool) -> float | None:
        """The alpha that holds; None where the run's own does."""
        mixture = self.exhibit.mixture
        if mixture is None or (mixture.gate is not None and own):
            return None
        return float(alpha)


def _matching(shown: Shown, attacked: Attacked | None) -> Attacked | None:
    return attacked if attacked is not None and attacked.of == shown.name else None


def _is_of(proof: Proof | None, shown: Shown, alpha: float | None) -> bool:
    return proof is not None and (proof.of, proof.alpha) == (shown.name, alpha)

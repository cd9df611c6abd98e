"""The images behind lost examples, found again by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from poise.commands.comparing.images import images_of
from poise.commands.telling.terminal import say
from poise.core.misuse import Misuse
from poise.evaluation import Adversarials
from poise.evaluation.comparison import Comparison
from poise.reporting.comparison.gallery import Picture


def pictures_of(
    comparison: Comparison, data: str | None, count: int, adversarials: Adversarials | None = None
) -> tuple[Picture, ...]:
    """Pictures of the examples that lose most, as many as are asked for; none, with a remark, where they are not found.

    Args:
        comparison: what was lost.
        data: address of the images; by default the one in the old profile.
        count: how many at most.
        adversarials: images that fool the new model.
    """
    lost = [change for change in comparison.changes if change.kind == "lost"][:count]
    if comparison.pair is None or not lost:
        return ()
    try:
        images = images_of(comparison.pair.old, data)
        clean = images.images(torch.tensor([change.row for change in lost])).cpu()
    except (Misuse, OSError) as error:
        say(f"no pictures of lost images: {error} (choose the images with --data, or --gallery 0)")
        return ()
    fooling = _adversarials([change.id for change in lost], adversarials)
    return tuple(
        Picture(change=change, clean=image.numpy(), adversarial=fooling.get(change.id))
        for change, image in zip(lost, clean, strict=True)
    )


def _adversarials(ids: Sequence[str], kept: Adversarials | None) -> dict[str, Any]:
    """Adversarial images by id, of those examples that have one."""
    if kept is None:
        return {}
    place = {identity: row for row, identity in enumerate(kept.ids)}
    known = [identity for identity in ids if identity in place]
    found = kept.images([place[identity] for identity in known])
    return {identity: image.cpu().numpy() for identity, image in zip(known, found, strict=True)}

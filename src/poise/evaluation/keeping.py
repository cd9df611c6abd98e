"""Keeping the adversarial images behind verdicts while an examination runs, and joining them when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from poise.attacks.rows import choose
from poise.core.batch import Batch
from poise.core.losses import misclassified
from poise.core.norms import inside, length, per_example
from poise.core.threat import Norm
from poise.evaluation.adversarials import Origin, adversarials_path, file_digest, write_adversarials
from poise.evaluation.image_journal import Found, ImageJournal
from poise.evaluation.journal import Event
from poise.evaluation.kept import Kept
from poise.evaluation.pixel_formats import stored
from poise.evaluation.profile import Header, Profile

Fetch = Callable[[Int[Tensor, " m"]], Batch]
"""Gives examples by row, on the model's device."""

Ask = Callable[[Float[Tensor, "n *shape"]], Float[Tensor, "n classes"]]
"""What the plain model says of images, by the mean over as many passes as the suite judges by."""

_ROUNDING = 1e-6


class Keeper:
    """Stores adversarial images of one examination.

    Args:
        ask: asks the model that they fool.
        fetch: gives examples by row, on the model's device.
        header: what is being measured.
        journal: where images are kept meanwhile.
    """

    def __init__(self, ask: Ask, fetch: Fetch, header: Header, journal: ImageJournal) -> None:
        self._ask, self._fetch, self._header, self._journal = ask, fetch, header, journal

    @torch.no_grad()
    def keep(self, found: Sequence[tuple[int, int, Float[Tensor, "c h w"]]]) -> None:
        """Store images; each is first brought into its ball, and stored so that what is read back is adversarial.

        Of an image that is adversarial in no format it is noted that there is none.

        Call while the model is in eval mode.

        Args:
            found: row, grid point within which an adversarial image was found, and an image at least that large whose
                shortened perturbation is adversarial there.
        """
        if not found:
            return
        batch = self._fetch(torch.tensor([row for row, _, _ in found]))
        radius = torch.tensor([self._header.epsilons[point] for _, point, _ in found]).to(batch.images)
        images = shortened(torch.stack([image for _, _, image in found]), batch.images, radius, self._header.norm)

        def accepts(rows: Int[Tensor, " m"], back: Float32[Tensor, "m c h w"]) -> Bool[Tensor, " m"]:
            points = back.to(batch.images.dtype)
            allowed = inside(points, batch.images[rows], radius[rows], self._header.norm)
            return torch.logical_and(allowed, misclassified(self._ask(points), batch.labels[rows]))

        self._journal.write(
            Found(row, point, pixels)
            for (row, point, _), pixels in zip(found, stored(images, batch.images, accepts), strict=True)
        )

    def known(self, events: Iterable[Event]) -> Iterator[Event]:
        """Earlier outcomes that can be trusted: of each example those before the first whose image is lost."""
        self._journal.scan()
        lost = set()
        for event in events:
            if event.point is not None and not self._journal.holds(event.row, event.point):
                lost.add(event.row)
            if event.row not in lost:
                yield event

    def joined(self, profile: Profile, shape: tuple[int, ...], path: Path) -> Profile:
        """The same profile, its images in one file beside it: those of all processes, in the order of its rows.

        Args:
            profile: the verdicts.
            shape: of an image.
            path: where the profile will stand.
        """
        self._journal.scan()
        broken = ((profile.broken_from > 0) & (profile.broken_from < len(profile.epsilons))).nonzero()[0].tolist()
        images = (
            (profile.ids[row], image.point, image.pixels)
            for row, image in zip(broken, self._journal.read(broken), strict=True)
            if image is not None and image.pixels is not None and image.point <= profile.broken_from[row]
        )
        header, target = profile.header, adversarials_path(path)
        origin = Origin(
            model=header.model, data=header.data, norm=header.norm, epsilons=header.epsilons, shape=tuple(shape)
        )
        counts = write_adversarials(images, origin, target)
        counts["missing"] = len(broken) - sum(counts.values())
        return replace(profile, adversarials=Kept(file=target.name, digest=file_digest(target), counts=counts))


def shortened(
    images: Float[Tensor, "n *shape"], clean: Float[Tensor, "n *shape"], radius: Float[Tensor, " n"], norm: Norm
) -> Float[Tensor, "n *shape"]:
    """The images themselves where they lie inside the radius, else with their perturbations scaled down to it."""
    moves = images - clean
    size = length(moves, norm).clamp(min=torch.finfo(moves.dtype).tiny)
    scale = (radius * (1 - _ROUNDING) / size).clamp(max=1)
    shorter = (clean + moves * per_example(scale, moves)).clamp(0, 1)
    return choose(inside(images, clean, radius, norm), images, shorter)

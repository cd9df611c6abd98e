"""What an examination leaves on disk as it goes: outcomes, and where wanted the adversarial images behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from poise.attacks.pool import Outcome
from poise.core.files import digest_words
from poise.data import ImageSet
from poise.evaluation.image_journal import ImageJournal
from poise.evaluation.journal import Event, Journal
from poise.evaluation.keeping import Ask, Fetch, Keeper
from poise.evaluation.profile import Header, Profile

Note = Callable[[list[Event], list[Outcome]], None]
"""Given outcomes as they are booked and as the pool gave them, before anything is made of them."""


class Notes:
    """The files beside a profile in making.

    Args:
        path: the profile.
        header: what is being measured.
        images: the examples.
        units: number of units of the suite.
        rank: number of this process.
        keep: asks the model, and where examples come from, to keep adversarial images; None keeps none.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        images: ImageSet,
        units: int,
        *,
        rank: int = 0,
        keep: tuple[Ask, Fetch] | None = None,
    ) -> None:
        self._path, self._shape = path, tuple(images.shape)
        part = f"{len(images)} of {header.whole} images, {digest_words(images.ids)}"
        conditions: dict[str, str | bool] = {"keep_adversarials": keep is not None, "part": part}
        self._journal = Journal(path, header, len(images), units, rank, conditions)
        self._images = ImageJournal(path, self._journal.mark, len(images), rank) if keep else None
        self._keeper = Keeper(*keep, header, self._images) if keep and self._images else None

    def earlier(self) -> Iterator[Event]:
        """What an interrupted examination had found; when all is read, more can be written.

        Raises:
            Misuse: for files of another examination, and for damaged ones.
        """
        found = self._journal.replay()
        yield from self._keeper.known(found) if self._keeper else found
        self._journal.open()
        if self._images:
            self._images.open()

    def write(self, events: list[Event], outcomes: list[Outcome]) -> None:
        """Keep outcomes. Images come first, so that no outcome is on disk without its image.

        Call while the pool is open.
        """
        if self._keeper:
            self._keeper.keep(
                [
                    (event.row, event.point, outcome.image)
                    for event, outcome in zip(events, outcomes, strict=True)
                    if event.point is not None and outcome.image is not None
                ]
            )
        self._journal.write(events)

    def finished(self, profile: Profile) -> Profile:
        """The profile with its images beside it; for the main process, when all have ended."""
        return self._keeper.joined(profile, self._shape, self._path) if self._keeper else profile

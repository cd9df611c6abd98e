"""Ctrl-C during a search: none gets lost, and none comes between what another one has to leave in order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruptions:
    """Remembers a Ctrl-C.

    A KeyboardInterrupt is swallowed where it falls into the clearing up of a library's object, as databases have many;
    `heed` raises it again at the next good place. One that comes while another is dealt with would tear that apart, and
    is not heard while `deaf`.
    """

    def __init__(self) -> None:
        self.deaf = False
        self._heard = False

    def heed(self) -> None:
        """Stop here, if that was asked for and nothing came of it.

        Raises:
            KeyboardInterrupt: as if it was asked for now.
        """
        if self._heard:
            raise KeyboardInterrupt

    def hear(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """What Ctrl-C does."""
        self._heard = True
        if not self.deaf:
            raise KeyboardInterrupt


@contextmanager
def listening() -> Iterator[Interruptions]:
    """Interruptions within the block; where Ctrl-C does not raise a KeyboardInterrupt anyway, nothing is changed."""
    interruptions, listens = Interruptions(), signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:
        try:
            signal.signal(signal.SIGINT, interruptions.hear)
        except ValueError:  # only the main thread may
            listens = False
    try:
        yield interruptions
    finally:
        if listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)
